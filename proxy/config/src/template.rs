//! Words in braces in the command and environment of workers.
//!
//! Reading and replacing live side by side, so that what was accepted at load is what is replaced at spawn.

use crate::model::Template;

/// A piece of a text with templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Copied.
    Literal(&'a str),
    /// Replaced.
    Template(Template),
    /// `{word}` after a `$`: copied, braces included.
    Braced(&'a str),
    /// `{word}` that is no template; compile refuses it.
    Unknown(&'a str),
}

/// Splits a text into its pieces. `{{` is a brace; a brace that does not start a `{word}` is literal.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        let inside = &from[1..];
        if !before.is_empty() {
            pieces.push(Piece::Literal(before));
        }
        if let Some(after) = inside.strip_prefix('{') {
            pieces.push(Piece::Literal("{"));
            rest = after;
        } else if let Some(word) = leading_word(inside) {
            pieces.push(piece(word, before.ends_with('$')));
            rest = &inside[word.len() + 1..];
        } else {
            pieces.push(Piece::Literal("{"));
            rest = inside;
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}

/// `${WORD}` is a shell's business and stays, unless the word is one of ours.
fn piece(word: &str, after_dollar: bool) -> Piece<'_> {
    match Template::ALL.into_iter().find(|template| template.word() == word) {
        Some(template) => Piece::Template(template),
        None if after_dollar => Piece::Braced(word),
        None => Piece::Unknown(word),
    }
}

/// The text with every template replaced by what `value` gives for it.
#[must_use]
pub fn expand(text: &str, value: impl Fn(Template) -> String) -> String {
    let replace = |piece| match piece {
        Piece::Literal(literal) => literal.to_owned(),
        Piece::Template(template) => value(template),
        Piece::Braced(word) | Piece::Unknown(word) => format!("{{{word}}}"),
    };
    pieces(text).into_iter().map(replace).collect()
}

/// `word` of `word}...`.
fn leading_word(text: &str) -> Option<&str> {
    let (word, _) = text.split_once('}')?;
    let first = word.bytes().next()?;
    let is_word = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_word && !first.is_ascii_digit()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_templates_only() {
        for (text, expected) in [
            ("unix:{socket}", "unix:<socket>"),
            ("{host}:{port}", "<host>:<port>"),
            ("{{socket}", "{socket}"),
            ("{{{slot}", "{<slot>"),
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("{}", "{}"),
            ("a{", "a{"),
            ("{0}", "{0}"),
            ("exec app ${PORT} ${socket}", "exec app ${PORT} $<socket>"),
            ("", ""),
        ] {
            assert_eq!(expand(text, |template| format!("<{}>", template.word())), expected, "{text}");
        }
    }

    #[test]
    fn finds_unknown_words() {
        assert_eq!(pieces("x{sokcet}"), [Piece::Literal("x"), Piece::Unknown("sokcet")]);
    }
}
