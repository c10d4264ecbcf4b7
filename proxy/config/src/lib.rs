//! Text of a site file to a checked model: no async, no sockets, nothing of the engine.
//!
//! The way of a file: text, to a tree in which every node knows its place (`parse`, `include`, `interpolate`), checked
//! against the schema that is also published (`walk`), read by serde (`raw`), compiled (`compile`) to the [`model`]. Each
//! step keeps going after a fault, so that one run reports them all.

mod access;
mod address;
mod compile;
pub mod diff;
pub mod environment;
pub mod fault;
mod host;
mod include;
mod interpolate;
pub mod model;
pub mod network;
mod parse;
mod pattern;
mod planned;
mod quick_start;
mod rate;
mod raw;
mod report;
mod scalar;
mod schema;
mod share;
mod source;
mod status_range;
mod suggest;
pub mod template;
mod tree;
mod units;
mod walk;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use address::LONGEST_SOCKET_PATH;
pub use diff::{Diff, diff};
pub use environment::{Environment, System};
pub use fault::{Code, Fault, Faults, Place, Severity};
pub use network::Networks;
pub use quick_start::QuickStart;
pub use schema::{keys, schema};
pub use units::{format_duration, format_size};

use crate::compile::Scene;
use crate::include::{Gathered, gather, gather_text};
use crate::model::Model;
use crate::report::Report;
use crate::tree::Spot;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What the program runs on.
    pub model: Model,
    /// What is doubtful, sorted by place.
    pub warnings: Vec<Fault>,
    /// Every file that was read, the site file first; symlinks resolved. Text that came
    /// from no file does not count.
    pub files: Vec<PathBuf>,
}

/// Loads a site file with everything it includes.
///
/// # Errors
/// Everything that is wrong with it, in one go. Of the files that the configuration names pages are read; others
/// (certificates, commands) are not looked at.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<Loaded, Faults> {
    let mut report = Report::default();
    let gathered = gather(path, environment, &mut report);
    build(gathered, environment, report)
}

/// Loads a configuration from text: standard input, the quick start, a test.
///
/// `name` stands for the file in messages; relative paths start from the current folder of `environment`.
///
/// # Errors
/// As [`load`].
pub fn load_str(name: &str, text: &str, environment: &dyn Environment) -> Result<Loaded, Faults> {
    let mut report = Report::default();
    let folder = environment.current_folder();
    let gathered = gather_text(name, text.to_owned(), &folder, environment, &mut report);
    build(gathered, environment, report)
}

fn build(gathered: Gathered, environment: &dyn Environment, mut report: Report) -> Result<Loaded, Faults> {
    let Gathered { root, variables, files } = gathered;
    let schema = schema();
    let sound = walk::walk(root, &schema, &mut report);
    let runtime_folder = environment.runtime_folder();
    let scene = Scene { runtime_folder: &runtime_folder, variables: &variables, environment };
    let model = match raw::SiteFile::deserialize(sound.value) {
        Ok(raw) => compile::compile(raw, Spot::root(&sound.node), &scene, &mut report),
        Err(error) => {
            // The schema accepted what the raw types do not: our defect, unless the file was faulty anyway.
            if report.is_clean() {
                report.fault_without_place(Code::Internal, format!("the schema and the raw types disagree: {error}"));
            }
            None
        }
    };
    let Some(model) = model else {
        if report.is_clean() {
            report.fault_without_place(Code::Internal, "the file was not compiled, and nothing says why");
        }
        return Err(report.into_faults());
    };
    let warnings = report.finish()?;
    Ok(Loaded { model, warnings, files })
}
