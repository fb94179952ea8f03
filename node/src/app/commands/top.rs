//! `stormo top`: the mesh live in the terminal. Here are the terminal, the keys and the threads that ask the
//! node; what is known is in `state`, how it looks in `screen`.

mod feed;
mod screen;
mod state;

use std::io::IsTerminal;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::here;
use crate::app::cli::TopArgs;
use crate::app::client::{Client, CommandError};
use state::{Key, News, Top};

/// The node answers within this, or is shown as silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// News that wait to be shown; who brings more waits.
const NEWS_WAITING_MAX: usize = 256;
/// The screen is drawn this often, and at each key.
const DRAW: Duration = Duration::from_millis(200);

pub(super) fn run(args: &TopArgs) -> Result<(), CommandError> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(CommandError::Here(
            "`stormo top` needs a terminal; `stormo status` prints the same once, also as --json".into(),
        ));
    }
    let client = Client::with_patience(&args.api, ANSWER_MAX)?;
    // Before the screen is taken: that there is no node is said in a line.
    let first = feed::ask(&client)?;
    let (send, news) = sync_channel(NEWS_WAITING_MAX);
    let (ended, end) = sync_channel(2);
    feed::start(&client, &send, ended.clone()).map_err(here)?;
    let mut top = Top::new(client.base());
    top.hear(News::Snapshot(Box::new(first)));
    // Takes the screen, and gives it back if this program panics.
    let mut terminal = ratatui::try_init().map_err(here)?;
    let screen = std::thread::Builder::new().name("top-screen".into());
    let showing = screen.spawn(move || {
        let _ = ended.send(show(&mut terminal, &mut top, || news.try_recv().ok()));
    });
    // Without a sender left, the screen's thread broke down, and said so.
    let shown = showing.and_then(|_| end.recv().unwrap_or(Ok(())));
    ratatui::restore();
    shown.map_err(here)
}

fn show(
    terminal: &mut DefaultTerminal,
    top: &mut Top,
    mut next: impl FnMut() -> Option<News>,
) -> std::io::Result<()> {
    loop {
        for _ in 0..NEWS_WAITING_MAX {
            match next() {
                Some(News::End) => return Ok(()),
                Some(news) => top.hear(news),
                None => break,
            }
        }
        terminal.draw(|frame| frame.render_widget(&*top, frame.area()))?;
        if !event::poll(DRAW)? {
            continue;
        }
        if let Event::Key(pressed) = event::read()?
            && pressed.kind != KeyEventKind::Release
        {
            let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
            match pressed.code {
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Char('q') | KeyCode::Esc if !top.shows_help() => return Ok(()),
                KeyCode::Char('?' | 'h') => top.press(Key::Help),
                KeyCode::Char('q') | KeyCode::Esc => top.press(Key::Help),
                KeyCode::Char('s') => top.press(Key::Sort),
                KeyCode::Up | KeyCode::Char('k') => top.press(Key::Up),
                KeyCode::Down | KeyCode::Char('j') => top.press(Key::Down),
                _ => {}
            }
        }
    }
}
