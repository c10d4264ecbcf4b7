//! Values of a request by name: what limits and balances tell requests apart by.

use std::borrow::Cow;

use tidegate_config::model::Variable;

use crate::head::HeadView;
use crate::parameters;

/// The value that a request has; `None` where it has none, or an empty one.
#[must_use]
pub fn read<'a>(variable: &Variable, head: &HeadView<'a>) -> Option<Cow<'a, [u8]>> {
    let value = match variable {
        Variable::ClientAddress => Cow::Borrowed(head.client.address_text()),
        Variable::Host => Cow::Borrowed(head.host?.name().as_bytes()),
        Variable::Method => Cow::Borrowed(head.method.as_bytes()),
        Variable::Path => Cow::Borrowed(head.target.path().as_bytes()),
        Variable::Target => match head.target.canonical() {
            Cow::Borrowed(target) => Cow::Borrowed(target.as_bytes()),
            Cow::Owned(target) => Cow::Owned(target.into_bytes()),
        },
        Variable::Header(name) => Cow::Borrowed(head.fields.first(name)?),
        Variable::Query(name) => {
            let value = parameters::query(head.target.query()?, name).next()?;
            Cow::Owned(parameters::decoded(value).collect())
        }
        Variable::Cookie(name) => {
            let mut first = None;
            parameters::cookies(head.fields, name, &mut |value| {
                first.get_or_insert_with(|| value.to_vec());
            });
            Cow::Owned(first?)
        }
    };
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::get;

    #[test]
    fn values() {
        let request = get("shop.example", "/a%20b?x=1&y=%2Fz+&x=2&e=")
            .with("x-user", "ann")
            .with("X-User", "bob")
            .with("cookie", "a=1; sid=\"s\"")
            .with("cookie", "sid=t");
        let rows = [
            (Variable::ClientAddress, Some("192.0.2.7")),
            (Variable::Host, Some("shop.example")),
            (Variable::Method, Some("GET")),
            (Variable::Path, Some("/a%20b")),
            (Variable::Target, Some("/a%20b?x=1&y=%2Fz+&x=2&e=")),
            (Variable::Header("x-user".into()), Some("ann")),
            (Variable::Header("x-none".into()), None),
            (Variable::Query("x".into()), Some("1")),
            (Variable::Query("y".into()), Some("/z ")),
            (Variable::Query("e".into()), None),
            (Variable::Cookie("sid".into()), Some("\"s\"")),
            (Variable::Cookie("si".into()), None),
        ];
        let seen = request.view(|head| {
            for (variable, expected) in &rows {
                assert_eq!(read(variable, head).as_deref(), expected.map(str::as_bytes), "{variable:?}");
            }
        });
        seen.unwrap();
    }
}
