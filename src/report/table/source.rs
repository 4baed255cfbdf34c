//! A Parquet file, its columns, and its rows a few at a time.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::fs;
use crate::table::TYPE_KEY;
use crate::value::nearest;

/// Rows that are in memory at a time.
const BATCH: usize = 1024;

/// A table that is open, and which of its columns count.
pub struct Table {
    /// How errors call it.
    name: String,
    file: File,
    metadata: ArrowReaderMetadata,
    /// The columns that were chosen, as positions in the file.
    chosen: Vec<usize>,
}

/// There is no column of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no column `{name}`{hint}")]
pub struct NoColumn {
    name: String,
    hint: String,
}

impl Table {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read or is no Parquet.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Self::of(fs::open(path)?, &path.display().to_string())
    }

    /// The table in an open file; errors call it by the name.
    ///
    /// # Errors
    /// When it cannot be read or is no Parquet.
    pub fn of(file: File, name: &str) -> anyhow::Result<Self> {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).with_context(|| damaged(name))?;
        let chosen = (0..metadata.schema().fields().len()).collect();
        Ok(Self { name: name.to_owned(), file, metadata, chosen })
    }

    /// The row type, where the file says one.
    pub fn kind(&self) -> Option<&str> {
        self.metadata.schema().metadata().get(TYPE_KEY).map(String::as_str)
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows().try_into().unwrap_or(0)
    }

    /// How many columns count.
    pub fn width(&self) -> usize {
        self.chosen.len()
    }

    /// The columns that count, in their order.
    pub fn columns(&self) -> impl Iterator<Item = &FieldRef> {
        let fields = self.metadata.schema().fields();
        self.chosen.iter().map(|&at| &fields[at])
    }

    /// Lets only these columns count, in this order.
    ///
    /// # Errors
    /// When there is none of a name.
    pub fn choose(&mut self, names: &[String]) -> Result<(), NoColumn> {
        let schema: &SchemaRef = self.metadata.schema();
        let find = |name: &String| {
            schema.index_of(name).map_err(|_| {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => format!(
                        "; there are {}",
                        known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    ),
                };
                NoColumn { name: name.clone(), hint }
            })
        };
        self.chosen = names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The rows in their order, at most so many, some at a time; only what is chosen is read.
    ///
    /// # Errors
    /// When the file is damaged, here or at any step.
    pub fn batches(&self, limit: Option<usize>) -> anyhow::Result<impl Iterator<Item = anyhow::Result<RecordBatch>>> {
        self.read(&self.chosen, limit)
    }

    fn read(
        &self,
        columns: &[usize],
        limit: Option<usize>,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<RecordBatch>> + use<>> {
        let name = self.name.clone();
        let file = self.file.try_clone().with_context(|| damaged(&name))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
        let builder = builder.with_projection(mask).with_batch_size(BATCH);
        let builder = match limit {
            Some(limit) => builder.with_limit(limit),
            None => builder,
        };
        // What is read has the file's order of columns, each once.
        let mut read: Vec<usize> = columns.to_vec();
        read.sort_unstable();
        read.dedup();
        let order: Vec<usize> = columns.iter().filter_map(|column| read.binary_search(column).ok()).collect();
        let batches = builder.build().with_context(|| damaged(&name))?;
        Ok(batches.map(move |batch| Ok(batch.with_context(|| damaged(&name))?.project(&order)?)))
    }

    /// How many cells of each column are empty. Of plain columns the file says it; others that may be empty are read.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn nulls(&self) -> anyhow::Result<Vec<u64>> {
        let fields = self.metadata.schema().fields();
        self.chosen
            .iter()
            .map(|&column| if fields[column].is_nullable() { self.nulls_of(column) } else { Ok(0) })
            .collect()
    }

    fn nulls_of(&self, column: usize) -> anyhow::Result<u64> {
        let parquet = self.metadata.metadata();
        let schema = parquet.file_metadata().schema_descr();
        let leaves: Vec<usize> =
            (0..schema.num_columns()).filter(|&leaf| schema.get_column_root_idx(leaf) == column).collect();
        if let [leaf] = leaves[..]
            && schema.column(leaf).max_rep_level() == 0
            && schema.column(leaf).max_def_level() == 1
        {
            let counts = parquet.row_groups().iter().map(|group| group.column(leaf).statistics()?.null_count_opt());
            if let Some(count) = counts.sum::<Option<u64>>() {
                return Ok(count);
            }
        }
        let mut count = 0;
        for batch in self.read(&[column], None)? {
            count += batch?.column(0).logical_null_count() as u64;
        }
        Ok(count)
    }
}

fn damaged(name: &str) -> String {
    format!("`{name}` is damaged or not Parquet")
}
