//! Where everything of a drawing is, in CSS pixels from the upper left corner.

use std::collections::{BTreeMap, HashMap};

use super::net::Net;
use super::place::{Sizes, columns};
use super::{Dag, crossings, rows, text};

/// The size of the first line of a box.
pub const LARGE: f64 = 13.0;
/// How much wider bold text is.
pub const BOLD: f64 = 1.12;
/// The size of the other lines of a box.
pub const SMALL: f64 = 11.0;
/// The size of the names of outputs.
pub const TINY: f64 = 10.0;

/// The room around the drawing.
const MARGIN: f64 = 16.0;
/// The widths that boxes have, where their outputs need no more.
const NARROW: f64 = 124.0;
const WIDE: f64 = 260.0;
/// The room left and right of the text in a box.
pub const INSET: f64 = 14.0;
/// The height of a box of two lines, and what a third adds.
const HEIGHT: f64 = 46.0;
const LINE: f64 = 15.0;
/// The least height between rows, and the most that wide swings add.
const BETWEEN: f64 = 46.0;
const MORE: f64 = 70.0;

/// A drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The width of all.
    pub width: f64,
    /// The height of all.
    pub height: f64,
    /// A box for each stage.
    pub boxes: Vec<Area>,
    /// The outputs that are read.
    pub outputs: Vec<Output>,
    /// A line for each edge.
    pub lines: Vec<Line>,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Area {
    /// Its left side.
    pub x: f64,
    /// Its upper side.
    pub y: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// Where an output leaves its stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The stage's index.
    pub stage: usize,
    /// The port.
    pub port: String,
    /// The place, on the lower side of the stage's box.
    pub x: f64,
    /// Its height.
    pub y: f64,
}

/// The way of an edge: straight down at these places, bent between them, where no box is.
#[derive(Clone, Debug, PartialEq)]
pub struct Line(pub Vec<Straight>);

/// A vertical piece of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Straight {
    /// Where it is.
    pub x: f64,
    /// Its upper end.
    pub top: f64,
    /// Its lower end.
    pub bottom: f64,
}

/// Lays a pipeline out.
pub fn layout(dag: &Dag) -> Layout {
    let row = rows::rows(dag.stages.len(), &dag.pairs());
    let mut net = Net::new(dag, row);
    if net.rows.is_empty() {
        return Layout { width: 2.0 * MARGIN, height: 2.0 * MARGIN, boxes: vec![], outputs: vec![], lines: vec![] };
    }
    crossings::reduce(&mut net);
    let outputs = outputs(dag);
    let sizes: Vec<(f64, f64)> = (0..dag.stages.len()).map(|stage| size(dag, stage, &outputs)).collect();
    let width: Vec<f64> = (0..net.row.len()).map(|point| sizes.get(point).map_or(2.0, |size| size.0)).collect();
    let gap = |one: usize, other: usize| match (net.is_passage(one), net.is_passage(other)) {
        (false, false) => 28.0,
        (true, true) => 12.0,
        _ => 16.0,
    };
    // Lines leave and arrive in the order of where they go, which is known only when all is placed once.
    let none = vec![(0.0, 0.0); net.links.len()];
    let x = columns(&net, &Sizes { width: &width, gap: &gap, ends: &none });
    let ends = Ends::new(dag, &net, &x, &width);
    let of_links: Vec<(f64, f64)> = net.links.iter().map(|link| ends.of_link(dag, &net, link)).collect();
    let x = columns(&net, &Sizes { width: &width, gap: &gap, ends: &of_links });
    Drawing { dag, net: &net, x: &x, sizes: &sizes, ends: &ends }.draw()
}

/// The outputs of each stage that are read, by name.
fn outputs(dag: &Dag) -> Vec<Vec<&str>> {
    let mut outputs: Vec<Vec<&str>> = vec![Vec::new(); dag.stages.len()];
    for edge in &dag.edges {
        outputs[edge.from].push(&edge.port);
    }
    for ports in &mut outputs {
        ports.sort_unstable();
        ports.dedup();
    }
    outputs
}

/// How far an output's line is from the next one's: its name stands between.
fn step(port: &str) -> f64 {
    (text::width(port, TINY) + 12.0).max(24.0).round()
}

