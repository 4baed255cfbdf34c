//! One played dialogue, and the line that a list shows of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::goal::{Briefs, Goal};
use super::turn::{Turn, turns};
use crate::dialogue::episode::{EpisodeCall, EpisodeRow, Outcome};
use crate::table::Row;

/// A dialogue between a user and an agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Talk {
    /// The task's dialogue.
    pub dialogue: String,
    /// The task's split.
    pub split: String,
    /// How it ended: `success`, `failure` or `broken`.
    pub outcome: Outcome,
    /// Why it is broken.
    pub reason: Option<String>,
    /// Goals reached over goals, 0 to 1; absent of a broken dialogue, which has no score.
    pub reward: Option<f64>,
    /// Whether the customer ended it; otherwise the limit of messages did.
    pub ended: bool,
    /// The customer's wish in sentences, one a line, where the task is known.
    pub wish: Option<String>,
    /// The goals, in the task's order. Of a broken dialogue those that it reached before are marked, too.
    pub goals: Vec<Goal>,
    /// Who did what, in order.
    pub turns: Vec<Turn>,
    /// What the models read and wrote.
    pub tokens: Tokens,
}

/// Tokens of a whole dialogue; zeros where no model took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Read by the agent's model.
    pub agent_prompt: u64,
    /// Written by it.
    pub agent_completion: u64,
    /// Read by the user's model.
    pub user_prompt: u64,
    /// Written by it.
    pub user_completion: u64,
}

impl Talk {
    /// Reads a row. What the agent saw gives the turns; where a table does not hold that, what the customer saw.
    pub fn new(row: EpisodeRow, briefs: &Briefs) -> Self {
        let chat = if row.internal.is_empty() { &row.messages } else { &row.internal };
        let mut turns = turns(chat, 0);
        place_goals(&mut turns, &row.calls);
        let known = briefs.goals(&row.dialogue).filter(|goals| goals.len() == row.goals.len());
        let mut goals = known.unwrap_or_else(|| row.goals.iter().map(|api| Goal::bare(api)).collect());
        for (goal, place) in goals.iter_mut().zip(0..) {
            goal.reached = row.goals_hit.contains(&place);
            goal.turn = turns.iter().find(|turn| turn.goals.contains(&place)).map(|turn| turn.number);
        }
        Self {
            wish: briefs.wish(&row.dialogue),
            reward: (row.outcome != Outcome::Broken).then_some(row.reward),
            tokens: Tokens {
                agent_prompt: row.agent_prompt_tokens,
                agent_completion: row.agent_completion_tokens,
                user_prompt: row.user_prompt_tokens,
                user_completion: row.user_completion_tokens,
            },
            dialogue: row.dialogue,
            split: row.split,
            outcome: row.outcome,
            reason: row.reason,
            ended: row.ended,
            goals,
            turns,
        }
    }

    /// How many goals were reached.
    pub fn reached(&self) -> usize {
        self.goals.iter().filter(|goal| goal.reached).count()
    }
}

/// Notes at each call the goals that it reaches, and at each turn those that it is the first to reach. The row's calls are
/// those that the server took, in order; what the agent wrote holds others between them.
fn place_goals(turns: &mut [Turn], calls: &[EpisodeCall]) {
    let mut left = calls.iter().peekable();
    let mut reached = BTreeSet::new();
    for turn in turns {
        let mut first = Vec::new();
        for call in turn.calls_mut() {
            let same = |taken: &&EpisodeCall| {
                taken.api == call.api
                    && serde_json::from_str::<Value>(&taken.arguments)
                        .is_ok_and(|arguments| arguments == call.arguments)
            };
            let Some(taken) = left.next_if(same) else { continue };
            call.goals.clone_from(&taken.goals_hit);
            first.extend(taken.goals_hit.iter().copied().filter(|&goal| reached.insert(goal)));
        }
        turn.goals = first;
    }
}

/// What a list shows of a dialogue: some columns of its row, quick to read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Headline {
    /// The task's dialogue.
    pub dialogue: String,
    /// The task's split.
    pub split: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is broken.
    pub reason: Option<String>,
    /// Goals reached over goals; absent of a broken dialogue.
    pub reward: Option<f64>,
    /// How many goals were reached.
    pub reached: usize,
    /// How many there are.
    pub goals: usize,
}

