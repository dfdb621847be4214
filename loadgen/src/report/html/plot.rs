//! Plots as SVG: lines over an axis, without script, in the colours of the page.

use std::fmt::Write as _;

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Values at or below zero are omitted.
    Log,
}

/// An axis: its quantity, and the format of a value.
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) write: fn(f64) -> String,
    /// Fixed ticks instead of round ones.
    pub(super) ticks: Option<Vec<f64>>,
}

/// A line. The class is its colour: `a` to `d`.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) class: char,
    pub(super) points: Vec<(f64, f64)>,
    /// Draws its points, too.
    pub(super) dots: bool,
    /// A bound, not a measurement.
    pub(super) dashed: bool,
    /// Points that failed.
    pub(super) crosses: Vec<(f64, f64)>,
    /// Named points.
    pub(super) labels: Vec<(f64, f64, String)>,
}

impl Line {
    /// Creates a line without dots, crosses and labels.
    pub(super) fn new(name: impl Into<String>, class: char, points: Vec<(f64, f64)>) -> Line {
        let (crosses, labels) = (vec![], vec![]);
        Line { name: name.into(), class, points, dots: false, dashed: false, crosses, labels }
    }
}

pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// Vertical, named marks.
    pub(super) marks: Vec<(f64, String)>,
}

/// Every plot is drawn twice. A page shows the drawing that fits, so that letters have one size on
/// a desktop and a phone.
const SHAPES: [Shape; 2] = [
    Shape { class: "wide", width: 720.0, height: 300.0 },
    Shape { class: "narrow", width: 358.0, height: 260.0 },
];
/// Approximate width of a letter.
const LETTER: f64 = 7.6;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 46.0;
/// A range of this ratio contains two ticks of the series 1, 2, 5.
const WIDEST_GAP: f64 = 6.3;
/// Points of a line with a tooltip at most.
const MOST_TOOLTIPS: usize = 300;

#[derive(Debug, Clone, Copy)]
struct Shape {
    class: &'static str,
    width: f64,
    height: f64,
}

/// The visible part of an axis.
#[derive(Debug, Clone, Copy)]
struct Range {
    from: f64,
    to: f64,
    scale: Scale,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let fit = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (mut from, mut to) =
            values.filter(fit).fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        if from > to {
            (from, to) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => {
                from = from.min(0.0);
                to = if to > from { to * 1.05 } else { from + 1.0 };
            }
            Scale::Log => {
                // Widens the range until it contains at least two ticks.
                let span =
                    (to / from).max(2.0).powf(0.04).max((WIDEST_GAP * to.recip() * from).sqrt());
                (from, to) = (from / span, to * span);
            }
        }
        Range { from, to, scale }
    }

    /// Returns the position from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        }
    }

    /// Returns about five round values.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.to - self.from) / 5.0);
                let mut tick = (self.from / step).ceil() * step;
                while tick <= self.to {
                    ticks.push(tick);
                    tick += step;
                }
            }
            Scale::Log => {
                let decades = (self.to / self.from).log10();
                let steps: &[f64] = if decades < 4.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let mut decade = 10_f64.powf(self.from.log10().floor());
                while decade <= self.to {
                    ticks.extend(steps.iter().map(|s| s * decade));
                    decade *= 10.0;
                }
                ticks.retain(|tick| (self.from..=self.to).contains(tick));
            }
        }
        ticks
    }
}

/// A shape with the ranges of its axes. It maps values to coordinates.
#[derive(Debug, Clone, Copy)]
struct Frame {
    shape: Shape,
    x: Range,
    y: Range,
}

impl Frame {
    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (self.shape.width - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let height = self.shape.height;
        height - BOTTOM - self.y.place(value) * (height - TOP - BOTTOM)
    }

    /// Returns the coordinates of a point. `None` if an axis cannot show the value.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let fits = (self.x.scale == Scale::Linear || x > 0.0)
            && (self.y.scale == Scale::Linear || y > 0.0)
            && x.is_finite()
            && y.is_finite();
        fits.then(|| (self.at_x(x), self.at_y(y)))
    }
}

/// Returns 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.max(1e-12).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().find(|s| *s * decade >= least * 0.999);
    step.unwrap_or(&10.0) * decade
}

