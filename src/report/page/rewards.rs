//! How rewards are spread over the dialogues of each table of scores. Broken dialogues have none and are counted apart.

use serde_json::{Value, json};

use super::{Content, Material, Section};
use crate::eval::{self, EpisodeOutcome, ScoreRow};
use crate::table::{self, Row};

pub(super) const SECTION: Section = Section {
    id: "rewards",
    title: "Rewards",
    style: include_str!("assets/rewards.css"),
    script: include_str!("assets/rewards.js"),
    make,
};

/// Tenths of the way from 0 to 1, and 1 itself: all goals reached.
const BINS: usize = 11;

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    let mut tables = Vec::new();
    for found in material.outputs(ScoreRow::TYPE)? {
        let scores: Vec<ScoreRow> = table::read(&found.path)?;
        let mut spread = spread(&scores);
        spread["run"] = json!(found.run);
        spread["stage"] = json!(found.stage.name);
        tables.push(spread);
    }
    Ok((!tables.is_empty()).then(|| json!(tables).into()))
}

fn spread(scores: &[ScoreRow]) -> Value {
    let rewards: Vec<f64> = scores.iter().filter_map(|score| score.reward).collect();
    let mut bins = [0_u64; BINS];
    let mut outside = 0_u64;
    for reward in &rewards {
        match bin(*reward) {
            Some(bin) => bins[bin] += 1,
            None => outside += 1,
        }
    }
    let count = |outcome: EpisodeOutcome| scores.iter().filter(|score| score.outcome == outcome).count();
    json!({
        "dialogues": scores.len(),
        "success": count(EpisodeOutcome::Success),
        "failure": count(EpisodeOutcome::Failure),
        "broken": count(EpisodeOutcome::Broken),
        "mean": eval::mean(&rewards),
        "bins": bins,
        "outside": outside,
    })
}

/// The bin of a reward; `None` of what is no share.
fn bin(reward: f64) -> Option<usize> {
    // Shares of goals, such as 3/10, lie a rounding below a tenth at times.
    (0.0..=1.0).contains(&reward).then(|| ((reward * 10.0 + 1e-9) as usize).min(BINS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_dialogues_have_no_reward_and_are_counted() {
        let score = |reward: Option<f64>, outcome| {
            let success = reward.map(|reward| reward == 1.0);
            ScoreRow { dialogue: String::new(), reward, success, outcome, reachable: None }
        };
        let scores = [
            score(Some(1.0), EpisodeOutcome::Success),
            score(Some(0.3), EpisodeOutcome::Failure),
            score(Some(0.0), EpisodeOutcome::Failure),
            score(None, EpisodeOutcome::Broken),
        ];
        let found = spread(&scores);
        assert_eq!(found["bins"], json!([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!((&found["broken"], &found["failure"], &found["dialogues"]), (&json!(1), &json!(2), &json!(4)));
        assert_eq!(found["mean"], json!(1.3 / 3.0));
        assert_eq!(spread(&scores[3..])["mean"], Value::Null);
    }

    #[test]
    fn every_share_has_its_bin() {
        for goals in 1..=30_u32 {
            for reached in 0..=goals {
                let found = bin(f64::from(reached) / f64::from(goals)).unwrap();
                assert_eq!(found, (reached * 10 / goals) as usize, "{reached}/{goals}");
            }
        }
        assert_eq!((bin(-0.1), bin(1.1), bin(f64::NAN)), (None, None, None));
    }
}
