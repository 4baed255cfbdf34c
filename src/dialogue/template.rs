//! The prompts: minijinja templates of our own, compiled once, each replaceable by a file.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, Value};

use super::world::World;

/// The system prompt of large models that write their calls as text: the commands, the tools, rules, an example.
pub const REACT: &str = include_str!("prompts/react.j2");
/// The same in one line, for small models that were trained on the format.
pub const BRIEF: &str = include_str!("prompts/brief.j2");
/// The system prompt of models that call tools natively.
pub const TOOLS: &str = include_str!("prompts/tools.j2");
/// The goal user's prompt.
pub const GOAL_USER: &str = include_str!("prompts/goal_user.j2");
/// The guide user's prompt.
pub const GUIDE_USER: &str = include_str!("prompts/guide_user.j2");

/// What a system prompt may name: `tools`, the definitions of the tools as JSON, indented by two.
pub const SYSTEM_VARIABLES: &[&str] = &["tools"];
/// What a goal user's prompt may name: `goal`, the goal in sentences; `opening`, whether the customer has yet to speak its first
/// words; `end`, the text that ends the dialogue.
pub const GOAL_VARIABLES: &[&str] = &["goal", "opening", "end"];
/// What a guide user's prompt may name: `goal` and `end` as above; `source`, the dialogue that the task was made of, and
/// `transcript`, the present one so far, both as lines that begin with `agent: ` or `customer: `.
pub const GUIDE_VARIABLES: &[&str] = &["goal", "source", "transcript", "end"];

/// Why a template cannot be used. It names the template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is no template.
    #[error("template `{name}` is none: {reason}")]
    Syntax { name: String, reason: String },
    /// It names something that there is not.
    #[error("template `{name}` names {unknown}; there {known}")]
    Unknown { name: String, unknown: String, known: String },
    /// It cannot be filled in.
    #[error("template `{name}` cannot be filled in: {reason}")]
    Render { name: String, reason: String },
}

/// A template that is ready to be filled in.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
    environment: Environment<'static>,
    named: BTreeSet<String>,
}

impl Template {
    /// Compiles a template that errors call by `name` and that may name these variables.
    ///
    /// # Errors
    /// When it is none, or names something else.
    pub fn new(name: &str, text: &str, variables: &[&str]) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Prompts are plain text whatever their files are called.
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let syntax = |error: minijinja::Error| TemplateError::Syntax { name: name.to_owned(), reason: told(&error) };
        environment.add_template_owned(name.to_owned(), text.to_owned()).map_err(syntax)?;
        let mut template = Self { name: name.to_owned(), environment, named: BTreeSet::new() };
        template.named = template.compiled()?.undeclared_variables(false).into_iter().collect();
        let built_in: BTreeSet<&str> = template.environment.globals().map(|(name, _)| name).collect();
        let known = |name: &str| variables.contains(&name) || built_in.contains(name);
        let unknown: BTreeSet<&str> = template.named.iter().map(String::as_str).filter(|name| !known(name)).collect();
        if unknown.is_empty() {
            return Ok(template);
        }
        let are = if variables.len() == 1 { "is" } else { "are" };
        Err(TemplateError::Unknown {
            name: name.to_owned(),
            unknown: list(unknown),
            known: format!("{are} {}", list(variables.iter().copied())),
        })
    }

    /// Whether it names a variable.
    pub fn names(&self, variable: &str) -> bool {
        self.named.contains(variable)
    }

    /// Fills it in; white space around the text goes.
    ///
    /// # Errors
    /// When the template asks of a variable what it cannot give.
    pub fn render(&self, variables: Value) -> Result<String, TemplateError> {
        let text = self.compiled()?.render(variables).map_err(|error| self.unfilled(&error))?;
        Ok(text.trim().to_owned())
    }

    fn compiled(&self) -> Result<minijinja::Template<'_, '_>, TemplateError> {
        self.environment.get_template(&self.name).map_err(|error| self.unfilled(&error))
    }

    fn unfilled(&self, error: &minijinja::Error) -> TemplateError {
        TemplateError::Render { name: self.name.clone(), reason: told(error) }
    }
}

/// The system prompt that a template makes of a world's tools.
///
/// # Errors
/// As [`Template::render`].
pub fn system_prompt(template: &Template, world: &World) -> Result<String, TemplateError> {
    let schemas: Vec<&serde_json::Value> = world.tools().iter().map(|tool| &tool.schema).collect();
    let tools = serde_json::to_string_pretty(&schemas).expect("JSON values are JSON");
    template.render(minijinja::context! { tools })
}

/// An error of minijinja without the template's name, which ours tell already.
fn told(error: &minijinja::Error) -> String {
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or(detail.clone(), |line| format!("{detail} in line {line}"))
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::command::COMMAND_END;
    use super::super::tools;
    use super::*;

    fn prompt(text: &str) -> Result<String, TemplateError> {
        let world = World::from_items(tools::TOOLS.iter().map(tools::Tool::item)).unwrap();
        system_prompt(&Template::new("mine.j2", text, SYSTEM_VARIABLES)?, &world)
    }

    #[test]
    fn the_prompts_take_the_tools() {
        let react = prompt(REACT).unwrap();
        assert!(react.contains("\"search_hotel\"") && react.contains(COMMAND_END));
        let brief = prompt(BRIEF).unwrap();
        assert!(!brief.contains('\n') && brief.len() < 200);
        let native = prompt(TOOLS).unwrap();
        assert!(!native.contains("APICALL") && !native.contains("search_hotel"), "the request carries the tools");
    }

    #[test]
    fn every_prompt_names_what_there_is() {
        for (text, variables) in [
            (REACT, SYSTEM_VARIABLES),
            (BRIEF, SYSTEM_VARIABLES),
            (TOOLS, SYSTEM_VARIABLES),
            (GOAL_USER, GOAL_VARIABLES),
            (GUIDE_USER, GUIDE_VARIABLES),
        ] {
            Template::new("built-in", text, variables).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_templates_name() {
        let wrong = |text: &str| prompt(text).unwrap_err().to_string();
        assert_eq!(wrong("{{ tolls }} {{ a }}"), "template `mine.j2` names `a`, `tolls`; there is `tools`");
        let error = Template::new("mine.j2", "{% if goal %}", GOAL_VARIABLES).unwrap_err().to_string();
        assert!(error.starts_with("template `mine.j2` is none: syntax error: "), "{error}");
        let error = wrong("\n{{ tools.names }}");
        assert!(
            error.starts_with("template `mine.j2` cannot be filled in: ") && error.ends_with("in line 2"),
            "{error}"
        );
        assert_eq!(prompt(" {% for place in range(2) %}{{ place }}<{% endfor %}\n").unwrap(), "0<1<");
    }
}
