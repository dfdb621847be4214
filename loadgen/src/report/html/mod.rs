//! A report as one HTML file, without script and network. It adapts to light and dark, wide and
//! narrow.

mod plot;

use std::fmt::Write as _;

use plot::{Axis, Line, Plot, Scale, bars, escape, log_bars};

use crate::commands::bench::{
    Row, Suite, Unit, table as table_of_suite, titles as titles_of_suite,
};
use crate::measure::environment::Environment;

use crate::commands::probe::{Cell, Probe};
use crate::commands::run::Report;
use crate::commands::sweep::Sweep;
use crate::measure::latency::Latencies;
use crate::output::MARK;
use crate::report::{json, table};
use crate::units::{bytes, nanos, rate, si};

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--dim:#5b6577;--grid:#e3e7ee;--a:#0b62c4;--b:#b34700;--c:#8b1f8f;--d:#0d7a4f;--mark:#7d8798;--warn:#a01818}
@media(prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e6eaf1;--dim:#a3adbd;--grid:#2a3240;--a:#6db3ff;--b:#ffa35c;--c:#e08ae6;--d:#5fd0a0;--mark:#8a96a8;--warn:#ff9a8f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.3rem;line-height:1.3}h2{font-size:1rem;margin:1.5rem 0 .3rem}ul{margin:.3rem 0;padding-left:1.2rem}
figure{margin:1.5rem 0}
figcaption{font-weight:600}
svg{display:block;width:100%;height:auto;font:13px system-ui,sans-serif}
.wide{max-width:720px}.narrow{max-width:358px}
.where{color:var(--dim);font-size:.85rem;overflow-wrap:anywhere;margin:.2rem 0}
text{fill:var(--dim)}
text.y{text-anchor:end}text.x,text.label,text.name{text-anchor:middle}text.name{fill:var(--fg);paint-order:stroke;stroke:var(--bg);stroke-width:3px}
.grid{stroke:var(--grid);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}.line.d{stroke:var(--d)}
.line.dashed{stroke:var(--mark);stroke-dasharray:6 4}.line.cross{stroke-width:2.5}
circle.a{fill:var(--a)}circle.b{fill:var(--b)}circle.c{fill:var(--c)}circle.d{fill:var(--d)}
circle.hover{opacity:0}circle.hover:hover{opacity:1}
.mark{stroke:var(--mark);stroke-dasharray:3 3;fill:none}
.legend{margin:.25rem 0;color:var(--dim);font-size:.9rem}
.key{display:inline-block;width:1.1em;height:3px;margin:0 .4em 0 .8em;vertical-align:middle}
.key.a{background:var(--a)}.key.b{background:var(--b)}.key.c{background:var(--c)}.key.d{background:var(--d)}
.key.dashed{background:none;height:0;border-top:2px dashed var(--mark)}
.key.mark{height:1em;width:0;border-left:2px dashed var(--mark)}
.bars{width:100%;border-collapse:collapse}
.bars th{text-align:left;font-weight:400;white-space:nowrap;padding:.2rem .8rem .2rem 0}
.bars td:nth-child(2){width:60%}.bars td:last-child{padding-left:.8rem;white-space:nowrap}
.bars div{height:1rem;background:var(--a)}
pre{overflow-x:auto;font:13px/1.4 ui-monospace,monospace;background:color-mix(in srgb,var(--fg) 6%,transparent);padding:.8rem}
.narrow{display:none}
dl{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
dl div{flex:1 1 8rem;padding:.6rem .8rem;border:1px solid var(--grid);border-radius:.5rem}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere}dd small{font-size:.8rem;font-weight:400;color:var(--dim)}
.warn{border-color:var(--warn);color:var(--warn)}.warn dt{color:inherit}.warn dd{font-size:1rem}
table.rows{border-collapse:collapse;font-size:.9rem}.rows th,.rows td{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
.scroll{overflow-x:auto}
@media(max-width:40rem){.wide{display:none}.narrow{display:block}dl div{flex-basis:6.5rem;padding:.5rem}dd{font-size:1.05rem}.bars,.bars tbody,.bars tr,.bars th,.bars td{display:block;width:100%!important;padding:.1rem 0!important;white-space:normal!important}}
";

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"generator\" content=\"{MARK}\"><title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

fn seconds(label: &'static str) -> Axis {
    let write = |v: f64| if v.fract() == 0.0 { format!("{v:.0} s") } else { format!("{v:.2} s") };
    Axis { label, scale: Scale::Linear, write, ticks: None }
}

/// Renders date, host and command line.
fn whereabouts(environment: &Environment) -> String {
    format!(
        "<p class=\"where\">{}</p>\n<p class=\"where\"><code>{}</code></p>\n",
        escape(&environment.line()),
        escape(environment.command_line())
    )
}

/// Renders the warnings that precede all figures.
fn warning(name: &str, text: &str) -> String {
    format!("<div class=\"warn\"><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(text))
}

fn all_figures(text: &str) -> String {
    format!("<figure><figcaption>All figures</figcaption><pre>{}</pre></figure>", escape(text))
}

fn latency(label: &'static str) -> Axis {
    Axis { label, scale: Scale::Log, write: |v| nanos(v as u64), ticks: None }
}

/// Returns 1 / (1 - percentile), the axis of HdrHistogram.
fn percentile(x: f64) -> String {
    let text = format!("{:.6}", 100.0 - 100.0 / x);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// Renders the report of one run.
#[must_use]
pub fn run(report: &Report) -> String {
    let text = table(report);
    let (headline, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let mut body = whereabouts(&report.environment) + &tiles(report);
    body += &records_over_time(report);
    body += &percentiles(report);
    body += &over_time(report);
    body += &beside_the_device(report);
    body += &all_figures(rest);
    let _ = writeln!(
        body,
        "<details><summary>As JSON</summary><pre>{}</pre></details>",
        escape(&format!("{:#}", json(report)))
    );
    page(headline, &body)
}

/// Plots latency by percentile, with the headline figures named.
fn percentiles(report: &Report) -> String {
    let measured = &report.outcome.latencies;
    if measured.count() == 0 {
        return String::new();
    }
    let curve = |latencies: &Latencies| -> Vec<(f64, f64)> {
        let quantiles = latencies.histogram().iter_quantiles(5);
        let inner = quantiles.filter(|v| v.quantile_iterated_to() < 1.0).map(|v| {
            let x = 1.0 / (1.0 - v.quantile_iterated_to()).max(1e-9);
            (x, v.value_iterated_to() as f64)
        });
        inner.collect()
    };
    let mut points = curve(measured);
    let named = |name: &str, quantile: f64| {
        let ns = measured.quantile_ns(quantile);
        (1.0 / (1.0 - quantile), ns as f64, format!("{name} {}", nanos(ns)))
    };
    // The maximum lies beyond every percentile. It is drawn where one of this many latencies would
    // be.
    let greatest = (measured.count() as f64).max(2.0);
    let max = measured.max_ns();
    points.push((greatest, max as f64));
    let mut labels: Vec<_> = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)]
        .iter()
        .map(|(name, quantile)| named(name, *quantile))
        .filter(|label| label.0 < greatest / 2.0)
        .collect();
    labels.push((greatest, max as f64, format!("max {}", nanos(max))));
    let mut lines = vec![Line { labels, ..Line::new("as measured", 'a', points) }];
    if let Some(corrected) = &report.outcome.corrected {
        lines.push(Line::new("corrected for coordinated omission", 'b', curve(corrected)));
    }
    let ticks = [1.0, 2.0, 4.0].into_iter().chain((1..10).map(|n| 10_f64.powi(n)));
    Plot {
        title: format!("Latency by percentile: {}", report.meaning.describe()),
        x: Axis {
            label: "percentile",
            scale: Scale::Log,
            write: percentile,
            ticks: Some(ticks.collect()),
        },
        y: latency("latency"),
        lines,
        marks: vec![],
    }
    .render()
}

/// Plots the latency of records over time.
fn records_over_time(report: &Report) -> String {
    let points: Vec<_> = report.series.points().filter(|p| p.latencies > 0).collect();
    if points.len() < 2 {
        return String::new();
    }
    let line = |name: &str, class, n: usize| {
        let at = points.iter().map(|point| (point.seconds, point.latency[n] as f64));
        Line::new(name, class, at.collect())
    };
    Plot {
        title: format!("Latency of records over time: {}", report.meaning.describe()),
        x: seconds("time"),
        y: latency("latency"),
        lines: vec![
            line("p50", 'a', 0),
            line("p99", 'b', 1),
            line("p99.9", 'c', 2),
            line("max", 'd', 3),
        ],
        marks: vec![],
    }
    .render()
}

/// Renders the headline figures.
fn tiles(report: &Report) -> String {
    let outcome = &report.outcome;
    let q = |quantile: f64| nanos(outcome.latencies.quantile_ns(quantile));
    let mut tiles = vec![("records a second", si(outcome.records as f64 / outcome.seconds))];
    tiles.push(("payload", rate(outcome.bytes as f64 / outcome.seconds)));
    if outcome.latencies.count() > 0 {
        tiles.extend([("p50", q(0.5)), ("p99", q(0.99)), ("p99.9", q(0.999))]);
    }
    let mut html: String = tiles
        .iter()
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
        })
        .collect();
    if let Some(eta) = report.baseline.as_ref().and_then(|comparison| comparison.eta) {
        let _ = write!(
            html,
            "<div><dt>eta</dt><dd>{eta:.2} <small>of the raw device's bandwidth</small></dd></div>"
        );
    }
    if let Some(us) = report.spent.us_per_record(outcome.records) {
        let value = nanos((us * 1e3) as u64);
        let _ = write!(
            html,
            "<div><dt>processor time</dt><dd>{value} <small>a record</small></dd></div>"
        );
    }
    format!("<dl>{}{html}</dl>\n", warnings(report))
}

fn warnings(report: &Report) -> String {
    let outcome = &report.outcome;
    let mut html = String::new();
    if let Some(e) = &report.failed {
        html += &warning("FAILED", &e.to_string());
    }
    if let Some(why) = report.ended_by {
        html += &warning("ENDED EARLY", &format!("by {why}"));
    }
    if let Some(Err(what)) = &report.verified {
        html += &warning("VERIFICATION FAILED", what);
    }
    let all = outcome.records + outcome.overdue;
    if outcome.overdue * 100 > all {
        let share = 100.0 * outcome.overdue as f64 / all as f64;
        html += &warning(
            "TOO FAST",
            &format!("{share:.0} % of the arrivals were not appended in time"),
        );
    }
    if let Some(found) = report.series.steadiness().filter(|found| !found.steady) {
        html += &warning("NOT STEADY", &format!("second half at {:.2} of the first", found.ratio));
    }
    for check in report.required.iter().filter(|check| !check.met) {
        html += &warning("REQUIRED", &check.line());
    }
    html
}

/// Compares the log with the raw device in the same shape and in all others.
fn beside_the_device(report: &Report) -> String {
    let (outcome, work) = (&report.outcome, &report.work);
    let Some(comparison) = &report.baseline else { return String::new() };
    let raw = comparison.raw.bytes_per_s.max(1.0);
    let mut body = String::new();
    if let Some(eta) = comparison.eta {
        let written = work.group_bytes as f64 / outcome.seconds;
        let payload = outcome.bytes as f64 / outcome.seconds;
        let rows = [
            ("raw device".to_owned(), 1.0, rate(raw)),
            ("the log, written".into(), eta, format!("{} (eta {eta:.2})", rate(written))),
            ("the records in it".into(), payload / raw, rate(payload)),
        ];
        body += &bars("Beside the raw device, at the same group size and depth", &rows);
    }
    body += &raw_bars(&report.grid);
    body
}

/// Plots every shape of the raw device.
fn raw_bars(cells: &[Cell]) -> String {
    let row = |cell: &Cell| {
        let name = format!("{}, {}, {}×", cell.method.name(), bytes(cell.size as f64), cell.depth);
        let commits = cell.bytes_per_s / cell.size.max(1) as f64;
        let told = format!(
            "{} commits/s, {}, p50 {}",
            si(commits),
            rate(cell.bytes_per_s),
            nanos(cell.latencies[0])
        );
        (name, commits, told)
    };
    let rows: Vec<_> = cells.iter().map(row).collect();
    log_bars("The raw device, commits a second: method, bytes of a write, writes in flight", &rows)
}

fn over_time(report: &Report) -> String {
    let points: Vec<_> = report.series.points().collect();
    if points.len() < 2 {
        return String::new();
    }
    let mut rotations = Vec::new();
    for pair in points.windows(2).filter(|pair| pair[1].rotations > pair[0].rotations) {
        rotations.push((pair[1].seconds, "rotation".to_owned()));
    }
    // Marks in every interval carry no information.
    let often = rotations.len() > 60 || rotations.len() > points.len() / 2;
    if often {
        rotations.clear();
    }
    let told = match report.work.rotations {
        n if often => format!("; {:.1} rotations a second", n as f64 / report.outcome.seconds),
        _ => String::new(),
    };
    let line = |name: &str, class, of: &dyn Fn(&crate::measure::series::Point) -> f64| {
        Line::new(name, class, points.iter().map(|point| (point.seconds, of(point))).collect())
    };
    let commit = |n: usize| move |point: &crate::measure::series::Point| point.commit[n] as f64;
    let commits = Plot {
        title: format!("Commits over time: from the submission of a group to durable{told}"),
        x: seconds("time"),
        y: latency("latency"),
        lines: vec![
            line("p50", 'a', &commit(0)),
            line("p99", 'b', &commit(1)),
            line("p99.9", 'c', &commit(2)),
        ],
        marks: rotations.clone(),
    };
    let throughput = Plot {
        title: "Throughput over time".into(),
        x: seconds("time"),
        y: Axis {
            label: "records a second",
            scale: Scale::Linear,
            write: |v| format!("{}/s", si(v)),
            ticks: None,
        },
        lines: vec![line("records", 'a', &|point| point.records_per_s)],
        marks: rotations,
    };
    let groups = Plot {
        title: "Records in a group over time".into(),
        x: seconds("time"),
        y: Axis { label: "records", scale: Scale::Linear, write: si, ticks: None },
        lines: vec![line("in a group", 'a', &|point| point.group_records)],
        marks: vec![],
    };
    let ring = Plot {
        title: "In the ring over time: appended and not yet durable".into(),
        x: seconds("time"),
        y: Axis {
            label: "bytes",
            scale: Scale::Linear,
            // Chooses round ticks in tens.
            write: |v| rate(v).trim_end_matches("/s").to_owned(),
            ticks: None,
        },
        lines: vec![line("not durable", 'a', &|point| point.ring_bytes as f64)],
        marks: vec![],
    };
    [throughput, commits, groups, ring].iter().map(Plot::render).collect()
}

/// Renders the report of a sweep.
#[must_use]
pub fn sweep(sweep: &Sweep) -> String {
    let steps = || sweep.steps.iter().filter(|step| step.latencies[0] > 0);
    let line = |name: &str, class, n: usize| {
        let at = |step: &crate::commands::sweep::Step| (step.rate, step.latencies[n] as f64);
        Line {
            dots: true,
            crosses: steps().filter(|step| !step.holds).map(at).collect(),
            ..Line::new(name, class, steps().filter(|step| step.holds).map(at).collect())
        }
    };
    let flat = |name: String, ns: u64| Line {
        dashed: true,
        ..Line::new(name, 'd', steps().map(|step| (step.rate, ns as f64)).collect())
    };
    let mut lines = vec![line("p50", 'a', 0), line("p99", 'b', 1), line("p99.9", 'c', 2)];
    lines.push(flat(format!("the bound of p99.9, {}", nanos(sweep.bound_ns)), sweep.bound_ns));
    let knee = sweep.knee.map(|rate| (rate, format!("the knee, {}/s", si(rate))));
    let plot = Plot {
        title: "Latency against rate, from when a record was to arrive until it was durable".into(),
        x: Axis {
            label: "records a second",
            scale: Scale::Log,
            write: |v| format!("{}/s", si(v)),
            ticks: None,
        },
        y: latency("latency"),
        lines,
        marks: knee.into_iter().collect(),
    };
    let mut tiles = String::new();
    if let Some(why) = sweep.ended_by {
        tiles += &warning("INTERRUPTED", &format!("by {why}: no knee is concluded"));
    }
    if let Some(why) = &sweep.undecided {
        tiles += &warning("UNDECIDED", why);
    }
    let tile = |name: &str, value: String| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(&value))
    };
    if let Some(rate) = sweep.knee {
        tiles += &tile("the knee", format!("{}/s", si(rate)));
    }
    tiles += &tile("bound of p99.9", nanos(sweep.bound_ns));
    if let Some(floor) = &sweep.floor {
        tiles += &tile("p99.9 of the raw device", nanos(floor.latencies[2]));
    }
    let text = sweep.table();
    let (headline, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let body = format!(
        "{}<dl>{tiles}</dl>\n{}{}",
        whereabouts(&sweep.environment),
        if sweep.steps.is_empty() { String::new() } else { plot.render() },
        all_figures(rest)
    );
    page(headline, &body)
}

