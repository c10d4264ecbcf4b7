//! Runs a program under valgrind's callgrind, which counts the instructions of user space.
//!
//! The tool is started without valgrind's own launcher, because Tidegate starts its guardian from `/proc/self/exe`,
//! which under valgrind is valgrind. A launcher of ours starts the guardian without valgrind instead: it does nothing
//! while requests are served.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Where counts of one run go.
pub(crate) struct Callgrind {
    tools: PathBuf,
    directory: PathBuf,
}

impl Callgrind {
    /// Uses the tools in the folder `tools` and writes to `directory`, which is emptied.
    pub(crate) fn new(tools: &Path, directory: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| format!("cannot make '{}'", directory.display()))?;
        // A worker that has changed its account writes here too.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).context("cannot open a folder")?;
        let callgrind = Self { tools: tools.to_owned(), directory: directory.to_owned() };
        ensure!(callgrind.tool().exists(), "there is no '{}'; install valgrind", callgrind.tool().display());
        Ok(callgrind)
    }

    /// The command that runs `native` under the tool.
    pub(crate) fn around(&self, native: &Command) -> Result<Command> {
        let launcher = self.directory.join("launcher");
        let program = Path::new(native.get_program());
        let program = fs::canonicalize(program).with_context(|| format!("cannot find '{}'", program.display()))?;
        let script = format!(
            "#!/bin/sh\nwhile [ $# -gt 0 ] && [ \"$1\" != /proc/self/exe ]; do shift; done\nshift\nexec '{}' \"$@\"\n",
            program.display()
        );
        fs::write(&launcher, script).context("cannot write a launcher")?;
        fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).context("cannot write a launcher")?;
        let mut command = Command::new(self.tool());
        command.env("VALGRIND_LIB", &self.tools).env("VALGRIND_LAUNCHER", launcher);
        command.args(["--tool=callgrind", "--trace-children=yes"]);
        command.arg(format!("--callgrind-out-file={}/out.%p", self.directory.display()));
        command.arg(program).args(native.get_args());
        Ok(command)
    }

    /// Instructions of all processes that ran under the tool and have ended.
    pub(crate) fn total(&self) -> Result<u64> {
        let mut sum = 0;
        for file in self.profiles()? {
            sum += instructions(&file)?;
        }
        ensure!(sum > 0, "callgrind has written nothing");
        Ok(sum)
    }

    /// The profile of the process that worked most.
    pub(crate) fn largest(&self) -> Result<PathBuf> {
        let mut profiles = self.profiles()?;
        profiles.sort_by_key(|file| instructions(file).unwrap_or_default());
        profiles.pop().context("callgrind has written nothing")
    }

    fn profiles(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.directory).context("cannot list the profiles")?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(files.filter(|file| file.file_stem().is_some_and(|stem| stem == "out")).collect())
    }

    fn tool(&self) -> PathBuf {
        self.tools.join("callgrind-amd64-linux")
    }
}

fn instructions(profile: &Path) -> Result<u64> {
    let text = fs::read_to_string(profile).with_context(|| format!("cannot read '{}'", profile.display()))?;
    match parse(&text) {
        Some(count) => Ok(count),
        None => bail!("'{}' has no sum", profile.display()),
    }
}

fn parse(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("summary: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found() {
        assert_eq!(parse("version: 1\nevents: Ir\nsummary: 14985115\n\ntotals: 14985341\n"), Some(14_985_115));
        assert_eq!(parse("events: Ir\n"), None);
    }
}
