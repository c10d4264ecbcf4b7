//! Did you mean: the known word nearest to the one that was written.

/// The nearest of `known` if it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(written);
    // A word as long as a line is no slip of the finger, and the distance is quadratic.
    if folded.chars().count() > 64 {
        return None;
    }
    let limit = (folded.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|word| word.len() <= 128)
        .map(|word| (likeness(&folded, &fold(word)), word))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// `did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|word| format!("did you mean \"{word}\"?"))
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    either(&quoted)
}

/// `a, b or c`.
pub(crate) fn either(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

/// Case and the choice between `-` and `_` are no difference.
fn fold(word: &str) -> String {
    word.chars().map(|character| if character == '-' { '_' } else { character.to_ascii_lowercase() }).collect()
}

/// Edit distance; a word that begins with the other one is near, too: `warning` for `warn`.
fn likeness(written: &str, known: &str) -> usize {
    let is_longer = known.len() >= 4 && written.starts_with(known);
    let is_shorter = written.len() >= 4 && known.starts_with(written);
    if is_longer || is_shorter { 1 } else { distance(written, known) }
}

/// Edit distance in which two neighbours swapped count as one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_but_not_other_words() {
        let known = ["address", "default_site", "timeouts", "tls"];
        for (written, expected) in [
            ("adress", Some("address")),
            ("timeuots", Some("timeouts")),
            ("Default-Site", Some("default_site")),
            ("tsl", Some("tls")),
            ("addresses", Some("address")),
            ("time", Some("timeouts")),
            ("rate_limit", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
    }
}
