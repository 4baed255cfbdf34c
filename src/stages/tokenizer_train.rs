//! `tokenizer.train`: a tokenizer learnt from examples.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::examples::SftExample;
use crate::model::tokenizer::{self, MIN_VOCABULARY, Tokenizer};

const EXAMPLES: Port<SftExample> = Port::new("examples");

/// The files of a tokenizer, as Hugging Face's libraries read them.
const TOKENIZER: Folder = Folder::new("tokenizer", tokenizer::FORMAT);

/// Learns a tokenizer (byte pair encoding) from the texts of examples, for models from scratch.
///
/// A text that stands in many examples, such as the instructions, counts once for each. The vocabulary has fewer tokens than
/// asked for where the examples have too few frequent words.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTrain {
    /// The most tokens that the vocabulary may hold.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
}

fn vocab_size() -> usize {
    1_200
}

impl Stage for TokenizerTrain {
    const KIND: &'static str = "tokenizer.train";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
words:
  kind: tokenizer.train
  in: {examples: demos.examples}
  with: {vocab_size: 1200}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![TOKENIZER.one()]
    }

    fn check(&self) -> Vec<Problem> {
        check_size(self.vocab_size).into_iter().collect()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let tokenizer = learnt(&context.read(&EXAMPLES)?, self.vocab_size)?;
        context.figure("tokens in the vocabulary", tokenizer.vocab_size() as f64);
        Ok(tokenizer.save(&context.folder(&TOKENIZER)?)?)
    }
}

/// What is wrong with the size of a vocabulary.
pub(super) fn check_size(vocab_size: usize) -> Option<Problem> {
    let small = vocab_size < MIN_VOCABULARY;
    small.then(|| Problem::new("vocab_size", format!("must be at least {MIN_VOCABULARY}")))
}

/// A tokenizer learnt from all that is said and called in examples.
pub(super) fn learnt(examples: &[SftExample], vocab_size: usize) -> anyhow::Result<Tokenizer> {
    let messages = || examples.iter().flat_map(|example| &example.messages);
    let said = messages().map(|message| message.content.as_str());
    let called = messages().flat_map(|message| &message.tool_calls);
    let called = called.flat_map(|call| [call.function.name.as_str(), call.function.arguments.as_str()]);
    Ok(Tokenizer::train(said.chain(called), vocab_size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::stages::bench::Bench;

    #[test]
    fn makes_a_tokenizer_that_loads() {
        let bench = Bench::new();
        let message = Message::user("I want italian food in the centre");
        let example = SftExample { dialogue: "a".to_owned(), messages: vec![message; 20], tools: None };
        let input = bench.project().join("examples.parquet");
        crate::fs::create_dir_all(bench.project()).unwrap();
        crate::table::write(&input, [example]).unwrap();
        let stage: TokenizerTrain = serde_json::from_value(serde_json::json!({"vocab_size": 400})).unwrap();
        bench.run(&stage, &[("examples", &input)]).unwrap();
        let tokenizer = Tokenizer::load(&bench.out("tokenizer")).unwrap();
        assert_eq!(tokenizer.encode("italian centre").unwrap().len(), 2);
        assert!(tokenizer.template().is_ok());
        let small: TokenizerTrain = serde_json::from_value(serde_json::json!({"vocab_size": 4})).unwrap();
        assert_eq!(small.check(), [Problem::new("vocab_size", "must be at least 262")]);
    }
}
