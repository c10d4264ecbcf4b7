//! Options within the arguments of a server program.

/// An option that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Of the word with its name.
    pub(super) index: usize,
    /// What it is set to; none for a flag at the end.
    pub(super) value: Option<&'a str>,
}

/// The last option with one of these names: `--name value`, `--name=value`, and `-n value` or `-nvalue` for one letter.
pub(super) fn find<'a>(args: &'a [String], names: &[&str]) -> Option<Found<'a>> {
    // What follows `--` is no option.
    let options = args.iter().take_while(|word| *word != "--").enumerate();
    let found = options.filter_map(|(index, word)| {
        let rest = names.iter().find_map(|name| word.strip_prefix(name).filter(|rest| fits(name, rest)))?;
        let value = match rest.strip_prefix('=').unwrap_or(rest) {
            "" => args.get(index + 1).map(String::as_str),
            attached => Some(attached),
        };
        Some(Found { index, value })
    });
    found.last()
}

/// Whether there is such an option.
pub(super) fn has(args: &[String], names: &[&str]) -> bool {
    find(args, names).is_some()
}

/// Whether `rest` can follow an option's name within a word.
fn fits(name: &str, rest: &str) -> bool {
    let is_letter = name.len() == 2 && name.starts_with('-');
    rest.is_empty() || rest.starts_with('=') || is_letter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_every_form() {
        for (line, names, expected) in [
            ("a --keep-alive 5 b", "--keep-alive", "1 5"),
            ("--keep-alive=5", "--keep-alive", "0 5"),
            ("--keep-alive-more=5", "--keep-alive", "none"),
            ("-k gthread", "--worker-class -k", "0 gthread"),
            ("-kgthread", "--worker-class -k", "0 gthread"),
            ("--worker-class x -k y", "--worker-class -k", "2 y"),
            ("--daemon", "--daemon", "0 nothing"),
            ("x -- --daemon", "--daemon", "none"),
            ("", "-k", "none"),
        ] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let names: Vec<&str> = names.split(' ').collect();
            let found = find(&args, &names);
            let text = found.map_or_else(
                || "none".to_owned(),
                |found| format!("{} {}", found.index, found.value.unwrap_or("nothing")),
            );
            assert_eq!(text, expected, "{line}");
        }
    }
}
