//! The system message of agents and of their training data: a template that comes with the program, or a file's.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::chat::Message;
use crate::dialogue::react::{BRIEF_PROMPT, REACT_PROMPT, system_prompt};
use crate::dialogue::task::WorldItem;
use crate::dialogue::world::World;
use crate::engine::port::Port;
use crate::engine::stage::Context;
use crate::fs;

/// The world whose tools a template may show.
pub const WORLD: Port<WorldItem> = Port::new("world");

/// The text of a template: `react` and `brief` come with the program, anything else is a file of the project.
fn template(name: &str, project: &Path) -> anyhow::Result<String> {
    match name {
        "react" => Ok(REACT_PROMPT.to_owned()),
        "brief" => Ok(BRIEF_PROMPT.to_owned()),
        path => Ok(fs::read_to_string(project.join(path))
            .context("`system_prompt` is neither `react` nor `brief`, so it must name a file of the project")?),
    }
}

/// What a stage with such a parameter also depends on: the template's text.
pub fn depends_on(name: Option<&str>, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let Some(name) = name else { return Ok(Vec::new()) };
    let digest = blake3::hash(template(name, project)?.as_bytes()).to_hex().to_string();
    Ok(vec![(format!("system prompt `{name}`"), digest)])
}

/// The system message: `None` of no template. A template that shows tools needs input `world`.
pub fn system_message(context: &Context, name: Option<&str>) -> anyhow::Result<Option<Message>> {
    let Some(name) = name else { return Ok(None) };
    let text = template(name, &context.project)?;
    let world = match context.optional_input(WORLD.name) {
        Some(_) => World::from_items(context.read(&WORLD)?)?,
        None if text.contains("{{") || text.contains("{%") => {
            bail!("template `{name}` shows tools: connect input `world`")
        }
        None => World::default(),
    };
    let text = system_prompt(&text, &world).with_context(|| format!("cannot render template `{name}`"))?;
    Ok(Some(Message::system(text)))
}
