//! Words in braces within a worker's argv and environment values. Pure.

use tidegate_config::model::Template;

/// What the words stand for, for one start of one worker.
pub(crate) struct Values<'a> {
    pub(crate) pool: &'a str,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    /// Empty with the port transport.
    pub(crate) socket: &'a str,
    /// 0 with the unix transport.
    pub(crate) port: u16,
}

impl Values<'_> {
    fn of(&self, template: Template) -> String {
        match template {
            Template::Socket => self.socket.to_owned(),
            Template::Port => self.port.to_string(),
            Template::Host => "127.0.0.1".to_owned(),
            Template::Slot => self.slot.to_string(),
            Template::Generation => self.generation.to_string(),
            Template::Pool => self.pool.to_owned(),
        }
    }

    /// `text` with every `{word}` replaced. `{{` is a literal `{`; a closing brace is ordinary text, and so is an opening
    /// one that begins no known word: faults of that kind are found when the site file is compiled.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            rest = if let Some(after) = tail.strip_prefix('{') {
                out.push('{');
                after
            } else if let Some((value, after)) = self.word(tail) {
                out.push_str(&value);
                after
            } else {
                out.push('{');
                tail
            };
        }
        out + rest
    }

    fn word<'t>(&self, tail: &'t str) -> Option<(String, &'t str)> {
        let (word, after) = tail.split_once('}')?;
        let template = Template::ALL.into_iter().find(|template| template.word() == word)?;
        Some((self.of(template), after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_and_doubled_braces_are_literal() {
        let values = Values { pool: "app", slot: 3, generation: 2, socket: "/run/x.sock", port: 4000 };
        for (text, expected) in [
            ("--uds={socket}", "--uds=/run/x.sock"),
            ("{host}:{port}", "127.0.0.1:4000"),
            ("{pool}-{slot}-{generation}", "app-3-2"),
            ("{{socket}", "{socket}"),
            ("{{{slot}", "{3"),
            ("{\"a\": {}}", "{\"a\": {}}"),
            ("{unknown} {", "{unknown} {"),
            ("", ""),
        ] {
            assert_eq!(values.expand(text), expected, "{text}");
        }
    }
}
