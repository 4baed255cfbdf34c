//! Rows and Parquet: a type that serde can write is a table. Files are byte-stable: fixed settings, no clock, no chance.

mod read;
mod write;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde::{Serialize, de::DeserializeOwned};
use serde_arrow::schema::{SchemaLike, TracingOptions};
use std::sync::Arc;

pub use read::{TableError, TableReader, read, read_type};
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
    let metadata = [(TYPE_KEY.to_owned(), T::TYPE.to_owned())].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}
