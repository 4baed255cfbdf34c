//! Stages and the points at which long connections pass the rows between: a graph whose links all join neighbouring rows.

use std::collections::BTreeMap;

use super::Dag;

/// What is placed in rows. The first points are the stages, the rest are points of passage.
pub struct Net {
    /// The row of each point.
    pub row: Vec<usize>,
    /// The points of each row, in their order.
    pub rows: Vec<Vec<usize>>,
    /// The links: upper point, lower point, and the edge that they belong to, the first of those that share them.
    pub links: Vec<Link>,
    /// Of each edge the points of passage from above to below.
    pub routes: Vec<Vec<usize>>,
    /// How many points are stages.
    pub stages: usize,
}

/// A link between neighbouring rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The point in the upper row.
    pub upper: usize,
    /// The point in the row below.
    pub lower: usize,
    /// The first edge that uses it.
    pub edge: usize,
}

/// The line that long edges share on their way: from an output that many far stages read, or to a stage that reads many.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trunk {
    From(usize, String),
    To(usize),
}

impl Net {
    /// Leads each edge through the rows between its stages.
    pub fn new(dag: &Dag, row: Vec<usize>) -> Self {
        let trunks = trunks(dag, &row);
        let mut net = Self {
            rows: vec![Vec::new(); row.iter().max().map_or(0, |last| last + 1)],
            stages: row.len(),
            row,
            links: Vec::new(),
            routes: Vec::new(),
        };
        let mut passages: BTreeMap<(Trunk, usize), usize> = BTreeMap::new();
        let mut known: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (index, (edge, trunk)) in dag.edges.iter().zip(trunks).enumerate() {
            let mut route = Vec::new();
            for row in net.row[edge.from] + 1..net.row[edge.to] {
                let points = &mut net.row;
                route.push(*passages.entry((trunk.clone(), row)).or_insert_with(|| {
                    points.push(row);
                    points.len() - 1
                }));
            }
            let mut upper = edge.from;
            for &lower in route.iter().chain([&edge.to]) {
                // Outputs leave a stage at places of their own, so only what lies between passages is one link for many.
                let own = upper < net.stages && lower < net.stages;
                if own || known.insert((upper, lower), index).is_none() {
                    net.links.push(Link { upper, lower, edge: index });
                }
                upper = lower;
            }
            net.routes.push(route);
        }
        net.rows = in_first_order(&net);
        net
    }

    /// Whether a point is a passage.
    pub fn is_passage(&self, point: usize) -> bool {
        point >= self.stages
    }

    /// The links' ends above and below each point.
    pub fn neighbours(&self) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let (mut above, mut below) = (vec![Vec::new(); self.row.len()], vec![Vec::new(); self.row.len()]);
        for link in &self.links {
            above[link.lower].push(link.upper);
            below[link.upper].push(link.lower);
        }
        (above, below)
    }
}

/// The trunk of each edge: that of its end with more long edges.
fn trunks(dag: &Dag, row: &[usize]) -> Vec<Trunk> {
    let (mut leaving, mut coming) = (BTreeMap::new(), BTreeMap::new());
    for edge in dag.edges.iter().filter(|edge| row[edge.to] > row[edge.from] + 1) {
        *leaving.entry((edge.from, edge.port.as_str())).or_insert(0) += 1;
        *coming.entry(edge.to).or_insert(0) += 1;
    }
    let trunk = |edge: &super::Edge| {
        let out = leaving.get(&(edge.from, edge.port.as_str())).copied().unwrap_or(0);
        if coming.get(&edge.to).copied().unwrap_or(0) > out {
            Trunk::To(edge.to)
        } else {
            Trunk::From(edge.from, edge.port.clone())
        }
    };
    dag.edges.iter().map(trunk).collect()
}

/// Rows in the order in which a walk from the top, depth first, meets their points: what belongs together stands together.
fn in_first_order(net: &Net) -> Vec<Vec<usize>> {
    let (_, below) = net.neighbours();
    let mut rows = vec![Vec::new(); net.rows.len()];
    let mut seen = vec![false; net.row.len()];
    let mut starts: Vec<usize> = (0..net.row.len()).collect();
    starts.sort_by_key(|&point| (net.row[point], point));
    for start in starts {
        let mut stack = vec![start];
        while let Some(point) = stack.pop() {
            if !std::mem::replace(&mut seen[point], true) {
                rows[net.row[point]].push(point);
                stack.extend(below[point].iter().rev().filter(|&&lower| !seen[lower]));
            }
        }
    }
    rows
}
