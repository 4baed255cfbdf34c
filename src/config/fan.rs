//! Axes, and which instances of a stage they give: a small relational algebra.
//!
//! A stage has one row for each of its instances, one column for each of its axes. A stage without a matrix has no column and one
//! row. What a stage reads joins: rows meet where they agree in the axes that they share, and multiply where they share none.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::value::{Node, Span, Value};

/// The most instances that one stage may have.
pub const MOST: usize = 10_000;

/// One value of an axis.
#[derive(Clone, Debug)]
pub struct AxisValue {
    /// The value as names show it: as its author wrote it.
    pub label: String,
    /// The value at its place.
    pub node: Node,
}

/// One dimension of a matrix.
#[derive(Debug)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub span: Span,
    /// Its values, no two with the same label.
    pub values: Vec<AxisValue>,
}

/// The instances of a stage.
#[derive(Clone, Debug)]
pub struct Fan {
    /// The columns.
    pub axes: Vec<Rc<Axis>>,
    /// For each instance and axis the number of the value; no two rows are equal.
    pub rows: Vec<Vec<u32>>,
}

/// Why two fans cannot be joined.
#[derive(Debug)]
pub enum Clash {
    /// Two axes of one name and different origin do not have the same values.
    Axis(Rc<Axis>, Rc<Axis>),
    /// There would be more than [`MOST`] instances.
    TooMany,
}

impl Fan {
    /// One instance without axes.
    pub fn unit() -> Self {
        Self { axes: Vec::new(), rows: vec![Vec::new()] }
    }

    /// One instance for each value of an axis.
    pub fn of(axis: Rc<Axis>) -> Self {
        let rows = (0..axis.values.len()).map(|value| vec![value as u32]).collect();
        Self { axes: vec![axis], rows }
    }

    /// The column of an axis.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis.name == name)
    }

    /// Only the named columns, equal rows once.
    pub fn project(&self, keep: impl Fn(&str) -> bool) -> Self {
        let columns: Vec<usize> = (0..self.axes.len()).filter(|&column| keep(&self.axes[column].name)).collect();
        let mut seen = HashSet::new();
        let pick = |row: &Vec<u32>| columns.iter().map(|&column| row[column]).collect::<Vec<u32>>();
        let rows = self.rows.iter().map(pick).filter(|row| seen.insert(row.clone())).collect();
        Self { axes: columns.iter().map(|&column| self.axes[column].clone()).collect(), rows }
    }

    /// The rows of both that agree in the axes that they share, in the order of the first and then of the second.
    pub fn join(&self, other: &Self) -> Result<Self, Clash> {
        let mut shared = Vec::new();
        let mut added = Vec::new();
        for (column, axis) in other.axes.iter().enumerate() {
            match self.column(&axis.name) {
                Some(ours) => shared.push((ours, column, translation(&self.axes[ours], axis)?)),
                None => added.push(column),
            }
        }
        let mut by_key: HashMap<Vec<u32>, Vec<&Vec<u32>>> = HashMap::new();
        for row in &other.rows {
            let key = shared.iter().map(|(_, column, translation)| translation[row[*column] as usize]).collect();
            by_key.entry(key).or_default().push(row);
        }
        let mut rows = Vec::new();
        for row in &self.rows {
            let key: Vec<u32> = shared.iter().map(|(column, _, _)| row[*column]).collect();
            let matching = by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
            if rows.len() + matching.len() > MOST {
                return Err(Clash::TooMany);
            }
            rows.extend(matching.iter().map(|theirs| {
                let added = added.iter().map(|&column| theirs[column]);
                row.iter().copied().chain(added).collect::<Vec<u32>>()
            }));
        }
        let axes = self.axes.iter().cloned().chain(added.iter().map(|&column| other.axes[column].clone())).collect();
        Ok(Self { axes, rows })
    }

    /// The value of an axis in an instance.
    pub fn value(&self, row: usize, column: usize) -> &AxisValue {
        &self.axes[column].values[self.rows[row][column] as usize]
    }

    /// `[lr=1e-4,seed=2]` for some columns of an instance; nothing where there are none.
    pub fn suffix(&self, row: usize, columns: impl IntoIterator<Item = usize>) -> String {
        let parts: Vec<String> = columns
            .into_iter()
            .map(|column| format!("{}={}", self.axes[column].name, self.value(row, column).label))
            .collect();
        if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(",")) }
    }

    /// The name of an instance of a stage.
    pub fn instance(&self, stage: &str, row: usize) -> String {
        format!("{stage}{}", self.suffix(row, 0..self.axes.len()))
    }
}

/// For each value of `theirs` its number in `ours`: the same axis, or another one with the same values.
pub fn translation(ours: &Rc<Axis>, theirs: &Rc<Axis>) -> Result<Vec<u32>, Clash> {
    if Rc::ptr_eq(ours, theirs) {
        return Ok((0..theirs.values.len() as u32).collect());
    }
    let numbers: HashMap<&str, u32> =
        ours.values.iter().enumerate().map(|(number, value)| (value.label.as_str(), number as u32)).collect();
    let translated: Option<Vec<u32>> =
        theirs.values.iter().map(|value| numbers.get(value.label.as_str()).copied()).collect();
    match translated {
        Some(translated) if ours.values.len() == theirs.values.len() => Ok(translated),
        _ => Err(Clash::Axis(ours.clone(), theirs.clone())),
    }
}

