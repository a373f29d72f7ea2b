//! A small writer of SVG charts: axes with units, lines, points, bars.

use std::fmt::Write as _;

const INK: &str = "#24292f";
const FAINT: &str = "#d0d7de";
const MUTED: &str = "#57606a";

/// How values become lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// Equal distances are equal differences.
    Linear,
    /// Equal distances are equal ratios.
    Log,
}

/// One axis.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// What it shows, unit included.
    pub(crate) title: String,
    /// Its scale.
    pub(crate) scale: Scale,
    /// Its first value.
    pub(crate) from: f64,
    /// Its last value.
    pub(crate) to: f64,
}

impl Axis {
    /// Where `value` lies, from 0 to 1; values outside lie at the ends.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(f64::MIN_POSITIVE) / self.from).ln() / (self.to / self.from).ln(),
        };
        place.clamp(0.0, 1.0)
    }

    /// Round values to mark, rising.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => linear_ticks(self.from, self.to),
            Scale::Log => log_ticks(self.from, self.to),
        }
    }
}

/// At most eight steps of 1, 2 or 5 times a power of ten.
fn linear_ticks(from: f64, to: f64) -> Vec<f64> {
    let rough = (to - from) / 8.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (from / step).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Powers of ten, with 2 and 5 times each when there are few.
fn log_ticks(from: f64, to: f64) -> Vec<f64> {
    let factors: &[f64] = if to / from <= 2000.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
    let all = (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|&tick| tick >= from * 0.999 && tick <= to * 1.001).collect()
}

/// A number as short as it can be read.
fn tick_text(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{}k", value / 1000.0),
        size if size >= 10.0 || size == 0.0 => format!("{value:.0}"),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

/// Where a text is put against its point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

impl Anchor {
    const fn text(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A rectangle of the page, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Left edge.
    pub(crate) left: f64,
    /// Upper edge.
    pub(crate) top: f64,
    /// Width.
    pub(crate) width: f64,
    /// Height.
    pub(crate) height: f64,
}

/// A page with a title.
pub(crate) struct Page {
    body: String,
    width: f64,
    height: f64,
}

impl Page {
    /// An empty page. `subtitle` says how to read it.
    pub(crate) fn new(width: f64, height: f64, title: &str, subtitle: &str) -> Self {
        let mut page = Self { body: String::new(), width, height };
        page.styled_text(24.0, 32.0, Anchor::Start, 18, INK, "600", title);
        page.styled_text(24.0, 52.0, Anchor::Start, 12, MUTED, "400", subtitle);
        page
    }

    /// A text of 12 pixels.
    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, color: &str, text: &str) {
        self.styled_text(x, y, anchor, 12, color, "400", text);
    }

    /// A text of 13 pixels, bold.
    pub(crate) fn heading(&mut self, x: f64, y: f64, color: &str, text: &str) {
        self.styled_text(x, y, Anchor::Start, 13, color, "600", text);
    }

    #[expect(clippy::too_many_arguments, reason = "one place where all of SVG's text attributes meet")]
    fn styled_text(&mut self, x: f64, y: f64, anchor: Anchor, size: u32, color: &str, weight: &str, text: &str) {
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="{weight}" fill="{color}" text-anchor="{}">{}</text>"#,
            anchor.text(),
            escaped(text)
        ));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        self.push(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{color}" stroke-width="{width}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line through points.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#,
            points.join(" ")
        ));
    }

    /// A filled circle.
    pub(crate) fn dot(&mut self, at: (f64, f64), radius: f64, color: &str) {
        self.push(format_args!(
            r##"<circle cx="{:.1}" cy="{:.1}" r="{radius}" fill="{color}" stroke="#ffffff" stroke-width="1"/>"##,
            at.0, at.1
        ));
    }

    /// A filled rectangle.
    pub(crate) fn bar(&mut self, frame: Frame, color: &str) {
        let Frame { left, top, width, height } = frame;
        self.push(format_args!(
            r#"<rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#
        ));
    }

    /// Axes with marks, grid and titles around `frame`.
    pub(crate) fn axes(&mut self, frame: Frame, x: &Axis, y: &Axis) {
        let Frame { left, top, width, height } = frame;
        let (right, bottom) = (left + width, top + height);
        for tick in x.ticks() {
            let at = left + x.place(tick) * width;
            self.line((at, top), (at, bottom), FAINT, 0.6);
            self.text(at, bottom + 17.0, Anchor::Middle, MUTED, &tick_text(tick));
        }
        for tick in y.ticks() {
            let at = bottom - y.place(tick) * height;
            self.line((left, at), (right, at), FAINT, 0.6);
            self.text(left - 7.0, at + 4.0, Anchor::End, MUTED, &tick_text(tick));
        }
        self.line((left, bottom), (right, bottom), INK, 1.0);
        self.line((left, top), (left, bottom), INK, 1.0);
        self.text(left + width / 2.0, bottom + 36.0, Anchor::Middle, INK, &x.title);
        let (at_x, at_y) = (left - 46.0, top + height / 2.0);
        self.push(format_args!(
            r#"<text transform="translate({at_x:.1} {at_y:.1}) rotate(-90)" font-size="12" fill="{INK}" text-anchor="middle">{}</text>"#,
            escaped(&y.title)
        ));
    }

    /// The finished file.
    pub(crate) fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.body, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
