//! How a stage is run: the keys beside `kind`, `in` and `with`. Nothing here changes a result.

use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::stage::is_plain;
use crate::engine::graph::Policy;
use crate::value::{Node, Value};

/// More attempts than this are a mistake, not a wish.
const MOST_RETRIES: i64 = 1000;

/// Reads the keys of a stage; what is wrong goes to `problems` and counts as not given.
pub fn read(stage: &Node, problems: &mut Vec<Diagnostic>) -> Policy {
    let mut take = |key: &str, expected: &str, read: &mut dyn FnMut(&Node) -> bool| {
        if let Some(node) = stage.get(key)
            && !read(node)
        {
            let message = format!("`{key}` must be {expected}, found {}", node.describe());
            problems.push(Diagnostic::at(node.span, message));
        }
    };
    let mut policy = Policy::default();
    take("pool", "the name of a pool, such as `cpu`, `gpu` or `llm`", &mut |node| {
        policy.pool = node.text().filter(|name| is_plain(name)).map(str::to_owned);
        policy.pool.is_some()
    });
    take("retries", &format!("a whole number from 0 to {MOST_RETRIES}"), &mut |node| match node.value {
        Value::Int(times) if (0..=MOST_RETRIES).contains(&times) => {
            policy.retries = u32::try_from(times).unwrap_or_default();
            true
        }
        _ => false,
    });
    take("timeout", "a time above zero: seconds, or a text such as `90 s`, `30 min` or `2 h`", &mut |node| {
        policy.timeout = time(node);
        policy.timeout.is_some()
    });
    take("frozen", "`true` or `false`", &mut |node| {
        policy.frozen = node.value == Value::Bool(true);
        matches!(node.value, Value::Bool(_))
    });
    policy
}

/// A time above zero: a number of seconds, or a number and its unit.
fn time(node: &Node) -> Option<Duration> {
    let seconds = match &node.value {
        Value::Int(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        Value::Text(text) => seconds(text, &[("s", 1.0), ("min", 60.0), ("h", 3600.0)])?,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

/// The seconds of a text such as `90 min`: a number and the name of one of the units, each given with its seconds.
pub fn seconds(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().ok()?;
    Some(number * units.iter().find(|(name, _)| *name == unit.trim())?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> (Policy, Vec<String>) {
        let mut problems = Vec::new();
        let policy = read(&super::super::yaml_node(text).unwrap(), &mut problems);
        (policy, problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn every_key_is_read_in_every_notation() {
        let (read, problems) = policy("{pool: gpu, retries: 2, timeout: 30 min, frozen: true}");
        let expected =
            Policy { pool: Some("gpu".into()), retries: 2, timeout: Some(Duration::from_secs(1800)), frozen: true };
        assert_eq!((read, problems), (expected, vec![]));
        assert_eq!(policy("{kind: x}"), (Policy::default(), vec![]));
        for (text, seconds) in [("30", 30.0), ("0.5", 0.5), ("90 s", 90.0), ("2h", 7200.0), ("1.5 min", 90.0)] {
            let (read, problems) = policy(&format!("timeout: {text}"));
            assert_eq!((read.timeout, problems), (Some(Duration::from_secs_f64(seconds)), vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_no_policy_is_told() {
        for text in ["0", "-1", "1e300", "soon", "5 days", "''", "min", "[1]", "1e-300", "~"] {
            let (read, problems) = policy(&format!("timeout: {text}"));
            assert_eq!((read.timeout, problems.len()), (None, 1), "{text}");
        }
        for text in ["pool: 3", "pool: ''", "pool: a b", "retries: -1", "retries: 1.5", "retries: 1001", "frozen: yes"]
        {
            let (read, problems) = policy(text);
            assert_eq!((read, problems.len()), (Policy::default(), 1), "{text}");
        }
    }
}
