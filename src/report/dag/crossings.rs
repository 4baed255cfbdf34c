//! The order of the points in each row: few lines cross.
//!
//! Sweeps down and up put each point at the mean place of its neighbours in the row before (the barycentre heuristic); between
//! them neighbours change places where that helps. The best order met is kept.

use super::net::Net;

/// The most sweeps down and up.
const SWEEPS: usize = 24;

/// How many sweeps without a gain end it.
const PATIENCE: usize = 4;

/// About how many points and links all sweeps together may look at: pictures of thousands of stages take seconds, not minutes.
const WORK: usize = 4_000_000;

/// Orders the rows of a net.
pub fn reduce(net: &mut Net) {
    let (above, below) = net.neighbours();
    let mut at = positions(net);
    let mut best = (crossings(net, &at), net.rows.clone());
    let sweeps = (WORK / (net.row.len() + net.links.len()).max(1)).clamp(1, SWEEPS);
    let mut without_gain = 0;
    for sweep in 0..sweeps {
        if best.0 == 0 || without_gain == PATIENCE {
            break;
        }
        let last = net.rows.len() - 1;
        for step in 1..=last {
            let (row, fixed) = if sweep % 2 == 0 { (step, &above) } else { (last - step, &below) };
            by_mean(&mut net.rows[row], fixed, &mut at);
        }
        for row in &mut net.rows {
            exchange(row, &above, &below, &mut at);
        }
        let now = crossings(net, &at);
        without_gain += 1;
        if now < best.0 {
            best = (now, net.rows.clone());
            without_gain = 0;
        }
    }
    net.rows = best.1;
}

fn positions(net: &Net) -> Vec<usize> {
    let mut at = vec![0; net.row.len()];
    for row in &net.rows {
        for (place, &point) in row.iter().enumerate() {
            at[point] = place;
        }
    }
    at
}

/// Sorts a row by the mean places of its points' neighbours; points without any keep theirs.
fn by_mean(row: &mut [usize], neighbours: &[Vec<usize>], at: &mut [usize]) {
    let mean = |point: usize| {
        let all = &neighbours[point];
        all.iter().map(|&other| at[other] as f64).sum::<f64>() / all.len() as f64
    };
    let mut sorted: Vec<(f64, usize)> =
        row.iter().filter(|&&point| !neighbours[point].is_empty()).map(|&point| (mean(point), point)).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut sorted = sorted.into_iter().map(|(_, point)| point);
    for place in 0..row.len() {
        if !neighbours[row[place]].is_empty() {
            row[place] = sorted.next().unwrap_or(row[place]);
        }
        at[row[place]] = place;
    }
}

/// Lets points next to each other change places as long as fewer of their lines cross then.
fn exchange(row: &mut [usize], above: &[Vec<usize>], below: &[Vec<usize>], at: &mut [usize]) {
    for _ in 0..row.len().min(8) {
        let mut changed = false;
        for place in 1..row.len() {
            let (left, right) = (row[place - 1], row[place]);
            let between = |one: usize, other: usize| {
                pairs(&above[one], &above[other], at) + pairs(&below[one], &below[other], at)
            };
            if between(right, left) < between(left, right) {
                row.swap(place - 1, place);
                (at[right], at[left]) = (place - 1, place);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}

/// How many lines of two points cross where the first stands left of the second.
fn pairs(left: &[usize], right: &[usize], at: &[usize]) -> usize {
    let mut of_left: Vec<usize> = left.iter().map(|&point| at[point]).collect();
    of_left.sort_unstable();
    right.iter().map(|&point| of_left.len() - of_left.partition_point(|&other| other <= at[point])).sum()
}

/// How many lines cross in all: inversions of the lower ends when lines are sorted by their upper ones, counted in a tree of
/// sums (Barth, Jünger, Mutzel 2002).
fn crossings(net: &Net, at: &[usize]) -> usize {
    let mut between: Vec<Vec<(usize, usize)>> = vec![Vec::new(); net.rows.len()];
    for link in &net.links {
        between[net.row[link.upper]].push((at[link.upper], at[link.lower]));
    }
    let mut total = 0;
    for (row, lines) in between.iter_mut().enumerate().filter(|(_, lines)| !lines.is_empty()) {
        lines.sort_unstable();
        let mut sums = vec![0_usize; net.rows[row + 1].len() + 1];
        for (before, &(_, lower)) in lines.iter().enumerate() {
            let (mut up_to, mut place) = (0, lower + 1);
            while place > 0 {
                up_to += sums[place];
                place &= place - 1;
            }
            total += before - up_to;
            let mut place = lower + 1;
            while place < sums.len() {
                sums[place] += 1;
                place += place & place.wrapping_neg();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::tests::dag;
    use super::*;

    #[test]
    fn lines_are_uncrossed() {
        let dag = dag(6, &[(0, 5), (1, 4), (2, 3), (0, 4)]);
        let mut net = Net::new(&dag, vec![0, 0, 0, 1, 1, 1]);
        net.rows = vec![vec![0, 1, 2], vec![3, 4, 5]];
        let at = positions(&net);
        assert_eq!(crossings(&net, &at), 4);
        reduce(&mut net);
        let at = positions(&net);
        assert_eq!(crossings(&net, &at), 0);
    }
}
