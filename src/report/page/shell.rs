//! The page around its sections: one file, whose scripts are named by their hashes, so that the browser runs no other and
//! fetches nothing.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Content, Material, Section};

const TEMPLATE: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
const EARLY: &str = include_str!("assets/early.js");
const SCRIPTS: [&str; 2] = [include_str!("assets/page.js"), include_str!("assets/charts.js")];

/// The whole page.
pub(super) fn page(material: &Material, made: &[(&Section, Content)]) -> String {
    let mut script = SCRIPTS.concat();
    made.iter().for_each(|(section, _)| script.push_str(section.script));
    script.push_str("thresh.start();\n");
    let style: String = std::iter::once(STYLE).chain(made.iter().map(|(section, _)| section.style)).collect();
    let (heading, subtitle) = heading(material);
    fill(TEMPLATE, |name| match name {
        "policy" => policy(&[EARLY, &script]),
        "version" => env!("CARGO_PKG_VERSION").to_owned(),
        "title" => escape(&format!("{heading} – thresh")),
        "heading" => escape(&heading),
        "subtitle" => escape(&subtitle),
        "style" => style.clone(),
        "early" => EARLY.to_owned(),
        "script" => script.clone(),
        "nav" => made.iter().enumerate().map(|(index, (section, _))| link(index, section)).collect(),
        "notices" => notices(material),
        "sections" => made.iter().map(|(section, content)| skeleton(section, content)).collect(),
        "footer" => {
            escape(&format!("Written by thresh {}. Nothing is fetched from a network.", env!("CARGO_PKG_VERSION")))
        }
        "data" => {
            data("page", &facts(material, made))
                + &made.iter().map(|(one, of)| data(one.id, &of.data)).collect::<String>()
        }
        "chunks" => made.iter().map(|(section, content)| chunks(section, content)).collect(),
        other => unreachable!("the template has a place `{other}` that nothing fills"),
    })
}

/// Puts what `value` says into the places `{{name}}`. What is put in is not looked at again.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::with_capacity(1 << 16);
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        page.push_str(before);
        page.push_str(&value(name));
        rest = after;
    }
    page + rest
}

/// Text as it may stand in HTML, also inside an attribute's quotes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// JSON as it may stand in a `<script>`: outside of texts JSON has none of these characters, inside of them it may write them so.
pub(super) fn embed(value: &Value) -> String {
    let text = value.to_string();
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe.push_str(&format!("\\u{:04x}", u32::from(one))),
            other => safe.push(other),
        }
    }
    safe
}

/// Nothing from anywhere, and no script but these: text that came in with a dialogue can neither load nor run anything.
fn policy(scripts: &[&str]) -> String {
    let hash = |script: &&str| format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script.as_bytes())));
    let scripts: String = scripts.iter().map(hash).collect();
    format!(
        "default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
}

fn data(id: &str, value: &Value) -> String {
    format!("<script type=\"application/json\" id=\"data-{id}\">{}</script>\n", embed(value))
}

fn chunks(section: &Section, content: &Content) -> String {
    let chunk = |(number, text): (usize, &String)| {
        let id = section.id;
        // Base64 needs no escape; anything else would be a fault of the section, and must not end the element.
        format!("<script type=\"text/plain\" id=\"{id}-{number}\">{}</script>\n", text.replace('<', ""))
    };
    content.chunks.iter().enumerate().map(chunk).collect()
}

fn link(index: usize, section: &Section) -> String {
    let key = if index < 9 { format!("<kbd aria-hidden=\"true\">{}</kbd>", index + 1) } else { String::new() };
    format!("<li><a href=\"#{}\">{}{key}</a></li>", section.id, escape(section.title))
}

fn skeleton(section: &Section, content: &Content) -> String {
    let (id, title) = (section.id, escape(section.title));
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\" tabindex=\"-1\"><h2 id=\"{id}-title\">{title}</h2><div class=\"body\">{}</div></section>\n",
        content.markup
    )
}

fn notices(material: &Material) -> String {
    material.notices().iter().map(|text| format!("<p class=\"notice\">{}</p>\n", escape(text))).collect()
}

/// What the page is about: the pipelines, and which runs of them.
fn heading(material: &Material) -> (String, String) {
    let mut pipelines: Vec<&str> = material.runs.iter().map(|run| run.pipeline.as_str()).collect();
    pipelines.dedup();
    let subtitle = match material.runs.as_slice() {
        [one] => one.run.clone(),
        many => format!("{} runs", many.len()),
    };
    (pipelines.join(", "), subtitle)
}

/// What every script may ask for as `thresh.page`.
fn facts(material: &Material, made: &[(&Section, Content)]) -> Value {
    let run = |(index, run): (usize, &&crate::engine::history::RunRecord)| json!({"run": run.run, "letter": Material::letter(index), "pipeline": run.pipeline, "set": run.set});
    let section = |(section, _): &(&Section, Content)| json!({"id": section.id, "title": section.title});
    json!({
        "runs": material.runs.iter().enumerate().map(run).collect::<Vec<_>>(),
        "sections": made.iter().map(section).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        assert_eq!(fill("a {{x}} b {{y}} {", |name| format!("<{{{{{name}}}}}>")), "a <{{x}}> b <{{y}}> {");
    }

    #[test]
    fn the_policy_names_the_scripts() {
        // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
        assert!(policy(&["alert(1)"]).contains("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"));
    }

    proptest! {
        #[test]
        fn embedded_json_is_the_same_json_and_ends_no_element(text in ".*", key in "[<>&'\"/!a-z-]{0,12}") {
            let value = json!({key: [text, "</script><!--", "\u{2028}]]>"]});
            let safe = embed(&value);
            let unsafe_ones = safe.contains(['<', '>', '&', '\u{2028}']);
            prop_assert!(!unsafe_ones);
            prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), value);
        }

        #[test]
        fn escaped_text_has_no_marks(text in "[<>&'\"a;#]{0,40}") {
            let safe = escape(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            let back = safe.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }
    }
}
