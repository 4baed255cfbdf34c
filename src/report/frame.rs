//! Parquet tables as polars frames, to join and to count.

use std::path::Path;

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polars::prelude::{
    Column, DataFrame, IntoLazy, JoinArgs, JoinType, NamedFrom, Series, SortMultipleOptions, col, lit,
};

use crate::fs;

/// Reads the named columns of a table; texts, numbers and truth values only.
pub fn read(path: &Path, columns: &[&str]) -> anyhow::Result<DataFrame> {
    let damaged = || format!("`{}` is damaged or not Parquet", path.display());
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::open(path)?).with_context(damaged)?;
    let batches = builder.build().with_context(damaged)?.collect::<Result<Vec<_>, _>>().with_context(damaged)?;
    let mut frame: Option<DataFrame> = None;
    for batch in &batches {
        let part = convert(batch, columns).with_context(|| format!("in `{}`", path.display()))?;
        match &mut frame {
            None => frame = Some(part),
            Some(frame) => {
                frame.vstack_mut(&part)?;
            }
        }
    }
    Ok(frame.unwrap_or_default())
}

fn convert(batch: &RecordBatch, columns: &[&str]) -> anyhow::Result<DataFrame> {
    let convert = |name: &&str| {
        let array = batch.column_by_name(name).with_context(|| format!("there is no column `{name}`"))?;
        Ok(Column::from(series(name, array.as_ref())?))
    };
    Ok(DataFrame::new(batch.num_rows(), columns.iter().map(convert).collect::<anyhow::Result<Vec<_>>>()?)?)
}

fn series(name: &str, array: &dyn Array) -> anyhow::Result<Series> {
    let text = |array: &dyn Array| -> anyhow::Result<Series> {
        let texts = arrow::compute::cast(array, &DataType::Utf8)?;
        Ok(Series::new(name.into(), texts.as_string::<i32>().iter().collect::<Vec<_>>()))
    };
    match array.data_type() {
        DataType::Boolean => Ok(Series::new(name.into(), array.as_boolean().iter().collect::<Vec<_>>())),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _) => text(array),
        kind if kind.is_unsigned_integer() => {
            let numbers = arrow::compute::cast(array, &DataType::UInt64)?;
            Ok(Series::new(name.into(), numbers.as_primitive::<UInt64Type>().iter().collect::<Vec<_>>()))
        }
        kind if kind.is_numeric() => {
            let numbers = arrow::compute::cast(array, &DataType::Float64)?;
            Ok(Series::new(name.into(), numbers.as_primitive::<Float64Type>().iter().collect::<Vec<_>>()))
        }
        kind => anyhow::bail!("column `{name}` is {kind}, which no comparison reads"),
    }
}

/// A dialogue that came out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The dialogue.
    pub dialogue: String,
    /// How it ended before.
    pub before: String,
    /// How it ends now.
    pub after: String,
}

/// The dialogues of two score tables whose outcome differs, in the order of their names.
pub fn flips(before: &Path, after: &Path) -> anyhow::Result<Vec<Flip>> {
    let columns = ["dialogue", "outcome"];
    let after = read(after, &columns)?.lazy().select([col("dialogue"), col("outcome").alias("after")]);
    let joined = read(before, &columns)?
        .lazy()
        .join(after, [col("dialogue")], [col("dialogue")], JoinArgs::new(JoinType::Inner))
        .filter(col("outcome").eq(col("after")).eq(lit(false)))
        .sort(["dialogue"], SortMultipleOptions::default())
        .collect()?;
    let texts = |name: &str| -> anyhow::Result<Vec<String>> {
        Ok(joined.column(name)?.str()?.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
    };
    let (dialogues, befores, afters) = (texts("dialogue")?, texts("outcome")?, texts("after")?);
    let rows = dialogues.into_iter().zip(befores).zip(afters);
    Ok(rows.map(|((dialogue, before), after)| Flip { dialogue, before, after }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{self, Row};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Score {
        dialogue: String,
        outcome: String,
        reward: Option<f64>,
        tokens: u32,
    }

    impl Row for Score {
        const TYPE: &'static str = "test.score/v1";
    }

    #[test]
    fn flips_are_found_by_name_whatever_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[(&str, &str)]| {
            let path = folder.path().join(name);
            let score = |&(dialogue, outcome): &(&str, &str)| Score {
                dialogue: dialogue.to_owned(),
                outcome: outcome.to_owned(),
                reward: None,
                tokens: 3,
            };
            table::write(&path, rows.iter().map(score)).unwrap();
            path
        };
        let before = write("a", &[("x", "success"), ("y", "failure"), ("z", "failure"), ("w", "success")]);
        let after = write("b", &[("z", "broken"), ("y", "success"), ("x", "success"), ("v", "success")]);
        let found = flips(&before, &after).unwrap();
        let found: Vec<(&str, &str, &str)> =
            found.iter().map(|flip| (flip.dialogue.as_str(), flip.before.as_str(), flip.after.as_str())).collect();
        assert_eq!(found, [("y", "failure", "success"), ("z", "failure", "broken")]);
        let frame = read(&before, &["reward", "tokens"]).unwrap();
        assert_eq!(frame.column("reward").unwrap().null_count(), 4);
        assert_eq!(frame.column("tokens").unwrap().u64().unwrap().get(3), Some(3));
        assert!(read(&before, &["nothing"]).unwrap_err().to_string().contains("in `"));
    }
}
