//! What can be reached at all: an agent that knows the goals tries every call that could earn them (reference, section 1.3).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::reward::hits;
use super::server::{Session, TaskError};
use super::task::{GoalCall, Slot, Task};
use super::tools::{Action, parts, unique_key};
use super::world::World;
use crate::compat::Rules;

/// Subsets are taken of so many of a search's parameters; the tools of ToolWOZ have at most seven.
const MOST_SUBSET_PARAMETERS: usize = 12;

/// The positions in `task.goals` of the goals that some call reaches, ascending. The calls tried: bookings with the exact
/// parameters; searches with the exact parameters that are not empty, with these and the entity's name, and with every
/// subset of them.
///
/// # Errors
/// When the task is none of this environment.
pub fn reachable(world: &Arc<World>, task: &Arc<Task>, rules: Rules) -> Result<Vec<usize>, TaskError> {
    let mut session = Session::new(Arc::clone(world), Arc::clone(task), rules)?;
    for goal in &task.goals {
        for arguments in attempts(goal) {
            session.call(&goal.api, &arguments);
        }
    }
    Ok(hits(task, session.calls(), &rules))
}

fn attempts(goal: &GoalCall) -> Vec<Value> {
    let given: Vec<&Slot> = goal.parameters.iter().filter(|slot| !slot.value.is_empty()).collect();
    let Some((Action::Search, domain)) = parts(&goal.api) else {
        return vec![arguments(given)];
    };
    let mut all = vec![arguments(given.iter().copied())];
    for chosen in 0..1u32 << given.len().min(MOST_SUBSET_PARAMETERS) {
        all.push(arguments(given.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, slot)| *slot)));
    }
    let key = unique_key(domain);
    if let (Some(entity), true) = (&goal.unique_id, goal.parameters.iter().any(|slot| slot.name == key)) {
        let named = Slot { name: key.to_owned(), value: entity.clone() };
        all.push(arguments(given.into_iter().filter(|slot| slot.name != key).chain([&named])));
    }
    all
}

fn arguments<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Value {
    let pair = |slot: &Slot| (slot.name.clone(), Value::from(slot.value.as_str()));
    Value::Object(slots.into_iter().map(pair).collect::<Map<String, Value>>())
}