/// The width and height of a stage's box: its text, and the names of its outputs below it.
fn size(dag: &Dag, stage: usize, outputs: &[Vec<&str>]) -> (f64, f64) {
    let (name, values) = text::parts(&dag.stages[stage].name);
    let values_width = values.as_deref().map_or(0.0, |values| text::width(values, SMALL));
    let last = text::width(&dag.stages[stage].kind, SMALL) + text::width(&super::svg::state(&dag.stages[stage]), SMALL);
    let text = text::width(name, LARGE * BOLD).max(values_width).max(last + 12.0) + 2.0 * INSET;
    // The middle is the middle of the lines, the last name stands right of the last line.
    let names = outputs[stage].iter().map(|port| step(port)).sum::<f64>();
    let widest = outputs[stage].iter().map(|port| step(port)).fold(0.0, f64::max);
    let width = text.clamp(NARROW, WIDE).max(names + widest);
    // Even, so that its middle is a whole pixel.
    ((width / 2.0).ceil() * 2.0, HEIGHT + if values.is_some() { LINE } else { 0.0 })
}

/// How an edge comes to the stage that reads it: through a passage, which others may share, or from an output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Arrival<'a> {
    Passage(usize),
    Output(usize, &'a str),
}

fn arrival<'a>(dag: &'a Dag, net: &Net, edge: usize) -> Arrival<'a> {
    match net.routes[edge].last() {
        Some(&passage) => Arrival::Passage(passage),
        None => Arrival::Output(dag.edges[edge].from, &dag.edges[edge].port),
    }
}

/// How far from the middle of its stage each output leaves and each line arrives.
struct Ends<'a> {
    leaves: HashMap<(usize, &'a str), f64>,
    arrives: HashMap<(usize, Arrival<'a>), f64>,
}

impl<'a> Ends<'a> {
    fn new(dag: &'a Dag, net: &Net, x: &[f64], width: &[f64]) -> Self {
        let mut towards: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
        for (edge, route) in dag.edges.iter().zip(&net.routes) {
            towards.entry((edge.from, &edge.port)).or_default().push(x[route.first().copied().unwrap_or(edge.to)]);
        }
        let mut leaving: BTreeMap<usize, Vec<(f64, &str)>> = BTreeMap::new();
        for ((stage, port), all) in towards {
            leaving.entry(stage).or_default().push((all.iter().sum::<f64>() / all.len() as f64, port));
        }
        let mut leaves = HashMap::new();
        for (stage, mut ports) in leaving {
            ports.sort_by(|one, other| one.0.total_cmp(&other.0));
            let all: f64 = ports[..ports.len() - 1].iter().map(|(_, port)| step(port)).sum();
            let mut at = (-all / 2.0).round();
            for (_, port) in ports {
                leaves.insert((stage, port), at);
                at += step(port);
            }
        }
        let mut arriving: BTreeMap<usize, BTreeMap<Arrival, f64>> = BTreeMap::new();
        for (index, edge) in dag.edges.iter().enumerate() {
            let how = arrival(dag, net, index);
            let from = match how {
                Arrival::Passage(passage) => x[passage],
                Arrival::Output(stage, port) => x[stage] + leaves[&(stage, port)],
            };
            arriving.entry(edge.to).or_default().insert(how, from);
        }
        let mut arrives = HashMap::new();
        for (stage, all) in arriving {
            let mut all: Vec<(f64, Arrival)> = all.into_iter().map(|(how, from)| (from, how)).collect();
            all.sort_by(|one, other| one.0.total_cmp(&other.0));
            let step = ((width[stage] - 24.0) / all.len() as f64).min(16.0);
            let first = step * (all.len() - 1) as f64 / -2.0;
            for (place, (_, how)) in all.into_iter().enumerate() {
                arrives.insert((stage, how), (first + step * place as f64).round());
            }
        }
        Self { leaves, arrives }
    }

    fn leaving(&self, dag: &'a Dag, edge: usize) -> f64 {
        let edge = &dag.edges[edge];
        self.leaves.get(&(edge.from, edge.port.as_str())).copied().unwrap_or(0.0)
    }

    fn arriving(&self, dag: &'a Dag, net: &Net, edge: usize) -> f64 {
        self.arrives.get(&(dag.edges[edge].to, arrival(dag, net, edge))).copied().unwrap_or(0.0)
    }

    fn of_link(&self, dag: &'a Dag, net: &Net, link: &super::net::Link) -> (f64, f64) {
        let leaves = if net.is_passage(link.upper) { 0.0 } else { self.leaving(dag, link.edge) };
        let arrives = if net.is_passage(link.lower) { 0.0 } else { self.arriving(dag, net, link.edge) };
        (leaves, arrives)
    }
}

/// Everything that a drawing is made of.
struct Drawing<'a> {
    dag: &'a Dag,
    net: &'a Net,
    x: &'a [f64],
    sizes: &'a [(f64, f64)],
    ends: &'a Ends<'a>,
}

