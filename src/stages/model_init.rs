//! `model.init`: a new model, its tokenizer learnt from examples, its weights drawn from a seed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tokenizer_train::{check_size, learnt};
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::examples::SftExample;
use crate::model::bundle::{self, Bundle};
use crate::model::config::{Family, ModelConfig, TokenIds};
use crate::model::decoder::Decoder;
use crate::model::device::device;
use crate::model::tokenizer::{self, SPECIAL, Tokenizer};

const EXAMPLES: Port<SftExample> = Port::new("examples");
const TOKENIZER: Folder = Folder::new("tokenizer", tokenizer::FORMAT);
const MODEL: Folder = Folder::new("model", bundle::FORMAT);

/// Makes a new, untrained model: a decoder with random weights, and a tokenizer, either one that `tokenizer.train` made or one
/// learnt here from the texts of the examples.
///
/// The vocabulary of a tokenizer that is learnt here holds at most `vocab_size` tokens; fewer where the examples have too few
/// frequent words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelInit {
    /// The most tokens that the vocabulary may hold, where the tokenizer is learnt here.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    /// Which computation: that of Llama, of Qwen 2 (biases at queries, keys and values) or of Qwen 3 (normed queries and keys).
    #[serde(default)]
    pub family: Shape,
    /// The size of a token's vector.
    #[serde(default = "hidden_size")]
    pub hidden_size: usize,
    /// The number of layers.
    #[serde(default = "layers")]
    pub layers: usize,
    /// The number of attention heads.
    #[serde(default = "heads")]
    pub heads: usize,
    /// The number of key and value heads; it divides `heads`. Fewer than `heads` save memory, but a small model learns to
    /// copy from the prompt more slowly with them.
    #[serde(default = "kv_heads")]
    pub kv_heads: usize,
    /// The size of a head, even; where absent, `hidden_size` divided by `heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// The base of the rotary position embedding: about the length of the longest chat. A larger one, made for long
    /// contexts, leaves a small model less to tell neighbouring words by.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// The inner size of the feed-forward blocks.
    #[serde(default = "intermediate_size")]
    pub intermediate_size: usize,
    /// The longest chat, in tokens.
    #[serde(default = "context")]
    pub context: usize,
    /// Whether the output head is the embedding turned round, which saves a small model most of its weights.
    #[serde(default = "tie")]
    pub tie: bool,
    /// What keeps the root mean square of norms from zero.
    #[serde(default = "norm_epsilon")]
    pub norm_epsilon: f64,
    /// The seed of the weights.
    pub seed: u64,
}

/// The families that a model from scratch may be of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Llama.
    #[default]
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
}

impl Shape {
    fn family(self) -> Family {
        match self {
            Self::Llama => Family::Llama,
            Self::Qwen2 => Family::Qwen2,
            Self::Qwen3 => Family::Qwen3,
        }
    }
}

fn vocab_size() -> usize {
    1_200
}

fn hidden_size() -> usize {
    128
}

fn layers() -> usize {
    4
}

fn heads() -> usize {
    4
}

fn kv_heads() -> usize {
    4
}

fn rope_theta() -> f64 {
    1_000.0
}

fn intermediate_size() -> usize {
    352
}

fn context() -> usize {
    768
}

fn tie() -> bool {
    true
}

fn norm_epsilon() -> f64 {
    1e-5
}

impl ModelInit {
    fn config(&self, tokenizer: &Tokenizer) -> ModelConfig {
        let family = self.family.family();
        ModelConfig {
            architectures: vec![family.class().to_owned()],
            model_type: family.model_type().to_owned(),
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: Some(self.kv_heads),
            // Qwen 3 takes another size than this where none is written.
            head_dim: self.head_dim.or((self.family == Shape::Qwen3).then_some(self.hidden_size / self.heads)),
            vocab_size: tokenizer.vocab_size(),
            max_position_embeddings: self.context,
            rope_theta: self.rope_theta,
            rms_norm_eps: self.norm_epsilon,
            tie_word_embeddings: self.tie,
            eos_token_id: tokenizer.token(SPECIAL[1]).map(TokenIds::One),
            pad_token_id: Some(tokenizer.pad()),
            ..ModelConfig::default()
        }
    }

    fn check_numbers(&self) -> Vec<Problem> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim.unwrap_or(2)),
            ("intermediate_size", self.intermediate_size),
            ("context", self.context),
        ];
        let zero = positive.iter().filter(|(_, value)| *value == 0);
        let mut problems: Vec<Problem> = zero.map(|(name, _)| Problem::new(*name, "must be at least 1")).collect();
        for (name, value) in [("rope_theta", self.rope_theta), ("norm_epsilon", self.norm_epsilon)] {
            if !(value.is_finite() && value > 0.0) {
                problems.push(Problem::new(name, "must be a positive number"));
            }
        }
        problems
    }
}

