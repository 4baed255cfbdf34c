//! `multiwoz.transcribe`: the words of a corpus, without its annotations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::corpus::Corpus;
use crate::dialogue::source::{Source, Spoken};
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Stage};

const CORPUS: Folder = Folder::new("corpus", "files/v1");
const SOURCES: Port<Source> = Port::new("sources");

/// Writes down what customer and agent said in each dialogue of a MultiWOZ corpus.
///
/// The folder holds `data.json`, or `dataset.zip` with it inside. Users of kind `guide` and `script` follow these dialogues.
/// They come in the order of `data.json`, which is that of the tasks that `toolwoz.convert` makes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultiwozTranscribe {}

impl Stage for MultiwozTranscribe {
    const KIND: &'static str = "multiwoz.transcribe";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
sources:
  kind: multiwoz.transcribe
  in: {corpus: woz.files}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![CORPUS.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![SOURCES.one()]
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let corpus = Corpus::open(context.input(CORPUS.name)?)?;
        let mut sources = context.writer(&SOURCES)?;
        let read = corpus.for_each_dialogue(|name, spoken: Spoken| {
            context.check_stop()?;
            sources.push(Source::new(name, &spoken))
        });
        // A stop is no fault of the corpus.
        context.check_stop()?;
        read?;
        let written = sources.finish()?;
        context.figure("dialogues", written.rows as f64);
        Ok(())
    }
}
