//! The API server of one dialogue (reference, section 2.4).

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::index::{Found, Index};
use super::observation::{Call, NESTED, NO_ACTION, NOT_ALLOWED, Observation, Served};
use super::rules::{Failing, WrongRow};
use super::spelling::spell;
use super::task::{DomainGoal, Task};
use super::tools::{Action, parts, unique_key};
use super::values::Constraints;
use super::world::{Record, Table, World};
use crate::compat::Rules;

/// Why no server can be made for a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A goal names something that is no `search_…` or `book_…`.
    #[error("task `{dialogue}`: goal `{api}` is neither a search nor a booking")]
    Api { dialogue: String, api: String },
    /// A booking goal lacks what the server needs.
    #[error("task `{dialogue}`: goal `{api}`: {reason}")]
    Booking { dialogue: String, api: String, reason: String },
}

/// One dialogue's server: the shared world, what the dialogue is about, the calls so far. Cloning it copies three pointers
/// and the list of calls (pointers too), so every branch of a search tree has its own.
#[derive(Clone, Debug)]
pub struct Session {
    world: Arc<World>,
    plan: Arc<Plan>,
    rules: Rules,
    calls: Vec<Arc<Call>>,
    /// What the agent saw of each call.
    seen: Vec<Arc<str>>,
}

/// What the server knows of the task, prepared once.
#[derive(Debug)]
struct Plan {
    task: Arc<Task>,
    domains: Vec<DomainPlan>,
}

#[derive(Debug)]
struct DomainPlan {
    domain: String,
    search: Option<Constraints>,
    booking: Option<Booking>,
    /// The records that this dialogue must not find, ascending (quirk Q3).
    hidden: Vec<usize>,
    /// The records of the booked entity, ascending.
    booked: Vec<usize>,
    /// The records as the rules compare them, where the world has any.
    index: Option<Arc<Index>>,
}

#[derive(Debug)]
struct Booking {
    wanted: Constraints,
    unique_id: String,
    /// The answer to whom it is granted.
    granted: Served,
}

/// The answer to any other booking.
static REFUSED: LazyLock<Served> = LazyLock::new(|| Served::value(json!({ "success": false, "return": {} })));

impl Session {
    /// A server without calls.
    ///
    /// # Errors
    /// When the task's goals are no goals of this environment: an unknown action, a booking without what it returns.
    pub fn new(world: Arc<World>, task: Arc<Task>, rules: Rules) -> Result<Self, TaskError> {
        let plan = Arc::new(Plan::new(&world, task, &rules)?);
        Ok(Self { world, plan, rules, calls: Vec::new(), seen: Vec::new() })
    }

    /// Answers a call and remembers it.
    pub fn call(&mut self, api: &str, arguments: &Value) -> Observation {
        let Value::Object(given) = arguments else {
            return Observation { text: Served::error(NOT_ALLOWED).text.to_string(), recorded: false };
        };
        let served = self.serve(api, given);
        let call = Call { api: api.to_owned(), arguments: arguments.clone(), returned: served.returned };
        self.calls.push(Arc::new(call));
        let text = served.text.to_string();
        self.seen.push(served.text);
        Observation { text, recorded: true }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> &[Arc<Call>] {
        &self.calls
    }

    /// What the agent saw of each of [`Self::calls`], in their order.
    pub fn observations(&self) -> &[Arc<str>] {
        &self.seen
    }

    /// The world behind it.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The task that it serves.
    pub fn task(&self) -> &Arc<Task> {
        &self.plan.task
    }

    /// The rules that it keeps.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn serve(&self, api: &str, given: &Map<String, Value>) -> Served {
        let Some(tool) = self.world.tool(api) else { return Served::error(NOT_ALLOWED) };
        if !given.keys().all(|name| tool.parameters.contains(name)) {
            return Served::error(NOT_ALLOWED);
        }
        if given.values().any(|value| value.is_array() || value.is_object()) {
            return Served::error(NESTED);
        }
        let asked = Constraints::of_call(given, &self.rules);
        match parts(api) {
            Some((Action::Search, domain)) => self.search(domain, &asked),
            Some((Action::Book, domain)) => self.book(domain, &asked),
            None => Served::error(NO_ACTION),
        }
    }