impl Stage for ModelInit {
    const KIND: &'static str = "model.init";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
base:
  kind: model.init
  in: {examples: demos.examples}
  with: {vocab_size: 1200, hidden_size: 128, layers: 4, heads: 4, kv_heads: 4, intermediate_size: 352, context: 768, seed: 1}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.optional(), TOKENIZER.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_size(self.vocab_size).into_iter().collect();
        problems.extend(self.check_numbers());
        if !problems.is_empty() {
            return problems;
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.heads.saturating_mul(2)) {
            let message = format!("must be a multiple of twice `heads`, {}", self.heads.saturating_mul(2));
            problems.push(Problem::new("hidden_size", message));
        }
        if self.head_dim.is_some_and(|size| !size.is_multiple_of(2)) {
            problems.push(Problem::new("head_dim", "must be even"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            problems.push(Problem::new("kv_heads", format!("must divide `heads`, {}", self.heads)));
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        let of_both = [EXAMPLES.name, TOKENIZER.name].map(|name| connected.contains(&name));
        let message = match of_both {
            [false, false] => "needs a tokenizer: connect input `tokenizer`, or `examples` to learn one from",
            [true, true] => {
                "has a say only where the tokenizer is learnt here: connect `tokenizer` or `examples`, not both"
            }
            _ => return Vec::new(),
        };
        vec![Problem::new("vocab_size", message)]
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let tokenizer = match context.optional_input(TOKENIZER.name) {
            Some(folder) => Tokenizer::load(folder)?,
            None => learnt(&context.read(&EXAMPLES)?, self.vocab_size)?,
        };
        let device = device(context.profile.device())?;
        let decoder = Decoder::init(&self.config(&tokenizer), self.seed, &device)?;
        context.figure("tokens in the vocabulary", tokenizer.vocab_size() as f64);
        context.figure("parameters", decoder.parameters() as f64);
        Bundle { decoder, tokenizer }.save(&context.folder(&MODEL)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::engine::stage::{Input, NoSettings};
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    fn stage(changes: serde_json::Value) -> ModelInit {
        let mut with = serde_json::json!({"seed": 3, "hidden_size": 16, "layers": 1, "intermediate_size": 8});
        with.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(with).unwrap()
    }

    fn run(stage: &ModelInit, folder: &Path) {
        let message = Message::user("I want italian food in the centre");
        let example = SftExample { dialogue: "a".to_owned(), messages: vec![message; 20], tools: None };
        let input = folder.join("examples.parquet");
        crate::table::write(&input, [example]).unwrap();
        let inputs = vec![Input { name: "examples".to_owned(), path: input }];
        let context = Context::below(folder, inputs, Arc::new(NoSettings));
        stage.run(&context).unwrap();
    }

    #[test]
    fn makes_a_bundle_and_the_same_bundle_again() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for folder in &folders {
            run(&stage(serde_json::json!({})), folder.path());
        }
        let model = |at: usize| folders[at].path().join("out").join("model");
        let loaded = Bundle::load(&model(0), &device("cpu").unwrap()).unwrap();
        assert!(loaded.tokenizer.encode("italian centre").unwrap().len() == 2);
        assert_eq!(loaded.decoder.config().vocab_size, loaded.tokenizer.vocab_size());
        for file in crate::fs::list(model(0)).unwrap() {
            let other = model(1).join(file.file_name().unwrap());
            assert_eq!(crate::fs::read(&file).unwrap(), crate::fs::read(other).unwrap(), "{}", file.display());
        }
    }

    #[test]
    fn takes_a_tokenizer_and_any_shape() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = crate::model::tokenizer::tests::small();
        tokenizer.save(&folder.path().join("words")).unwrap();
        let inputs = vec![Input { name: "tokenizer".to_owned(), path: folder.path().join("words") }];
        let context = Context::below(folder.path(), inputs, Arc::new(NoSettings));
        let changes = serde_json::json!({"family": "qwen3", "head_dim": 6, "heads": 3, "kv_heads": 1, "tie": false});
        stage(changes).run(&context).unwrap();
        let loaded = Bundle::load(&folder.path().join("out/model"), &device("cpu").unwrap()).unwrap();
        assert_eq!(loaded.tokenizer.files(), tokenizer.files());
        let architecture = loaded.decoder.architecture();
        assert_eq!((architecture.head, architecture.kv_heads, architecture.tied), (6, 1, false));
        assert!(architecture.qk_norm);
        let wrong = |connected: &[&str]| stage(serde_json::json!({})).check_inputs(connected).len();
        assert_eq!([&["examples"][..], &["tokenizer"], &[], &["examples", "tokenizer"]].map(wrong), [0, 0, 1, 1]);
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let problems = |changes| -> BTreeSet<String> {
            stage(changes).check().into_iter().map(|problem| format!("{} {}", problem.field, problem.message)).collect()
        };
        assert_eq!(problems(serde_json::json!({})), BTreeSet::new());
        assert_eq!(
            problems(serde_json::json!({"vocab_size": 5, "layers": 0})),
            ["layers must be at least 1".to_owned(), "vocab_size must be at least 262".to_owned()].into()
        );
        assert_eq!(
            problems(serde_json::json!({"hidden_size": 20, "kv_heads": 3})),
            [
                "hidden_size must be a multiple of twice `heads`, 8".to_owned(),
                "kv_heads must divide `heads`, 4".to_owned()
            ]
            .into()
        );
    }
}
