//! Rows to Parquet, hashed on the way to the disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Row, schema};
use crate::fs;

/// Rows turned to Arrow at a time: bounds memory, and fixes where pages end.
const BATCH: usize = 1024;

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
    writer: ArrowWriter<Hashing>,
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
        let sink = Hashing { file: BufWriter::new(fs::create(path)?), hash: blake3::Hasher::new(), bytes: 0 };
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties))?;
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
        self.writer.write(&batch).with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Writes what is left, syncs the file and says what it is.
    pub fn finish(mut self) -> anyhow::Result<Written> {
        if !self.waiting.is_empty() {
            self.flush()?;
        }
        let context = || format!("cannot write `{}`", self.path.display());
        let mut sink = self.writer.into_inner().with_context(context)?;
        sink.flush().with_context(context)?;
        sink.file.get_ref().sync_all().with_context(context)?;
        Ok(Written { rows: self.rows, bytes: sink.bytes, digest: sink.hash.finalize().to_hex().to_string() })
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

struct Hashing {
    file: BufWriter<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
