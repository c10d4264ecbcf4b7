//! Changes to a head, described rather than done: the serialiser applies them while it writes.
//!
//! Edits act in order, as if on a list of fields: `remove` takes out what is there so far, `add` appends, `set` is
//! `remove` then `add`. So a field added after a removal of the same name stays, whatever the message contained.
//! That is what keeps a `Connection` field from taking out the fields that we add. Names compare without case.

use std::borrow::Cow;
use std::fmt::{self, Write};

use bytes::Bytes;

use crate::head::Fields;

/// An ordered list of changes to a head.
#[derive(Debug, Clone, Default)]
pub struct HeadEdits<'a> {
    edits: Vec<Edit<'a>>,
}

#[derive(Debug, Clone)]
enum Edit<'a> {
    Set(Cow<'a, str>, Value<'a>),
    Add(Cow<'a, str>, Value<'a>),
    Remove(Cow<'a, str>),
    RemoveMatching(fn(&str) -> bool),
}

impl<'a> HeadEdits<'a> {
    /// No change, with room for `capacity` of them.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { edits: Vec::with_capacity(capacity) }
    }

    /// Takes out every field of this name and appends one.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) {
        self.edits.push(Edit::Set(name.into(), value.into()));
    }

    /// Appends a field beside any others of this name.
    pub fn add(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) {
        self.edits.push(Edit::Add(name.into(), value.into()));
    }

    /// Takes out every field of this name.
    pub fn remove(&mut self, name: impl Into<Cow<'a, str>>) {
        self.edits.push(Edit::Remove(name.into()));
    }

    /// Takes out every field whose name the function accepts. It must ignore case.
    pub fn remove_matching(&mut self, matches: fn(&str) -> bool) {
        self.edits.push(Edit::RemoveMatching(matches));
    }

    /// Whether there is no change at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Emits the edited head: first the surviving fields of the message in their order, then the surviving added
    /// ones in theirs. Values are borrowed from the message or from these edits.
    pub fn apply(&self, fields: &dyn Fields, emit: &mut dyn FnMut(&str, &[u8])) {
        fields.each(&mut |name, value| {
            if !removed_by(&self.edits, name) {
                emit(name, value);
            }
        });
        for (index, edit) in self.edits.iter().enumerate() {
            if let Edit::Set(name, value) | Edit::Add(name, value) = edit
                && !removed_by(&self.edits[index + 1..], name)
            {
                emit(name, value.as_bytes());
            }
        }
    }
}

fn removed_by(edits: &[Edit<'_>], name: &str) -> bool {
    edits.iter().any(|edit| match edit {
        Edit::Set(other, _) | Edit::Remove(other) => other.eq_ignore_ascii_case(name),
        Edit::RemoveMatching(matches) => matches(name),
        Edit::Add(..) => false,
    })
}

/// Value of an added field. It must be a valid field value (RFC 9110 section 5.5): whoever adds it has checked.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Of the message, the connection or a constant.
    Borrowed(&'a [u8]),
    /// Short text made for this request.
    Inline(Inline),
    /// Longer text made for this request, or shared.
    Bytes(Bytes),
}

impl Value<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Inline(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl From<Inline> for Value<'_> {
    fn from(text: Inline) -> Self {
        Self::Inline(text)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// At most 46 bytes, held in place: an address or an identifier needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Inline {
    length: u8,
    bytes: [u8; Self::CAPACITY],
}

impl Inline {
    /// Longest text: an IPv6 address has at most 45 bytes.
    pub const CAPACITY: usize = 46;

    /// The bytes, or `None` when they are too many.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut inline = Self { length: 0, bytes: [0; Self::CAPACITY] };
        inline.bytes.get_mut(..text.len())?.copy_from_slice(text);
        inline.length = u8::try_from(text.len()).ok()?;
        Some(inline)
    }

    /// A value as it prints. Text beyond the capacity is cut, so this is for types whose text is known to fit.
    pub(crate) fn display(value: &impl fmt::Display) -> Self {
        let mut inline = Self { length: 0, bytes: [0; Self::CAPACITY] };
        // The writer below never fails: it cuts.
        let _ = write!(inline, "{value}");
        inline
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Write for Inline {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let used = usize::from(self.length);
        let taken = text.len().min(Self::CAPACITY - used);
        self.bytes[used..used + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += u8::try_from(taken).unwrap_or(0);
        Ok(())
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A fixed set of field names, looked up without case by their length first.
pub(crate) struct NameSet<const N: usize> {
    names: [&'static str; N],
    /// Bit n is set when a name has n bytes.
    lengths: u64,
}

impl<const N: usize> NameSet<N> {
    /// Names of at most 63 bytes.
    pub(crate) const fn new(names: [&'static str; N]) -> Self {
        let mut lengths = 0;
        let mut index = 0;
        while index < N {
            assert!(names[index].len() < 64, "a name of this set is too long");
            lengths |= 1 << names[index].len();
            index += 1;
        }
        Self { names, lengths }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        name.len() < 64
            && self.lengths & (1 << name.len()) != 0
            && self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{fields, rendered};

    #[test]
    fn edits_act_in_order() {
        let message = fields(&[("a", "1"), ("B", "2"), ("a", "3"), ("c", "4")]);
        type Case = (&'static str, fn(&mut HeadEdits<'static>), &'static str);
        let cases: [Case; 6] = [
            ("nothing", |_| {}, "a=1 B=2 a=3 c=4"),
            ("set replaces all", |e| e.set("a", "9"), "B=2 c=4 a=9"),
            ("add keeps", |e| e.add("a", "9"), "a=1 B=2 a=3 c=4 a=9"),
            ("names have no case", |e| e.remove("b"), "a=1 a=3 c=4"),
            (
                "a later removal takes the added one",
                |e| {
                    e.add("x", "9");
                    e.remove("X");
                },
                "a=1 B=2 a=3 c=4",
            ),
            (
                "an earlier removal does not",
                |e| {
                    e.remove("x");
                    e.add("x", "9");
                    e.remove_matching(|name| name.eq_ignore_ascii_case("a"));
                },
                "B=2 c=4 x=9",
            ),
        ];
        for (what, edit, expected) in cases {
            let mut edits = HeadEdits::default();
            edit(&mut edits);
            assert_eq!(rendered(&edits, &message), expected, "{what}");
        }
    }

    #[test]
    fn inline_text_is_cut_never_overrun() {
        assert!(Inline::new(&[b'x'; 47]).is_none());
        assert_eq!(Inline::new(b"abc").unwrap().as_bytes(), b"abc");
        let long = Inline::display(&"y".repeat(60));
        assert_eq!(long.as_bytes(), [b'y'; 46]);
    }

    #[test]
    fn a_name_set_ignores_case_and_length_limits() {
        let set = NameSet::new(["te", "connection"]);
        assert!(set.contains("TE") && set.contains("Connection"));
        assert!(!set.contains("t") && !set.contains("xx") && !set.contains(&"c".repeat(70)));
    }
}
