//! SQL over tables: polars does the work, here stands what it is asked and how its answers read.

mod history;
mod mistake;
mod names;
mod order;
mod tokens;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use polars::prelude::{
    DataType, Field, LazyFrame, ParquetWriter, PlRefPath, PolarsResult, ScanArgsParquet, SchemaRef, col,
};
use polars::sql::SQLContext;
use sqlparser::ast::Statement;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserOptions};

pub use self::history::{History, VIRTUAL};
use self::mistake::Known;
pub use self::names::Reference;

/// Lets queries of this process give the same answer every time: polars else sums small numbers of groups in parts, in an order of
/// chance, and sums of floats differ in their last digits.
///
/// # Safety
/// Only while this process has one thread.
pub unsafe fn repeatable() {
    // SAFETY: nobody else reads or writes the environment, as the caller promises.
    unsafe { std::env::set_var("POLARS_NO_PARTITION", "1") }
}

/// A query that was parsed.
#[derive(Debug)]
pub struct Query {
    text: String,
    statement: Statement,
    tables: Vec<Reference>,
}

impl Query {
    /// Parses one query.
    ///
    /// # Errors
    /// When it is no SQL, with the place; when it is more than one statement, or does something else than to ask.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let tokens = tokens::tokens(text).map_err(|error| mistake::no_tokens(text, &error))?;
        let options = ParserOptions { trailing_commas: true, ..ParserOptions::default() };
        let mut parser = Parser::new(&GenericDialect).with_options(options).with_tokens_with_locations(tokens);
        let mut statements = parser.parse_statements().map_err(|error| mistake::no_sql(text, &error))?;
        let (Some(mut statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(anyhow!("expected one query, such as `select * from base.scores`"));
        };
        if !matches!(statement, Statement::Query(_)) {
            return Err(anyhow!(
                "expected a query (`select …` or `with … select …`): tables are read here, never changed"
            ));
        }
        let tables = names::take(&mut statement);
        order::settle(&mut statement);
        Ok(Self { text: text.to_owned(), statement, tables })
    }

    /// The tables that it reads, each once, in the order of their names.
    pub fn tables(&self) -> &[Reference] {
        &self.tables
    }

    /// The query with the tables' names as polars knows them.
    fn rewritten(&self) -> String {
        self.statement.to_string()
    }

    /// The place of a table's name in the query, to be shown below an error.
    pub fn place(&self, table: &Reference) -> String {
        mistake::shown(&self.text, table.place)
    }

    /// Finds out what is to be done. `files` are the tables' Parquet files as [`Self::tables`] lists them; of these only the
    /// columns are read that are asked for.
    ///
    /// # Errors
    /// When a column or function is unknown, or something is asked that polars does not do.
    pub fn plan(&self, files: &[PathBuf]) -> anyhow::Result<Plan> {
        let mut context = SQLContext::new();
        let mut known = Known::new(&self.text);
        for (table, file) in self.tables.iter().zip(files) {
            let read = mistake::caught(|| {
                let mut frame = scan(file)?;
                let schema = frame.collect_schema()?;
                Ok((frame, schema))
            });
            let (frame, schema) = read.with_context(|| format!("`{}` is damaged or not Parquet", table.name))?;
            known.add(&schema);
            context.register(&table.name, frame);
        }
        let text = self.rewritten();
        let planned = mistake::caught(move || {
            let mut frame = context.execute(&text)?;
            let schema = frame.collect_schema()?;
            Ok((frame, schema))
        });
        let (frame, schema) = planned.map_err(|error| known.explain(&error))?;
        Ok(Plan { frame, schema, known })
    }
}

/// A file of which nothing is read yet. Words that Parquet keeps as numbers of a dictionary are texts here: polars would compare and
/// convert the numbers.
fn scan(path: &Path) -> PolarsResult<LazyFrame> {
    // A name is a name: matrices write theirs with brackets, which are a pattern elsewhere.
    let options = ScanArgsParquet { glob: false, ..ScanArgsParquet::default() };
    let mut frame = LazyFrame::scan_parquet(PlRefPath::try_from_path(path)?, options)?;
    let schema = frame.collect_schema()?;
    let texts = schema.iter().filter_map(|(name, kind)| Some(col(name.clone()).cast(spelt(kind)?)));
    Ok(frame.with_columns(texts.collect::<Vec<_>>()))
}

/// A type with texts in place of dictionaries; `None` where there are none.
fn spelt(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Categorical(..) | DataType::Enum(..) => Some(DataType::String),
        DataType::List(inner) => Some(DataType::List(Box::new(spelt(inner)?))),
        DataType::Struct(fields) if fields.iter().any(|field| spelt(&field.dtype).is_some()) => {
            let field = |field: &Field| {
                Field::new(field.name.clone(), spelt(&field.dtype).unwrap_or_else(|| field.dtype.clone()))
            };
            Some(DataType::Struct(fields.iter().map(field).collect()))
        }
        _ => None,
    }
}

/// A query that can be answered.
pub struct Plan {
    frame: LazyFrame,
    schema: SchemaRef,
    known: Known,
}

impl Plan {
    /// The names of the answer's columns.
    pub fn columns(&self) -> Vec<String> {
        self.schema.iter_names().map(ToString::to_string).collect()
    }