impl From<&Talk> for Headline {
    fn from(talk: &Talk) -> Self {
        Self {
            dialogue: talk.dialogue.clone(),
            split: talk.split.clone(),
            outcome: talk.outcome,
            reason: talk.reason.clone(),
            reward: talk.reward,
            reached: talk.reached(),
            goals: talk.goals.len(),
        }
    }
}

/// The columns that a headline needs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeadlineRow {
    dialogue: String,
    split: String,
    reward: f64,
    outcome: Outcome,
    reason: Option<String>,
    goals: Vec<String>,
    goals_hit: Vec<u32>,
}

impl Row for HeadlineRow {
    const TYPE: &'static str = EpisodeRow::TYPE;
}

impl From<HeadlineRow> for Headline {
    fn from(row: HeadlineRow) -> Self {
        Self {
            reward: (row.outcome != Outcome::Broken).then_some(row.reward),
            reached: row.goals_hit.len(),
            goals: row.goals.len(),
            dialogue: row.dialogue,
            split: row.split,
            outcome: row.outcome,
            reason: row.reason,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::goal::tests::briefs;
    use super::*;
    use crate::chat::Message;
    use crate::dialogue::react::{observed, spoken};

    /// A dialogue of two turns of the agent: a wrong call and the search that reaches goal 0, then the search again.
    pub(in super::super) fn row(dialogue: &str, outcome: Outcome) -> EpisodeRow {
        let search = r#"APICALL {"name": "search_hotel", "parameters": {"area": "north"}} <COMMAND_END>"#;
        let internal = vec![
            Message::user("a hotel in the north"),
            Message::assistant("APICALL what <COMMAND_END>"),
            observed("FAILURE INCORRECTLY FORMATTED APICALL"),
            Message::assistant(search),
            observed("[{\"name\": \"Avalon\"}]"),
            spoken("The Avalon."),
            Message::user("again"),
            Message::assistant(search),
            observed("[{\"name\": \"Avalon\"}]"),
            spoken("Still the Avalon."),
        ];
        let call = EpisodeCall {
            api: "search_hotel".to_owned(),
            arguments: r#"{"area": "north"}"#.to_owned(),
            observation: "[{\"name\": \"Avalon\"}]".to_owned(),
            goals_hit: vec![0],
        };
        EpisodeRow {
            dialogue: dialogue.to_owned(),
            split: "test".to_owned(),
            reward: 0.5,
            success: false,
            outcome,
            reason: (outcome == Outcome::Broken).then(|| "no reply".to_owned()),
            ended: true,
            messages: vec![Message::user("a hotel in the north")],
            internal,
            calls: vec![call.clone(), call],
            goals: vec!["search_hotel".to_owned(), "book_hotel".to_owned()],
            goals_hit: vec![0],
            agent_prompt_tokens: 1,
            agent_completion_tokens: 2,
            user_prompt_tokens: 3,
            user_completion_tokens: 4,
        }
    }

    #[test]
    fn goals_stand_with_the_turn_that_first_reached_them() {
        let talk = Talk::new(row("a", Outcome::Failure), &briefs("a"));
        assert_eq!(
            talk.turns.iter().map(|turn| turn.goals.clone()).collect::<Vec<_>>(),
            [vec![], vec![0], vec![], vec![]]
        );
        let calls: Vec<_> = talk.turns.iter().flat_map(Turn::calls).map(|call| call.goals.as_slice()).collect();
        assert_eq!(calls, [&[] as &[u32], &[0], &[0]]);
        let goals: Vec<_> = talk.goals.iter().map(|goal| (goal.text(), goal.reached, goal.turn)).collect();
        assert_eq!(
            goals,
            [("search_hotel(area: north)".into(), true, Some(2)), ("book_hotel = 7".into(), false, None)]
        );
        assert_eq!((talk.reward, talk.reached()), (Some(0.5), 1));
    }

    #[test]
    fn without_a_task_goals_have_their_tools_and_a_broken_dialogue_no_reward() {
        let talk = Talk::new(row("a", Outcome::Broken), &Briefs::default());
        assert_eq!(talk.goals[1].text(), "book_hotel");
        assert_eq!((talk.wish, talk.reward, talk.reason.as_deref()), (None, None, Some("no reply")));
        let bare = EpisodeRow { internal: Vec::new(), ..row("a", Outcome::Failure) };
        assert_eq!(Talk::new(bare, &Briefs::default()).turns[0].said(), "a hotel in the north");
    }
}
