//! The Python of `tests/.venv`, made by `tests/setup-python.sh`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::{Finished, run_to_end};

/// A program of the virtual environment, `python` or `uvicorn` for instance.
///
/// # Panics
/// When it is not there; the message says how to make it.
pub fn program(name: &str) -> PathBuf {
    let path = tests_dir().join(".venv/bin").join(name);
    assert!(path.exists(), "'{}' is missing; run: tests/setup-python.sh", path.display());
    path
}

/// The folder of the FastAPI application.
pub fn fastapi_app() -> PathBuf {
    tests_dir().join("fastapi_app")
}

/// The folder with an application for each preset of workers.
pub fn preset_apps() -> PathBuf {
    tests_dir().join("preset_apps")
}

/// Runs a script of `tests/fastapi_app` to its end.
pub async fn run_script(script: &str, arguments: &[String]) -> Finished {
    let mut command = Command::new(program("python"));
    command.arg(fastapi_app().join(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    run_to_end(command, Duration::from_secs(60)).await
}

fn tests_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
