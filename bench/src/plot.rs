//! Two kinds of plots as SVG: values with their ranges, and curves; both with logarithmic axes.

use std::fmt::Write;

const COLOURS: [&str; 9] = [
    "#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e", "#117a65", "#5d6d7e", "#909497",
    "#000000",
];

pub struct Range<'a> {
    pub name: &'a str,
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub label: String,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let content = escape(content);
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>")
        .unwrap();
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    )
    .unwrap();
}

/// A logarithmic axis from `low` to `high`, both rounded outwards to powers of ten.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Axis {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
        let high = values.fold(f64::NEG_INFINITY, f64::max).log10().ceil() as i32;
        Axis { low, high: high.max(low + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10f64.powi(power))
    }
}

const GRID: &str = "stroke=\"#dddddd\"";

/// One row for each contender: the median as a point on its range.
pub fn ranges(panels: &[(String, Vec<Range>)], tick: impl Fn(usize, f64) -> String) -> String {
    let (left, width, row) = (190.0, 800.0, 22.0);
    let right = width - 110.0;
    let height: f64 = panels.iter().map(|panel| panel.1.len() as f64 * row + 66.0).sum();
    let mut svg = begin(width, height);
    let mut top = 0.0;
    for (number, (title, rows)) in panels.iter().enumerate() {
        text(&mut svg, left, top + 20.0, "start", title);
        let bottom = top + 32.0 + rows.len() as f64 * row;
        let values = rows.iter().flat_map(|row| [row.least, row.most]);
        let axis = Axis::new(values, left, right);
        for value in axis.ticks() {
            line(&mut svg, (axis.at(value), top + 28.0), (axis.at(value), bottom), GRID);
            text(&mut svg, axis.at(value), bottom + 15.0, "middle", &tick(number, value));
        }
        for (number, range) in rows.iter().enumerate() {
            let y = top + 32.0 + (number as f64 + 0.5) * row;
            let colour = COLOURS[number % COLOURS.len()];
            text(&mut svg, left - 8.0, y + 4.0, "end", range.name);
            let style = format!("stroke=\"{colour}\" stroke-width=\"2\"");
            line(&mut svg, (axis.at(range.least), y), (axis.at(range.most), y), &style);
            let x = axis.at(range.median);
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>")
                .unwrap();
            text(&mut svg, right + 10.0, y + 4.0, "start", &range.label);
        }
        top = bottom + 34.0;
    }
    svg + "</svg>\n"
}

/// Medians over x, one curve for each contender.
pub fn curves(
    title: &str,
    x_title: &str,
    xs: &[u64],
    curves: &[(&str, Vec<f64>)],
    tick: impl Fn(f64) -> String,
) -> String {
    let (left, right, top, bottom) = (80.0, 600.0, 36.0, 320.0);
    let mut svg = begin(800.0, 370.0);
    text(&mut svg, left, 20.0, "start", title);
    let x_axis = Axis::new(xs.iter().map(|&x| x as f64), left, right);
    let values = curves.iter().flat_map(|curve| curve.1.iter().copied()).filter(|y| !y.is_nan());
    let y_axis = Axis::new(values, bottom, top);
    for value in y_axis.ticks() {
        line(&mut svg, (left, y_axis.at(value)), (right, y_axis.at(value)), GRID);
        text(&mut svg, left - 8.0, y_axis.at(value) + 4.0, "end", &tick(value));
    }
    for &x in xs {
        line(&mut svg, (x_axis.at(x as f64), top), (x_axis.at(x as f64), bottom), GRID);
        let name = crate::workloads::count_name(x);
        text(&mut svg, x_axis.at(x as f64), bottom + 16.0, "middle", &name);
    }
    text(&mut svg, (left + right) / 2.0, bottom + 38.0, "middle", x_title);
    for (number, (name, ys)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = xs
            .iter()
            .zip(ys)
            .map(|(&x, &y)| format!("{:.1},{:.1}", x_axis.at(x as f64), y_axis.at(y)))
            .collect();
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        )
        .unwrap();
        for (&x, &y) in xs.iter().zip(ys) {
            let (x, y) = (x_axis.at(x as f64), y_axis.at(y));
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")
                .unwrap();
        }
        let y = top + 20.0 * number as f64;
        line(
            &mut svg,
            (right + 16.0, y),
            (right + 36.0, y),
            &format!("stroke=\"{colour}\" stroke-width=\"3\""),
        );
        text(&mut svg, right + 42.0, y + 4.0, "start", name);
    }
    svg + "</svg>\n"
}
