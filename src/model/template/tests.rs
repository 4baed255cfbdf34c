use super::*;
use serde_json::json;

fn template(source: &str) -> Result<ChatTemplate, TemplateError> {
    let variables = json!({"bos_token": "<s>"}).as_object().unwrap().clone();
    ChatTemplate::new([(DEFAULT.to_owned(), source.to_owned())].into(), variables, Date::default())
}

fn fill(source: &str, messages: Json) -> Result<String, TemplateError> {
    template(source)?.fill(Filling { messages: messages.as_array().unwrap(), tools: &[], prompt: false })
}

#[test]
fn python_is_spoken() {
    let messages =
        json!([{"role": "user", "content": "  hi </think>\nyou "}, {"role": "tool", "content": "", "ok": true}]);
    for (source, expected) in [
        (
            "{{ messages[0].content.strip() }}|{{ messages[0]['content'].split('</think>')[-1].lstrip('\\n') }}",
            "hi </think>\nyou|you ",
        ),
        ("{{ messages[0].content.startswith('  hi') and not messages[1].content.endswith('x') }}", "True"),
        ("{{ messages[1].ok }}{{ none }}{{ missing }}|{{ tools is none }}", "TrueNone|True"),
        (
            "{% for name, value in messages[1].items() %}{{ name }}={{ value }};{% endfor %}",
            "role=tool;content=;ok=True;",
        ),
        (
            "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = m.role == 'tool' %}{% endfor %}{{ ns.found }}",
            "True",
        ),
        ("{% for m in messages[::-1] %}{{ m.role }}{% break %}{% endfor %}{{ messages[1:] | length }}", "tool1"),
        ("{{ strftime_now('%d %B %Y') }} {{ bos_token }}", "26 July 2024 <s>"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) }}{{ '%s' | string }}", "<1>%s"),
        ("{{ tools is iterable and tools | length > 0 }}{{ messages is iterable }}", "FalseTrue"),
        (
            "{% set ns = namespace(a=1) %}{% generation %}{% set ns.a = 2 %}{% endgeneration %}{{ ns.a }}",
            "\u{fdd3}\u{fdd4}2",
        ),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
    ] {
        assert_eq!(fill(source, messages.clone()).unwrap(), expected, "{source}");
    }
}

#[test]
fn json_is_that_of_python() {
    let messages = json!([{"a": [1, 2.0, null, true], "b": {}, "é\u{1}": "\"<'&\n", "c": []}]);
    let text = |filter: &str| fill(&format!("{{{{ messages[0] | {filter} }}}}"), messages.clone()).unwrap();
    assert_eq!(text("tojson"), "{\"a\": [1, 2.0, null, true], \"b\": {}, \"é\\u0001\": \"\\\"<'&\\n\", \"c\": []}");
    assert_eq!(
        text("tojson(separators=(',', ':'), ensure_ascii=true)"),
        "{\"a\":[1,2.0,null,true],\"b\":{},\"\\u00e9\\u0001\":\"\\\"<'&\\n\",\"c\":[]}"
    );
    assert_eq!(
        text("tojson(indent=2, sort_keys=true)"),
        "{\n  \"a\": [\n    1,\n    2.0,\n    null,\n    true\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"é\\u0001\": \"\\\"<'&\\n\"\n}"
    );
}

#[test]
fn what_a_template_refuses_is_told_in_its_words() {
    let error = |source| fill(source, json!([])).unwrap_err().to_string();
    assert_eq!(
        error("{{ raise_exception('Only user and assistant roles are supported!') }}"),
        "the chat template refuses this chat: Only user and assistant roles are supported!"
    );
    assert_eq!(
        error("\n{{ a.b.c }}"),
        "the chat template cannot be filled in: undefined value: `a` is undefined in line 2"
    );
    assert!(error("{{ [1].nothing() }}").starts_with("the chat template cannot be filled in: unknown method"));
    assert!(error("{% generation %}").starts_with("the chat template is wrong: syntax error"));
}

#[test]
fn generation_marks_what_it_surrounds_and_blanks_fall_as_without_it() {
    let source = "{% for m in messages %}\n  {%- generation -%}\n  {{ m.content }}{% set x = loop.index %}\n  {%+ endgeneration %}\n!{% endfor %}";
    let text = fill(source, json!([{"content": "a"}, {"content": "b"}])).unwrap();
    assert_eq!(text, format!("{BEGIN}a  {END}!{BEGIN}b  {END}!"));
    assert!(template(source).unwrap().marks_generation(false));
}

