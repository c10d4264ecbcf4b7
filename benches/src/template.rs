//! Makes a config of a peer from its committed template: chooses lines by tag, and fills the words between at signs.

use anyhow::{Result, bail};

/// A word of the template and what stands for it.
pub(crate) type Word<'a> = (&'a str, String);

/// Keeps, of the lines that begin with `#TAG:`, those whose tag is in `tags`, and takes the tag off. Other lines stay
/// as they are: a comment begins with `# `.
pub(crate) fn choose(template: &str, tags: &[&str]) -> String {
    let mut chosen = String::with_capacity(template.len());
    for line in template.lines() {
        let tagged = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_once(':'));
        let kept = match tagged {
            Some((tag, rest)) if tags.contains(&tag) => rest,
            Some(_) => continue,
            None => line,
        };
        chosen.push_str(kept);
        chosen.push('\n');
    }
    chosen
}

/// Replaces every `@WORD@`; `@@` is an at sign. A word of the template that is not known is an error; unused words are not.
pub(crate) fn fill(template: &str, words: &[Word<'_>]) -> Result<String> {
    let mut filled = String::with_capacity(template.len());
    let mut parts = template.split('@');
    filled.push_str(parts.next().unwrap_or_default());
    while let Some(word) = parts.next() {
        match words.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => filled.push_str(value),
            None if word.is_empty() => filled.push('@'),
            None => bail!("the template has a word nobody fills: '@{word}@'"),
        }
        filled.push_str(parts.next().unwrap_or_default());
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_tag() {
        let template = "# comment: stays\na\n#bare:  b\n#full:c\nd # e: f\n";
        assert_eq!(choose(template, &["bare"]), "# comment: stays\na\n  b\nd # e: f\n");
        assert_eq!(choose(template, &["full", "x"]), "# comment: stays\na\nc\nd # e: f\n");
    }

    #[test]
    fn words_are_filled_wherever_they_stand() {
        let filled = fill("@A@:@B@ x@@y @A@", &[("A", "1".into()), ("B", "2".into()), ("C", "3".into())]).unwrap();
        assert_eq!(filled, "1:2 x@y 1");
    }

    #[test]
    fn an_unknown_word_is_named() {
        assert!(fill("listen @PORT@;", &[]).unwrap_err().to_string().contains("'@PORT@'"));
    }
}
