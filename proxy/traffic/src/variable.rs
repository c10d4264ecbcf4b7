//! Values of a request by name: what limits and balances tell requests apart by.

use smallvec::SmallVec;
use tidegate_config::model::Variable;

use crate::head::HeadView;
use crate::parameters;

/// What a look at the request's value gives; `None` where it has none, or an empty one. The value is shown where it stands,
/// so that who only hashes it copies nothing.
#[must_use]
pub fn look<T>(variable: &Variable, head: &HeadView<'_>, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let look = |value: &[u8]| (!value.is_empty()).then(|| look(value));
    match variable {
        Variable::ClientAddress => look(head.client.address_text()),
        Variable::Host => look(head.host?.name().as_bytes()),
        Variable::Method => look(head.method.as_bytes()),
        Variable::Path => look(head.target.path().as_bytes()),
        Variable::Target => look(head.target.canonical().as_bytes()),
        Variable::Header(name) => look(head.fields.first(name)?),
        Variable::Query(name) => {
            let value = parameters::query(head.target.query()?, name).next()?;
            look(&parameters::decoded(value).collect::<SmallVec<[u8; 64]>>())
        }
        Variable::Cookie(name) => {
            let (mut look, mut found) = (Some(look), None);
            parameters::cookies(head.fields, name, &mut |value| {
                if let Some(look) = look.take() {
                    found = look(value);
                }
            });
            found
        }
    }
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
                let seen = look(variable, head, <[u8]>::to_vec);
                assert_eq!(seen.as_deref(), expected.map(str::as_bytes), "{variable:?}");
            }
        });
        seen.unwrap();
    }
}