/// Escapes text for markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns the middle and the baseline of the name of each point. A name stays right of the numbers
/// of the axis and inside the plot, and covers no other name.
fn label_places(shape: Shape, points: &[(f64, f64, &str)]) -> Vec<(f64, f64)> {
    const ROW: f64 = 16.0;
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    let half = |name: &str| name.chars().count() as f64 * LETTER / 2.0;
    let place = |&(px, py, name): &(f64, f64, &str)| {
        let half = half(name);
        let at = px.clamp(LEFT + half, (shape.width - half - 2.0).max(LEFT + half));
        // Keeps the name off the line that leads to the point: above it, and below it at the top.
        let above = (0..4).map(|n| py - 8.0 - ROW * f64::from(n));
        let below = (0..8).map(|n| py + 18.0 + ROW * f64::from(n));
        let inside = |base: &f64| (TOP + 14.0..=shape.height - BOTTOM - 4.0).contains(base);
        let free = |base: &f64| {
            taken
                .iter()
                .all(|(x, y, other)| (x - at).abs() >= half + other || (y - base).abs() >= ROW)
        };
        let base = above.chain(below).filter(inside).find(free).unwrap_or(py - 8.0);
        taken.push((at, base, half));
        (at, base)
    };
    points.iter().map(place).collect()
}

impl Plot {
    /// Renders the figure: title, drawing, legend.
    pub(super) fn render(&self) -> String {
        let mut html = format!("<figure><figcaption>{}</figcaption>\n", escape(&self.title));
        for shape in SHAPES {
            self.draw(shape, &mut html);
        }
        self.legend(&mut html);
        html
    }

    fn draw(&self, shape: Shape, svg: &mut String) {
        let Shape { class, width, height } = shape;
        let frame = self.frame(shape);
        let title = escape(&self.title);
        let _ = writeln!(
            svg,
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.draw_y_axis(&frame, svg);
        self.draw_x_axis(&frame, svg);
        for (mark, name) in &self.marks {
            let (at, bottom) = (frame.at_x(*mark), height - BOTTOM);
            let _ = writeln!(
                svg,
                "<path class=\"mark\" d=\"M{at:.1} {TOP}V{bottom:.1}\"><title>{}</title></path>",
                escape(name)
            );
        }
        for line in &self.lines {
            self.draw_line(line, &frame, svg);
        }
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text></svg>",
            (LEFT + width - RIGHT) / 2.0,
            height - 8.0,
            escape(self.x.label)
        );
    }

    /// Computes the ranges of both axes from every point, label and mark.
    fn frame(&self, shape: Shape) -> Frame {
        let points = || {
            let all = |line: &Line| {
                let labels = line.labels.iter().map(|(x, y, _)| (*x, *y));
                let points = line.points.iter().chain(&line.crosses).copied();
                points.chain(labels).collect::<Vec<_>>()
            };
            self.lines.iter().flat_map(all)
        };
        let marks = self.marks.iter().map(|(at, _)| *at);
        let x = Range::of(points().map(|p| p.0).chain(marks), self.x.scale);
        let y = Range::of(points().map(|p| p.1), self.y.scale);
        Frame { shape, x, y }
    }

