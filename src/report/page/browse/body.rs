//! Dialogues and trees as short arrays, their texts as numbers: what `assets/browse_data.js` reads.
//!
//! | | |
//! |---|---|
//! | dialogue | `[wish, reason, ended, [goal…], [turn…], [tokens…]]` |
//! | tree | `[wish, reason, [goal…], [node…]]` |
//! | goal | `[tool, wanted, entity, reached, turn]`, turn 0 where it is not known |
//! | node | `[parent, order, marks, [hit…], number of its first turn, [turn…]]`, marks 1 led to a hit + 2 golden |
//! | turn | `[role, [goal number…], [step…]]` |
//! | step | `[0 said \| 1 planned \| 3 seen \| 4 unread, text]` or `[2, tool, arguments, malformed, observation, error, goal number…]` |
//!
//! A text that is absent is −1.

use serde_json::{Value, json};

use super::texts::Texts;
use crate::chat::Role;
use crate::report::talk::{Call, Goal, Step, Talk, Tree, TreeNode, Turn};

/// A dialogue.
pub(super) fn talk(texts: &mut Texts, talk: &Talk) -> Value {
    let tokens = &talk.tokens;
    let tokens = [tokens.agent_prompt, tokens.agent_completion, tokens.user_prompt, tokens.user_completion];
    let tokens = if tokens == [0; 4] { json!([]) } else { json!(tokens) };
    let (wish, reason) = (texts.or_none(talk.wish.as_deref()), texts.or_none(talk.reason.as_deref()));
    json!([wish, reason, u8::from(talk.ended), goals(texts, &talk.goals), turns(texts, &talk.turns), tokens])
}

/// A tree.
pub(super) fn tree(texts: &mut Texts, tree: &Tree) -> Value {
    let (wish, reason) = (texts.or_none(tree.wish.as_deref()), texts.or_none(tree.reason.as_deref()));
    let goals = goals(texts, &tree.goals);
    let nodes: Vec<Value> = tree.nodes.iter().map(|one| node(texts, one)).collect();
    json!([wish, reason, goals, nodes])
}

fn node(texts: &mut Texts, node: &TreeNode) -> Value {
    let (parent, order) = (node.parent.map_or(-1, i64::from), node.order.map_or(-1, i64::from));
    let marks = u8::from(node.success) + 2 * u8::from(node.golden);
    let first = node.turns.first().map_or(0, |turn| turn.number);
    json!([parent, order, marks, node.hits, first, turns(texts, &node.turns)])
}

fn goals(texts: &mut Texts, goals: &[Goal]) -> Vec<Value> {
    let goal = |goal: &Goal| {
        let slots: Vec<String> = goal.wanted.iter().map(|slot| format!("{}: {}", slot.name, slot.value)).collect();
        let wanted = (!slots.is_empty()).then(|| slots.join(", "));
        let (tool, wanted, entity) =
            (texts.number(&goal.api), texts.or_none(wanted.as_deref()), texts.or_none(goal.entity.as_deref()));
        json!([tool, wanted, entity, u8::from(goal.reached), goal.turn.unwrap_or(0)])
    };
    goals.iter().map(goal).collect()
}

fn turns(texts: &mut Texts, turns: &[Turn]) -> Vec<Value> {
    let turn = |turn: &Turn| {
        let role = match turn.role {
            Role::User => 0,
            Role::Assistant => 1,
            Role::System | Role::Tool => 2,
        };
        let steps: Vec<Value> = turn.steps.iter().map(|one| step(texts, one)).collect();
        json!([role, turn.goals, steps])
    };
    turns.iter().map(turn).collect()
}

fn step(texts: &mut Texts, step: &Step) -> Value {
    match step {
        Step::Said { text } => json!([0, texts.number(text)]),
        Step::Plan { text } => json!([1, texts.number(text)]),
        Step::Seen { text } => json!([3, texts.number(text)]),
        Step::Unread { text } => json!([4, texts.number(text)]),
        Step::Call(made) => call(texts, made),
    }
}

fn call(texts: &mut Texts, call: &Call) -> Value {
    let arguments = (!call.arguments.is_null()).then(|| call.arguments.to_string());
    let mut values = vec![
        json!(2),
        json!(texts.number(&call.api)),
        json!(texts.or_none(arguments.as_deref())),
        json!(texts.or_none(call.malformed.as_deref())),
        json!(texts.or_none(call.observation.as_deref())),
        json!(u8::from(call.error)),
    ];
    values.extend(call.goals.iter().map(|goal| json!(goal)));
    Value::Array(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::josh::node::NodeRow;
    use crate::josh::tree::Outcome;
    use crate::report::talk::Briefs;

    fn row(node: u32, parent: Option<u32>, golden: bool, messages: Vec<Message>) -> NodeRow {
        NodeRow {
            dialogue: "d".to_owned(),
            outcome: Outcome::Partial,
            reason: None,
            reward: Some(0.5),
            goals: Some(2),
            node,
            parent,
            depth: node,
            order: parent,
            success: golden,
            golden,
            hits: parent.map(|_| vec![1]).unwrap_or_default(),
            seed: None,
            messages,
        }
    }

    #[test]
    fn a_tree_is_short_and_its_texts_are_numbers() {
        let reply = r#"PLAN look <COMMAND_END> APICALL {"name": "find", "parameters": {"a": 1}} <COMMAND_END>"#;
        let rows = vec![
            row(0, None, true, vec![Message::user("hello")]),
            row(
                1,
                Some(0),
                false,
                vec![Message::assistant(reply), Message::user("APIRETURN ERROR no"), Message::user("hello")],
            ),
        ];
        let mut texts = Texts::default();
        let body = tree(&mut texts, &Tree::new(rows, &Briefs::default()).unwrap());
        let goals = json!([[0, -1, -1, 0, 0], [0, -1, -1, 1, 0]]);
        let root = json!([-1, -1, 3, [], 1, [[0, [], [[0, 1]]]]]);
        let agent = json!([1, [1], [[1, 2], [2, 3, 4, -1, 5, 1]]]);
        let branch = json!([0, 0, 0, [1], 2, [agent, [0, [], [[0, 1]]]]]);
        assert_eq!(body, json!([-1, -1, goals, [root, branch]]));
        assert_eq!(texts.take(), ["", "hello", "look", "find", r#"{"a":1}"#, "ERROR no"]);
    }
}
