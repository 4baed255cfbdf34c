//! What standard SQL and polars leave open, or see differently, settled so that a query has one answer.
//!
//! Groups, distinct rows and unions come out of polars in an order of chance: without an order of their own they get that of
//! their columns, also below others, whose sums would else differ in their last digits. And `select *` has a column of `using`
//! once, as in standard SQL.

use std::ops::ControlFlow;

use sqlparser::ast::{
    ExcludeSelectItem, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, OrderBy,
    OrderByExpr, OrderByKind, OrderByOptions, Query, Select, SelectItem, SetExpr, Statement, TableFactor, VisitMut,
    VisitorMut,
};

/// Settles it in a whole statement.
pub(super) fn settle(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        sort(query);
    }
    let _ = statement.visit(&mut Settling);
}

struct Settling;

impl VisitorMut for Settling {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            sort(&mut table.query);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, .. } = factor {
            sort(subquery);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        join_once(select);
        ControlFlow::Continue(())
    }
}

/// Gives a query whose rows have no order that of its columns.
fn sort(query: &mut Query) {
    if query.order_by.is_some() || !unordered(&query.body) {
        return;
    }
    let all =
        OrderByExpr { expr: Expr::Identifier(Ident::new("ALL")), options: OrderByOptions::default(), with_fill: None };
    query.order_by = Some(OrderBy { kind: OrderByKind::Expressions(vec![all]), interpolate: None });
}

fn unordered(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let grouped = match &select.group_by {
                GroupByExpr::All(_) => true,
                GroupByExpr::Expressions(by, _) => !by.is_empty(),
            };
            grouped || select.distinct.is_some()
        }
        SetExpr::SetOperation { .. } => true,
        SetExpr::Query(query) => unordered(&query.body),
        _ => false,
    }
}

/// Takes the second copies of `using` columns out of `*`. Of outer joins from the right they are no copies.
fn join_once(select: &mut Select) {
    let joins = select.from.iter().flat_map(|table| &table.joins);
    let copies: Vec<ObjectName> = joins.flat_map(|join| copies(&join.join_operator, &join.relation)).collect();
    if copies.is_empty() {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::Wildcard(options) = item
            && options.opt_exclude.is_none()
        {
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(copies.clone()));
        }
    }
}

fn copies(join: &JoinOperator, relation: &TableFactor) -> Vec<ObjectName> {
    let (JoinOperator::Join(constraint)
    | JoinOperator::Inner(constraint)
    | JoinOperator::Left(constraint)
    | JoinOperator::LeftOuter(constraint)) = join
    else {
        return Vec::new();
    };
    let (JoinConstraint::Using(columns), Some(table)) = (constraint, called(relation)) else { return Vec::new() };
    let column = |column: &ObjectName| column.0.last()?.as_ident().map(|ident| ident.value.clone());
    let copy = |column: String| {
        ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', format!("{column}:{table}")))])
    };
    columns.iter().filter_map(column).map(copy).collect()
}

/// The name by which a query knows a table.
fn called(relation: &TableFactor) -> Option<&str> {
    let (TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. }) = relation else { return None };
    match (alias, relation) {
        (Some(alias), _) => Some(&alias.name.value),
        (None, TableFactor::Table { name, .. }) => name.0.last()?.as_ident().map(|ident| ident.value.as_str()),
        _ => None,
    }
}