    fn draw_y_axis(&self, frame: &Frame, svg: &mut String) {
        for tick in frame.y.ticks() {
            let (at, text) = (frame.at_y(tick), (self.y.write)(tick));
            // Compresses a number wider than the margin, which would start outside the plot.
            let room = LEFT - 8.0;
            let fit = match text.chars().count() as f64 * LETTER > room {
                true => format!(" textLength=\"{room:.0}\" lengthAdjust=\"spacingAndGlyphs\""),
                false => String::new(),
            };
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\"{fit}>{}</text>",
                frame.shape.width - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&text)
            );
        }
    }

    fn draw_x_axis(&self, frame: &Frame, svg: &mut String) {
        let Shape { width, height, .. } = frame.shape;
        let bottom = height - BOTTOM;
        let ticks = self.x.ticks.clone().unwrap_or_else(|| frame.x.ticks());
        let inside = |tick: &f64| (-1e-9..=1.0 + 1e-9).contains(&frame.x.place(*tick));
        let mut free_from = f64::MIN;
        for tick in ticks.into_iter().filter(inside) {
            let (at, text) = (frame.at_x(tick), (self.x.write)(tick));
            let half = text.chars().count() as f64 * LETTER / 2.0;
            // Omits a label that would overlap the one before it, or cross the right edge.
            let shown = at - half >= free_from && at + half <= width - 2.0;
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/>");
            if shown {
                free_from = at + half + LETTER;
                let below = bottom + 16.0;
                let text = escape(&text);
                let _ =
                    write!(svg, "<text class=\"x\" x=\"{at:.1}\" y=\"{below:.1}\">{text}</text>");
            }
            svg.push('\n');
        }
    }

    fn draw_line(&self, line: &Line, frame: &Frame, svg: &mut String) {
        let told = |point: (f64, f64)| {
            let (x, y) = ((self.x.write)(point.0), (self.y.write)(point.1));
            escape(&format!("{}: {x}, {y}", line.name))
        };
        let (mut path, class) = (String::new(), line.class);
        // Each point has a tooltip; of very many points, every n-th.
        let each = line.points.len() / MOST_TOOLTIPS + 1;
        let mut circles = String::new();
        for (n, point) in line.points.iter().enumerate() {
            let Some((px, py)) = frame.place(*point) else { continue };
            let _ = write!(path, "{}{px:.1} {py:.1}", if path.is_empty() { 'M' } else { 'L' });
            if line.dots || n % each == 0 {
                let dot = if line.dots { "" } else { " hover" };
                let title = told(*point);
                let _ = writeln!(
                    circles,
                    "<circle class=\"{class}{dot}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"><title>{title}</title></circle>"
                );
            }
        }
        let dashed = if line.dashed { " dashed" } else { "" };
        let _ = writeln!(svg, "<path class=\"line {class}{dashed}\" d=\"{path}\"/>");
        svg.push_str(&circles);
        for cross in &line.crosses {
            let Some((px, py)) = frame.place(*cross) else { continue };
            let (left, top) = (px - 4.0, py - 4.0);
            let _ = writeln!(
                svg,
                "<path class=\"line {class} cross\" d=\"M{left:.1} {top:.1}l8 8m0 -8l-8 8\"><title>{}</title></path>",
                told(*cross)
            );
        }
        let points = line.labels.iter().filter_map(|(x, y, name)| {
            let (px, py) = frame.place((*x, *y))?;
            Some((px, py, name.as_str()))
        });
        let points: Vec<_> = points.collect();
        let places = label_places(frame.shape, &points);
        for ((px, py, name), (at, base)) in points.iter().zip(places) {
            // The letters have an outline, which keeps them legible over a line.
            let _ = writeln!(
                svg,
                "<circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/><text class=\"name\" x=\"{at:.1}\" y=\"{base:.1}\">{}</text>",
                escape(name)
            );
        }
    }

    fn legend(&self, html: &mut String) {
        let mut legend: Vec<String> = self
            .lines
            .iter()
            .map(|l| {
                let dashed = if l.dashed { " dashed" } else { "" };
                let cross = if l.crosses.is_empty() { "" } else { "; × did not hold" };
                let name = escape(&l.name);
                format!("<span class=\"key {}{dashed}\"></span>{name}{cross}", l.class)
            })
            .collect();
        if let Some((_, name)) = self.marks.first() {
            legend.push(format!("<span class=\"key mark\"></span>{}", escape(name)));
        }
        let unit = escape(self.y.label);
        let _ = writeln!(html, "<p class=\"legend\">{unit}: {}</p></figure>", legend.join(" "));
    }
}

/// Renders horizontal bars on a logarithmic scale from just below the minimum, for values of
/// different magnitude.
pub(super) fn log_bars(title: &str, rows: &[(String, f64, String)]) -> String {
    let values = || rows.iter().map(|row| row.1).filter(|v| v.is_finite() && *v > 0.0);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    if least > most {
        return String::new();
    }
    let from = 10_f64.powf((least / 1.5).log10().floor()).max(least / 30.0);
    let share = |v: f64| (v.max(from) / from).ln() / (most / from).max(1.01).ln();
    let rows: Vec<_> =
        rows.iter().map(|(name, v, told)| (name.clone(), share(*v), told.clone())).collect();
    bars(&format!("{title} (scale of decades)"), &rows)
}

