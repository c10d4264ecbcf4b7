//! The page that a browser shows while the newest version of an application does not start. It asks again by itself, so that
//! the application is back as soon as it starts.

use bytes::Bytes;

/// `text` is what the workers said; nothing of it is taken for markup.
pub(super) fn page(title: &str, text: &str, id: &str) -> Bytes {
    let text = escaped(text);
    Bytes::from(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<pre>{text}</pre>\n\
         <p>This page goes away with the next version that starts. The workers of the version before run on, unasked.</p>\n\
         <p><small>request {id}</small></p>\n</html>\n"
    ))
}

/// As it stands in a text of HTML, and in the value of an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Seconds.
const REFRESH: u32 = 2;
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;\
                     background:#fff}h1{font-size:1.4rem;border-left:.4rem solid #c62828;padding-left:.8rem}\
                     pre{background:#1e1e1e;color:#eee;padding:1rem;overflow-x:auto;border-radius:.3rem;\
                     font:14px/1.45 ui-monospace,monospace}small{color:#666}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_is_markup() {
        let page = page("a title", "File \"a.py\": <script>alert('1')</script> & more", "id");
        let page = String::from_utf8_lossy(&page);
        let expected = "<pre>File &quot;a.py&quot;: &lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; more</pre>";
        assert!(page.contains(expected), "{page}");
    }
}
