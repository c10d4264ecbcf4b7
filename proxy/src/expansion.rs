//! What presets of workers came to, for those who want to know what will run: `check` and the log of the program.
//!
//! Variables of the file are not shown, they may hold secrets; the command is for everybody to read once it runs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_config::format_duration;
use tidegate_config::model::{EndpointSource, Model, Preset, Upstream, WorkerSpec};

/// The workers of an upstream whose preset is not `custom`.
pub(crate) struct Expansion<'a> {
    upstream: &'a Upstream,
    workers: &'a WorkerSpec,
}

impl<'a> Expansion<'a> {
    /// Those of a configuration, by name.
    pub(crate) fn all(model: &'a Model) -> impl Iterator<Item = Self> {
        model.upstreams.values().filter_map(|upstream| match &upstream.source {
            EndpointSource::Workers(workers) if workers.program.preset != Preset::Custom => {
                Some(Self { upstream, workers })
            }
            EndpointSource::Workers(_) | EndpointSource::Servers(_) => None,
        })
    }

    /// For programs.
    pub(crate) fn record(&self) -> Value {
        let WorkerSpec { command, transport, ready, program, .. } = self.workers;
        let env: serde_json::Map<String, Value> =
            program.env.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        json!({
            "upstream": self.upstream.name,
            "preset": program.preset.word(),
            "command": command,
            "env": env,
            "transport": transport.word(),
            "ready": ready.to_string(),
            "keep_alive_seconds": program.keep_alive.map(|time| time.as_secs_f64()),
            "idle_seconds": self.idle().as_secs_f64(),
            "cap": self.cap(),
        })
    }

    fn idle(&self) -> Duration {
        self.upstream.timeouts.idle
    }

    fn cap(&self) -> Option<u32> {
        self.upstream.capacity.max_in_flight_per_endpoint
    }

    /// Each word as a shell would need it.
    fn command(&self) -> String {
        let words: Vec<String> = self.workers.command.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    fn env(&self) -> String {
        let variables = self.workers.program.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        variables.collect::<Vec<_>>().join(" ")
    }

    fn keep_alive(&self) -> String {
        self.workers.program.keep_alive.map_or_else(|| "not known".to_owned(), format_duration)
    }
}

/// For people: a line for each thing, below a line with the name.
impl fmt::Display for Expansion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerSpec { transport, ready, program, .. } = self.workers;
        writeln!(f, "upstreams.{}.workers: preset {}", self.upstream.name, program.preset.word())?;
        writeln!(f, "  command     {}", self.command())?;
        if !program.env.is_empty() {
            writeln!(f, "  env         {}", self.env())?;
        }
        writeln!(f, "  transport   {}", transport.word())?;
        writeln!(f, "  ready       {ready}")?;
        writeln!(f, "  keep_alive  {}, and ours {}", self.keep_alive(), format_duration(self.idle()))?;
        write!(f, "  cap         {}", self.cap().map_or_else(|| "none".to_owned(), |cap| cap.to_string()))
    }
}

/// Tells the log of the presets of these upstreams.
pub(crate) fn log(model: &Model, which: impl Fn(&String) -> bool) {
    for expansion in Expansion::all(model).filter(|expansion| which(&expansion.upstream.name)) {
        let WorkerSpec { transport, ready, program, .. } = expansion.workers;
        tracing::info!(
            pool = %expansion.upstream.name,
            preset = program.preset.word(),
            command = %expansion.command(),
            env = %expansion.env(),
            transport = transport.word(),
            ready = %ready,
            keep_alive = %expansion.keep_alive(),
            idle = %format_duration(expansion.idle()),
            cap = expansion.cap(),
            "preset of workers"
        );
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,{}".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
