//! The page: one HTML file that needs nothing else, in light and in dark.

use std::fmt::Write as _;

use super::{BatteryTold, Document, charts};
use crate::counted::counted;
use crate::judge::{Check, LeftOut, Told};
use crate::printable::printable;

/// Pairs of nodes that the page shows; the document has all.
const LEFT_OUT_SHOWN: usize = 20;

const STYLE: &str = include_str!("page.css");

/// The page of a run.
pub fn page(document: &Document) -> String {
    let name = escaped(document.scenario.trim_end_matches(".toml"));
    let verdict = if document.holds { "holds" } else { "does not hold" };
    let class = if document.holds { "good" } else { "ill" };
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{name}: {verdict}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{name} <span class=\"{class}\">{verdict}</span></h1>\n<p>{}</p>\n",
        escaped(&document.about)
    );
    html += &summary(document);
    html += &checks(&document.verdict.checks);
    html += &faults(document);
    html += &batteries(document);
    html += &left_out(&document.verdict.left_out);
    let mut chart = |title: &str, legend: String, svg: String| {
        let _ = write!(html, "<h2>{title}</h2>\n<p class=\"legend\">{legend}</p>\n{svg}");
    };
    chart(
        "Latency",
        "<b class=\"p50\">▬</b> median <b class=\"p99\">▬</b> 99th percentile <b class=\"max\">●</b> slowest \
         <b class=\"bad\">■</b> requests without answer; from the time that each was to be sent"
            .to_owned(),
        charts::latency(document),
    );
    chart("Answers a second, by plan", plans(document), charts::throughput(document));
    chart(
        "Nodes",
        "<b class=\"on\">■</b> a fault acts on it <b class=\"out\">■</b> left out of the plans of a node where \
         requests enter"
            .to_owned(),
        charts::nodes(document),
    );
    chart("Memory", lines(document), charts::memory(document));
    html += &told("Requests that did not end rightly", &document.verdict.bad);
    html += &errors(document);
    html += &told("The slowest right answers", &document.verdict.slow);
    html += &hosts(document);
    let _ = write!(
        html,
        "<h2>Scenario</h2>\n<pre>{}</pre>\n</body>\n</html>\n",
        escaped(&document.scenario_text)
    );
    html
}

/// Text without what HTML would take for its own.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    // What turns the direction of reading would do so on a page, too.
    for character in printable(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

fn summary(document: &Document) -> String {
    let machine = &document.machine;
    let counts = &document.verdict.counts;
    let capacities = document.capacities_per_s.iter().flatten();
    let capacity: String =
        capacities.map(|per_s| format!(" Capacity, measured before: {per_s:.0} answers a second.")).collect();
    let starved =
        document.starved.as_ref().map_or(String::new(), |told| format!("<p>{}</p>\n", escaped(told)));
    let latency = document.verdict.latency.map_or(String::new(), |latency| {
        format!(
            " Latency {:.2} ms (median), {:.2} ms (99th percentile), {:.2} ms at most.",
            latency.p50_ms, latency.p99_ms, latency.max_ms
        )
    });
    format!(
        "<p>{} begun, {} answered rightly ({:.1} a second).{latency}{capacity}</p>\n\
         <p class=\"small\">Seed {}. {} of {}, {:.1} GiB, Linux {}, {}; load of the machine {:.2}. The load \
         generator took {:.1} % of a core.</p>\n{starved}",
        counted(counts.begun, "request"),
        counts.right,
        document.verdict.right_per_s,
        document.seed,
        counted(machine.cores, "core"),
        escaped(if machine.processor.is_empty() { "an unnamed processor" } else { &machine.processor }),
        machine.memory_bytes as f64 / f64::from(1 << 30),
        escaped(&machine.kernel),
        escaped(&machine.architecture),
        machine.load_hundredths as f64 / 100.0,
        document.generator_share * 100.0,
    )
}

fn table(title: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut html = String::new();
    if !title.is_empty() {
        let _ = writeln!(html, "<h2>{title}</h2>");
    }
    let heads: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
    let _ = write!(html, "<div class=\"wide\"><table>\n<tr>{heads}</tr>\n");
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(html, "<tr>{cells}</tr>");
    }
    html + "</table></div>\n"
}