    fn search(&self, domain: &str, asked: &Constraints) -> Served {
        let Some(table) = self.world.table(domain) else { return Served::value(json!([])) };
        let Some(plan) = self.plan.domains.iter().find(|plan| plan.domain == domain) else {
            let index = table.index(&self.rules);
            return index.served(table, index.find(asked.texts()).rows().next());
        };
        // A plan whose domain has a table has its index.
        let index = plan.index.clone().unwrap_or_else(|| table.index(&self.rules));
        let row = plan.choose(table, &index.find(asked.texts()), asked, &self.rules);
        index.served(table, row)
    }

    fn book(&self, domain: &str, asked: &Constraints) -> Served {
        let plan = self.plan.domains.iter().find(|plan| plan.domain == domain);
        let booking = plan.and_then(|plan| plan.booking.as_ref());
        match booking {
            Some(booking) if booking.wanted.within(asked) => booking.granted.clone(),
            _ => REFUSED.clone(),
        }
    }
}

impl Plan {
    fn new(world: &World, task: Arc<Task>, rules: &Rules) -> Result<Self, TaskError> {
        let mut domains: Vec<DomainPlan> = task.domains.iter().map(|goal| DomainPlan::new(&goal.domain)).collect();
        for goal in &task.goals {
            let api = || (task.dialogue.clone(), goal.api.clone());
            let Some((action, domain)) = parts(&goal.api) else {
                let (dialogue, api) = api();
                return Err(TaskError::Api { dialogue, api });
            };
            let at = domains.iter().position(|plan| plan.domain == domain).unwrap_or_else(|| {
                domains.push(DomainPlan::new(domain));
                domains.len() - 1
            });
            let wanted = Constraints::of_slots(&goal.parameters, rules);
            match action {
                Action::Search => domains[at].search = Some(wanted),
                Action::Book => {
                    let booking = Booking::new(wanted, goal.unique_id.as_deref(), goal.returns.as_deref());
                    let wrong = |reason| {
                        let (dialogue, api) = api();
                        TaskError::Booking { dialogue, api, reason }
                    };
                    domains[at].booking = Some(booking.map_err(wrong)?);
                }
            }
        }
        for plan in &mut domains {
            plan.look_up(world, rules);
            if let Some(goal) = task.domains.iter().find(|goal| goal.domain == plan.domain) {
                plan.hide(world, goal, rules);
            }
        }
        Ok(Self { task, domains })
    }
}

impl Booking {
    fn new(wanted: Constraints, unique_id: Option<&str>, returns: Option<&str>) -> Result<Self, String> {
        let unique_id = unique_id.ok_or("a booking needs `unique_id`")?.to_owned();
        let returns: Value = serde_json::from_str(returns.ok_or("a booking needs `returns`")?)
            .map_err(|error| format!("`returns` is no JSON: {error}"))?;
        let granted = Served::value(json!({ "success": true, "return": returns }));
        Ok(Self { wanted, unique_id, granted })
    }
}

