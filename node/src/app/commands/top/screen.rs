//! How `stormo top` looks: from what is known to a buffer of characters, and nothing else.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, StatefulWidget, Table, TableState, Widget, Wrap};

use super::super::status::{ago, blocks, cover_in_short, hosts_in_short, state_in_short};
use super::super::table::{Tone, bytes, ms};
use super::state::Top;
use crate::serve::json::{Health, NodeState, NodeView};

/// Cells of a bar.
const BAR: usize = 8;
/// Fewer lines than this have room for the nodes only.
const HEIGHT_FOR_MORE: u16 = 12;
/// From so many lines on, the node that the user is at is told of.
const HEIGHT_FOR_DETAIL: u16 = 20;
/// Lines for deployments at most.
const DEPLOYMENTS_SHOWN_MAX: usize = 6;
/// Lines for what is told of one node.
const DETAIL_LINES: u16 = 4;

const HELP: &str = "\
q, Esc    ends
up, down  the node that is told of below (also k, j)
s         orders nodes by name, load, memory, age
h, ?      shows and hides this

Of requests, only those that failed or took several
attempts are events.

LOAD      share of the machine's cores in use
MEMORY    what loaded parts take of what they may
TRIP, RATE  from the node that is asked to this one";

impl Widget for &Top {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let has_more = area.height >= HEIGHT_FOR_MORE;
        let deployments = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.deployments.len());
        let models = if has_more { 1 + deployments.clamp(1, DEPLOYMENTS_SHOWN_MAX) as u16 } else { 0 };
        let detail = if area.height >= HEIGHT_FOR_DETAIL { DETAIL_LINES } else { 0 };
        let left = area.height.saturating_sub(2 + models + detail);
        let nodes = 1 + self.nodes().len().max(1) as u16;
        // Events get what nodes leave, a third at least.
        let events = if has_more { left.saturating_sub(nodes).max(left / 3) } else { 0 };
        let rows = [2, left - events, detail, models, events].map(Constraint::Length);
        let [head, nodes, detail, models, events] = Layout::vertical(rows).areas(area);
        self.head(head, buffer);
        self.nodes_table(nodes, buffer);
        self.detail(detail, buffer);
        self.deployments(models, buffer);
        self.events(events, buffer);
        if self.shows_help() {
            help(area, buffer);
        }
    }
}

