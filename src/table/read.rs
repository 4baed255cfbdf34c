//! Parquet to rows, with the row type checked before the first row is read.

use std::fs::File;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use super::{Row, TYPE_KEY, schema};
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

type Builder = ParquetRecordBatchReaderBuilder<File>;

fn open(path: &Path) -> Result<Builder, TableError> {
    open_with(path, ArrowReaderOptions::new())
}

fn open_with(path: &Path, options: ArrowReaderOptions) -> Result<Builder, TableError> {
    ParquetRecordBatchReaderBuilder::try_new_with_options(fs::open(path)?, options)
        .map_err(|source| TableError::Damaged { path: path.to_owned(), source })
}

/// The columns of the row type, where the file has them all: others are not even unpacked. A file that lacks one is read whole,
/// so that the error names what is missing.
fn columns<T: Row>(builder: &Builder) -> ProjectionMask {
    let wanted = schema::<T>();
    let places: Option<Vec<usize>> =
        wanted.fields().iter().map(|field| builder.schema().index_of(field.name()).ok()).collect();
    match places {
        Some(places) => ProjectionMask::roots(builder.parquet_schema(), places),
        None => ProjectionMask::all(),
    }
}

/// Keeps the rows whose text in the column at `place` is `wanted`.
fn equal(builder: &Builder, place: usize, wanted: &str) -> RowFilter {
    let wanted = wanted.to_owned();
    let equal = move |batch: RecordBatch| {
        let texts = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        Ok(texts.as_string::<i32>().iter().map(|text| Some(text == Some(wanted.as_str()))).collect::<BooleanArray>())
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [place]);
    RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, equal))])
}

/// The row type that a Parquet file names, or `None` where it names none (a file that thresh did not write).
pub fn read_type(path: &Path) -> Result<Option<String>, TableError> {
    Ok(open(path)?.schema().metadata().get(TYPE_KEY).cloned())
}

/// The columns of the row type that a Parquet file does not have; none where the file names another row type, which reading
/// refuses.
pub fn lacking<T: Row>(path: &Path) -> Result<Vec<String>, TableError> {
    let file = open(path)?;
    if file.schema().metadata().get(TYPE_KEY).is_some_and(|found| found != T::TYPE) {
        return Ok(Vec::new());
    }
    let names = schema::<T>();
    let names = names.fields().iter().map(|field| field.name().clone());
    Ok(names.filter(|name| file.schema().index_of(name).is_err()).collect())
}

impl<T: Row> TableReader<T> {
    /// Opens a table. A file that names no row type is accepted where its columns fit; columns that the row type does not have
    /// are not read.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        Self::new(path, open(path)?)
    }

    /// Opens a table for the rows whose text in a column is `wanted`. The other columns are read only where such rows stand.
    pub fn open_where(path: &Path, column: &str, wanted: &str) -> Result<Self, TableError> {
        let builder = open_with(path, ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional))?;
        let place = builder.schema().index_of(column).map_err(|error| TableError::Columns {
            path: path.to_owned(),
            expected: T::TYPE,
            reason: error.to_string(),
        })?;
        let filter = equal(&builder, place, wanted);
        Self::new(path, builder.with_row_filter(filter))
    }

    fn new(path: &Path, builder: Builder) -> Result<Self, TableError> {
        if let Some(found) = builder.schema().metadata().get(TYPE_KEY)
            && found != T::TYPE
        {
            return Err(TableError::Type { path: path.to_owned(), found: found.clone(), expected: T::TYPE });
        }
        let damaged = |source| TableError::Damaged { path: path.to_owned(), source };
        let columns = columns::<T>(&builder);
        let batches = builder.with_projection(columns).with_batch_size(1024).build().map_err(damaged)?;
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
