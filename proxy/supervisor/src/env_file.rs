//! Files of environment variables, as people write them for containers and shells. Reading them is for whoever makes a
//! generation; what they say is decided here.
//!
//! One `NAME=value` a line, `export` before it allowed. Without quotes a value ends with its line or at ` #`; in single
//! quotes it is as it stands, in double quotes `\n`, `\r`, `\t`, `\\`, `\"` and `\$` are what they are elsewhere, and
//! both may go over several lines. Nothing is replaced: a `$` is a `$`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The variables of all files, in order; later ones win.
///
/// # Errors
/// In words, with the file and the line but never with a value: it may be a secret.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<(OsString, OsString)>, String> {
    let mut all = Vec::new();
    for file in files {
        let text = read_text(file).map_err(|error| format!("env_file {}: {error}", file.display()))?;
        let variables = parse(&text)
            .map_err(|Problem { line, problem }| format!("env_file {}, line {line}: {problem}", file.display()))?;
        all.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
    Ok(all)
}

fn read_text(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = File::open(file)?.take(MOST + 1).read_to_string(&mut text)?;
    if length as u64 > MOST { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: usize,
    problem: &'static str,
}

fn parse(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let failed = |problem| Problem { line, problem };
        let (present, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if present.starts_with('#') {
            rest = after.trim_start();
            continue;
        }
        let (name, _) = present.split_once('=').ok_or_else(|| failed("not of the form NAME=value"))?;
        let value = rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        if !is_name(name) {
            return Err(failed("what stands before \"=\" is not the name of a variable"));
        }
        let (value, after) = self::value(value).map_err(failed)?;
        if value.contains('\0') {
            return Err(failed("a zero byte cannot be in the environment"));
        }
        variables.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    is_word && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// A value, and what follows its line.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quote) = text.chars().next().filter(|first| ['\'', '"'].contains(first)) else {
        let (line, after) = text.split_once('\n').unwrap_or((text, ""));
        // A comment alone is an empty value.
        let end = if line.starts_with('#') { 0 } else { line.find(" #").or(line.find("\t#")).unwrap_or(line.len()) };
        return Ok((line[..end].trim_end().to_owned(), after));
    };
    let (value, after) = quoted(&text[1..], quote).ok_or("a quote is never closed")?;
    let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
    let tail = tail.trim();
    if tail.is_empty() || tail.starts_with('#') {
        Ok((value, after))
    } else {
        Err("something follows the closing quote")
    }
}

/// What stands before the closing quote, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            end if end == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                plain @ ('\\' | '"' | '$') => value.push(plain),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

/// An environment larger than that is a mistake; the kernel takes 2 MiB with all arguments.
const MOST: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_other_programs_make_of_them() {
        for (text, expected) in [
            ("A=1\nB=2", &[("A", "1"), ("B", "2")][..]),
            ("\u{feff}# first\n\n  A = spaced out  # why\r\nexport B=x\r\n", &[("A", "spaced out"), ("B", "x")]),
            ("A=\nB= # nothing\nC=#nothing", &[("A", ""), ("B", ""), ("C", "")]),
            ("URL=postgres://u:p@db/x?a=b#c", &[("URL", "postgres://u:p@db/x?a=b#c")]),
            ("A='$X \\n # not' # comment", &[("A", "$X \\n # not")]),
            ("A=\"a\\n\\t\\\"b\\\" \\$X \\x\"", &[("A", "a\n\t\"b\" $X \\x")]),
            ("KEY=\"-----BEGIN\nabc\n-----END\"\nB='1\n2'\n", &[("KEY", "-----BEGIN\nabc\n-----END"), ("B", "1\n2")]),
            ("A=\u{e4}\u{f6}", &[("A", "\u{e4}\u{f6}")]),
            ("export=1", &[("export", "1")]),
            ("", &[]),
        ] {
            let parsed = parse(text).unwrap_or_else(|problem| panic!("{text:?}: {problem:?}"));
            let parsed: Vec<_> = parsed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(parsed, expected, "{text:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        for (text, line) in [
            ("A=1\n\nnonsense", 3),
            ("=1", 1),
            ("A B=1", 1),
            ("1A=1", 1),
            ("A=1\nB=\"open\nC=2", 2),
            ("A='x'y", 1),
            ("A=\"x\\", 1),
            ("A=a\0b", 1),
        ] {
            let problem = parse(text).expect_err(text);
            assert_eq!(problem.line, line, "{text:?}: {problem:?}");
        }
    }
}
