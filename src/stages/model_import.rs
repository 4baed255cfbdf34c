//! `model.import`: a model that others made, as a bundle.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::port::{Folder, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::fs;
use crate::model::bundle::{self, ADAPTER, Bundle};
use crate::model::checkpoint::{CONFIG, Checkpoint};
use crate::model::device::device;
use crate::model::template::{Date, Settings};
use crate::model::tokenizer::{TextFiles, Tokenizer};

const FILES: Folder = Folder::new("files", "files/v1");
const MODEL: Folder = Folder::new("model", bundle::FORMAT);

/// What a person may give a model in place of its own template.
const TEMPLATE: &str = "chat_template.jinja";

/// Takes in a model that others made: a folder as Hugging Face's libraries write them, or a GGUF file.
///
/// A folder's files are taken over byte for byte; a GGUF file's weights become `f32`, and its vocabulary `tokenizer.json`. The
/// content of the files counts for the fingerprint, not their path. Nothing is downloaded here: what `dataset.fetch` has fetched
/// comes in on the input `files`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelImport {
    /// The folder or file, relative to the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The folder or file within the input `files`, in place of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A chat template in Jinja to use instead of the model's own: a file, relative to the project. `{% generation %}` in it says
    /// what the assistant writes, for models whose own template writes earlier messages anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
    /// Further variables of the chat template, such as `enable_thinking: false`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub template_variables: Map<String, Value>,
    /// The day that chat templates tell models, as `2024-07-26`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
}

impl Stage for ModelImport {
    const KIND: &'static str = "model.import";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
base:
  kind: model.import
  with: {path: models/SmolLM2-135M-Instruct.Q4_1.gguf}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![FILES.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let named = [("path", &self.path), ("file", &self.file), ("chat_template", &self.chat_template)];
        let empty = named.into_iter().filter(|(_, path)| path.as_ref().is_some_and(|path| path.as_os_str().is_empty()));
        let mut problems: Vec<Problem> =
            empty.map(|(name, _)| Problem::new(name, "must name a file or folder")).collect();
        match (&self.path, &self.file) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => problems.push(Problem::new("path", "is missing: where the model lies")),
            (Some(_), Some(_)) => problems.push(Problem::new("file", "stands in place of `path`: give one of them")),
        }
        let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if self.file.as_ref().is_some_and(|file| !file.components().all(inside)) {
            problems.push(Problem::new("file", "must be a path within the input `files`"));
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        match (&self.file, connected.contains(&FILES.name)) {
            (Some(_), false) => vec![Problem::new("file", "needs the input `files`, which it lies in")],
            (None, true) => vec![Problem::new("files", "is read only where `file` says which of them is the model")],
            _ => Vec::new(),
        }
    }

    /// The content of the model's files, by their names within it.
    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let mut parts = Vec::new();
        // What comes in on `files` counts as an input.
        let path = self.path.as_ref().map(|path| project.join(path));
        if let Some(path) = path.as_ref().filter(|path| path.is_dir()) {
            for name in files(path)? {
                parts.push((format!("file `{name}`"), content(&path.join(&name))?));
            }
        } else if let Some(path) = path {
            parts.push(("model".to_owned(), content(&path)?));
        }
        if let Some(template) = &self.chat_template {
            parts.push(("chat template".to_owned(), content(&project.join(template))?));
        }
        Ok(parts)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let path = match (&self.file, &self.path) {
            (Some(file), _) => context.input(FILES.name)?.join(file),
            (None, path) => context.project.join(path.as_deref().unwrap_or(Path::new(""))),
        };
        let checkpoint = Checkpoint::open(&path)?;
        let tokenizer = Bundle::tokenizer(&checkpoint)?;
        let files = self.text(tokenizer.files().clone(), &context.project)?;
        let out = context.folder(&MODEL)?;
        if checkpoint.gguf().is_some() {
            let cpu = device("cpu")?;
            let decoder = checkpoint.decoder(&cpu)?;
            context.figure("parameters", decoder.parameters() as f64);
            let tokenizer = Tokenizer::new(files, &[])?;
            Bundle { decoder, tokenizer }.save(&out)?;
        } else {
            for name in self::files(&path)? {
                let to = out.join(&name);
                fs::create_dir_all(to.parent().unwrap_or(&out))?;
                fs::copy(path.join(&name), to)?;
                context.check_stop()?;
            }
            files.save(&out)?;
            // Read once more as those will that use it: what is wrong is said here.
            let tokenizer = Bundle::tokenizer(&Checkpoint::open(&out)?)?;
            context.figure("tokens in the vocabulary", tokenizer.vocab_size() as f64);
        }
        if tokenizer.template().is_err() && self.chat_template.is_none() {
            context.warn("the model has no chat template, so that it cannot chat: give one as `chat_template`");
        }
        Ok(())
    }
}

impl ModelImport {
    /// The text files with what the parameters say.
    fn text(&self, mut files: TextFiles, project: &Path) -> anyhow::Result<TextFiles> {
        if let Some(template) = &self.chat_template {
            files = files.with(TEMPLATE, fs::read_to_string(project.join(template))?);
        }
        if self.date.is_some() || !self.template_variables.is_empty() {
            let settings = Settings { date: self.date.unwrap_or_default(), variables: self.template_variables.clone() };
            files = files.with_json(Settings::FILE, &serde_json::to_value(settings)?);
        }
        Ok(files)
    }
}