#[test]
fn chats_that_call_tools_have_a_template_of_their_own_where_there_is_one() {
    let sources = [(DEFAULT, "plain"), (TOOL_USE, "{{ tools[0].name }}")];
    let sources = sources.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let template = ChatTemplate::new(sources, Map::new(), Date::default()).unwrap();
    let fill = |tools: &[Json]| template.fill(Filling { messages: &[], tools, prompt: false }).unwrap();
    assert_eq!((fill(&[]), fill(&[json!({"name": "search"})])), ("plain".to_owned(), "search".to_owned()));
}

#[test]
fn a_models_files_say_which_template_and_variables() {
    let read = |files: &TextFiles| -> Result<Option<String>, String> {
        let named = Named::read(files).unwrap();
        let template = ChatTemplate::read(files, &named).map_err(|error| error.to_string())?;
        Ok(template.map(|template| template.fill(Filling { messages: &[], tools: &[], prompt: true }).unwrap()))
    };
    let config =
        json!({"eos_token": "</s>", "chat_template": [{"name": "default", "template": "{{ eos_token }}{{ mood }}"}]});
    let files = TextFiles::default().with_json("tokenizer_config.json", &config);
    assert_eq!(read(&files), Ok(Some("</s>".to_owned())));
    let files = files.with("chat.json", r#"{"date": "2025-01-02", "variables": {"mood": "calm"}}"#);
    assert_eq!(read(&files), Ok(Some("</s>calm".to_owned())));
    let jinja = files.clone().with("chat_template.jinja", "{{ strftime_now('%Y') }}{{ add_generation_prompt }}");
    assert_eq!(read(&jinja), Ok(Some("2025True".to_owned())));
    assert_eq!(read(&TextFiles::default()), Ok(None));
    let wrong = files.with("chat.json", r#"{"date": "today"}"#);
    assert!(read(&wrong).unwrap_err().starts_with("`chat.json` is wrong: `today` is no day"));
}

/// What transformers writes of the same chats (`tests/record/templates.py` says how it was recorded).
#[test]
fn real_templates_write_what_transformers_writes() {
    let recorded = include_str!("../../../tests/golden/templates.json");
    let wrong = differences(&serde_json::from_str(recorded).unwrap());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn differences(recorded: &Json) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, source) in recorded["templates"].as_object().unwrap() {
        let variables = recorded["variables"].as_object().unwrap().clone();
        let sources = [(DEFAULT.to_owned(), source.as_str().unwrap().to_owned())].into();
        let template = match ChatTemplate::new(sources, variables, Date::default()) {
            Ok(template) => template,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (chat, expected) in recorded["written"][name].as_object().unwrap() {
            let asked = &recorded["chats"][chat];
            let none = Vec::new();
            let filled = template.fill(Filling {
                messages: asked["messages"].as_array().unwrap(),
                tools: asked["tools"].as_array().unwrap_or(&none),
                prompt: asked["prompt"].as_bool().unwrap(),
            });
            if let Err(reason) = same(filled, expected) {
                wrong.push(format!("{name}, {chat}: {reason}"));
            }
        }
    }
    wrong
}

fn same(filled: Result<String, TemplateError>, expected: &Json) -> Result<(), String> {
    match (filled, expected["text"].as_str()) {
        (Ok(filled), Some(text)) => {
            let said: Vec<&str> = filled.split(BEGIN).skip(1).filter_map(|part| part.split(END).next()).collect();
            let bare = filled.replace([BEGIN, END], "");
            if bare != text {
                return Err(format!("\n{bare:?}\n{text:?}"));
            }
            match expected["said"].as_array() {
                Some(marked) if *marked != said => Err(format!("{said:?} for {marked:?}")),
                _ => Ok(()),
            }
        }
        (Err(TemplateError::Refused(reason)), None) if expected["error"] == reason.as_str() => Ok(()),
        (Err(_), None) => Ok(()),
        (filled, _) => Err(format!("{filled:?} for {expected}")),
    }
}
