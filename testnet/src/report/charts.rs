//! Charts as inline SVG, all over the same span of time and with the same margins, so that what happened at
//! one time stands at one place. Colours are named in the page's style, one set for light and one for dark.

use std::fmt::Write as _;

use super::Document;
use super::page::escaped;

/// Of every chart, in its own units.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 24.0;
/// Colours of plans, from the style.
pub(super) const PLAN_COLOURS: usize = 8;
/// Height of a node's row.
const ROW: f64 = 20.0;

/// Where a time is, and how high a chart.
struct Frame {
    seconds: f64,
    height: f64,
}

impl Frame {
    fn new(document: &Document, height: f64) -> Self {
        let seconds = document.timeline.bins.len() as f64 * document.timeline.bin_s;
        Self { seconds: seconds.max(0.1), height }
    }

    fn x(&self, at_s: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at_s / self.seconds).clamp(0.0, 1.0)
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    /// Of a share of the height, from the bottom.
    fn y(&self, share: f64) -> f64 {
        self.bottom() - (self.bottom() - TOP) * share.clamp(0.0, 1.0)
    }

    fn wrapped(&self, document: &Document, title: &str, inner: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{title}\">{}{inner}{}</svg>\n",
            self.height,
            self.faults(document),
            self.axis()
        )
    }

    /// A band for each fault, its number above.
    fn faults(&self, document: &Document) -> String {
        let mut svg = String::new();
        for (number, fault) in document.faults.iter().enumerate() {
            let from = self.x(fault.begun_s);
            let width = (self.x(fault.healed_s.unwrap_or(self.seconds)) - from).max(1.5);
            let _ = write!(
                svg,
                "<rect class=\"fault\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}</title></rect>\
                 <text class=\"note\" x=\"{from:.1}\" y=\"{:.1}\">{}</text>",
                self.bottom() - TOP,
                escaped(&fault.what),
                TOP - 5.0,
                number + 1
            );
        }
        svg
    }

    /// The line of time.
    fn axis(&self) -> String {
        let step = nice(self.seconds / 10.0);
        let mut svg = format!(
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\"/>",
            self.bottom(),
            WIDTH - RIGHT
        );
        let mut at_s = 0.0;
        while at_s <= self.seconds + 1e-9 {
            let unit = if at_s == 0.0 { " s" } else { "" };
            let _ = write!(
                svg,
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}{unit}</text>",
                self.x(at_s),
                self.height - 8.0,
                short(at_s)
            );
            at_s += step;
        }
        svg
    }

    fn level(&self, share: f64, label: &str) -> String {
        let y = self.y(share);
        format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        )
    }

    fn line(&self, class: &str, points: impl Iterator<Item = (f64, f64)>) -> String {
        let points: Vec<String> =
            points.map(|(at_s, share)| format!("{:.1},{:.1}", self.x(at_s), self.y(share))).collect();
        format!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "))
    }
}