impl Drawing<'_> {
    fn draw(&self) -> Layout {
        let bands = self.bands();
        let area = |(stage, &(width, height)): (usize, &(f64, f64))| {
            let (top, bottom) = bands[self.net.row[stage]];
            let y = ((top + bottom - height) / 2.0).floor();
            Area { x: MARGIN + self.x[stage] - width / 2.0, y, width, height }
        };
        let boxes: Vec<Area> = self.sizes.iter().enumerate().map(area).collect();
        let lines: Vec<Line> = (0..self.dag.edges.len()).map(|edge| self.line(edge, &boxes, &bands)).collect();
        let mut leaves: Vec<(&(usize, &str), &f64)> = self.ends.leaves.iter().collect();
        leaves.sort_by(|one, other| one.0.cmp(other.0));
        let output = |(&(stage, port), off): (&(usize, &str), &f64)| Output {
            stage,
            port: port.to_owned(),
            x: MARGIN + self.x[stage] + off,
            y: boxes[stage].y + boxes[stage].height,
        };
        let outputs = leaves.into_iter().map(output).collect();
        let right_of_boxes = boxes.iter().map(|area| area.x + area.width);
        let right_of_lines = lines.iter().flat_map(|line| line.0.iter().map(|piece| piece.x));
        let width = right_of_boxes.chain(right_of_lines).fold(0.0, f64::max) + MARGIN;
        let height = bands.last().map_or(0.0, |band| band.1) + MARGIN;
        Layout { width, height, boxes, outputs, lines }
    }

    /// Where each row begins and ends: as high as its highest box, and further from the next the further lines swing between.
    fn bands(&self) -> Vec<(f64, f64)> {
        let mut swing = vec![0.0_f64; self.net.rows.len()];
        for link in &self.net.links {
            let (leaves, arrives) = self.ends.of_link(self.dag, self.net, link);
            let wide = (self.x[link.upper] + leaves - self.x[link.lower] - arrives).abs();
            let row = self.net.row[link.upper];
            swing[row] = swing[row].max(wide);
        }
        let mut top = MARGIN;
        let band = |(row, points): (usize, &Vec<usize>)| {
            let high = points.iter().filter_map(|&point| self.sizes.get(point)).map(|size| size.1).fold(0.0, f64::max);
            let band = (top, top + high);
            top += high + BETWEEN + (swing[row] * 0.08).min(MORE).round();
            band
        };
        self.net.rows.iter().enumerate().map(band).collect()
    }

    fn line(&self, edge: usize, boxes: &[Area], bands: &[(f64, f64)]) -> Line {
        let super::Edge { from, to, .. } = self.dag.edges[edge];
        let leaves = MARGIN + self.x[from] + self.ends.leaving(self.dag, edge);
        let arrives = MARGIN + self.x[to] + self.ends.arriving(self.dag, self.net, edge);
        let bottom = boxes[from].y + boxes[from].height;
        let mut pieces = vec![Straight { x: leaves, top: bottom, bottom: bands[self.net.row[from]].1 }];
        for &passage in &self.net.routes[edge] {
            let (top, bottom) = bands[self.net.row[passage]];
            pieces.push(Straight { x: MARGIN + self.x[passage], top, bottom });
        }
        pieces.push(Straight { x: arrives, top: bands[self.net.row[to]].0, bottom: boxes[to].y });
        Line(pieces)
    }
}
