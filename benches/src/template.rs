//! Fills the words between at signs in the committed configs of the peers.

use anyhow::{Result, bail};

/// A word of the template and what stands for it.
pub(crate) type Word<'a> = (&'a str, String);

/// Replaces every `@WORD@`. A word of the template that is not known is an error; unused words are not.
pub(crate) fn fill(template: &str, words: &[Word<'_>]) -> Result<String> {
    let mut filled = String::with_capacity(template.len());
    let mut parts = template.split('@');
    filled.push_str(parts.next().unwrap_or_default());
    while let Some(word) = parts.next() {
        match words.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => filled.push_str(value),
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
    fn words_are_filled_wherever_they_stand() {
        let filled = fill("@A@:@B@ x @A@", &[("A", "1".into()), ("B", "2".into()), ("C", "3".into())]).unwrap();
        assert_eq!(filled, "1:2 x 1");
    }

    #[test]
    fn an_unknown_word_is_named() {
        assert!(fill("listen @PORT@;", &[]).unwrap_err().to_string().contains("'@PORT@'"));
    }
}
