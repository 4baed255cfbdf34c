//! The eight tools that an agent may call (reference, section 2.1), in our own words.

use serde_json::{Map, Value, json};

use super::task::WorldItem;

/// The domains that have tools, in the order of the reward list (reference, section 2.2).
pub const DOMAINS: [&str; 4] = ["hotel", "attraction", "train", "restaurant"];

/// What a tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Looks for an entity.
    Search,
    /// Books one.
    Book,
}

/// Takes a tool's name apart: `search_hotel` is a search in `hotel`. `None` for a name of another form.
pub fn parts(api: &str) -> Option<(Action, &str)> {
    match api.split_once('_')? {
        ("search", domain) => Some((Action::Search, domain)),
        ("book", domain) => Some((Action::Book, domain)),
        _ => None,
    }
}

/// The field that names an entity of a domain: `trainID` for trains, `name` for all others.
pub fn unique_key(domain: &str) -> &'static str {
    if domain == "train" { "trainID" } else { "name" }
}

/// A parameter of a tool; its value is always a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it means, for the agent.
    pub description: &'static str,
    /// The values that the schema offers; empty where any text goes. Servers do not insist on them.
    pub values: &'static [&'static str],
}

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name: `search_hotel`.
    pub name: &'static str,
    /// What it does, for the agent.
    pub description: &'static str,
    /// Its parameters, in the reference's order; none is required.
    pub parameters: &'static [Parameter],
}

impl Tool {
    /// The definition as an OpenAI function schema.
    pub fn schema(&self) -> Value {
        let properties: Map<String, Value> = self.parameters.iter().map(Parameter::property).collect();
        json!({
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": { "type": "object", "properties": properties, "required": [] },
            },
        })
    }

    /// The definition as an item of a world.
    pub fn item(&self) -> WorldItem {
        WorldItem { part: "tool".to_owned(), name: self.name.to_owned(), body: self.schema().to_string() }
    }
}

impl Parameter {
    fn property(&self) -> (String, Value) {
        let mut property = json!({ "type": "string", "description": self.description });
        if !self.values.is_empty() {
            property["enum"] = json!(self.values);
        }
        (self.name.to_owned(), property)
    }
}

/// The tool of a name.
pub fn tool(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// The names of a tool's parameters in their order; none for an unknown tool.
pub fn parameter_names(name: &str) -> impl Iterator<Item = &'static str> {
    tool(name).into_iter().flat_map(|tool| tool.parameters).map(|parameter| parameter.name)
}

const fn text(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, description, values: &[] }
}

const fn choice(name: &'static str, description: &'static str, values: &'static [&'static str]) -> Parameter {
    Parameter { name, description, values }
}

/// The tools, restaurants first.
pub const TOOLS: [Tool; 8] = [
    Tool {
        name: "search_restaurant",
        description: "Looks for a restaurant that fits all given constraints.",
        parameters: &[
            text("food", "The cuisine, such as italian or chinese."),
            choice("pricerange", "How expensive a meal is.", &["cheap", "expensive", "moderate"]),
            text("name", "The restaurant's name, when the customer asks for a certain one."),
            text("area", "The part of town: centre, north, east, south or west."),
        ],
    },
    Tool {
        name: "book_restaurant",
        description: "Reserves a table and returns the reference number.",
        parameters: &[
            text("time", "When the table is wanted, as HH:MM on a 24-hour clock."),
            text("day", "The day of the week, such as friday."),
            text("people", "How many people will come, in digits."),
            text("name", "The restaurant's name, as a search returned it."),
        ],
    },
    Tool {
        name: "search_hotel",
        description: "Looks for a hotel or guesthouse that fits all given constraints.",
        parameters: &[
            text("name", "The hotel's name, when the customer asks for a certain one."),
            choice("area", "The part of town.", &["west", "east", "centre", "south", "north"]),
            choice("parking", "Whether it has free parking.", &["yes", "no"]),
            choice("pricerange", "How expensive a room is.", &["moderate", "expensive", "cheap"]),
            choice("stars", "Its number of stars.", &["0", "1", "2", "3", "4"]),
            choice("internet", "Whether it has free wifi.", &["yes", "no"]),
            choice("type", "The kind of place to stay.", &["hotel", "guesthouse"]),
        ],
    },
    Tool {
        name: "book_hotel",
        description: "Books a room and returns the reference number.",
        parameters: &[
            text("stay", "For how many nights, in digits."),
            text("day", "The day of arrival, such as friday."),
            text("people", "How many people will stay, in digits."),
            text("name", "The hotel's name, as a search returned it."),
        ],
    },
    Tool {
        name: "search_attraction",
        description: "Looks for a sight or an entertainment that fits all given constraints.",
        parameters: &[
            text("type", "The kind of attraction, such as museum or park."),
            text("name", "The attraction's name, when the customer asks for a certain one."),
            choice("area", "The part of town.", &["west", "east", "centre", "south", "north"]),
        ],
    },
    Tool { name: "book_attraction", description: "Attractions need no booking; takes nothing.", parameters: &[] },
    Tool {
        name: "search_train",
        description: "Looks for a train that fits all given constraints.",
        parameters: &[
            text("leaveAt", "The train leaves after this time, as HH:MM on a 24-hour clock."),
            text("destination", "The town it goes to."),
            text("day", "The day of the week, such as friday."),
            text("arriveBy", "The train arrives before this time, as HH:MM on a 24-hour clock."),
            text("departure", "The town it starts from."),
        ],
    },
    Tool {
        name: "book_train",
        description: "Buys tickets for a train and returns the reference number.",
        parameters: &[
            text("people", "For how many people, in digits."),
            text("trainID", "The train's id, as a search returned it."),
        ],
    },
];
