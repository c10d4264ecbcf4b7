//! The command that an operator has run about a worker that hangs: a profiler's dump, for instance. As the worker's account, in its
//! folder and environment.

use tidegate_config::template::{Piece, pieces};

use crate::environment::hook_environment;
use crate::generation::Frozen;
use crate::spawn::{Surroundings, own_pid};
use crate::template::Values;
use crate::worker::WorkerId;

impl Surroundings {
    /// The launch of a command about a worker with this process, as the shim reads it.
    pub(crate) fn prepare_on_hang(
        &self,
        worker: &WorkerId,
        pid: i32,
        command: &[String],
        generation: &Frozen,
    ) -> Result<Vec<u8>, String> {
        let spec = &generation.spec;
        let WorkerId { pool, slot, generation: number, .. } = worker;
        let values = Values { pool, slot: *slot, generation: *number, socket: "", port: 0, pid: own_pid() };
        let found = self.found(generation)?;
        let mut environment = hook_environment(&found, spec, &values, &self.instance);
        environment.insert("WORKER_PID".into(), pid.to_string().into());
        environment.insert("WORKER_SLOT".into(), slot.to_string().into());
        let argv = command.iter().map(|word| expand(word, pid, &values)).collect();
        self.command_launch(generation, argv, environment)
    }
}

/// The words of every command, and `{pid}`.
fn expand(word: &str, pid: i32, values: &Values<'_>) -> String {
    let replace = |piece: Piece<'_>| match piece {
        Piece::Unknown("pid") => pid.to_string(),
        Piece::Template(template) => values.of(template),
        Piece::Literal(text) => text.to_owned(),
        Piece::Braced(word) | Piece::Unknown(word) => format!("{{{word}}}"),
    };
    pieces(word).into_iter().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced() {
        let values = Values { pool: "app", slot: 3, generation: 2, socket: "", port: 0, pid: 7 };
        let expanded = expand("dump --pid={pid} -o {pool}.{slot}.{generation} {{pid} {x} ${HOME}", 42, &values);
        assert_eq!(expanded, "dump --pid=42 -o app.3.2 {pid} {x} ${HOME}");
    }
}