fn heading(names: &[&'static str]) -> Row<'static> {
    Row::new(names.to_vec()).style(Style::new().add_modifier(Modifier::BOLD))
}

fn colour(tone: Tone) -> Color {
    match tone {
        Tone::Plain => Color::Reset,
        Tone::Good => Color::Green,
        Tone::Doubtful => Color::Yellow,
        Tone::Bad => Color::Red,
    }
}

fn state(node: &NodeView) -> Span<'static> {
    let (word, tone) = state_in_short(node);
    Span::styled(word, Style::new().fg(colour(tone)))
}

/// A share as a bar and a number.
fn bar(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let full = (share * BAR as f64).round() as usize;
    format!("{}{} {:3.0} %", "█".repeat(full), "░".repeat(BAR - full), share * 100.0)
}

fn memory_share(node: &NodeView) -> f64 {
    node.memory_used_bytes as f64 / node.memory_budget_bytes.max(1) as f64
}

impl Top {
    fn head(&self, area: Rect, buffer: &mut Buffer) {
        let usable = self.nodes().iter().filter(|node| node.state == NodeState::Usable).count();
        let title = format!(
            "stormo top, {}: {} nodes, {usable} usable, by {} (h: help)",
            self.api,
            self.nodes().len(),
            self.sort.name()
        );
        let second = match (&self.silent, &self.snapshot) {
            (Some(why), _) => {
                let first = why.lines().next().unwrap_or_default();
                Line::styled(format!("trying on: {first}"), Style::new().fg(Color::Red))
            }
            (None, Some(snapshot)) => {
                let requests = &snapshot.requests;
                let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), ms);
                Line::raw(format!(
                    "requests: {:.1}/s, p50 {} ms, p99 {} ms, {} under way, {} answered, {} failed",
                    requests.answered_per_s,
                    time(requests.p50_ms),
                    time(requests.p99_ms),
                    requests.under_way,
                    requests.answered,
                    requests.failed
                ))
            }
            (None, None) => Line::raw("asking"),
        };
        let title = Line::styled(title, Style::new().add_modifier(Modifier::BOLD));
        Paragraph::new(vec![title, second]).render(area, buffer);
    }

    fn nodes_table(&self, area: Rect, buffer: &mut Buffer) {
        let own = self.snapshot.as_ref().map(|snapshot| &snapshot.own);
        let is_wide = area.width >= 112;
        let row = |node: &NodeView| {
            let link = own.and_then(|own| own.links.iter().find(|link| link.peer == node.id));
            let rate = link.and_then(|link| link.bytes_per_second);
            let mut cells = vec![
                Span::raw(node.label.clone()),
                state(node),
                Span::raw(bar(node.utilisation)),
                Span::raw(bar(memory_share(node))),
            ];
            if is_wide {
                cells.extend([
                    Span::raw(if node.is_self { "itself".to_owned() } else { ago(node.age_ms) }),
                    Span::raw(link.map(|link| format!("{} ms", ms(link.round_trip_ms))).unwrap_or_default()),
                    Span::raw(rate.map(|rate| format!("{}/s", bytes(rate))).unwrap_or_default()),
                ]);
            }
            cells.push(Span::raw(hosts_in_short(&node.hosted)));
            Row::new(cells)
        };
        let (names, widths): (&[&'static str], &[u16]) = if is_wide {
            (
                &["NODE", "STATE", "LOAD", "MEMORY", "HEARD", "TRIP", "RATE", "HOSTS"],
                &[16, 9, 14, 14, 10, 9, 11],
            )
        } else {
            (&["NODE", "STATE", "LOAD", "MEMORY", "HOSTS"], &[12, 9, 14, 14])
        };
        let widths = widths.iter().map(|width| Constraint::Length(*width)).chain([Constraint::Fill(1)]);
        let table = Table::new(self.nodes().iter().map(row), widths)
            .header(heading(names))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut at = TableState::new().with_selected(Some(self.selected()));
        StatefulWidget::render(table, area, buffer, &mut at);
    }

    /// What the node that the user is at hosts, and how far others are from it.
    fn detail(&self, area: Rect, buffer: &mut Buffer) {
        let Some(node) = self.nodes().get(self.selected()) else { return };
        let hosted = node.hosted.iter().map(|part| {
            format!("{} {} {}: {} ms", part.model, part.variant, blocks(part.blocks), ms(part.time_ms))
        });
        let hosted = hosted.collect::<Vec<_>>().join(", ");
        let label = |peer| {
            let known = self.nodes().iter().find(|node| node.id == peer);
            known.map_or_else(|| peer.short(), |node| node.label.clone())
        };
        let links = node.links.iter().map(|link| {
            let rate = link.bytes_per_second.map(|rate| format!(", {}/s", bytes(rate))).unwrap_or_default();
            format!("{} {} ms{rate}", label(link.peer), ms(link.round_trip_ms))
        });
        let links = links.collect::<Vec<_>>().join("; ");
        let nothing = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let lines = vec![
            Line::styled(
                format!("{} {}, {} cores", node.label, node.id, node.cores),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Line::raw(format!("hosts {}", nothing(hosted))),
            Line::raw(format!("links {}", nothing(links))),
        ];
        Paragraph::new(lines).render(area, buffer);
    }

    fn deployments(&self, area: Rect, buffer: &mut Buffer) {
        let deployments = self.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.deployments);
        let rows = deployments.iter().map(|deployment| {
            let health = deployment.health.as_ref();
            // What is less than wished, or other, in its first line.
            let told = deployment.message.iter().filter_map(|message| message.lines().next());
            let cover = health.map(cover_in_short).unwrap_or_default();
            let (word, colour) = match health.and_then(|health| health.state) {
                Some(Health::Ready) => ("ready", Color::Green),
                Some(Health::Degraded) => ("degraded", Color::Yellow),
                Some(Health::Down) => ("down", Color::Red),
                None => ("?", Color::Yellow),
            };
            Row::new([
                Span::raw(deployment.name.clone()),
                Span::raw(deployment.version.to_string()),
                Span::styled(word, Style::new().fg(colour)),
                Span::raw(std::iter::once(cover.as_str()).chain(told).collect::<Vec<_>>().join("; ")),
            ])
        });
        let widths =
            [Constraint::Length(20), Constraint::Length(7), Constraint::Length(9), Constraint::Fill(1)];
        let table =
            Table::new(rows, widths).header(heading(&["MODEL", "VERSION", "STATE", "BLOCKS ON NODES"]));
        Widget::render(table, area, buffer);
    }

    fn events(&self, area: Rect, buffer: &mut Buffer) {
        let heading = Line::styled("EVENTS", Style::new().add_modifier(Modifier::BOLD));
        let shown = self.events.iter().take(usize::from(area.height.saturating_sub(1)));
        let lines = std::iter::once(heading).chain(shown.map(|event| Line::raw(event.as_str())));
        Paragraph::new(lines.collect::<Vec<_>>()).render(area, buffer);
    }
}

fn help(area: Rect, buffer: &mut Buffer) {
    let (width, height) = (60.min(area.width), 15.min(area.height));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    Clear.render(place, buffer);
    let text = Paragraph::new(HELP).wrap(Wrap { trim: false });
    text.block(Block::bordered().title(" keys ")).render(place, buffer);
}

#[cfg(test)]
mod tests;
