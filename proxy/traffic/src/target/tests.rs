//! Known ways around a path match, and the properties of the canonical form.

use proptest::prelude::*;

use super::*;

fn path(raw: &str) -> Option<String> {
    Target::parse(raw).ok().map(|target| target.path().to_owned())
}

#[test]
fn one_form_for_every_spelling() {
    let rows = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//", "/"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/a///", "/a/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/a/.", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a/"),
        ("/a/../b", "/b"),
        ("/a/b/../../c", "/c"),
        ("/a//../b", "/b"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/public/.%2E/admin", "/admin"),
        ("/%2e/a", "/a"),
        ("/%61dmin", "/admin"),
        ("/%41DMIN", "/ADMIN"),
        ("/%7Euser", "/~user"),
        ("/%40admin", "/@admin"),
        ("/x%3abatch", "/x:batch"),
        ("/a%2bb", "/a+b"),
        ("/a%20b", "/a%20b"),
        ("/%c3%bc", "/%C3%BC"),
        ("/a%3Bb", "/a%3Bb"),
        ("/a;b=c", "/a;b=c"),
        ("/admin;x", "/admin;x"),
        ("/%252e%252e/admin", "/%252e%252e/admin"),
        ("/%25%32%65", "/%252e"),
        ("/%252f", "/%252f"),
        ("/[slug]", "/%5Bslug%5D"),
        ("/%5bslug%5d", "/%5Bslug%5D"),
        ("/a|b^c`{d}", "/a%7Cb%5Ec%60%7Bd%7D"),
        ("/%3F", "/%3F"),
        ("/%23", "/%23"),
        ("/...", "/..."),
        ("/.well-known/acme", "/.well-known/acme"),
        ("/..a", "/..a"),
        ("/a./b..", "/a./b.."),
    ];
    for (raw, canonical) in rows {
        assert_eq!(path(raw).as_deref(), Some(canonical), "{raw}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let rows = [
        // above the root
        "/..",
        "/../",
        "/../etc/passwd",
        "/a/../..",
        "/a/../../b",
        "/%2e%2e",
        "/%2e%2e/",
        "/./../",
        "//..//",
        "/.%2e/x",
        // escaped or literal separators
        "/a%2fb",
        "/a%2Fb",
        "/..%2fadmin",
        "/%2f",
        "/a%5cb",
        "/a%5C..",
        "/a\\b",
        "/..\\admin",
        "\\a",
        // control bytes
        "/%00",
        "/a%00.jpg",
        "/a%0d%0aSet-Cookie:x",
        "/%09",
        "/%1f",
        "/%7f",
        "/a\u{0}b",
        "/a\u{7f}",
        "/a\tb",
        "/a b",
        // escapes that are none
        "/%",
        "/%z",
        "/%zz",
        "/%1",
        "/%g0",
        "/%+1",
        "/%1%31",
        "/a%u002f",
        "/%-1",
        // overlong and broken utf-8
        "/%c0%ae%c0%ae/admin",
        "/%c0%af",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%ff",
        "/%80",
        "/%c3",
        "/%c3/%bc",
        "/%ed%a0%80",
        "/%c3a%bc",
        // parameters on dot segments
        "/..;/admin",
        "/a/..;x=1/admin",
        "/.;/admin",
        "/..;",
        "/a/..%3b/admin",
        "/.%3B/admin",
        "/%2e%2e;/admin",
        // not a path at all
        "",
        "a",
        "?a",
        "http://a/",
        "**",
        "/é",
        "/\"",
        "/<",
        "/>",
        "/a#b",
        "/?a#b",
        "/?a b",
        "/?\u{7f}",
        "/?é",
    ];
    for raw in rows {
        assert_eq!(path(raw), None, "{raw:?}");
    }
}

#[test]
fn the_query_stays_as_sent() {
    let rows = [
        ("/a", None, "/a"),
        ("/a?", Some(""), "/a?"),
        ("/a?b=%2f..%2f&c=%zz?d", Some("b=%2f..%2f&c=%zz?d"), "/a?b=%2f..%2f&c=%zz?d"),
        ("//a/%2e?x=//%2e", Some("x=//%2e"), "/a/?x=//%2e"),
        ("/a?q={\"k\":[1]}", Some("q={\"k\":[1]}"), "/a?q={\"k\":[1]}"),
    ];
    for (raw, query, canonical) in rows {
        let target = Target::parse(raw).unwrap();
        assert_eq!(target.query(), query, "{raw}");
        assert_eq!(target.canonical(), canonical, "{raw}");
        assert_eq!(target.raw(), raw);
    }
}

#[test]
fn the_common_case_is_borrowed() {
    for raw in ["/", "/a/b.html?x=1", "/.well-known/x", "/a%20b", "/%C3%BC?q=%c3"] {
        let target = Target::parse(raw).unwrap();
        assert!(matches!(target.path, Cow::Borrowed(_)), "{raw}");
        assert!(matches!(target.canonical(), Cow::Borrowed(_)), "{raw}");
    }
}

#[test]
fn the_asterisk_is_a_target_of_its_own() {
    let target = Target::parse("*").unwrap();
    assert!(target.is_asterisk());
    assert_eq!((target.path(), target.query()), ("*", None));
    assert!(!Target::parse("/*").unwrap().is_asterisk());
}

#[test]
fn patterns_of_the_file_meet_requests() {
    let rows = [("/über uns", "/%c3%bcber%20uns"), ("/%61/", "/a/"), ("/[x]", "/%5bx%5d"), ("/a//b", "/a/b")];
    for (pattern, raw) in rows {
        assert_eq!(canonical_pattern(pattern), path(raw).unwrap(), "{pattern}");
    }
    assert_eq!(canonical_pattern("/50%"), "/50%");
}

/// Pieces of which attacks on paths are made.
fn attack() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("."),
        Just(".."),
        Just("/./"),
        Just("/../"),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%5c"),
        Just("\\"),
        Just("%25"),
        Just("%252e"),
        Just("%00"),
        Just("%7f"),
        Just(";"),
        Just("%3b"),
        Just("..;"),
        Just("a"),
        Just("admin"),
        Just("%61"),
        Just("%c3%bc"),
        Just("%c0%ae"),
        Just("%"),
        Just("{"),
        Just("["),
        Just("%20"),
        Just("%40"),
        Just("@"),
        Just("+"),
        Just("%2b"),
        Just("?"),
        Just("é"),
        Just(" "),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What an application makes of a path: everything unescaped, once.
fn unescaped(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            out.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            out.push(*byte);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn canonical_is_idempotent_and_what_was_matched_is_forwarded(raw in attack()) {
        if let Ok(target) = Target::parse(&raw) {
            let forwarded = target.canonical().into_owned();
            let again = Target::parse(&forwarded).unwrap();
            prop_assert_eq!(again.path(), target.path());
            prop_assert_eq!(again.query(), target.query());
            prop_assert!(matches!(again.path, Cow::Borrowed(_)), "{} is not borrowed", forwarded);
            prop_assert_eq!(forwarded.split('?').next().unwrap(), target.path());
        }
    }

    #[test]
    fn an_application_cannot_read_more_into_a_canonical_path(raw in attack()) {
        if let Ok(target) = Target::parse(&raw) {
            let seen = unescaped(target.path());
            let seen = std::str::from_utf8(&seen).unwrap();
            prop_assert_eq!(seen.matches('/').count(), target.path().matches('/').count());
            prop_assert!(!seen.contains(['\\', '\0']) && !seen.contains("//"));
            prop_assert!(seen.split('/').all(|segment| !matches!(segment.split(';').next(), Some("." | ".."))), "{}", seen);
        }
    }

    #[test]
    fn two_spellings_of_one_resource_have_one_form(name in "[a-z@:+~. \\[\\]é;]{1,8}", mask in any::<u16>()) {
        prop_assume!(!name.starts_with('.') && !name.contains(';'));
        let escape = |byte: u8| format!("%{byte:02x}");
        let all: String = name.bytes().map(escape).collect();
        let some: String = name.bytes().enumerate().map(|(index, byte)| {
            let plain = CLASS[usize::from(byte)] == Class::Plain;
            if plain && mask & (1 << (index % 16)) != 0 { char::from(byte).to_string() } else { escape(byte) }
        }).collect();
        let (all, some) = (path(&["/", &all].concat()), path(&["/", &some].concat()));
        prop_assert!(all.is_some());
        prop_assert_eq!(all, some);
    }

    #[test]
    fn any_text_is_answered(raw in ".{0,40}") {
        let _ = Target::parse(&raw);
    }
}
