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
