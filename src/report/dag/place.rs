//! The columns: each point near its neighbours above and below, none too near the next.
//!
//! A row's best places under its order are a least-squares problem with bounds, which pooling neighbours solves exactly
//! ([`fit`]). Sweeps down and up solve it row by row.

use super::net::Net;

/// How much more a passage counts than a stage: long lines stay straight and stages make room.
const PASSAGE: f64 = 1000.0;

/// How many sweeps down and up.
const SWEEPS: usize = 6;

/// Sizes of what is placed.
pub struct Sizes<'a> {
    /// The width of each point.
    pub width: &'a [f64],
    /// The least room between two points.
    pub gap: &'a dyn Fn(usize, usize) -> f64,
    /// How far from the middles of its ends a link leaves and arrives, by its index.
    pub ends: &'a [(f64, f64)],
}

/// The middle of each point; the leftmost edge is at 0 or right of it.
pub fn columns(net: &Net, sizes: &Sizes) -> Vec<f64> {
    let (mut above, mut below) = (vec![Vec::new(); net.row.len()], vec![Vec::new(); net.row.len()]);
    for (link, (leaves, arrives)) in net.links.iter().zip(sizes.ends) {
        above[link.lower].push((link.upper, leaves - arrives));
        below[link.upper].push((link.lower, arrives - leaves));
    }
    let mut x = packed(net, sizes);
    for _ in 0..SWEEPS {
        for row in &net.rows {
            settle(net, sizes, row, &above, &mut x);
        }
        for row in net.rows.iter().rev() {
            settle(net, sizes, row, &below, &mut x);
        }
    }
    // Lines are as straight as they get; stages may still move between both sides.
    for row in net.rows.iter().chain(net.rows.iter().rev()) {
        let held: Vec<(f64, f64)> = row.iter().map(|&point| wanted(net, point, &[&above, &below], &x)).collect();
        let held =
            row.iter().zip(held).map(|(&point, pull)| if net.is_passage(point) { (x[point], PASSAGE) } else { pull });
        move_to(&held.collect::<Vec<_>>(), sizes, row, &mut x);
    }
    let left = x.iter().zip(sizes.width).map(|(x, width)| x - width / 2.0).fold(f64::INFINITY, f64::min);
    x.into_iter().map(|x| (x - left).round()).collect()
}

/// Rows pushed together around a common middle.
fn packed(net: &Net, sizes: &Sizes) -> Vec<f64> {
    let mut x = vec![0.0; net.row.len()];
    for row in &net.rows {
        let apart = apart(row, sizes);
        let wide: f64 = apart.iter().sum();
        let mut at = -wide / 2.0;
        for (place, &point) in row.iter().enumerate() {
            x[point] = at;
            at += apart.get(place).copied().unwrap_or(0.0);
        }
    }
    x
}

/// How far the middles of a row's points must be apart.
fn apart(row: &[usize], sizes: &Sizes) -> Vec<f64> {
    let between = |pair: &[usize]| (sizes.width[pair[0]] + sizes.width[pair[1]]) / 2.0 + (sizes.gap)(pair[0], pair[1]);
    row.windows(2).map(between).collect()
}

/// The ends of a point's links in one direction, and how far off they want it.
type Pulls = Vec<Vec<(usize, f64)>>;

/// Places a row as its neighbours in one direction want it.
fn settle(net: &Net, sizes: &Sizes, row: &[usize], neighbours: &Pulls, x: &mut [f64]) {
    let wanted: Vec<(f64, f64)> = row.iter().map(|&point| wanted(net, point, &[neighbours], x)).collect();
    move_to(&wanted, sizes, row, x);
}

fn move_to(wanted: &[(f64, f64)], sizes: &Sizes, row: &[usize], x: &mut [f64]) {
    for (&point, place) in row.iter().zip(fit(wanted, &apart(row, sizes))) {
        x[point] = place;
    }
}

/// Where a point's neighbours want it, and how much that counts. A passage follows passages alone: then its line is straight.
fn wanted(net: &Net, point: usize, neighbours: &[&Pulls], x: &[f64]) -> (f64, f64) {
    let pulls = || neighbours.iter().flat_map(|all| &all[point]);
    let passages = net.is_passage(point) && pulls().any(|(other, _)| net.is_passage(*other));
    let counts = |other: usize| !passages || net.is_passage(other);
    let (mut sum, mut many) = (0.0, 0.0);
    for &(other, off) in pulls().filter(|(other, _)| counts(*other)) {
        sum += x[other] + off;
        many += 1.0;
    }
    match (many, net.is_passage(point)) {
        (0.0, _) => (x[point], 0.1),
        (many, true) => (sum / many, PASSAGE),
        (many, false) => (sum / many, many),
    }
}

/// The places nearest to wanted ones, by weighted squares, that keep their order and so far apart.
fn fit(wanted: &[(f64, f64)], apart: &[f64]) -> Vec<f64> {
    // Without the room that they must keep, places only may not fall: pool those that would until none does.
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    let mut offset = 0.0;
    for (place, &(want, weight)) in wanted.iter().enumerate() {
        if place > 0 {
            offset += apart[place - 1];
        }
        let mut pool = (want - offset, weight, 1);
        while let Some(&before) = pools.last()
            && before.0 > pool.0
        {
            let weight = before.1 + pool.1;
            pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    let mut offset = 0.0;
    let level = pools.into_iter().flat_map(|(at, _, many)| std::iter::repeat_n(at, many));
    let place = |(place, at): (usize, f64)| {
        if place > 0 {
            offset += apart[place - 1];
        }
        at + offset
    };
    level.enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn places_keep_apart_and_near_what_is_wanted() {
        assert_eq!(fit(&[(0.0, 1.0), (50.0, 1.0)], &[10.0]), [0.0, 50.0]);
        assert_eq!(fit(&[(0.0, 1.0), (0.0, 1.0)], &[10.0]), [-5.0, 5.0]);
        assert_eq!(fit(&[(0.0, 1.0), (0.0, 3.0)], &[20.0]), [-15.0, 5.0]);
        assert_eq!(fit(&[(9.0, 1.0), (0.0, 1.0), (0.0, 1.0)], &[3.0, 3.0]), [0.0, 3.0, 6.0]);
        assert_eq!(fit(&[], &[]), [] as [f64; 0]);
    }
}
