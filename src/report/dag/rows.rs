//! Which row each stage stands in: below everything it reads, with short connections, and no row too wide.

use std::collections::{BTreeMap, VecDeque};

/// The most stages of a row, whatever there are; more only where a square of them is wider.
const WIDE: usize = 8;

/// The places of stages in an order in which each comes after what it reads. Of stages that wait for each other the first by
/// index comes first.
pub fn places(stages: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut readers = vec![Vec::new(); stages];
    let mut waits = vec![0_usize; stages];
    for &(from, to) in edges {
        readers[from].push(to);
        waits[to] += 1;
    }
    let mut ready: VecDeque<usize> = (0..stages).filter(|&stage| waits[stage] == 0).collect();
    let mut place = vec![usize::MAX; stages];
    let (mut next, mut stuck) = (0, 0);
    while next < stages {
        let Some(stage) = ready.pop_front() else {
            while place[stuck] != usize::MAX {
                stuck += 1;
            }
            ready.push_back(stuck);
            continue;
        };
        if place[stage] != usize::MAX {
            continue;
        }
        place[stage] = next;
        next += 1;
        for &reader in &readers[stage] {
            waits[reader] = waits[reader].saturating_sub(1);
            if waits[reader] == 0 && place[reader] == usize::MAX {
                ready.push_back(reader);
            }
        }
    }
    place
}

/// The row of each stage, counted from the top. The edges form no circle.
pub fn rows(stages: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let place = places(stages, edges);
    let mut order: Vec<usize> = (0..stages).collect();
    order.sort_by_key(|&stage| place[stage]);
    let (mut above, mut below) = (vec![Vec::new(); stages], vec![Vec::new(); stages]);
    for &(from, to) in edges {
        above[to].push(from);
        below[from].push(to);
    }
    let mut row = vec![0; stages];
    for &stage in &order {
        row[stage] = above[stage].iter().map(|&from| row[from] + 1).max().unwrap_or(0);
    }
    tighten(&order, &above, &below, &mut row);
    split(&order, &above, &below, &row)
}

/// Brings stages nearer to what they are connected with. Twice: what moved down may make room for more. Stages with as many
/// connections up as down go down first, so that those above may follow, and come back up where that gained nothing.
fn tighten(order: &[usize], above: &[Vec<usize>], below: &[Vec<usize>], row: &mut [usize]) {
    for _ in 0..2 {
        for &stage in order.iter().rev().filter(|&&stage| below[stage].len() >= above[stage].len()) {
            if let Some(lowest) = below[stage].iter().map(|&to| row[to] - 1).min() {
                row[stage] = lowest;
            }
        }
        for &stage in order.iter().filter(|&&stage| above[stage].len() >= below[stage].len()) {
            if let Some(highest) = above[stage].iter().map(|&from| row[from] + 1).max() {
                row[stage] = highest;
            }
        }
    }
}

/// Parts rows of too many stages into several. What is parted alike, as the stages of a matrix and those that read one each,
/// stays together: the first part of all rows comes before the second of any.
fn split(order: &[usize], above: &[Vec<usize>], below: &[Vec<usize>], row: &[usize]) -> Vec<usize> {
    let widest = WIDE.max((row.len() as f64).sqrt().ceil() as usize);
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (stage, &row) in row.iter().enumerate() {
        members.entry(row).or_default().push(stage);
    }
    let mut part = vec![0; row.len()];
    for members in members.values() {
        let parts = members.len().div_ceil(widest);
        for (at, &stage) in members.iter().enumerate() {
            part[stage] = at * parts / members.len();
        }
    }
    for &stage in order {
        let needs = above[stage].iter().map(|&from| part[from]).max().unwrap_or(0);
        part[stage] = part[stage].max(needs);
    }
    // What is read later only comes later itself.
    for &stage in order.iter().rev().filter(|&&stage| below[stage].len() > above[stage].len()) {
        let needed = below[stage].iter().map(|&to| part[to]).min().unwrap_or(0);
        part[stage] = part[stage].max(needed);
    }
    let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for stage in 0..row.len() {
        groups.entry((part[stage], row[stage])).or_default().push(stage);
    }
    let mut split = vec![0; row.len()];
    let mut next = 0;
    for members in groups.values() {
        let parts = members.len().div_ceil(widest);
        for (at, &stage) in members.iter().enumerate() {
            split[stage] = next + at * parts / members.len();
        }
        next += parts;
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_next_to_what_reads_them() {
        // 0 -> 1 -> 2 -> 3, and 4 -> 5, both read by 3 only: they come down to it.
        assert_eq!(rows(6, &[(0, 1), (1, 2), (2, 3), (4, 5), (5, 3)]), [0, 1, 2, 3, 1, 2]);
        // What hangs between two has no reason to leave what it reads.
        assert_eq!(rows(5, &[(0, 1), (1, 2), (2, 3), (0, 4), (4, 3)]), [0, 1, 2, 3, 1]);
        assert_eq!(rows(0, &[]), [] as [usize; 0]);
        assert_eq!(rows(1, &[]), [0]);
    }

    #[test]
    fn wide_rows_are_parted() {
        let fan: Vec<(usize, usize)> = (1..=20).map(|to| (0, to)).collect();
        let rows = rows(21, &fan);
        assert_eq!((rows[1], rows[7], rows[8], rows[20]), (1, 1, 2, 3));
    }

    #[test]
    fn instances_stay_with_what_reads_them() {
        // 0 is read by 1 to 12, each of which one of 13 to 24 reads, and 25 reads all of those.
        let edges: Vec<(usize, usize)> = (1..=12).flat_map(|one| [(0, one), (one, one + 12), (one + 12, 25)]).collect();
        let rows = rows(26, &edges);
        assert_eq!((rows[1], rows[6], rows[13], rows[18]), (1, 1, 2, 2));
        assert_eq!((rows[7], rows[12], rows[19], rows[24], rows[25]), (3, 3, 4, 4, 5));
    }

    #[test]
    fn circles_do_not_hang() {
        assert_eq!(places(3, &[(0, 1), (1, 2), (2, 1)]), [0, 1, 2]);
        assert_eq!(places(2, &[(0, 1), (1, 0), (0, 0)]), [0, 1]);
    }
}