fn batteries(document: &Document) -> String {
    let row = |battery: &BatteryTold| {
        vec![
            escaped(&battery.node),
            format!("{:.1} J", battery.drawn_j),
            battery.j_per_answer.map_or("-".to_owned(), |joules| format!("{joules:.3} J")),
            format!("{:.1} %", battery.level * 100.0),
            battery.emptied_s.map_or("-".to_owned(), |at_s| format!("{at_s:.1} s")),
        ]
    };
    let rows: Vec<Vec<String>> = document.batteries.iter().map(row).collect();
    table("Batteries", &["node", "drawn", "for each answer", "left", "empty at"], &rows)
}

fn left_out(left_out: &[LeftOut]) -> String {
    let row = |of: &LeftOut| {
        let seconds = |seconds: f64| format!("{seconds:.2} s");
        vec![
            escaped(&of.node),
            escaped(&of.by),
            seconds(of.total_s),
            seconds(of.longest_s),
            of.times.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = left_out.iter().take(LEFT_OUT_SHOWN).map(row).collect();
    table("Healthy nodes left out of plans", &["node", "by", "in all", "longest", "times"], &rows)
}

fn checks(checks: &[Check]) -> String {
    let row = |check: &Check| {
        let mark = if check.holds { "<b class=\"good\">✓</b>" } else { "<b class=\"ill\">✗</b>" };
        vec![mark.to_owned(), escaped(&check.what), escaped(&check.wanted), escaped(&check.got)]
    };
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    table("What was demanded", &["", "demanded", "wanted", "got"], &rows)
}

fn faults(document: &Document) -> String {
    let rows: Vec<Vec<String>> = document
        .faults
        .iter()
        .enumerate()
        .map(|(number, fault)| {
            vec![
                (number + 1).to_string(),
                escaped(&fault.what),
                format!("{:.2} s", fault.begun_s),
                fault.healed_s.map_or("never".to_owned(), |healed_s| format!("{healed_s:.2} s")),
                fault.requests.to_string(),
                escaped(fault.failed.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    table("Faults", &["", "what", "from", "until", "requests there", ""], &rows)
}

fn plans(document: &Document) -> String {
    let plans = document.timeline.plans.iter().enumerate().map(|(place, plan)| {
        format!(
            "<span class=\"item\"><b class=\"{}\">■</b> {} <i>{}</i></span>",
            charts::plan_class(place),
            escaped(&plan.hosts.join(" → ")),
            plan.answers
        )
    });
    let plans: String = plans.collect();
    format!(
        "{plans}<span class=\"item\"><b class=\"bad\">■</b> no answer</span><span class=\"item\"><b class=\"sent\">▬</b> sent</span>"
    )
}

fn lines(document: &Document) -> String {
    let lines = document.timeline.usage.iter().enumerate().map(|(place, line)| {
        let first = line.looks.first().map_or(0.0, |look| look[1]);
        let last = line.looks.last().map_or(0.0, |look| look[1]);
        format!(
            "<span class=\"item\"><b class=\"{}\">▬</b> {} <i>{first:.0} → {last:.0}</i></span>",
            charts::plan_class(place),
            escaped(&line.node)
        )
    });
    lines.collect()
}

fn told(title: &str, requests: &[Told]) -> String {
    let row = |told: &Told| {
        vec![
            told.serial.to_string(),
            escaped(&told.entry),
            format!("{:.2} s", told.at_s),
            format!("{:.1} ms", told.latency_ms),
            told.class.name().to_owned(),
            escaped(&told.why),
        ]
    };
    let rows: Vec<Vec<String>> = requests.iter().map(row).collect();
    table(title, &["request", "entered at", "to be sent at", "ended after", "end", ""], &rows)
}

fn errors(document: &Document) -> String {
    let errors = document.verdict.errors.iter();
    let rows: Vec<Vec<String>> = errors.map(|(why, count)| vec![count.to_string(), escaped(why)]).collect();
    table("Errors", &["requests", "what they were told"], &rows)
}

fn hosts(document: &Document) -> String {
    let mut rows = Vec::new();
    for deployment in &document.deployed {
        for host in &deployment.hosts {
            rows.push(vec![
                escaped(&deployment.name),
                escaped(&host.variant),
                escaped(&host.label),
                format!("{}-{}", host.blocks[0], host.blocks[1].saturating_sub(1)),
                host.time_ms.map_or(String::new(), |ms| format!("{ms:.2} ms")),
            ]);
        }
    }
    table("Who hosted what when the load began", &["model", "variant", "node", "blocks", "one run"], &rows)
}
