//! What stands around the examples of the stages that make training data: the system message and the functions.

use super::prompt::{self, WORLD};
use crate::chat::Message;
use crate::dialogue::world::World;
use crate::engine::stage::Context;
use crate::josh::extraction::calls_functions;
use crate::josh::frame::Frame;

/// The system message of a template, and the functions of the world where it is connected and examples show them.
pub(super) fn frame(context: &Context, system_prompt: Option<&str>, tools: bool) -> anyhow::Result<Frame> {
    let system = prompt::system_message(context, system_prompt)?;
    let world = (tools && context.optional_input(WORLD.name).is_some()).then(|| context.read(&WORLD)).transpose()?;
    let schemas = |world: World| {
        let schemas: Vec<_> = world.tools().iter().map(|tool| &tool.schema).collect();
        serde_json::to_string(&schemas)
    };
    let tools = match world {
        Some(items) => Some(schemas(World::from_items(items)?)?),
        None => None,
    };
    Ok(Frame { system, tools })
}

/// Counts examples that call functions and do not show them.
#[derive(Default)]
pub(super) struct Bare(usize);

impl Bare {
    /// Looks at an example.
    pub(super) fn see<'m>(&mut self, tools: Option<&str>, mut messages: impl Iterator<Item = &'m Message>) {
        self.0 += usize::from(tools.is_none() && messages.any(calls_functions));
    }

    /// Warns of them, where they should show the functions.
    pub(super) fn warn(&self, context: &Context, shown: bool) {
        if shown && self.0 > 0 {
            context.warn(format!("{} examples call functions that they do not show: connect input `world`", self.0));
        }
    }
}