/// Renders the report of a device.
#[must_use]
pub fn device(probe: &Probe) -> String {
    let mut tiles = String::new();
    if let Some(why) = probe.ended_by {
        tiles += &warning("INTERRUPTED", &format!("by {why}: nothing is concluded"));
    }
    for verdict in &probe.verdicts {
        let class = if verdict.passes { "" } else { " class=\"warn\"" };
        let text = verdict.line();
        let (name, rest) = text.split_once(": ").unwrap_or((&text, ""));
        let (word, rest) = rest.split_once(": ").unwrap_or((rest, ""));
        let _ = write!(
            tiles,
            "<div{class}><dt>{}</dt><dd>{} <small>{}</small></dd></div>",
            escape(name),
            escape(word),
            escape(rest)
        );
    }
    for check in &probe.required {
        let text = check.line();
        tiles += &match check.met {
            true => format!("<div><dt>required</dt><dd>{}</dd></div>", escape(&text)),
            false => warning("required", &text),
        };
    }
    let mut body = whereabouts(&probe.environment);
    if !tiles.is_empty() {
        let _ = writeln!(body, "<dl>{tiles}</dl>");
    }
    for (title, texts) in [("What that means", &probe.findings), ("What to change", &probe.changes)]
    {
        if !texts.is_empty() {
            let items = texts.iter().map(|text| format!("<li>{}</li>", escape(text)));
            let _ = writeln!(body, "<h2>{title}</h2><ul>{}</ul>", items.collect::<String>());
        }
    }
    body += &raw_bars(&probe.cells);
    body += &all_figures(&probe.table());
    page(&format!("{MARK} device"), &body)
}

