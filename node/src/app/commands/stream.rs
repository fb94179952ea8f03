//! `stormo stream`: asks a model about one frame after the other, several at once, and shows the answers in order.
//! Each frame is a request of its own: it is planned, divided and survives as any other, so plans change between
//! frames without a gap, and several serve at once when one is not enough.

mod figures;
mod framing;
mod source;
mod window;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::figures::Figures;
use self::source::{Frame, Source};
use self::window::{Keep, Order, Window};
use super::asking::{meaning_of, model_of, read_answer, request};
use super::here;
use super::local::{Progress, note};
use super::table::ms;
use crate::app::cli::StreamArgs;
use crate::app::client::{Answered, Client, CommandError, good};
use crate::card::Meaning;

/// Between two looks at how it goes.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// A second signal ends the program within this.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Signals so close to the first are the same one.
const SAME_SIGNAL: Duration = Duration::from_millis(200);
/// Exit code of a program that was ended by signals.
const INTERRUPTED: i32 = 130;
/// A frame that a node refuses for now, or cannot be brought to it, is tried again after this, then twice as long.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Detections that are told in a line.
const FOUND_SHOWN_MAX: usize = 5;

/// What became of a frame.
struct Came {
    number: u64,
    name: Option<String>,
    latency: Duration,
    answer: Result<Value, CommandError>,
}

/// How many frames had an answer, and how many none.
struct Shown {
    answered: u64,
    failed: u64,
}

/// Asks about the frames of a window until it ends.
struct Asking {
    args: StreamArgs,
    keep: Keep,
    client: Client,
    window: Window<Frame>,
    /// Whether frames under way are not waited for any more.
    gives_up: AtomicBool,
    /// Why the source ended early.
    broken: Mutex<Option<CommandError>>,
}

pub(super) fn run(args: StreamArgs) -> Result<(), CommandError> {
    let client = Client::for_requests(&args.api, args.ask.timeout)?;
    let model = model_of(&client, &args.name, args.ask.variant.as_deref())?;
    let source = Source::of(&args)?;
    let keep = if args.newest { Keep::Newest } else { Keep::InOrder };
    let window = Window::new(keep, usize::from(args.window));
    let asking = Arc::new(Asking {
        args,
        keep,
        client,
        window,
        gives_up: AtomicBool::new(false),
        broken: Mutex::new(None),
    });
    end_by_signal(asking.clone()).map_err(here)?;
    let (answers, came) = mpsc::sync_channel(usize::from(asking.args.window));
    for _ in 0..asking.args.window {
        let (asking, answers) = (asking.clone(), answers.clone());
        thread::Builder::new().name("asks".into()).spawn(move || asking.ask_on(&answers)).map_err(here)?;
    }
    drop(answers);
    let giving = asking.clone();
    // Not waited for: it may hang in reading.
    let from_source = move || {
        let given = catch_unwind(AssertUnwindSafe(|| source.give(&model, giving.args.fps, &giving.window)));
        let given = given.unwrap_or_else(|_| Err(here("reading the source broke down; please report it")));
        *giving.broken.lock().unwrap_or_else(PoisonError::into_inner) = given.err();
        giving.window.end();
    };
    thread::Builder::new().name("source".into()).spawn(from_source).map_err(here)?;
    let shown = asking.show_all(&came)?;
    let broken = asking.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    if asking.gives_up.load(Ordering::Relaxed) {
        return Err(here("interrupted twice: frames that were under way have no answer"));
    }
    match (broken, shown) {
        (Some(error), _) => Err(error),
        (None, Shown { answered: 0, failed: 0 }) => Err(here("no frame came")),
        (None, Shown { failed: 0, .. }) => Ok(()),
        (None, Shown { answered, failed }) => {
            Err(here(format!("{failed} of {} frames were not answered", answered + failed)))
        }
    }
}