impl DomainPlan {
    fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            search: None,
            booking: None,
            hidden: Vec::new(),
            booked: Vec::new(),
            index: None,
        }
    }

    /// Finds the records of the booked entity.
    fn look_up(&mut self, world: &World, rules: &Rules) {
        let Some(table) = world.table(&self.domain) else { return };
        let index = table.index(rules);
        if let Some(booking) = &self.booking {
            let (key, entity) = (unique_key(&self.domain), spell("name", &booking.unique_id, rules));
            let rows = index.find([(key, &*entity)].into_iter());
            self.booked = rows.rows().filter(|row| self.is_booked(&table.records()[*row], rules)).collect();
        }
        self.index = Some(index);
    }

    /// Finds the records that answer the search that must fail.
    fn hide(&mut self, world: &World, goal: &DomainGoal, rules: &Rules) {
        let tool = world.tool(&format!("search_{}", goal.domain));
        let (Some(table), Some(tool), false) = (world.table(&goal.domain), tool, goal.fail_info.is_empty()) else {
            return;
        };
        let mut failing = Map::new();
        for name in &tool.parameters {
            let slots = goal.fail_info.iter().chain(&goal.info);
            if let Some(slot) = slots.into_iter().find(|slot| slot.name == *name) {
                failing.insert(name.clone(), Value::from(slot.value.as_str()));
            }
        }
        self.hidden = match rules.failing() {
            Failing::Findable => Vec::new(),
            Failing::Hidden => table.search(&failing, rules),
            // A search without any constraint is no search that could fail.
            Failing::HiddenUnlessWanted if Constraints::of_arguments(&failing, rules).is_empty() => Vec::new(),
            Failing::HiddenUnlessWanted => {
                let mut rows = table.search(&failing, rules);
                rows.retain(|row| !self.needs(&table.records()[*row], rules));
                rows
            }
        };
    }

    fn needs(&self, record: &Record, rules: &Rules) -> bool {
        self.is_booked(record, rules) || self.search.as_ref().is_some_and(|search| search.hold_for(record, rules))
    }

    fn is_booked(&self, record: &Record, rules: &Rules) -> bool {
        let Some(booking) = &self.booking else { return false };
        record.get(unique_key(&self.domain)).is_some_and(|value| same_entity(value, &booking.unique_id, rules))
    }

    /// Chooses the one record that a search serves among those found.
    fn choose(&self, table: &Table, found: &Found, asked: &Constraints, rules: &Rules) -> Option<usize> {
        let first = || found.rows().find(|row| self.shows(*row));
        let Some(goal) = &self.search else { return first() };
        if goal.within(asked) {
            match &self.booking {
                Some(_) => self.correct(table, found, rules).or_else(|| self.wrong(table, found, rules)),
                None => first(),
            }
        } else if asked.within(goal) {
            self.wrong(table, found, rules).or_else(|| self.correct(table, found, rules)).or_else(first)
        } else {
            first()
        }
    }

    /// Whether this dialogue may find a record.
    fn shows(&self, row: usize) -> bool {
        self.hidden.binary_search(&row).is_err()
    }

    /// The booked entity. Train ids repeat: judged by constraint, the one that the customer wants comes first (quirk Q10).
    fn correct(&self, table: &Table, found: &Found, rules: &Rules) -> Option<usize> {
        let mut booked = self.booked.iter().copied().filter(|row| self.shows(*row) && found.has(*row));
        match rules.wrong_row() {
            WrongRow::LastByEquality => booked.next_back(),
            WrongRow::FirstByConstraint => {
                let booked: Vec<usize> = booked.collect();
                let record = |row: usize| &table.records()[row];
                let wanted =
                    |row: &&usize| self.search.as_ref().is_some_and(|goal| goal.hold_for(record(**row), rules));
                booked.iter().find(wanted).or(booked.first()).copied()
            }
        }
    }

    /// A record that the customer does not want.
    fn wrong(&self, table: &Table, found: &Found, rules: &Rules) -> Option<usize> {
        let goal = self.search.as_ref()?;
        let unwanted = |row: &usize| self.shows(*row) && !goal.hold_for(&table.records()[*row], rules);
        match rules.wrong_row() {
            WrongRow::LastByEquality => found.rows().rev().find(unwanted),
            WrongRow::FirstByConstraint => {
                found.rows().filter(|row| self.booked.binary_search(row).is_err()).find(unwanted)
            }
        }
    }
}

/// Whether a record's unique field names an entity.
pub(super) fn same_entity(value: &Value, unique_id: &str, rules: &Rules) -> bool {
    value.as_str().is_some_and(|name| spell("name", name, rules) == spell("name", unique_id, rules))
}
