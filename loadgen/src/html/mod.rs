//! A report as one HTML file: no script, nothing from the network, light and dark, wide and narrow.

mod plot;

use std::fmt::Write as _;

use plot::{Axis, Line, Plot, Scale, bars, escape};

use crate::latency::Latencies;
use crate::output::MARK;
use crate::probe::best;
use crate::report::{json, table};
use crate::run::Report;
use crate::sweep::Sweep;
use crate::units::{bytes, nanos, rate, si};

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2330;--dim:#5b6577;--grid:#e3e7ee;--a:#0b62c4;--b:#b34700;--c:#8b1f8f;--mark:#9aa4b5}
@media(prefers-color-scheme:dark){:root{--bg:#12161d;--fg:#e6eaf1;--dim:#a3adbd;--grid:#2a3240;--a:#6db3ff;--b:#ffa35c;--c:#e08ae6;--mark:#6b7789}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.3rem;line-height:1.3}
figure{margin:1.5rem 0}
figcaption{font-weight:600}
svg{display:block;width:100%;height:auto;font:13px system-ui,sans-serif}
text{fill:var(--dim)}
text.y{text-anchor:end}text.x,text.label{text-anchor:middle}
.grid{stroke:var(--grid);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}
circle.a{fill:var(--a)}circle.b{fill:var(--b)}circle.c{fill:var(--c)}
.mark{stroke:var(--mark);stroke-dasharray:3 3;fill:none}
.legend{margin:.25rem 0;color:var(--dim);font-size:.9rem}
.key{display:inline-block;width:1.1em;height:3px;margin:0 .4em 0 .8em;vertical-align:middle}
.key.a{background:var(--a)}.key.b{background:var(--b)}.key.c{background:var(--c)}
.key.mark{height:1em;width:0;border-left:2px dashed var(--mark)}
.bars{width:100%;border-collapse:collapse}
.bars th{text-align:left;font-weight:400;white-space:nowrap;padding:.2rem .8rem .2rem 0}
.bars td:nth-child(2){width:60%}.bars td:last-child{padding-left:.8rem;white-space:nowrap}
.bars div{height:1rem;background:var(--a)}
pre{overflow-x:auto;font:13px/1.4 ui-monospace,monospace;background:color-mix(in srgb,var(--fg) 6%,transparent);padding:.8rem}
.narrow{display:none}
dl{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
dl div{flex:1 1 8rem;padding:.6rem .8rem;border:1px solid var(--grid);border-radius:.5rem}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-weight:600;white-space:nowrap}
@media(max-width:40rem){.wide{display:none}.narrow{display:block}dl div{flex-basis:6.5rem}.bars,.bars tbody,.bars tr,.bars th,.bars td{display:block;width:100%!important;padding:.1rem 0!important}}
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
    Axis { label, scale: Scale::Linear, write: |v| format!("{v:.0} s"), ticks: None }
}

fn latency(label: &'static str) -> Axis {
    Axis { label, scale: Scale::Log, write: |v| nanos(v as u64), ticks: None }
}

/// What lies at 1 / (1 - percentile) on HdrHistogram's axis.
fn percentile(x: f64) -> String {
    let text = format!("{:.6}", 100.0 - 100.0 / x);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

/// The report of one run.
#[must_use]
pub fn run(report: &Report) -> String {
    let text = table(report);
    let (headline, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let mut body = tiles(report);
    let curve = |latencies: &Latencies| -> Vec<(f64, f64)> {
        let quantiles = latencies.histogram().iter_quantiles(5);
        let inner = quantiles.filter(|v| v.quantile_iterated_to() < 1.0).map(|v| {
            let x = 1.0 / (1.0 - v.quantile_iterated_to()).max(1e-9);
            (x, v.value_iterated_to() as f64)
        });
        inner.collect()
    };
    let line = |name: &str, class, latencies| Line {
        name: name.into(),
        class,
        points: curve(latencies),
        dots: false,
    };
    let histogram = report.outcome.latencies.histogram();
    if !histogram.is_empty() {
        let mut lines = vec![line("as measured", 'a', &report.outcome.latencies)];
        if let Some(corrected) = &report.outcome.corrected {
            lines.push(line("corrected for coordinated omission", 'b', corrected));
        }
        body += &Plot {
            title: format!("Latency by percentile: {}", report.meaning.describe()),
            x: Axis {
                label: "percentile",
                scale: Scale::Log,
                write: percentile,
                ticks: Some((0..8).map(|n| 10_f64.powi(n)).collect()),
            },
            y: latency("latency"),
            lines,
            marks: vec![],
        }
        .render();
    }
    body += &over_time(report);
    body += &beside_the_device(report);
    let _ = write!(
        body,
        "<figure><figcaption>All figures</figcaption><pre>{}</pre></figure>",
        escape(rest)
    );
    let _ = writeln!(
        body,
        "<details><summary>As JSON</summary><pre>{}</pre></details>",
        escape(&format!("{:#}", json(report)))
    );
    page(headline, &body)
}

/// What is looked for first.
fn tiles(report: &Report) -> String {
    let outcome = &report.outcome;
    let q = |quantile: f64| nanos(outcome.latencies.quantile_ns(quantile));
    let mut tiles = vec![("records a second", si(outcome.records as f64 / outcome.seconds))];
    tiles.push(("payload", rate(outcome.bytes as f64 / outcome.seconds)));
    if outcome.latencies.count() > 0 {
        tiles.extend([("p50", q(0.5)), ("p99", q(0.99)), ("p99.9", q(0.999))]);
    }
    if let Some(eta) = report.baseline.as_ref().and_then(|comparison| comparison.eta) {
        tiles.push(("eta", format!("{eta:.2}")));
    }
    let tile = |(name, value): &(&str, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    };
    format!("<dl>{}</dl>\n", tiles.iter().map(tile).collect::<String>())
}

/// The log, and the raw device in the same shape and in all others.
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
    if let Some(best) = best(&report.grid) {
        let rows: Vec<_> = report
            .grid
            .iter()
            .map(|cell| {
                let name =
                    format!("{}, {}, {}×", cell.method.name(), bytes(cell.size as f64), cell.depth);
                let told = format!("{}, p50 {}", rate(cell.bytes_per_s), nanos(cell.latencies[0]));
                (name, cell.bytes_per_s / best.bytes_per_s.max(1.0), told)
            })
            .collect();
        body += &bars("The raw device: commit method, bytes of a write, writes in flight", &rows);
    }
    body
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
    // Where they are always, marks say nothing.
    let often = rotations.len() > 60 || rotations.len() > points.len() / 2;
    if often {
        rotations.clear();
    }
    let told = match report.work.rotations {
        n if often => format!("; {:.1} rotations a second", n as f64 / report.outcome.seconds),
        _ => String::new(),
    };
    let line = |name: &str, class, of: &dyn Fn(&crate::series::Point) -> f64| Line {
        name: name.into(),
        class,
        points: points.iter().map(|point| (point.seconds, of(point))).collect(),
        dots: false,
    };
    let commit = |n: usize| move |point: &crate::series::Point| point.commit[n] as f64;
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
    [commits, throughput, groups].iter().map(Plot::render).collect()
}

/// The report of a sweep.
#[must_use]
pub fn sweep(sweep: &Sweep) -> String {
    let steps = || sweep.steps.iter().filter(|step| step.latencies[0] > 0);
    let line = |name: &str, class, n: usize| Line {
        name: name.into(),
        class,
        points: steps().map(|step| (step.rate, step.latencies[n] as f64)).collect(),
        dots: true,
    };
    let bound = Line {
        name: format!("the bound, {}", nanos(sweep.bound_ns)),
        class: 'c',
        points: steps().map(|step| (step.rate, sweep.bound_ns as f64)).collect(),
        dots: false,
    };
    let knee = sweep.knee.map(|rate| (rate, format!("the knee, {}/s", si(rate))));
    let plot = Plot {
        title: "Latency against rate, from when a record was to arrive until it was durable".into(),
        x: Axis { label: "records a second", scale: Scale::Log, write: si, ticks: None },
        y: latency("latency"),
        lines: vec![line("p50", 'a', 0), line("p99.9", 'b', 2), bound],
        marks: knee.into_iter().collect(),
    };
    let text = sweep.table();
    let (headline, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let body = format!(
        "{}<figure><figcaption>All figures</figcaption><pre>{}</pre></figure>",
        plot.render(),
        escape(rest)
    );
    page(headline, &body)
}