/// The files of a model's folder that count, in order: shape, weights, text, and an adapter beside them.
fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for (below, place) in [("", folder.to_owned()), (ADAPTER, folder.join(ADAPTER))] {
        if !place.is_dir() {
            continue;
        }
        for path in fs::list(&place)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
            let counts = weights || name == CONFIG || name == "adapter_config.json" || TextFiles::is_one(name);
            if counts && path.is_file() {
                names.push(if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") });
            }
        }
    }
    ensure!(
        names.iter().any(|name| name == CONFIG),
        "`{}` is no model: expected a folder with `config.json`, or a GGUF file",
        folder.display()
    );
    Ok(names)
}

fn content(path: &Path) -> anyhow::Result<String> {
    let digest = fs::digest(path).context("a model is imported from files that are there")?;
    Ok(format!("blake3 {}", digest.hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::tests::untrained;
    use crate::stages::bench::Bench;

    fn stage(with: Value) -> ModelImport {
        serde_json::from_value(with).unwrap()
    }

    fn project_with_model() -> Bench {
        let bench = Bench::new();
        untrained().save(&bench.project().join("model")).unwrap();
        bench.write("model/README.md", "not a part of it");
        bench
    }

    #[test]
    fn a_folder_is_taken_over_as_it_is() {
        let bench = project_with_model();
        bench.run(&stage(serde_json::json!({"path": "model"})), &[]).unwrap();
        let names = |folder: &Path| -> Vec<String> {
            fs::list(folder)
                .unwrap()
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        let out = bench.out("model");
        let mut expected = names(&bench.project().join("model"));
        expected.retain(|name| name != "README.md");
        assert_eq!(names(&out), expected);
        for name in expected {
            assert_eq!(
                fs::read(out.join(&name)).unwrap(),
                fs::read(bench.project().join("model").join(&name)).unwrap()
            );
        }
    }

    #[test]
    fn a_model_among_fetched_files_is_the_same_as_one_of_the_project() {
        let bench = project_with_model();
        let fetched = stage(serde_json::json!({"file": "model"}));
        assert!(fetched.check().is_empty() && fetched.also_depends_on(&bench.project()).unwrap().is_empty());
        bench.run(&fetched, &[("files", &bench.project())]).unwrap();
        let read = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert_eq!(read(&bench.out("model")), read(&bench.project().join("model")));
        assert_eq!(fetched.check_inputs(&[])[0].field, "file");
        assert_eq!(stage(serde_json::json!({"path": "model"})).check_inputs(&["files"])[0].field, "files");
        for wrong in
            [serde_json::json!({}), serde_json::json!({"path": "a", "file": "b"}), serde_json::json!({"file": "../b"})]
        {
            assert_eq!(stage(wrong.clone()).check().len(), 1, "{wrong}");
        }
    }

    #[test]
    fn a_template_of_ones_own_its_variables_and_its_day_come_along() {
        let bench = project_with_model();
        bench.write("mine.jinja", "{{ strftime_now('%Y') }}{{ mood }}");
        let with = serde_json::json!({
            "path": "model", "chat_template": "mine.jinja", "template_variables": {"mood": "calm"}, "date": "2025-01-02",
        });
        bench.run(&stage(with), &[]).unwrap();
        let bundle = Bundle::load(&bench.out("model"), &device("cpu").unwrap()).unwrap();
        let ids = crate::model::chat::encode_prompt::<crate::chat::Message>(&bundle.tokenizer, &[], &[]).unwrap();
        assert_eq!(bundle.tokenizer.decode(&ids).unwrap(), "2025calm");
    }

    #[test]
    fn content_decides_and_nothing_else() {
        let bench = project_with_model();
        let parts = || stage(serde_json::json!({"path": "model"})).also_depends_on(&bench.project()).unwrap();
        let first = parts();
        bench.write("model/README.md", "other words");
        assert_eq!(parts(), first);
        assert!(first.iter().any(|(name, _)| name == "file `model.safetensors`"));
        bench.write("model/chat_template.jinja", "{{ 1 }}");
        assert_ne!(parts(), first);
    }

    #[test]
    fn what_is_no_model_is_said() {
        let bench = Bench::new();
        bench.write("empty/notes.txt", "");
        bench.write("words.gguf", "words");
        let error = |path: &str| {
            let error = bench.run(&stage(serde_json::json!({"path": path})), &[]).unwrap_err();
            format!("{error:#}")
        };
        for path in ["empty", "words.gguf", "nothing"] {
            assert!(
                error(path).contains("is no model: expected a folder with `config.json`, or a GGUF file"),
                "{path}"
            );
        }
        let nothing = stage(serde_json::json!({"path": "nothing"})).also_depends_on(&bench.project()).unwrap_err();
        assert!(format!("{nothing:#}").contains("cannot read"), "{nothing:#}");
        assert_eq!(stage(serde_json::json!({"path": ""})).check().len(), 1);
    }
}
