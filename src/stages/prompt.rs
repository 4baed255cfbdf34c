//! The prompts of agents, users and training data: templates that come with the program, or files of the project.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::chat::Message;
use crate::dialogue::task::WorldItem;
use crate::dialogue::template::{self, SYSTEM_VARIABLES, Template, system_prompt};
use crate::dialogue::world::World;
use crate::engine::port::Port;
use crate::engine::stage::Context;
use crate::fs;

/// The world whose tools a template may show.
pub const WORLD: Port<WorldItem> = Port::new("world");

/// The system prompts that come with the program.
pub const SYSTEM_PROMPTS: [(&str, &str); 3] =
    [("react", template::REACT), ("brief", template::BRIEF), ("tools", template::TOOLS)];

/// The text of a system prompt: one that comes with the program, or that of a file of the project.
fn text(name: &str, project: &Path) -> anyhow::Result<String> {
    match SYSTEM_PROMPTS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => Ok(fs::read_to_string(project.join(name)).context(
            "`system_prompt` is none of `react`, `brief` and `tools`, so it must name a file of the project",
        )?),
    }
}

/// What a stage with such a parameter also depends on: the template's text.
///
/// # Errors
/// When there is no such file, or it is no system prompt.
pub fn depends_on(name: Option<&str>, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let Some(name) = name else { return Ok(Vec::new()) };
    let text = text(name, project)?;
    Template::new(name, &text, SYSTEM_VARIABLES)?;
    Ok(vec![(format!("system prompt `{name}`"), digest(&text))])
}

/// What stands in a fingerprint for a template's text.
pub fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// The system message: `None` of no template. A template that shows tools needs input `world`.
pub fn system_message(context: &Context, name: Option<&str>) -> anyhow::Result<Option<Message>> {
    let Some(name) = name else { return Ok(None) };
    let template = Template::new(name, &text(name, &context.project)?, SYSTEM_VARIABLES)?;
    let world = match context.optional_input(WORLD.name) {
        _ if !template.names("tools") => World::default(),
        Some(_) => World::from_items(context.read(&WORLD)?)?,
        None => bail!("template `{name}` shows tools: connect input `world`"),
    };
    Ok(Some(Message::system(system_prompt(&template, &world)?)))
}