/// A value as names show it: as written where that is a number, quoted where it could be mistaken for something else. `None` for
/// lists and maps, which cannot be part of a name.
pub fn label(node: &Node, written: &str) -> Option<String> {
    match &node.value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(as_written(written, value)),
        Value::Large(value) => Some(as_written(written, value)),
        Value::Float(value) => Some(as_written(written, value)),
        Value::Text(text) => Some(match is_plain(text) {
            true => text.clone(),
            false => serde_json::Value::from(text.as_str()).to_string(),
        }),
        Value::List(_) | Value::Map(_) => None,
    }
}

fn as_written<T: std::str::FromStr + PartialEq + ToString>(written: &str, value: &T) -> String {
    let written = written.trim();
    if written.parse::<T>().is_ok_and(|read| read == *value) { written.to_owned() } else { value.to_string() }
}

fn is_plain(text: &str) -> bool {
    let special = |c: char| c.is_control() || "[]{},=\"'".contains(c);
    let other = text.parse::<f64>().is_ok() || ["true", "false", "null", "~", ""].contains(&text);
    !other && text.trim() == text && !text.contains(special)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(name: &str, values: u32) -> Rc<Axis> {
        let span = Span { file: 0, start: 0, end: 0 };
        let value = |value: u32| {
            let node = Node { value: Value::Int(value.into()), span };
            AxisValue { label: value.to_string(), node }
        };
        Rc::new(Axis { name: name.to_owned(), span, values: (0..values).map(value).collect() })
    }

    fn names(fan: &Fan) -> Vec<String> {
        (0..fan.rows.len()).map(|row| fan.instance("x", row)).collect()
    }

    #[test]
    fn shared_axes_join_and_others_multiply() {
        let (lr, seed) = (axis("lr", 2), axis("seed", 2));
        let both = Fan::of(lr.clone()).join(&Fan::of(seed.clone())).unwrap();
        assert_eq!(names(&both), ["x[lr=0,seed=0]", "x[lr=0,seed=1]", "x[lr=1,seed=0]", "x[lr=1,seed=1]"]);
        assert_eq!(names(&both.join(&Fan::of(seed.clone())).unwrap()), names(&both));
        assert_eq!(names(&both.join(&Fan::of(axis("seed", 2))).unwrap()), names(&both));
        assert!(matches!(both.join(&Fan::of(axis("seed", 3))), Err(Clash::Axis(..))));
        assert!(matches!(Fan::of(axis("a", 101)).join(&Fan::of(axis("b", 100))), Err(Clash::TooMany)));
        assert_eq!(names(&both.project(|name| name == "seed")), ["x[seed=0]", "x[seed=1]"]);
        assert_eq!(names(&Fan::unit().join(&Fan::unit()).unwrap()), ["x"]);
    }

    #[test]
    fn labels_are_what_was_written_and_never_ambiguous() {
        let label = |value: Value, written: &str| {
            super::label(&Node { value, span: Span { file: 0, start: 0, end: 0 } }, written).unwrap()
        };
        assert_eq!(label(Value::Float(1e-4), "1e-4"), "1e-4");
        assert_eq!(label(Value::Float(1e-4), "*alias"), "0.0001");
        assert_eq!(label(Value::Int(16), "0x10"), "16");
        assert_eq!(label(Value::Text("a/b-0.5".into()), ""), "a/b-0.5");
        for odd in ["1", "1e3", "a,b", "a]", "", "true", " a", "a=b", "a\"b", "NaN"] {
            assert_eq!(label(Value::Text(odd.into()), odd), serde_json::Value::from(odd).to_string());
        }
    }

    fn some_fan() -> impl Strategy<Value = Fan> {
        proptest::collection::hash_set((0u32..3, 0u32..3), 1..9).prop_map(|rows| {
            let axes = vec![axis("a", 3), axis("b", 3)];
            Fan { axes, rows: rows.into_iter().map(|(a, b)| vec![a, b]).collect() }
        })
    }

    proptest! {
        #[test]
        fn a_join_holds_exactly_the_rows_that_agree(one in some_fan(), two in some_fan()) {
            let two = Fan { axes: vec![axis("c", 3), axis("b", 3)], rows: two.rows };
            let joined = one.join(&two).unwrap();
            let mut expected = HashSet::new();
            for row in &one.rows {
                for other in two.rows.iter().filter(|other| other[1] == row[1]) {
                    expected.insert(vec![row[0], row[1], other[0]]);
                }
            }
            prop_assert_eq!(joined.rows.len(), expected.len());
            prop_assert_eq!(joined.rows.into_iter().collect::<HashSet<_>>(), expected);
        }
    }
}
