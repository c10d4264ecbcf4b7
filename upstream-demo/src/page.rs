//! The page of `/` for people with a browser: the same facts as the JSON, and links to try the other paths.

use std::fmt::Write;

use serde_json::Value;

/// The page that shows `facts`, the value `/` gives to programs.
pub(crate) fn render(facts: &Value) -> String {
    let mut rows = String::new();
    for name in ["method", "path", "query", "version", "pid", "slot", "generation", "served"] {
        row(&mut rows, name, &facts[name]);
    }
    let mut headers = String::new();
    for pair in facts["headers"].as_array().into_iter().flatten() {
        row(&mut headers, pair[0].as_str().unwrap_or_default(), &pair[1]);
    }
    let links: String = LINKS.iter().map(|link| format!("<a href=\"{link}\">{link}</a> ")).collect();
    let who = facts["slot"].as_str().map_or_else(|| "a worker".to_owned(), |slot| format!("worker {}", escape(slot)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>upstream-demo</title><style>{STYLE}</style></head>\n\
         <body><h1>Served by {who}</h1>\n<p>Reload, and see who answers next.</p>\n<table>{rows}</table>\n\
         <h2>Headers that arrived</h2>\n<table>{headers}</table>\n<h2>Try</h2>\n<p>{links}</p></body></html>\n"
    )
}

fn row(rows: &mut String, name: &str, value: &Value) {
    let value = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    };
    let _ = write!(rows, "<tr><th>{}</th><td>{value}</td></tr>", escape(name));
}

/// Text that shows as itself in HTML, in attributes too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

const LINKS: [&str; 7] =
    ["/slow?ms=500", "/cpu?ms=200", "/bytes?n=64", "/stream?n=10&amp;ms=300", "/status/418", "/count", "/crash"];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #8884;\
    overflow-wrap:anywhere}th{font-weight:500;white-space:nowrap;width:12rem}a{margin-right:.8rem}h2{margin-top:2rem}";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_client_sent_shows_as_text() {
        let page = render(&json!({ "path": "/", "slot": null, "headers": [["x", "<script>alert('1')</script>"]] }));
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"));
        assert!(page.contains("Served by a worker"));
    }
}