impl Asking {
    fn ask_on(&self, answers: &SyncSender<Came>) {
        while let Some(frame) = self.window.take() {
            let Frame { number, name, inputs } = frame;
            let began = Instant::now();
            let asked = catch_unwind(AssertUnwindSafe(|| {
                let (header_length, body) = request(&self.args.ask, &inputs?)?;
                self.ask(header_length, &body)
            }));
            let answer = asked.unwrap_or_else(|_| Err(here("asking broke down; please report it")));
            let came = Came { number, name, latency: began.elapsed(), answer };
            if answers.send(came).is_err() {
                return;
            }
        }
    }

    /// Where every frame is to be answered, what will pass is waited for until the frame's time is over.
    fn ask(&self, header_length: usize, body: &[u8]) -> Result<Value, CommandError> {
        let until = Instant::now() + Duration::from_secs_f64(self.args.ask.timeout / 1000.0);
        let mut pause = PAUSE[0];
        loop {
            let answered = self.client.try_infer(&self.args.name, header_length, body);
            let again = Instant::now() + pause;
            if self.keep == Keep::Newest
                || !will_pass(&answered)
                || again >= until
                || !self.window.pause(again)
            {
                return read_answer(&good(answered?)?);
            }
            pause = (2 * pause).min(PAUSE[1]);
        }
    }

    /// Shows answers as they come; how many there were, and how many frames had none.
    fn show_all(&self, came: &mpsc::Receiver<Came>) -> Result<Shown, CommandError> {
        let progress = Progress::begin();
        let mut figures = Figures::begin();
        let mut order = Order::new(self.keep);
        let mut told = Instant::now();
        while !self.gives_up.load(Ordering::Relaxed) {
            let shown = match came.recv_timeout(LOOK_EVERY) {
                Ok(came) => {
                    let outrun = order.outrun();
                    let shown = order.came(came.number, came);
                    if order.outrun() > outrun {
                        self.window.done();
                    }
                    shown
                }
                Err(RecvTimeoutError::Timeout) => vec![],
                Err(RecvTimeoutError::Disconnected) => break,
            };
            for (_, came) in shown {
                self.window.done();
                progress.end();
                match self.show(&came, &mut figures) {
                    Ok(()) => {}
                    // Whoever read the answers has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        self.window.end();
                        return Ok(Shown { answered: figures.answered_so_far(), failed: 0 });
                    }
                    Err(error) => return Err(here(format!("standard output: {error}"))),
                }
            }
            if told.elapsed() >= TOLD_EVERY {
                progress.step(&figures.now(self.window.dropped()));
                told = Instant::now();
            }
        }
        progress.end();
        let summary = figures.summary(self.window.dropped(), order.outrun());
        if self.args.api.json {
            tell(&json!({ "summary": summary }))
                .map_err(|error| here(format!("standard output: {error}")))?;
        } else {
            note(summary.to_string());
        }
        Ok(Shown { answered: summary.answered, failed: summary.failed })
    }

    fn show(&self, came: &Came, figures: &mut Figures) -> io::Result<()> {
        let Came { number, name, latency, answer } = came;
        let name = name.as_deref();
        match answer {
            Ok(answer) => {
                let parameters = &answer["parameters"];
                let plan = parameters["plan_id"].as_str().unwrap_or_default();
                figures.answered(*latency, plan, parameters["energy_j"].as_f64());
                let latency_ms = latency.as_secs_f64() * 1000.0;
                let is_late = parameters["late"].as_bool().unwrap_or(false);
                if is_late {
                    figures.late();
                }
                let late = if is_late { " (late)" } else { "" };
                if self.args.api.json {
                    tell(
                        &json!({ "frame": number, "source": name, "latency_ms": latency_ms, "answer": answer }),
                    )
                } else {
                    tell(&line(
                        *number,
                        name,
                        &format!("{:>8} ms{late}  {}", ms(latency_ms), in_short(answer)),
                    ))
                }
            }
            Err(error) => {
                figures.failed();
                if self.args.api.json {
                    tell(&json!({ "frame": number, "source": name, "error": error.to_string() }))
                } else {
                    tell(&line(*number, name, &format!("failed: {error}")))
                }
            }
        }
    }
}

