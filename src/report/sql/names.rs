//! Which tables a query reads, found in what was parsed: aliases, joins, subqueries and `with` tables keep their meaning.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Statement,
    TableFactor, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Location;

/// A table that a query names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name, its parts joined by dots.
    pub name: String,
    /// Whether it stands in single quotes, as paths of files do.
    pub literal: bool,
    /// Where it stands first: line and column, from 1.
    pub place: (u64, u64),
}

/// Finds the tables of a statement, each once, and gives each the one name under which polars will know it.
pub(super) fn take(statement: &mut Statement) -> Vec<Reference> {
    let mut defined = Defined::default();
    let _ = statement.visit(&mut defined);
    let mut tables = Tables { with: defined.with, aliases: defined.aliases, ..Tables::default() };
    let _ = statement.visit(&mut tables);
    let _ = statement.visit(&mut Qualifiers { tables: &tables });
    tables.found.into_values().collect()
}

/// The names that a statement itself gives.
#[derive(Default)]
struct Defined {
    with: HashSet<String>,
    aliases: HashSet<String>,
}

impl VisitorMut for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.with.insert(table.alias.name.value.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } = factor
        {
            self.aliases.insert(alias.name.value.clone());
        }
        ControlFlow::Continue(())
    }
}

#[derive(Default)]
struct Tables {
    with: HashSet<String>,
    aliases: HashSet<String>,
    found: BTreeMap<String, Reference>,
    /// Those that are somewhere read under their own name.
    bare: BTreeSet<String>,
}

impl VisitorMut for Tables {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let idents: Vec<&Ident> = name.0.iter().filter_map(ObjectNamePart::as_ident).collect();
        let (Some(first), true) = (idents.first(), idents.len() == name.0.len()) else {
            return ControlFlow::Continue(());
        };
        if idents.len() == 1 && self.with.contains(&first.value) {
            return ControlFlow::Continue(());
        }
        let text = idents.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(".");
        let Location { line, column } = first.span.start;
        let literal = idents.len() == 1 && first.quote_style == Some('\'');
        if alias.is_none() {
            self.bare.insert(text.clone());
        }
        *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', text.clone()))]);
        let found = Reference { name: text.clone(), literal, place: (line, column) };
        self.found.entry(text).or_insert(found);
        ControlFlow::Continue(())
    }
}

impl Tables {
    /// How many of the first parts of a column's name are a table's, and which table that is.
    fn qualifier(&self, parts: &[Ident]) -> Option<(usize, &str)> {
        let text = |count: usize| parts[..count].iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        for count in (1..=parts.len()).rev() {
            if let Some(table) = self.bare.get(&text(count)) {
                return Some((count, table));
            }
        }
        // `scores.reward` of `base.scores`, where no other table could be meant.
        let first = &parts.first()?.value;
        if self.with.contains(first) || self.aliases.contains(first) {
            return None;
        }
        let mut ends = self.bare.iter().filter(|table| table.rsplit_once('.').is_some_and(|(_, port)| port == first));
        let only = ends.next()?;
        ends.next().is_none().then_some((1, only.as_str()))
    }
}

/// Gives the tables' names to the columns that name their table.
struct Qualifiers<'a> {
    tables: &'a Tables,
}

impl Qualifiers<'_> {
    fn rename(&self, parts: &mut Vec<Ident>, most: usize) {
        if let Some((count, table)) = self.tables.qualifier(&parts[..most]) {
            let place = parts[0].span;
            let name = Ident { value: table.to_owned(), quote_style: Some('"'), span: place };
            parts.splice(..count, [name]);
        }
    }
}

impl VisitorMut for Qualifiers<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr {
            self.rename(parts, parts.len() - 1);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
                let mut parts: Vec<Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                let most = parts.len();
                self.rename(&mut parts, most);
                name.0 = parts.into_iter().map(ObjectNamePart::Identifier).collect();
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Query;

    /// The tables of a query, and the query as polars gets it.
    fn taken(text: &str) -> (Vec<String>, String) {
        let query = Query::parse(text).unwrap();
        (query.tables().iter().map(|table| table.name.clone()).collect(), query.rewritten())
    }

    #[test]
    fn tables_are_found_wherever_they_stand() {
        let text = "with best as (select * from a.scores where reward > (select avg(reward) from b.scores)) \
                    select * from best join (select dialogue from p~1.c.trees union select dialogue from 'x.parquet') t \
                    using (dialogue) where dialogue in (select dialogue from runs)";
        assert_eq!(taken(text).0, ["a.scores", "b.scores", "p~1.c.trees", "runs", "x.parquet"]);
    }

    #[test]
    fn columns_keep_their_tables() {
        let (tables, sql) =
            taken("select a.scores.reward, b.scores.*, t.x.y from a.scores join b.scores using (d), c.t");
        assert_eq!(tables, ["a.scores", "b.scores", "c.t"]);
        for part in ["\"a.scores\".reward", "\"b.scores\".*", "\"c.t\".x.y", "FROM \"a.scores\" JOIN \"b.scores\""] {
            assert!(sql.contains(part), "{sql}");
        }
        let (_, sql) = taken("select s.reward, scores.reward from a.scores as s join b.scores scores using (d)");
        assert!(sql.contains("s.reward, scores.reward FROM \"a.scores\""), "{sql}");
    }

    #[test]
    fn what_a_query_defines_is_no_reference() {
        let (tables, _) =
            taken("with s as (select 1 as x), t as (select * from s) select t.x from t cross join unnest(m) as u");
        assert!(tables.is_empty(), "{tables:?}");
        assert!(taken("select * from read_parquet('x.parquet')").0.is_empty());
    }
}
