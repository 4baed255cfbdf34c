//! The kinds of stages: one file each, and the only list of them. A program of one's own may add some ([`extend`]).

pub mod command_run;
pub mod data_kto;
pub mod data_pairs;
pub mod data_sft;
pub mod dataset_fetch;
pub mod demonstrations_build;
pub mod dialogue_simulate;
pub mod endpoint;
pub mod eval_compare;
pub mod eval_instructions;
pub mod eval_perplexity;
pub mod eval_toolwoz;
pub mod josh_harvest;
pub mod josh_import;
pub mod model_import;
pub mod model_init;
pub mod model_merge;
pub mod multiwoz_synthesize;
pub mod multiwoz_transcribe;
pub mod tokenizer_train;
pub mod toolwoz_convert;
pub mod toolwoz_replay;
pub mod train_dpo;
pub mod train_kto;
pub mod train_sft;
pub mod trl;

mod by_task;
mod casting;
mod compat;
mod extension;
mod frame;
mod in_order;
mod prompt;
mod roles;
mod selection;
mod served;
mod training;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod training_tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use schemars::{JsonSchema, Schema};

use crate::compat::Quirk;
use crate::engine::stage::{AnyStage, Stage};
use crate::table::{self, Row};
use crate::value::{self, Node, PlaceError};

pub use extension::{ExtendError, Extension, extend, kinds, rows};

/// A kind of stage, as pipelines name it and documentation lists it.
pub struct Kind {
    /// `family.verb`.
    pub name: &'static str,
    /// See [`Stage::VERSION`].
    pub version: u32,
    /// A stage of this kind as it stands in a pipeline.
    pub example: &'static str,
    /// See [`Stage::REPLACED`].
    pub replaced: &'static [(&'static str, &'static str)],
    /// The JSON Schema of the parameters; its description is the kind's documentation.
    pub schema: fn() -> Schema,
    /// The quirks of the reference that it asks about, part by part; none for a stage without `compat`.
    pub quirks: &'static [&'static [Quirk]],
    /// Reads the parameters.
    pub parse: fn(&Node) -> Result<Arc<dyn AnyStage>, PlaceError>,
}

impl Kind {
    /// The kind that a type is.
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::KIND,
            version: S::VERSION,
            example: S::EXAMPLE,
            replaced: S::REPLACED,
            schema: || schemars::schema_for!(S),
            quirks: &[],
            parse: |node| Ok(Arc::new(value::parse::<S>(node)?)),
        }
    }
}

const fn kind<S: Stage>() -> Kind {
    Kind::of::<S>()
}

const fn compatible<S: compat::Compatible>() -> Kind {
    Kind { quirks: S::QUIRKS, ..kind::<S>() }
}

/// Every kind of our own, in the order in which an experiment uses them; [`kinds`] has the added ones too.
pub static KINDS: &[Kind] = &[
    kind::<dataset_fetch::DatasetFetch>(),
    kind::<multiwoz_synthesize::MultiwozSynthesize>(),
    kind::<multiwoz_transcribe::MultiwozTranscribe>(),
    compatible::<toolwoz_convert::ToolwozConvert>(),
    compatible::<demonstrations_build::DemonstrationsBuild>(),
    compatible::<dialogue_simulate::DialogueSimulate>(),
    compatible::<josh_harvest::JoshHarvest>(),
    kind::<josh_import::JoshImport>(),
    compatible::<data_sft::DataSft>(),
    compatible::<data_kto::DataKto>(),
    kind::<data_pairs::DataPairs>(),
    kind::<model_import::ModelImport>(),
    kind::<tokenizer_train::TokenizerTrain>(),
    kind::<model_init::ModelInit>(),
    kind::<model_merge::ModelMerge>(),
    kind::<train_sft::TrainSft>(),
    kind::<train_kto::TrainKto>(),
    kind::<train_dpo::TrainDpo>(),
    compatible::<toolwoz_replay::ToolwozReplay>(),
    compatible::<eval_toolwoz::EvalToolwoz>(),
    kind::<eval_compare::EvalCompare>(),
    kind::<eval_instructions::EvalInstructions>(),
    kind::<eval_perplexity::EvalPerplexity>(),
    kind::<command_run::CommandRun>(),
];

/// The kind of a name.
pub fn find(name: &str) -> Option<&'static Kind> {
    kinds().find(|kind| kind.name == name)
}

/// A row type and its columns.
pub struct RowType {
    /// `family.noun/vN`.
    pub name: &'static str,
    /// Its columns.
    pub schema: fn() -> SchemaRef,
    /// What the columns mean, as the descriptions of a JSON Schema; `None` where nobody says it.
    pub about: Option<fn() -> Schema>,
}

impl RowType {
    /// The row type that a type is.
    pub const fn of<T: Row>() -> Self {
        Self { name: T::TYPE, schema: table::schema::<T>, about: None }
    }

    /// The row type that a type is, its fields' comments the meaning of the columns.
    pub const fn described<T: Row + JsonSchema>() -> Self {
        Self { about: Some(|| schemars::schema_for!(T)), ..Self::of::<T>() }
    }
}

const fn row<T: Row + JsonSchema>() -> RowType {
    RowType::described::<T>()
}

/// Every row type of our own; [`rows`] has the added ones too.
pub static ROWS: &[RowType] = &[
    row::<crate::dialogue::source::Source>(),
    row::<crate::dialogue::task::Task>(),
    row::<crate::dialogue::task::WorldItem>(),
    row::<crate::dialogue::episode::EpisodeRow>(),
    row::<crate::dialogue::replay::OutcomeRow>(),
    row::<crate::josh::node::NodeRow>(),
    row::<crate::examples::SftExample>(),
    row::<crate::examples::KtoExample>(),
    row::<crate::examples::PairExample>(),
    row::<crate::train::log::TrainLog>(),
    row::<crate::train::rows::TrainRow>(),
    row::<crate::llm::record::CallRow>(),
    row::<crate::eval::score::ScoreRow>(),
    row::<crate::eval::score::SummaryRow>(),
    row::<crate::eval::trial::TrialRow>(),
    row::<crate::eval::compare::ComparisonRow>(),
    row::<crate::eval::instructions::AnswerRow>(),
    row::<crate::eval::instructions::AbilityRow>(),
    row::<crate::eval::perplexity::PassageRow>(),
    row::<crate::eval::perplexity::PerplexityRow>(),
];