/// Renders horizontal bars, each as a share of one, or of the largest if that is more.
pub(super) fn bars(title: &str, rows: &[(String, f64, String)]) -> String {
    let mut html =
        format!("<figure><figcaption>{}</figcaption><table class=\"bars\">\n", escape(title));
    let whole = rows.iter().map(|row| row.1).filter(|v| v.is_finite()).fold(1.0, f64::max);
    for (name, share, told) in rows {
        let _ = writeln!(
            html,
            "<tr title=\"{0}\"><th>{0}</th><td><div style=\"width:{1:.1}%\"></div></td><td>{2}</td></tr>",
            escape(name),
            (share / whole * 100.0).clamp(0.0, 100.0),
            escape(told)
        );
    }
    html + "</table></figure>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis {
        Axis { label: "x & y", scale, write: |v| format!("{v:.0}"), ticks: None }
    }

    #[test]
    fn every_point_lies_inside_the_plot() {
        for values in [
            vec![],
            vec![(0.0, 0.0)],
            vec![(1.0, 5.0), (2.0, 1e9), (3.0, f64::NAN)],
            vec![(1e-9, -4.0), (1e12, 7.0)],
        ] {
            for scale in [Scale::Linear, Scale::Log] {
                let plot = Plot {
                    title: "a <b>".into(),
                    x: axis(scale),
                    y: axis(scale),
                    lines: vec![Line {
                        dots: true,
                        crosses: values.clone(),
                        labels: values.iter().map(|p| (p.0, p.1, "p50".into())).collect(),
                        ..Line::new("l", 'a', values.clone())
                    }],
                    marks: vec![(2.0, "m".into())],
                };
                let svg = plot.render();
                assert!(svg.contains("a &lt;b&gt;") && !svg.contains("<b>"));
                for circle in svg.split("<circle ").skip(1) {
                    let number = |name: &str| {
                        let at = circle.find(name).unwrap() + name.len();
                        circle[at..].split('"').next().unwrap().parse::<f64>().unwrap()
                    };
                    let (x, y) = (number("cx=\""), number("cy=\""));
                    let inside = (LEFT - 0.1..=720.0).contains(&x) && (0.0..=300.0).contains(&y);
                    assert!(inside || y.is_nan(), "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn names_of_points_cover_neither_each_other_nor_the_axis() {
        for shape in SHAPES {
            let right = shape.width - RIGHT;
            for y in [TOP, 30.0, 120.0, shape.height - BOTTOM] {
                let points = [
                    (LEFT, y, "p50 2.40 ms"),
                    (right - 60.0, y + 2.0, "p99 166 ms"),
                    (right - 30.0, y + 1.0, "p99.9 188 ms"),
                    (right, y, "max 193 ms"),
                ];
                let places = label_places(shape, &points);
                let half = |n: usize| points[n].2.len() as f64 * LETTER / 2.0;
                for (n, (at, base)) in places.iter().enumerate() {
                    assert!(
                        at - half(n) >= LEFT - 0.1 && at + half(n) <= shape.width,
                        "{places:?}"
                    );
                    assert!((TOP..=shape.height - BOTTOM).contains(base), "{places:?}");
                    for (m, (x, other)) in places.iter().enumerate().take(n) {
                        let apart = (at - x).abs() >= half(n) + half(m);
                        assert!(apart || (base - other).abs() >= 14.0, "{y}: {places:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        for to in [0.3, 1.0, 7.0, 99.0, 1234.0, 5e8] {
            for scale in [Scale::Linear, Scale::Log] {
                let range = Range::of([to / 40.0, to].into_iter(), scale);
                let ticks = range.ticks();
                assert!((3..=14).contains(&ticks.len()), "{to} {scale:?} {ticks:?}");
            }
        }
        assert_eq!([0.9, 1.0, 1.7, 30.0].map(round_step), [1.0, 1.0, 2.0, 50.0]);
    }
}
