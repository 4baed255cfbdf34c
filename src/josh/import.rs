//! Trees that others recorded: full lists of messages with marks, turned into rows that share their prefixes.

use std::io::{Read, Seek};

use serde::Deserialize;
use zip::ZipArchive;
use zip::result::ZipError;

use super::node::NodeRow;
use super::tree::Outcome;
use crate::chat::Message;

/// Why a file is not a recorded tree.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file's name does not say which dialogue it holds.
    #[error("`{0}` is not named `…_DIALOGUE.json`")]
    Name(String),
    /// The archive is damaged, or is none.
    #[error("the archive is damaged: {0}")]
    Archive(#[from] ZipError),
    /// A file in the archive could not be unpacked.
    #[error("cannot unpack `{name}`: {source}")]
    Unpack { name: String, source: std::io::Error },
    /// Two files hold the same dialogue.
    #[error("`{0}` stands twice in the archive")]
    Twice(String),
    /// The file's text is not a record.
    #[error("`{name}` is not a recorded tree: {source}")]
    Record { name: String, source: serde_json::Error },
}

/// One recorded tree as the authors' files hold it (reference, section 2.6, paper era).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RecordedTree {
    /// Each recorded example: its messages, whether it succeeded, whether it is golden.
    pub training_paths: Vec<(Vec<Message>, bool, bool)>,
    /// Whether every goal was reached.
    #[serde(rename = "100_percent_reached")]
    pub complete: bool,
}

/// The dialogue that a file holds: what stands between the last `_` and `.json`.
///
/// The reference takes the trees in the order of this text.
pub fn dialogue_of(name: &str) -> Result<&str, ImportError> {
    let stem = name.strip_suffix(".json").ok_or_else(|| ImportError::Name(name.to_owned()))?;
    match stem.rsplit_once('_') {
        Some((_, dialogue)) if !dialogue.is_empty() && !dialogue.contains('/') => Ok(dialogue),
        _ => Err(ImportError::Name(name.to_owned())),
    }
}

/// Reads one file's text.
pub fn parse(name: &str, text: &[u8]) -> Result<RecordedTree, ImportError> {
    serde_json::from_slice(text).map_err(|source| ImportError::Record { name: name.to_owned(), source })
}

/// The trees of a zip archive, each as its rows, in the order of the dialogues' names; what is no `.json` is passed over.
///
/// Each dialogue is named `DIALOGUE.json`, as MultiWOZ names it.
pub fn archive<R: Read + Seek>(
    zip: R,
) -> Result<impl ExactSizeIterator<Item = Result<Vec<NodeRow>, ImportError>>, ImportError> {
    let mut zip = ZipArchive::new(zip)?;
    let mut files = Vec::new();
    for name in zip.file_names() {
        let name = name?.into_owned();
        if name.ends_with(".json") && !name.starts_with("__MACOSX/") {
            files.push((dialogue_of(&name)?.to_owned(), name));
        }
    }
    files.sort();
    if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(ImportError::Twice(pair[0].0.clone()));
    }
    Ok(files.into_iter().map(move |(dialogue, name)| {
        let mut text = Vec::new();
        let unpacked = zip.by_name(&name)?.read_to_end(&mut text);
        unpacked.map_err(|source| ImportError::Unpack { name: name.clone(), source })?;
        Ok(rows(&format!("{dialogue}.json"), &parse(&name, &text)?))
    }))
}

/// The rows of a recorded tree, one a record in the order of recording; of an empty tree one row without an order.
///
/// A row's parent is the earlier row that shares the longest whole prefix, so [`super::paths`] gives back each list exactly.
/// How many goals there were, and which were hit where, the records do not say.
pub fn rows(dialogue: &str, tree: &RecordedTree) -> Vec<NodeRow> {
    let outcome = match (tree.complete, tree.training_paths.is_empty()) {
        (true, _) => Outcome::Complete,
        (false, false) => Outcome::Partial,
        (false, true) => Outcome::Empty,
    };
    let row = |node: usize| NodeRow {
        dialogue: dialogue.to_owned(),
        outcome,
        reason: None,
        reward: match outcome {
            Outcome::Complete => Some(1.0),
            Outcome::Empty => Some(0.0),
            Outcome::Partial | Outcome::Broken => None,
        },
        goals: None,
        node: node as u32,
        parent: None,
        depth: 0,
        order: None,
        success: false,
        golden: false,
        hits: Vec::new(),
        seed: None,
        messages: Vec::new(),
    };
    if tree.training_paths.is_empty() {
        return vec![row(0)];
    }
    let mut rows: Vec<NodeRow> = Vec::new();
    for (node, (messages, success, golden)) in tree.training_paths.iter().enumerate() {
        let parent = longest_prefix(messages, &tree.training_paths[..node]);
        let from = parent.map_or(0, |parent| tree.training_paths[parent].0.len());
        rows.push(NodeRow {
            parent: parent.map(|parent| parent as u32),
            depth: parent.map_or(0, |parent| rows[parent].depth + 1),
            order: Some(node as u32),
            success: *success,
            golden: *golden,
            messages: messages[from..].to_vec(),
            ..row(node)
        });
    }
    rows
}

/// The first of the earlier records whose messages are the longest prefix of these.
fn longest_prefix(messages: &[Message], earlier: &[(Vec<Message>, bool, bool)]) -> Option<usize> {
    let prefixes = earlier.iter().enumerate().filter(|(_, (before, ..))| messages.starts_with(before));
    prefixes.rev().max_by_key(|(_, (before, ..))| before.len()).map(|(place, _)| place)
}