    /// Computes the answer, or its first rows, into a Parquet file that goes away with its handle.
    ///
    /// # Errors
    /// When the data do not allow what is asked, such as a text that is no number.
    pub fn answer(self, most: Option<usize>) -> anyhow::Result<File> {
        let Self { frame, known, .. } = self;
        let frame = match most {
            Some(most) => frame.limit(most.try_into().unwrap_or(u32::MAX)),
            None => frame,
        };
        let mut frame = mistake::caught(move || frame.collect()).map_err(|error| known.explain(&error))?;
        let file = tempfile::tempfile().context("there is no room for the answer")?;
        ParquetWriter::new(&file).finish(&mut frame).context("the answer cannot be written")?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::{self as shown, Form, Table};
    use crate::table::{self, Row};
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Outcome {
        Success,
        Failure,
        Broken,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Call {
        api: String,
        hits: Vec<u32>,
        note: Option<String>,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Talk {
        dialogue: String,
        outcome: Outcome,
        reward: Option<f64>,
        seed: u64,
        small: i8,
        ended: Option<bool>,
        first: Option<Call>,
        calls: Vec<Call>,
    }

    impl Row for Talk {
        const TYPE: &'static str = "test.talk/v1";
    }

    fn call() -> impl Strategy<Value = Call> {
        (".{0,6}", prop::collection::vec(any::<u32>(), 0..3), prop::option::of(".{0,3}"))
            .prop_map(|(api, hits, note)| Call { api, hits, note })
    }

    fn talk() -> impl Strategy<Value = Talk> {
        let outcome = prop::sample::select(vec![Outcome::Success, Outcome::Failure, Outcome::Broken]);
        let reward = prop::option::of(any::<f64>());
        let plain = (".{0,8}", outcome, reward, any::<u64>(), any::<i8>(), prop::option::of(any::<bool>()));
        (plain, prop::option::of(call()), prop::collection::vec(call(), 0..3)).prop_map(
            |((dialogue, outcome, reward, seed, small, ended), first, calls)| Talk {
                dialogue,
                outcome,
                reward,
                seed,
                small,
                ended,
                first,
                calls,
            },
        )
    }

    fn text(table: &Table, form: Form) -> String {
        let mut text = Vec::new();
        shown::write(table, form, None, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn ask(text: &str, file: &Path) -> Table {
        let query = Query::parse(text).unwrap();
        let files = vec![file.to_owned(); query.tables().len()];
        Table::of(query.plan(&files).unwrap().answer(None).unwrap(), "the answer").unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn all_of_a_table_is_the_table(talks in prop::collection::vec(talk(), 0..40)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("talks[x=1]");
            table::write(&path, talks.clone()).unwrap();
            let (there, asked) = (Table::open(&path).unwrap(), ask("select * from t", &path));
            for form in [Form::Jsonl, Form::Json, Form::Csv, Form::Markdown] {
                prop_assert_eq!(text(&there, form), text(&asked, form));
            }
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text(&there, Form::Json)).unwrap();
            let expected: Vec<_> = talks.iter().map(|talk| serde_json::to_value(talk).unwrap()).collect();
            prop_assert_eq!(rows, expected);
        }
    }

    #[test]
    fn an_answer_is_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talks");
        let talk = |at: u64| Talk {
            dialogue: format!("d{}", at % 97),
            outcome: if at.is_multiple_of(3) { Outcome::Success } else { Outcome::Failure },
            reward: Some(at as f64),
            seed: at,
            small: 0,
            ended: None,
            first: None,
            calls: vec![Call { api: format!("a{}", at % 5), hits: vec![at as u32], note: None }; (at % 3) as usize],
        };
        table::write(&path, (0..3000).map(talk)).unwrap();
        for sql in [
            "select dialogue, avg(reward) as r from t group by dialogue",
            "select sum(r) from (select dialogue, avg(reward) as r from t group by dialogue) x",
            "with g as (select distinct dialogue from t) select * from g limit 5",
            "select dialogue from t union select outcome from t",
            "select call.api, count(*) as n from t cross join unnest(calls) as call group by call.api",
            "select * from t a join t b using (seed) limit 50",
        ] {
            let first = text(&ask(sql, &path), Form::Csv);
            assert!(first.lines().count() > 1, "{sql}");
            assert!((0..4).all(|_| text(&ask(sql, &path), Form::Csv) == first), "{sql}");
        }
    }

    #[test]
    fn words_are_texts_and_joins_have_their_columns_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talks");
        let call = Call { api: "search".to_owned(), hits: vec![2], note: None };
        let talk = |name: &str, outcome| Talk {
            dialogue: name.to_owned(),
            outcome,
            reward: None,
            seed: 1,
            small: -1,
            ended: None,
            first: Some(call.clone()),
            calls: vec![call.clone()],
        };
        table::write(&path, [talk("a", Outcome::Success), talk("b", Outcome::Broken)]).unwrap();
        let csv = |sql: &str| text(&ask(sql, &path), Form::Csv);
        assert_eq!(csv("select dialogue from t where outcome < 'c'"), "dialogue\nb\n");
        assert_eq!(
            csv("select outcome || '!' as o, first.api from t where reward is null limit 1"),
            "o,api\nsuccess!,search\n"
        );
        assert_eq!(
            csv(
                "select * from (select dialogue, small from t) x join (select dialogue, ended from t) y using (dialogue)"
            ),
            "dialogue,small,ended\na,-1,\nb,-1,\n"
        );
        assert_eq!(
            csv("select p.q.dialogue from p.q join r.s using (dialogue) where s.small = -1 and q.dialogue = 'a'"),
            "dialogue\na\n"
        );
        assert_eq!(
            csv("select dialogue, calls from t limit 1"),
            "dialogue,calls\na,\"[{\"\"api\"\":\"\"search\"\",\"\"hits\"\":[2],\"\"note\"\":null}]\"\n"
        );
    }
}
