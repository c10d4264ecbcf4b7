//! What the words in braces within a worker's argv and environment values stand for. Pure.

use tidegate_config::model::{LISTENER, Template};
use tidegate_config::template;

/// What the words stand for, for one start of one worker.
pub(crate) struct Values<'a> {
    pub(crate) pool: &'a str,
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    /// Empty with the port transport.
    pub(crate) socket: &'a str,
    /// 0 with the unix transport.
    pub(crate) port: u16,
    /// Our own process.
    pub(crate) pid: i32,
}

impl Values<'_> {
    /// What a word stands for.
    pub(crate) fn of(&self, template: Template) -> String {
        match template {
            Template::Socket => self.socket.to_owned(),
            Template::Port => self.port.to_string(),
            Template::Host => "127.0.0.1".to_owned(),
            Template::Slot => self.slot.to_string(),
            Template::Generation => self.generation.to_string(),
            Template::Pool => self.pool.to_owned(),
            Template::Fd => LISTENER.to_string(),
            Template::PidProxy => self.pid.to_string(),
        }
    }

    /// `text` with every word replaced that the site file may have.
    pub(crate) fn expand(&self, text: &str) -> String {
        template::expand(text, |template| self.of(template))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_has_its_value() {
        let values = Values { pool: "app", slot: 3, generation: 2, socket: "/run/x.sock", port: 4000, pid: 77 };
        for (text, expected) in [
            ("--uds={socket}", "--uds=/run/x.sock"),
            ("{host}:{port}", "127.0.0.1:4000"),
            ("{pool}-{slot}-{generation}", "app-3-2"),
            ("fd://{fd} {pid_proxy}", "fd://3 77"),
            ("{{socket} ${HOME} {", "{socket} ${HOME} {"),
        ] {
            assert_eq!(values.expand(text), expected, "{text}");
        }
    }
}