/// Renders the report of a suite.
#[must_use]
pub fn bench(suite: &Suite) -> String {
    let mut tiles = String::new();
    if let Some(why) = suite.ended_by {
        tiles += &warning("INTERRUPTED", &format!("by {why}, after {} rounds", suite.rounds));
    }
    let all = suite.places.iter().flat_map(|place| &place.rows);
    let beaten: Vec<&str> = all.filter(|row| row.beats_its_limit()).map(|row| row.name).collect();
    if !beaten.is_empty() {
        tiles += &warning("LIMITS BEATEN", &beaten.join("; "));
    }
    let mut body = whereabouts(&suite.environment);
    if !tiles.is_empty() {
        let _ = writeln!(body, "<dl>{tiles}</dl>");
    }
    for (place, title) in suite.places.iter().zip(titles_of_suite(suite)) {
        let rows: Vec<_> = place.rows.iter().filter_map(by_limit).collect();
        if suite.places.len() > 1 {
            let _ = writeln!(body, "<h2>{}</h2>", escape(&title));
        }
        if !rows.is_empty() {
            body += &bars("Each workload by its limit; longer is better", &rows);
        }
    }
    body += &all_figures(&table_of_suite(suite));
    page(&format!("{MARK} bench"), &body)
}

/// The name of a row, its length in a plot, and its label.
fn by_limit(row: &Row) -> Option<(String, f64, String)> {
    let [ratio, ..] = row.ratio()?;
    // For times, the limit divided by the value, so that longer is better in all bars.
    let share = if row.unit == Unit::Nanoseconds { 1.0 / ratio } else { ratio };
    Some((format!("{} {}", row.workload, row.name), share, format!("{ratio:.2} of {}", row.limit)))
}
