//! Heads of our codec, and fixed lists, in the shape that decisions read.

use tidegate_http1::{RequestHead, ResponseHead};
use tidegate_traffic::Fields;

/// Fields of a parsed request head over the bytes it was parsed from.
#[derive(Debug)]
pub(crate) struct RequestFields<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) bytes: &'a [u8],
}

/// Fields of a parsed response head over the bytes it was parsed from.
#[derive(Debug)]
pub(crate) struct ResponseFields<'a> {
    pub(crate) head: &'a ResponseHead,
    pub(crate) bytes: &'a [u8],
}

/// A list of fields.
#[derive(Debug)]
pub(crate) struct FieldList<'a>(pub(crate) &'a [(String, String)]);

macro_rules! fields_of_head {
    ($name:ident) => {
        impl Fields for $name<'_> {
            fn first(&self, name: &str) -> Option<&[u8]> {
                self.head.field(self.bytes, name)
            }

            fn all(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
                for (_, value) in self.head.fields(self.bytes).filter(|(field, _)| field.eq_ignore_ascii_case(name)) {
                    visit(value);
                }
            }

            fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
                for (field, value) in self.head.fields(self.bytes) {
                    visit(field, value);
                }
            }
        }
    };
}

fields_of_head!(RequestFields);
fields_of_head!(ResponseFields);

impl Fields for FieldList<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }

    fn all(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        for (_, value) in self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)) {
            visit(value.as_bytes());
        }
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        for (field, value) in self.0 {
            visit(field, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_http1::{Asked, HeadLimits, ParsePolicy};

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 64, target: 1024 };

    fn names(fields: &dyn Fields) -> String {
        let mut names = Vec::new();
        fields.each(&mut |name, _| names.push(name.to_owned()));
        names.join(" ")
    }

    #[test]
    fn what_a_connection_field_may_name_is_seen_by_nobody() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nX-End: 2\r\nConnection: close, x-hop\r\n\r\n";
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(bytes, &LIMITS, ParsePolicy::Strict), Ok(Some(_))));
        let fields = RequestFields { head: &head, bytes };
        assert_eq!((names(&fields).as_str(), fields.first("x-hop")), ("Host X-End Connection", None));
        fields.all("x-hop", &mut |value| panic!("{value:?}"));
    }

    #[test]
    fn an_answer_keeps_what_is_not_the_connections_whatever_it_names() {
        let bytes = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-Hop: 1\r\nConnection: Set-Cookie, X-Hop\r\n\r\n";
        let mut head = ResponseHead::new();
        assert!(matches!(head.parse(bytes, &LIMITS, Asked::Other, ParsePolicy::Strict), Ok(Some(_))));
        let fields = ResponseFields { head: &head, bytes };
        assert_eq!(names(&fields), "Set-Cookie Connection");
    }
}
