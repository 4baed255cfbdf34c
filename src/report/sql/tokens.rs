//! SQL as tokens that know their places, and the names of tables as people write them.
//!
//! `latest~1.base.scores`, `train[lr=0.1].log` and `20261123-….base.scores` are no names of SQL. Right behind `from` and `join`
//! nothing else could be meant, so that there they need no quotes.

use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError, Word};

/// The tokens of a text, the names of tables among them each one quoted word where SQL would have read something else.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let found = Tokenizer::new(&GenericDialect, text).tokenize_with_location()?;
    let places = Places::of(text);
    let mut tokens = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        let length = if names_a_table(&tokens) { name_length(&found[at..]) } else { 0 };
        if length == 0 {
            tokens.push(found[at].clone());
            at += 1;
            continue;
        }
        let span = Span::new(found[at].span.start, found[at + length - 1].span.end);
        let value = places.slice(text, span).to_owned();
        tokens.push(TokenWithSpan::new(quoted(value), span));
        at += length;
    }
    Ok(tokens)
}

fn quoted(value: String) -> Token {
    Token::Word(Word { value, quote_style: Some('"'), keyword: Keyword::NoKeyword })
}

/// Whether a table's name comes next: what was last, spaces aside, is `from` or `join`. `is distinct from` compares.
fn names_a_table(before: &[TokenWithSpan]) -> bool {
    let mut words = before.iter().rev().filter(|one| !matches!(one.token, Token::Whitespace(_)));
    let keyword = |one: &TokenWithSpan| match &one.token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    match words.next().map(keyword) {
        Some(Keyword::JOIN) => true,
        Some(Keyword::FROM) => words.next().map(keyword) != Some(Keyword::DISTINCT),
        _ => false,
    }
}

/// How many tokens from here on are one name that SQL would not read as one; 0 where it would, or where they are no name.
fn name_length(tokens: &[TokenWithSpan]) -> usize {
    let (mut depth, mut length, mut strange) = (0_usize, 0, false);
    let mut last_dot = None;
    for one in tokens {
        match &one.token {
            Token::LBracket => depth += 1,
            Token::RBracket if depth > 0 => depth -= 1,
            Token::Period if depth == 0 => last_dot = Some(length),
            // The dot behind a number belongs to it: `latest~1.base`.
            Token::Number(number, _) if depth == 0 && number.ends_with('.') => last_dot = Some(length),
            Token::Word(word) if word.quote_style.is_some() => return 0,
            Token::Word(_) => {}
            Token::Number(..) | Token::Minus | Token::Tilde if depth == 0 => {}
            Token::Whitespace(_) | Token::EOF | Token::SemiColon => break,
            _ if depth > 0 => {}
            _ => break,
        }
        strange |= !matches!(one.token, Token::Word(_) | Token::Period);
        length += 1;
    }
    // A subtraction (`substring(x from n-1)`) has no dot behind it.
    if strange && depth == 0 && last_dot.is_some_and(|dot| dot + 1 < length) { length } else { 0 }
}

/// Where the lines of a text begin.
pub(super) struct Places(Vec<usize>);

impl Places {
    /// Those of a text.
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The bytes between two places.
    fn slice<'a>(&self, text: &'a str, span: Span) -> &'a str {
        &text[self.offset(text, span.start)..self.offset(text, span.end)]
    }

    /// The byte at a place; the text's end for one beyond it.
    fn offset(&self, text: &str, place: Location) -> usize {
        let line = self.0.get((place.line as usize).saturating_sub(1)).copied().unwrap_or(text.len());
        let column = (place.column as usize).saturating_sub(1);
        text[line..].char_indices().nth(column).map_or(text.len(), |(at, _)| line + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let word = |one: TokenWithSpan| match one.token {
            Token::Word(word) if word.quote_style == Some('"') => Some(word.value),
            _ => None,
        };
        tokens(text).unwrap().into_iter().filter_map(word).collect()
    }

    #[test]
    fn names_that_are_none_of_sql_are_taken_whole() {
        assert_eq!(words("select * from latest~1.base.scores s"), ["latest~1.base.scores"]);
        assert_eq!(
            words("select 1 from train[lr=1e-4,seed=1].log join 20261123-19-p.b.s using (x)"),
            ["train[lr=1e-4,seed=1].log", "20261123-19-p.b.s"]
        );
        assert_eq!(words("select 1\nfrom\n  josh-kto.scores\nwhere 1"), ["josh-kto.scores"]);
        assert_eq!(words("select 1 from (select 1 from p~2.ü.x)"), ["p~2.ü.x"]);
    }

    #[test]
    fn names_and_sums_of_sql_stay() {
        for text in [
            "select a-b from base.scores",
            "select substring(a from n-1) from x",
            "select a is distinct from b.x-c.y from x",
            "select * from x where a[1] = 2",
            "select * from unnest(a)",
            "select 1.5 - 2.5",
        ] {
            assert_eq!(words(text), [""; 0], "{text}");
        }
        assert_eq!(words("select * from \"a-b\".c-d"), ["a-b"]);
    }
}
