//! Health of endpoints, as far as it needs the program: who hears of changes.

pub(crate) mod news;
