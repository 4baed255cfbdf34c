//! Rows to Parquet, hashed on the way to the disk.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Row, schema};
use crate::fs::{Digest, Hashed};

/// Rows turned to Arrow at a time: bounds memory, and fixes where pages end.
const BATCH: usize = 1024;

/// Bytes of a group of rows, as they lie in memory until the group is whole: bounds memory too. Tables below have one group.
const GROUP: usize = 1 << 23;

/// What a finished file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// How many rows it holds.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub digest: String,
}

/// Writes a table row by row.
pub struct TableWriter<T: Row> {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<Hashed>,
    waiting: Vec<T>,
    rows: u64,
    row: PhantomData<T>,
}

impl<T: Row> TableWriter<T> {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let schema = schema::<T>();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("thresh".to_owned())
            .build();
        let writer = ArrowWriter::try_new(Hashed::create(path)?, schema.clone(), Some(properties))?;
        Ok(Self { path: path.to_owned(), schema, writer, waiting: Vec::new(), rows: 0, row: PhantomData })
    }

    /// Adds a row.
    pub fn push(&mut self, row: T) -> anyhow::Result<()> {
        self.waiting.push(row);
        self.rows += 1;
        if self.waiting.len() == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let batch = serde_arrow::to_record_batch(self.schema.fields(), &self.waiting)?;
        self.waiting.clear();
        let batch = batch.with_schema(self.schema.clone())?;
        let context = || format!("cannot write `{}`", self.path.display());
        self.writer.write(&batch).with_context(context)?;
        if self.writer.in_progress_size() >= GROUP { self.writer.flush().with_context(context) } else { Ok(()) }
    }

    /// Writes what is left, syncs the file and says what it is.
    pub fn finish(mut self) -> anyhow::Result<Written> {
        if !self.waiting.is_empty() {
            self.flush()?;
        }
        let context = || format!("cannot write `{}`", self.path.display());
        let Digest { hex, bytes } = self.writer.into_inner().with_context(context)?.finish()?;
        Ok(Written { rows: self.rows, bytes, digest: hex })
    }
}

/// Writes a table from rows.
pub fn write<T: Row>(path: &Path, rows: impl IntoIterator<Item = T>) -> anyhow::Result<Written> {
    let mut writer = TableWriter::create(path)?;
    for row in rows {
        writer.push(row)?;
    }
    writer.finish()
}
