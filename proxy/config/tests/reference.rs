//! `docs/configuration.md` has a table for every mapping of the file format, generated from the schema. This test fails
//! when a table is stale, missing or about something that is gone; `BLESS=1` writes the tables anew.
//!
//! Everything between the tables is written by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tidegate_config::schema;

const END: &str = "<!-- end of keys -->";

#[test]
fn the_reference_says_what_the_schema_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = fs::read_to_string(&page).unwrap();
    let schema = schema();
    let mut missing = mappings(&schema);
    let fresh = with_fresh_tables(&written, &schema, &mut missing);
    assert!(missing.is_empty(), "mappings without a table: {missing:?}; add `<!-- keys of NAME -->` and `{END}`");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&page, fresh).unwrap();
        return;
    }
    let stale = written.lines().zip(fresh.lines()).find(|(written, fresh)| written != fresh);
    assert_eq!(stale, None, "stale: run BLESS=1 cargo test -p tidegate-config --test reference");
    assert_eq!(written, fresh);
}

/// Names of the mappings that have keys; the file itself is called `SiteFile`.
fn mappings(schema: &Value) -> BTreeSet<String> {
    let named = schema["$defs"].as_object().unwrap().iter();
    let with_keys = named.filter(|(_, definition)| definition.get("properties").is_some());
    with_keys.map(|(name, _)| name.clone()).chain(["SiteFile".to_owned()]).collect()
}

/// The page with the table after each mark written anew; strikes the names it meets from `missing`.
fn with_fresh_tables(page: &str, schema: &Value, missing: &mut BTreeSet<String>) -> String {
    let mut parts = page.split("<!-- keys of ");
    let mut fresh = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").unwrap();
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("the table of {name} has no end"));
        assert!(missing.remove(name), "{name} is no mapping of the file format, or has two tables");
        fresh.push_str(&format!("<!-- keys of {name} -->\n{}{END}{after}", table(schema, name)));
    }
    fresh
}

fn table(schema: &Value, name: &str) -> String {
    let definition = if name == "SiteFile" { schema } else { &schema["$defs"][name] };
    let mut text = "| key | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (key, value) in definition["properties"].as_object().unwrap() {
        let required = definition["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key));
        let (meaning, default) = meaning_and_default(value, required);
        let kind = kind(schema, value).replace('|', "\\|");
        text.push_str(&format!("| `{key}` | {kind} | {default} | {meaning} |\n"));
    }
    text
}

/// The doc text without what the other columns say.
fn meaning_and_default(value: &Value, required: bool) -> (String, String) {
    let text = value["description"].as_str().unwrap().replace('\n', " ");
    let (meaning, rest) = text.split_once(" Default: ").unwrap_or((&text, ""));
    let (default, unit) = rest.split_once(" Unit: ").unwrap_or((rest, ""));
    let default = default.trim_end_matches('.');
    // A unit says more than the kind of value when it names a range.
    let range = unit.trim_end_matches('.').split_once(", ").map(|(_, range)| format!(" Range: {range}."));
    let meaning = meaning.trim_end_matches(" Required.").replace(" Required: at", " At").replace('|', "\\|");
    let default = match (required, default) {
        (true, _) => "required".to_owned(),
        (false, "") => "-".to_owned(),
        (false, default) if value.get("default").is_some_and(|value| !value.is_object() && !value.is_array()) => {
            if value["default"] == "" {
                default.to_owned()
            } else {
                format!("`{default}`")
            }
        }
        (false, default) => default.to_owned(),
    };
    (format!("{meaning}{}", range.unwrap_or_default()), default)
}

/// What may be written: a unit, words, a number, a list, or the name of another mapping.
fn kind(schema: &Value, value: &Value) -> String {
    if let Some(name) = value["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let definition = &schema["$defs"][name];
        if definition["type"] == "object" && definition.get("properties").is_none() {
            return "`{}`".to_owned();
        }
        if definition["type"] == "object" {
            return format!("[mapping](#{})", anchor(name));
        }
        return kind(schema, definition);
    }
    if let Some(branches) = value["anyOf"].as_array().or_else(|| value["oneOf"].as_array()) {
        return branches.iter().map(|branch| kind(schema, branch)).collect::<Vec<_>>().join(", ");
    }
    if let Some(word) = value["const"].as_str() {
        return format!("`{word}`");
    }
    match (value["format"].as_str(), value["type"].as_str()) {
        (Some("positive-duration" | "duration"), _) => "duration".to_owned(),
        (Some("request-rate"), _) => "rate".to_owned(),
        (Some("positive-size"), _) => "size".to_owned(),
        (Some("holding"), _) => "`on`, `off`, size".to_owned(),
        (_, Some("integer")) => "number".to_owned(),
        (_, Some("boolean")) => "`true`, `false`".to_owned(),
        (_, Some("array")) => format!("list of {}", plural(&kind(schema, &value["items"]))),
        (_, Some("object")) => format!("name: {}", kind(schema, &value["additionalProperties"])),
        _ => "text".to_owned(),
    }
}

fn plural(kind: &str) -> String {
    match kind.split_once(", [mapping]") {
        Some((other, rest)) => format!("{} or [mappings]{rest}", plural(other)),
        None if kind.starts_with("[mapping]") => kind.replacen("[mapping]", "[mappings]", 1),
        None => format!("{kind}s"),
    }
}

/// Every table stands under a heading that is its mapping's name in words: `ClientTimeouts` under `client timeouts`.
fn anchor(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
