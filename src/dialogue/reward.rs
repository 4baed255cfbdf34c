//! The sparse reward: which goals a dialogue's calls have reached (reference, section 2.5).

use std::borrow::Borrow;

use serde_json::Value;

use super::observation::Call;
use super::server::same_entity;
use super::task::{GoalCall, Task};
use super::tools::{Action, parts, unique_key};
use super::values::Constraints;
use crate::compat::Rules;

/// The positions in `task.goals` of the goals that the calls reach, ascending. The order of calls does not matter, and
/// further calls cost nothing (quirk Q14).
pub fn hits<C: Borrow<Call>>(task: &Task, calls: &[C], rules: &Rules) -> Vec<usize> {
    let reached =
        |goal: &GoalCall| calls.iter().any(|call| reaches(goal, goal.unique_id.as_deref(), call.borrow(), rules));
    (0..task.goals.len()).filter(|index| reached(&task.goals[*index])).collect()
}

/// The share of the goals that the calls reach, 0 to 1.
pub fn reward<C: Borrow<Call>>(task: &Task, calls: &[C], rules: &Rules) -> f64 {
    share(hits(task, calls, rules).len(), task)
}

/// The share that so many of a task's goals are, 0 to 1. Of a task without goals, which no conversion makes, none can be
/// reached: 0.
pub fn share(reached: usize, task: &Task) -> f64 {
    if task.goals.is_empty() { 0.0 } else { reached as f64 / task.goals.len() as f64 }
}

/// JOSH's judgement: which of the goals still left (positions in `task.goals`) the calls of one agent turn reach, in the
/// order of `left`. Where the rules do not judge by full goals, a search whose booking is no longer left is judged as if
/// nothing were booked (quirk Q13).
pub fn turn_hits<C: Borrow<Call>>(task: &Task, left: &[usize], turn: &[C], rules: &Rules) -> Vec<usize> {
    let booking_left = |goal: &GoalCall| {
        parts(&goal.api).is_some_and(|(_, domain)| {
            left.iter()
                .filter_map(|index| task.goals.get(*index))
                .any(|other| parts(&other.api) == Some((Action::Book, domain)))
        })
    };
    let reached = |index: &usize| {
        let Some(goal) = task.goals.get(*index) else { return false };
        let unique_id = goal.unique_id.as_deref().filter(|_| rules.judges_by_full_goals() || booking_left(goal));
        turn.iter().any(|call| reaches(goal, unique_id, call.borrow(), rules))
    };
    left.iter().filter(|index| reached(index)).copied().collect()
}

/// Whether a call reaches a goal; `unique_id` is the entity that a search must have served.
fn reaches(goal: &GoalCall, unique_id: Option<&str>, call: &Call, rules: &Rules) -> bool {
    let (Some((action, domain)), Value::Object(arguments)) = (parts(&goal.api), &call.arguments) else { return false };
    if call.api != goal.api {
        return false;
    }
    let wanted = Constraints::of_slots(&goal.parameters, rules);
    let asked = Constraints::of_arguments(arguments, rules);
    match action {
        Action::Book => {
            let granted = call.returned.get("success") == Some(&Value::Bool(true));
            wanted.within(&asked) && (granted || !rules.booking_must_succeed())
        }
        Action::Search => {
            let Value::Object(served) = &*call.returned else { return false };
            let entity = unique_id.filter(|id| !id.is_empty());
            let right =
                entity.map(|id| served.get(unique_key(domain)).is_some_and(|value| same_entity(value, id, rules)));
            if wanted.within(&asked) {
                !served.is_empty() && right.unwrap_or(true)
            } else if asked.within(&wanted) {
                right.unwrap_or_else(|| wanted.hold_for(served, rules))
            } else {
                false
            }
        }
    }
}
