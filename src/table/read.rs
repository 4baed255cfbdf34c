//! Parquet to rows, with the row type checked before the first row is read.

use std::fs::File;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::{Row, TYPE_KEY};
use crate::fs;

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file could not be opened.
    #[error(transparent)]
    Path(#[from] fs::PathError),
    /// The bytes are not a whole Parquet file.
    #[error("`{}` is damaged or not Parquet: {source}", path.display())]
    Damaged { path: PathBuf, source: ParquetError },
    /// A page could not be decoded.
    #[error("`{}` is damaged: {source}", path.display())]
    Page { path: PathBuf, source: ArrowError },
    /// The file holds rows of another type.
    #[error("`{}` holds `{found}` rows, expected `{expected}`", path.display())]
    Type { path: PathBuf, found: String, expected: &'static str },
    /// The columns are not those of the row type.
    #[error("`{}` does not fit row type `{expected}`: {reason}", path.display())]
    Columns { path: PathBuf, expected: &'static str, reason: String },
}

/// Reads a table batch by batch.
pub struct TableReader<T: Row> {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    ready: std::vec::IntoIter<T>,
    row: PhantomData<T>,
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TableError> {
    ParquetRecordBatchReaderBuilder::try_new(fs::open(path)?)
        .map_err(|source| TableError::Damaged { path: path.to_owned(), source })
}

/// The row type that a Parquet file names, or `None` where it names none (a file that thresh did not write).
pub fn read_type(path: &Path) -> Result<Option<String>, TableError> {
    Ok(open(path)?.schema().metadata().get(TYPE_KEY).cloned())
}

impl<T: Row> TableReader<T> {
    /// Opens a table. A file that names no row type is accepted where its columns fit.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let builder = open(path)?;
        if let Some(found) = builder.schema().metadata().get(TYPE_KEY)
            && found != T::TYPE
        {
            return Err(TableError::Type { path: path.to_owned(), found: found.clone(), expected: T::TYPE });
        }
        let damaged = |source| TableError::Damaged { path: path.to_owned(), source };
        let batches = builder.with_batch_size(1024).build().map_err(damaged)?;
        Ok(Self { path: path.to_owned(), batches, ready: Vec::new().into_iter(), row: PhantomData })
    }
}

impl<T: Row> Iterator for TableReader<T> {
    type Item = Result<T, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            let batch = match self.batches.next()? {
                Ok(batch) => batch,
                Err(source) => return Some(Err(TableError::Page { path: self.path.clone(), source })),
            };
            match serde_arrow::from_record_batch::<Vec<T>>(&batch) {
                Ok(rows) => self.ready = rows.into_iter(),
                Err(error) => {
                    return Some(Err(TableError::Columns {
                        path: self.path.clone(),
                        expected: T::TYPE,
                        reason: error.to_string(),
                    }));
                }
            }
        }
    }
}

/// Reads a whole table.
pub fn read<T: Row>(path: &Path) -> Result<Vec<T>, TableError> {
    TableReader::open(path)?.collect()
}
