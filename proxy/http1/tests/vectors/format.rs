//! The form of the vector files: see their README. Shared by all tests that run them.

/// Bytes, and what becomes of them.
#[derive(Clone)]
pub(crate) struct Vector {
    /// The rule, and what is special.
    pub(crate) name: String,
    /// What a response answers: `head`, `websocket` or `other`.
    pub(crate) asked: String,
    /// The bytes.
    pub(crate) input: Vec<u8>,
    /// Verdict under the strict policy.
    pub(crate) strict: String,
    /// Verdict under the lenient one.
    pub(crate) lenient: String,
}

/// The vectors of a file.
///
/// # Panics
/// When the text is malformed or two vectors have one name.
pub(crate) fn load(text: &str) -> Vec<Vector> {
    let vectors: Vec<Vector> = text.split("\n\n").filter(|block| !block.trim().is_empty()).map(vector).collect();
    let mut names: Vec<&str> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "names are unique");
    }
    vectors
}

fn vector(block: &str) -> Vector {
    let mut lines = block.trim_start_matches('\n').lines();
    let name = lines.next().expect("a block starts with its name").to_owned();
    let (asked, empty) = ("other".to_owned(), String::new);
    let mut vector = Vector { name, asked, input: Vec::new(), strict: empty(), lenient: empty() };
    for line in lines {
        match line.split_at(line.len().min(2)) {
            ("> ", bytes) => vector.input.extend(unescape(bytes)),
            ("= ", verdict) => (vector.strict, vector.lenient) = (verdict.to_owned(), verdict.to_owned()),
            ("s ", verdict) => vector.strict = verdict.to_owned(),
            ("l ", verdict) => vector.lenient = verdict.to_owned(),
            ("@ ", asked) => vector.asked = asked.to_owned(),
            _ => panic!("{}: unknown line: {line:?}", vector.name),
        }
    }
    assert!(!vector.strict.is_empty() && !vector.lenient.is_empty(), "{}: no verdict", vector.name);
    vector
}

/// The bytes that a text with escapes stands for.
///
/// # Panics
/// When an escape is unknown.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\\' => escape(rest, &mut bytes),
            '{' => repetition(rest, &mut bytes),
            _ => {
                bytes.extend_from_slice(first.to_string().as_bytes());
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    bytes
}

fn escape(text: &str, bytes: &mut Vec<u8>) -> usize {
    let (byte, length) = match text.as_bytes()[1] {
        b'r' => (b'\r', 2),
        b'n' => (b'\n', 2),
        b't' => (b'\t', 2),
        b'0' => (0, 2),
        b'\\' => (b'\\', 2),
        b'x' => (u8::from_str_radix(&text[2..4], 16).expect("two hexadecimal digits"), 4),
        other => panic!("unknown escape: {}", char::from(other)),
    };
    bytes.push(byte);
    length
}

fn repetition(text: &str, bytes: &mut Vec<u8>) -> usize {
    let end = text.find('}').expect("a repetition is closed");
    let (piece, count) = text[1..end].rsplit_once('*').expect("a repetition has a count");
    bytes.extend(unescape(piece).repeat(count.parse().expect("a count is a number")));
    end + 1
}
