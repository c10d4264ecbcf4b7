//! The published JSON schema, generated from the raw types, and the list of keys derived from it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::raw::SiteFile;

/// The JSON schema of a site file (draft 2020-12), as `tidegate schema` prints it.
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<SiteFile>().to_value();
    simplify(&mut schema);
    schema
}

/// Removes what Rust's `Option` brought in: a key is left out, never set to null. Removes formats of Rust numbers too,
/// which mean nothing to others.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Object(object) => {
            drop_null(object);
            if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                object.remove("format");
            }
            object.values_mut().for_each(simplify);
        }
        _ => {}
    }
}

fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".to_owned(), one);
        }
    }
    let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = branches.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// Follows `$ref`; also returns the name of the definition, which is the name of the raw type.
pub(crate) fn resolve<'s>(root: &'s Value, schema: &'s Value) -> (&'s Value, Option<&'s str>) {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    match name.and_then(|name| root.get("$defs")?.get(name)) {
        Some(definition) => (definition, name),
        None => (schema, None),
    }
}

/// The alternatives of a schema; a schema without any is its own only one.
pub(crate) fn alternatives(schema: &Value) -> &[Value] {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
    branches.map_or_else(|| std::slice::from_ref(schema), Vec::as_slice)
}

/// Every key of the file format that holds a value, as a path: `listeners[].timeouts.head`,
/// `upstreams.<name>.balance`. Inner routes are named once, as `sites[].routes[].routes`.
#[must_use]
pub fn keys() -> Vec<String> {
    let root = schema();
    let mut found = Vec::new();
    let mut walk = KeyWalk { root: &root, found: &mut found, inside: Vec::new() };
    walk.object(&root, "");
    found
}

struct KeyWalk<'s, 'f> {
    root: &'s Value,
    found: &'f mut Vec<String>,
    /// Definitions that are being walked.
    inside: Vec<&'s str>,
}

impl<'s> KeyWalk<'s, '_> {
    fn object(&mut self, schema: &'s Value, path: &str) {
        for (key, schema) in properties(schema) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if !self.value(schema, &path) {
                self.found.push(path);
            }
        }
    }

    /// Walks the keys within a value; `false` when the key itself should be listed: it has none within, or may also
    /// hold something else.
    fn value(&mut self, schema: &'s Value, path: &str) -> bool {
        let (schema, name) = resolve(self.root, schema);
        if let Some(name) = name {
            if self.inside.contains(&name) {
                return false;
            }
            self.inside.push(name);
        }
        let mut only_keys = true;
        for branch in alternatives(schema) {
            let inner =
                if std::ptr::eq(branch, schema) { self.content(schema, path) } else { self.value(branch, path) };
            only_keys &= inner;
        }
        if name.is_some() {
            self.inside.pop();
        }
        only_keys
    }

    fn content(&mut self, schema: &'s Value, path: &str) -> bool {
        if let Some(items) = schema.get("items") {
            return self.value(items, &format!("{path}[]"));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            return self.value(values, &format!("{path}.<name>"));
        }
        if properties(schema).next().is_none() {
            return false;
        }
        self.object(schema, path);
        true
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` with the path and the schema of every property of every definition.
    fn each_property(check: &mut dyn FnMut(&str, &Value)) {
        let root = schema();
        let definitions = root["$defs"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema));
        for (name, definition) in definitions.chain([("SiteFile", &root)]) {
            for (key, schema) in properties(definition) {
                check(&format!("{name}.{key}"), schema);
            }
        }
    }

    #[test]
    fn every_key_is_documented() {
        let mut count = 0;
        each_property(&mut |path, schema| {
            count += 1;
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{path} has no doc text: {schema}");
            if let Some(default) = schema.get("default") {
                let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
                let said = text.replace('\n', " ");
                let agrees = said.contains(&format!("Default: {default}"))
                    || (matches!(default.as_str(), "[]" | "{}") && said.contains("Default: none"))
                    || (default.is_empty() && said.contains("Default: empty"));
                assert!(agrees, "{path}: the doc text and the schema name different defaults: {said} / {default}");
            }
        });
        assert!(count > 70, "{count}");
    }

    #[test]
    fn null_is_never_a_value() {
        assert!(!schema().to_string().contains("\"null\""));
    }

    #[test]
    fn every_mapping_is_closed() {
        let root = schema();
        for (name, definition) in root["$defs"].as_object().unwrap() {
            if definition["type"] == "object" {
                assert_eq!(definition["additionalProperties"], false, "{name}");
            }
        }
    }

    #[test]
    fn keys_are_paths_to_values() {
        let keys = keys();
        for expected in [
            "include",
            "listeners[].timeouts.head",
            "listeners[].tls.policy",
            "tls_policies.<name>.client_certificates.ca",
            "sites[].tls",
            "sites[].tls.certificate",
            "sites[].routes[].headers",
            "sites[].routes[].routes",
            "sites[].routes[].respond.status",
            "upstreams.<name>.servers[].weight",
            "upstreams.<name>.workers.ready.http",
            "upstreams.<name>.workers.ready",
            "upstreams.<name>.workers.env",
            "logging.access",
            "logging.access.to",
            "server.connections.per_address",
        ] {
            assert!(keys.iter().any(|key| key == expected), "{expected} is missing in {keys:#?}");
        }
        for container in ["listeners", "listeners[].timeouts", "upstreams", "server"] {
            assert!(!keys.iter().any(|key| key == container), "{container}");
        }
    }
}
