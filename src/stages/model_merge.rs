//! `model.merge`: a model's adapter becomes part of its weights.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::port::{Folder, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::fs;
use crate::model::bundle::{self, Bundle};
use crate::model::device::device;
use crate::model::peft::{ADAPTER_CONFIG, ADAPTER_MODEL, PeftAdapter};

const BASE: Folder = Folder::new("base", bundle::FORMAT);
const MODEL: Folder = Folder::new("model", bundle::FORMAT);

/// Merges an adapter into a model's weights: the one that the model keeps beside them, or one in PEFT's layout from outside.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelMerge {
    /// The folder of an adapter in PEFT's layout, relative to the project; its content counts for the fingerprint. Where absent, the
    /// adapter is the one of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

impl Stage for ModelMerge {
    const KIND: &'static str = "model.merge";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
merged:
  kind: model.merge
  in: {base: base.model}
  with: {adapter: adapters/friendly}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![BASE.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let empty = self.adapter.as_ref().filter(|path| path.as_os_str().is_empty());
        empty.map(|_| Problem::new("adapter", "must name a folder")).into_iter().collect()
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let Some(adapter) = &self.adapter else { return Ok(Vec::new()) };
        let content = |name: &str| -> anyhow::Result<(String, String)> {
            let digest = fs::digest(project.join(adapter).join(name)).context("an adapter has two files")?;
            Ok((format!("file `{name}`"), format!("blake3 {}", digest.hex)))
        };
        [ADAPTER_CONFIG, ADAPTER_MODEL].into_iter().map(content).collect()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let device = device(context.profile.device())?;
        let mut bundle = Bundle::load(context.input(BASE.name)?, &device)?;
        if let Some(adapter) = &self.adapter {
            bundle.decoder = PeftAdapter::open(&context.project.join(adapter))?.attach(&bundle.decoder)?;
        }
        if bundle.decoder.lora().is_none() {
            bail!("the model has no adapter; name the folder of one as `adapter`");
        }
        let merged = bundle.decoder.merged();
        Ok(Bundle { decoder: merged, ..bundle }.save(&context.folder(&MODEL)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::tests::untrained;
    use crate::model::lora::tests::{adapted, logits};
    use crate::model::peft;
    use crate::stages::bench::Bench;

    #[test]
    fn an_adapter_becomes_part_of_the_weights() {
        let bench = Bench::new();
        let cpu = device("cpu").unwrap();
        let plain = untrained();
        let base = bench.project().join("base");
        plain.save(&base).unwrap();
        let adapter = adapted(&cpu);
        peft::save(&adapter, &bench.project().join("mine"), None).unwrap();
        let stage: ModelMerge = serde_json::from_value(serde_json::json!({"adapter": "mine"})).unwrap();
        assert_eq!(stage.also_depends_on(&bench.project()).unwrap().len(), 2);
        bench.run(&stage, &[("base", &base)]).unwrap();
        let merged = Bundle::load(&bench.out("model"), &cpu).unwrap().decoder;
        assert!(merged.lora().is_none());
        let attached = PeftAdapter::open(&bench.project().join("mine")).unwrap().attach(&plain.decoder).unwrap();
        let differences = logits(&merged).into_iter().zip(logits(&attached)).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-4);
        assert_ne!(logits(&merged), logits(&plain.decoder));

        let none: ModelMerge = serde_json::from_value(serde_json::json!({})).unwrap();
        let error = bench.run(&none, &[("base", &base)]).unwrap_err().to_string();
        assert_eq!(error, "the model has no adapter; name the folder of one as `adapter`");
    }
}