/// A line of output. Unlike a command that ends anyway, a stream ends when nobody takes it.
fn tell(line: &impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn line(number: u64, name: Option<&str>, told: &str) -> String {
    match name {
        // Others may name the files of a folder, and a terminal obeys control characters.
        Some(name) => {
            let name: String = name.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect();
            format!("{number:>6}  {name}  {told}")
        }
        None => format!("{number:>6}  {told}"),
    }
}

/// Whether the same may be answered a moment later: the node is full, leaving or starting.
fn will_pass(answered: &Result<Answered, CommandError>) -> bool {
    match answered {
        Ok(answered) => matches!(answered.status, 429 | 503),
        Err(error) => matches!(error, CommandError::Unreachable { .. } | CommandError::Still { .. }),
    }
}

/// An answer in a few words.
fn in_short(answer: &Value) -> String {
    let score = |score: f32| format!("{:.0} %", 100.0 * score);
    match meaning_of(answer) {
        Some(Meaning::Classes(classes)) => classes
            .first()
            .map_or_else(|| "no class".to_owned(), |class| format!("{} {}", class.label, score(class.score))),
        Some(Meaning::Detections(found)) => {
            let shown: Vec<String> = found
                .iter()
                .take(FOUND_SHOWN_MAX)
                .map(|found| format!("{} {}", found.label, score(found.score)))
                .collect();
            let more = if found.len() > shown.len() { ", ..." } else { "" };
            let colon = if shown.is_empty() { "" } else { ": " };
            format!("{} found{colon}{}{more}", found.len(), shown.join(", "))
        }
        _ => largest(&answer["outputs"][0]),
    }
}

/// Where an output has its largest value: for a classifier, the answer.
fn largest(output: &Value) -> String {
    let name = output["name"].as_str().unwrap_or("?");
    let values =
        output["data"].as_array().into_iter().flatten().map(|value| value.as_f64().unwrap_or(f64::NAN));
    match values
        .enumerate()
        .filter(|(_, value)| value.is_finite())
        .max_by(|one, other| one.1.total_cmp(&other.1))
    {
        Some((index, value)) => format!("{name}: largest at [{index}], {value:.4}"),
        None => format!("{name}: no numbers"),
    }
}

/// Nothing is open but pipes that nobody reads; the threads that wait for them cannot be told.
#[allow(clippy::disallowed_methods)]
fn end_at_once() {
    std::process::exit(INTERRUPTED);
}

/// The first signal ends the stream: no further frames, those under way are shown. The second ends the program.
fn end_by_signal(asking: Arc<Asking>) -> std::io::Result<()> {
    let wait = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let _: std::io::Result<()> = runtime.block_on(async {
            let mut interrupted = signal(SignalKind::interrupt())?;
            let mut terminated = signal(SignalKind::terminate())?;
            let mut first: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
                asking.window.end();
                let began = *first.get_or_insert_with(Instant::now);
                // Some send one signal to a process and to its group.
                if began.elapsed() < SAME_SIGNAL {
                    continue;
                }
                asking.gives_up.store(true, Ordering::Relaxed);
                // By itself, unless nobody takes what it says.
                tokio::time::sleep(2 * LOOK_EVERY).await;
                end_at_once();
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_a_few_words() {
        let raw = json!({ "outputs": [{ "name": "scores", "data": [0.1, 2.5, -1.0] }] });
        assert_eq!(in_short(&raw), "scores: largest at [1], 2.5000");
        let meaning = r#"{"kind":"classes","found":[{"index":3,"label":"cat","score":0.934}]}"#;
        let Ok(Meaning::Classes(_)) = serde_json::from_str(meaning) else {
            panic!("the form of a meaning changed")
        };
        let classes = json!({ "outputs": [{ "name": stormo_protocol::model::MEANING, "data": [meaning] }] });
        assert_eq!(in_short(&classes), "cat 93 %");
        assert_eq!(in_short(&json!({})), "?: no numbers");
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let status = |status| Ok(Answered { status, header_length: None, body: vec![] });
        assert!(will_pass(&status(503)) && will_pass(&status(429)));
        assert!(!will_pass(&status(200)) && !will_pass(&status(400)) && !will_pass(&status(504)));
    }
}
