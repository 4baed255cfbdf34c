//! Rows and Parquet: a type that serde can write is a table. Files are byte-stable: fixed settings, no clock, no chance.

mod aside;
mod read;
mod write;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde::{Serialize, de::DeserializeOwned};
use serde_arrow::schema::{SchemaLike, TracingOptions};
use std::collections::HashMap;
use std::sync::Arc;

pub use aside::{Aside, Place};
pub use read::{TableError, TableReader, lacking, read, read_type};
pub use write::{TableWriter, Written, write};

/// The key under which a Parquet file names its row type.
pub const TYPE_KEY: &str = "thresh.row";

/// A row type: its fields are the columns, its name and version stand in every file.
pub trait Row: Serialize + DeserializeOwned + Send + 'static {
    /// `family.noun/vN`; N rises whenever the columns change.
    const TYPE: &'static str;
}

/// The Arrow schema of a row type, its name in the metadata.
///
/// # Panics
/// When serde cannot describe the type by itself (a map with free keys, an enum with data): such a type is no row, and the
/// test over all row types fails.
pub fn schema<T: Row>() -> SchemaRef {
    let options = TracingOptions::default()
        .strings_as_large_utf8(false)
        .sequence_as_large_list(false)
        .enums_without_data_as_strings(true);
    let fields = Vec::<FieldRef>::from_type::<T>(options)
        .unwrap_or_else(|error| panic!("row type `{}` is not a table: {error}", T::TYPE));
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), T::TYPE.to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, ToolCall};
    use serde::Deserialize;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Leaf {
        name: String,
        score: Option<f64>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        id: u64,
        leaves: Vec<Leaf>,
        role: crate::chat::Role,
    }

    impl Row for Sample {
        const TYPE: &'static str = "test.sample/v1";
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Other {
        id: u64,
    }

    impl Row for Other {
        const TYPE: &'static str = "test.other/v1";
    }

    fn samples(count: u64) -> Vec<Sample> {
        let leaf =
            |id: u64| Leaf { name: format!("ü{id}"), score: (!id.is_multiple_of(3)).then_some(id as f64 / 7.0) };
        (0..count)
            .map(|id| Sample { id, leaves: (0..id % 4).map(leaf).collect(), role: crate::chat::Role::Assistant })
            .collect()
    }

    #[test]
    fn rows_come_back_and_bytes_are_stable() {
        let folder = tempfile::tempdir().unwrap();
        for count in [0, 1, 1024, 2500] {
            let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
            let rows = samples(count);
            let first = write(&a, rows.clone()).unwrap();
            let second = write(&b, rows.clone()).unwrap();
            assert_eq!(first, second);
            assert_eq!(first.digest, blake3::hash(&std::fs::read(&a).unwrap()).to_hex().to_string());
            assert_eq!(first.bytes, std::fs::metadata(&a).unwrap().len());
            assert_eq!(read::<Sample>(&a).unwrap(), rows);
            assert_eq!(read_type(&a).unwrap().as_deref(), Some(Sample::TYPE));
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Talk {
        messages: Vec<Message>,
    }

    impl Row for Talk {
        const TYPE: &'static str = "test.talk/v1";
    }

    #[test]
    fn messages_with_and_without_calls_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let call = ToolCall::new("c1", "search_hotel", "{}");
        let calling = Message { tool_calls: vec![call], ..Message::assistant("") };
        let talks = [vec![], vec![Message::user("hi"), calling, Message::tool("c1", "[]")], vec![Message::user("a")]];
        let rows: Vec<Talk> = talks.into_iter().map(|messages| Talk { messages }).collect();
        write(&path, rows.clone()).unwrap();
        assert_eq!(read::<Talk>(&path).unwrap(), rows);
    }

    #[test]
    fn a_large_table_is_written_group_by_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let noise = |id: u64| -> String {
            let mut bytes = [0; 40_000];
            blake3::Hasher::new().update(&id.to_le_bytes()).finalize_xof().fill(&mut bytes);
            bytes.iter().map(|byte| char::from(b' ' + byte % 64)).collect()
        };
        let row =
            |id: u64| Sample { id, leaves: vec![Leaf { name: noise(id), score: None }], role: crate::chat::Role::User };
        let written = write(&path, (0..2100).map(row)).unwrap();
        assert_eq!(written, write(&folder.path().join("b.parquet"), (0..2100).map(row)).unwrap());
        let file = parquet::file::serialized_reader::SerializedFileReader::new(std::fs::File::open(&path).unwrap());
        assert!(parquet::file::reader::FileReader::metadata(&file.unwrap()).num_row_groups() > 1);
        let rows = TableReader::<Sample>::open(&path).unwrap();
        assert!(rows.enumerate().all(|(id, found)| found.unwrap() == row(id as u64)));
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Name {
        name: String,
    }

    impl Row for Name {
        const TYPE: &'static str = "test.named/v1";
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Named {
        leaves: Vec<Leaf>,
        name: String,
        id: u64,
    }

    impl Row for Named {
        const TYPE: &'static str = "test.named/v1";
    }

    #[test]
    fn some_rows_and_some_columns_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let row = |id: u64| Named {
            leaves: (0..id % 3).map(|_| Leaf { name: format!("ü{id}"), score: None }).collect(),
            name: format!("n{}", id % 1500),
            id,
        };
        write(&path, (0..4000).map(row)).unwrap();
        let names = read::<Name>(&path).unwrap();
        assert!(names.len() == 4000 && names[3999].name == "n999");
        let picked = |name: &str| -> Vec<Named> {
            TableReader::open_where(&path, "name", name).unwrap().collect::<Result<_, _>>().unwrap()
        };
        assert_eq!(picked("n7"), [7, 1507, 3007].map(row));
        assert_eq!(picked("n1499"), [1499, 2999].map(row));
        assert_eq!(picked("N7"), []);
        let Err(error) = TableReader::<Named>::open_where(&path, "nime", "n7") else { panic!() };
        assert!(error.to_string().contains("nime"), "{error}");
        let Err(error) = TableReader::<Other>::open_where(&path, "name", "n7") else { panic!() };
        assert!(error.to_string().contains("expected `test.other/v1`"), "{error}");
    }

    #[test]
    fn another_row_type_and_damage_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, samples(100)).unwrap();
        let error = read::<Other>(&path).unwrap_err().to_string();
        assert!(error.contains("holds `test.sample/v1` rows, expected `test.other/v1`"), "{error}");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = read::<Sample>(&path).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