/// Latency on a scale of powers of ten; what was not answered is marked at the top.
pub(super) fn latency(document: &Document) -> String {
    let frame = Frame::new(document, 260.0);
    let bins = &document.timeline.bins;
    let all = || bins.iter().flat_map(|bin| [bin.p50_ms, bin.max_ms]).flatten();
    let low = all().fold(f64::INFINITY, f64::min).max(0.01);
    let high = all().fold(0.0, f64::max);
    if high <= 0.0 {
        return "<p>No request was answered.</p>".to_owned();
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let share = |ms: f64| (ms.log10() - low) / (high - low);
    let mut inner = String::new();
    for power in low as i32..=high as i32 {
        let label = format!("{} ms", short(10f64.powi(power)));
        inner += &frame.level((f64::from(power) - low) / (high - low), &label);
    }
    let middle = |bin: &super::Bin| bin.from_s + document.timeline.bin_s / 2.0;
    for bin in bins.iter().filter(|bin| bin.unanswered > 0) {
        let width = (frame.x(bin.from_s + document.timeline.bin_s) - frame.x(bin.from_s)).max(2.0);
        let _ = write!(
            inner,
            "<rect class=\"bad\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"6\"><title>{} without answer</title></rect>",
            frame.x(bin.from_s),
            bin.unanswered
        );
    }
    for bin in bins {
        if let Some(ms) = bin.max_ms {
            let _ = write!(
                inner,
                "<circle class=\"max\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>",
                frame.x(middle(bin)),
                frame.y(share(ms))
            );
        }
    }
    let points = |of: fn(&super::Bin) -> Option<f64>| {
        bins.iter().filter_map(move |bin| Some((middle(bin), share(of(bin)?))))
    };
    inner += &frame.line("p99", points(|bin| bin.p99_ms));
    inner += &frame.line("p50", points(|bin| bin.p50_ms));
    frame.wrapped(document, "latency over time", &inner)
}

/// Answers a second by plan, one upon the other; what was sent as a line above.
pub(super) fn throughput(document: &Document) -> String {
    let frame = Frame::new(document, 220.0);
    let timeline = &document.timeline;
    let per_s = |count: u64| count as f64 / timeline.bin_s;
    let highest = timeline.bins.iter().map(|bin| per_s(bin.sent)).fold(1.0, f64::max);
    let step = nice(highest / 4.0);
    let top = (highest / step).ceil() * step;
    let mut inner = String::new();
    let mut level = 0.0;
    while level <= top + 1e-9 {
        inner += &frame.level(level / top, &format!("{}/s", short(level)));
        level += step;
    }
    for bin in &timeline.bins {
        let (from, to) = (frame.x(bin.from_s), frame.x(bin.from_s + timeline.bin_s));
        let mut below = 0.0;
        let mut bar = |class: &str, count: u64| {
            let (low, high) = (frame.y(below / top), frame.y((below + per_s(count)) / top));
            below += per_s(count);
            if count > 0 {
                let _ = write!(
                    inner,
                    "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    (to - from + 0.2).max(0.5),
                    low - high
                );
            }
        };
        for (plan, count) in bin.by_plan.iter().enumerate() {
            let is_rest = plan + 1 == bin.by_plan.len();
            bar(&plan_class(if is_rest { PLAN_COLOURS } else { plan }), *count);
        }
        bar("bad", bin.unanswered);
    }
    let sent = timeline.bins.iter().map(|bin| (bin.from_s + timeline.bin_s / 2.0, per_s(bin.sent) / top));
    inner += &frame.line("sent", sent);
    frame.wrapped(document, "answers a second over time", &inner)
}

/// The style's class of a plan; those beyond its colours share one.
pub(super) fn plan_class(plan: usize) -> String {
    if plan < PLAN_COLOURS { format!("plan-{plan}") } else { "plan-rest".to_owned() }
}

/// A row for each node: faults on it, and when an entry left it out.
pub(super) fn nodes(document: &Document) -> String {
    let frame = Frame::new(document, TOP + BOTTOM + ROW * document.nodes.len() as f64);
    let mut inner = String::new();
    for (place, label) in document.nodes.iter().enumerate() {
        let y = TOP + ROW * place as f64;
        let _ = write!(
            inner,
            "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>\
             <rect class=\"well\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{}\" height=\"{:.1}\"/>",
            LEFT - 6.0,
            y + 14.0,
            escaped(label),
            y + 4.0,
            WIDTH - LEFT - RIGHT,
            ROW - 8.0
        );
        let mut bar = |class: &str, from_s: f64, to_s: f64, inset: f64, told: &str| {
            let from = frame.x(from_s);
            let _ = write!(
                inner,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                y + 4.0 + inset,
                (frame.x(to_s) - from).max(1.5),
                ROW - 8.0 - 2.0 * inset,
                escaped(told)
            );
        };
        for (from_s, to_s, by) in left_out(document, label, frame.seconds) {
            bar("out", from_s, to_s, 0.0, &format!("left out by {by}"));
        }
        for fault in document.faults.iter().filter(|fault| fault.nodes.contains(label)) {
            bar("on", fault.begun_s, fault.healed_s.unwrap_or(frame.seconds), 3.0, &fault.what);
        }
    }
    frame.wrapped(document, "states of nodes over time", &inner)
}

/// Spans in which an entry left a node out.
fn left_out(document: &Document, label: &str, end_s: f64) -> Vec<(f64, f64, String)> {
    let mut spans: Vec<(f64, f64, String)> = Vec::new();
    let states = document.timeline.states.iter().filter(|(_, _, of, _)| of == label);
    for (at_s, by, _, is_usable) in states {
        let open = spans.iter_mut().rev().find(|(_, to_s, other)| other == by && to_s.is_infinite());
        match (open, is_usable) {
            (Some(span), true) => span.1 = *at_s,
            (None, false) => spans.push((*at_s, f64::INFINITY, by.clone())),
            _ => {}
        }
    }
    spans.iter_mut().for_each(|span| span.1 = span.1.min(end_s));
    spans
}

/// Resident memory of each node.
pub(super) fn memory(document: &Document) -> String {
    let frame = Frame::new(document, 180.0);
    let lines = &document.timeline.usage;
    let highest = lines.iter().flat_map(|line| &line.looks).map(|look| look[1]).fold(1.0, f64::max);
    let step = nice(highest / 3.0);
    let top = (highest / step).ceil() * step;
    let mut inner = String::new();
    let mut level = 0.0;
    while level <= top + 1e-9 {
        inner += &frame.level(level / top, &format!("{} MiB", short(level)));
        level += step;
    }
    for (place, line) in lines.iter().enumerate() {
        let class = format!("line {}", plan_class(place));
        inner += &frame.line(&class, line.looks.iter().map(|look| (look[0], look[1] / top)));
    }
    frame.wrapped(document, "memory of nodes over time", &inner)
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// A number without needless digits.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.3, 1.0, 1.1, 3.0, 7.0, 60.0].map(nice), [0.5, 1.0, 2.0, 5.0, 10.0, 100.0]);
        assert_eq!([0.01, 10.0, 2.5, 1000.0].map(short), ["0.01", "10", "2.5", "1000"]);
    }
}
