//! Every file in `cases/good` loads, with exactly the warnings beside it; every file in `cases/bad` is refused with
//! exactly the text beside it. `BLESS=1` writes those texts anew: read the diff before committing it.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_config::environment::ReadError;
use tidegate_config::model::{EndpointSource, WorkerProgram, WorkerSpec};
use tidegate_config::{Environment, Fault, Faults, Loaded, System, load, load_str};

/// Fixed variables, real files.
struct Fixed {
    system: System,
    folder: PathBuf,
}

impl Fixed {
    fn new(folder: &Path) -> Self {
        Self { system: System { runtime_folder: PathBuf::from("/run/tidegate") }, folder: folder.to_owned() }
    }
}

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        let value = match name {
            "PORT" => "8080",
            "COUNT" => "3",
            "APP" => "app",
            "EMPTY" => "",
            "TOKEN" => "s3cret-token-value",
            "TRICKY" => "a: b\n- [c, {d: e}] # no comment",
            "DATABASE_URL" => "postgres://user:pass@db/x",
            "HOME" => "/home/app",
            "BRACES" => "pass{word}",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn read(&self, path: &Path, most: u64) -> Result<String, ReadError> {
        self.system.read(path, most)
    }

    fn matches(&self, pattern: &str) -> Vec<PathBuf> {
        self.system.matches(pattern)
    }

    fn current_folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn runtime_folder(&self) -> PathBuf {
        self.system.runtime_folder()
    }
}

fn cases(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(kind)
}

fn yaml_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

fn load_case(folder: &Path, name: &str) -> Result<Loaded, Faults> {
    load(Path::new(name), &Fixed::new(folder))
}

/// Compares with the file beside the case; an expected text that is missing counts as empty.
fn compare(folder: &Path, name: &str, actual: &str, differences: &mut Vec<String>) {
    let path = folder.join(name).with_extension("txt");
    if std::env::var_os("BLESS").is_some() {
        if actual.is_empty() {
            let _ = fs::remove_file(&path);
        } else {
            fs::write(&path, actual).unwrap();
        }
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != actual {
        differences.push(format!("{name}\n--- expected\n{expected}\n--- actual\n{actual}\n"));
    }
}

#[test]
fn bad_files_are_refused_with_the_expected_text() {
    let folder = cases("bad");
    let mut differences = Vec::new();
    let names = yaml_files(&folder);
    assert!(names.len() >= 60, "only {} bad cases", names.len());
    for name in names {
        match load_case(&folder, &name) {
            Ok(_) => differences.push(format!("{name}: it loads")),
            Err(faults) => compare(&folder, &name, &format!("{faults}\n"), &mut differences),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn good_files_load_with_the_expected_warnings() {
    let folder = cases("good");
    let mut differences = Vec::new();
    for name in yaml_files(&folder) {
        match load_case(&folder, &name) {
            Ok(loaded) => {
                let warnings: String = loaded.warnings.iter().map(Fault::to_string).collect();
                compare(&folder, &name, &warnings, &mut differences);
            }
            Err(faults) => differences.push(format!("{name}: refused\n{faults}")),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn defaults_written_out_change_nothing() {
    let folder = cases("good");
    let short = load_case(&folder, "defaults-short.yaml").unwrap().model;
    let long = load_case(&folder, "defaults-long.yaml").unwrap().model;
    assert_eq!(short, long);
}

#[test]
fn the_example_of_the_design_loads_from_text() {
    let text = "listeners: [{ address: ':80' }]\nsites: [{ hosts: [a.example], routes: [{ path: /, respond: { body: hi } }] }]\n";
    let loaded = load_str("<stdin>", text, &Fixed::new(Path::new("/"))).unwrap();
    assert!(loaded.files.is_empty());
    let faults = load_str("<stdin>", "listners: []", &Fixed::new(Path::new("/"))).unwrap_err();
    assert!(faults.to_string().starts_with("<stdin>:1:1: error: unknown key \"listners\"\n"), "{faults}");
}

/// Where each key ends up: two timeouts compiled into each other's place would show here.
#[test]
fn every_key_arrives_in_the_model() {
    let folder = cases("good");
    let model = load_case(&folder, "everything.yaml").unwrap().model;
    let text = format!("{model:#?}\n").replace(folder.to_str().unwrap(), "<folder>");
    compare_model(&folder.join("everything.model"), &text);
}

/// What each preset expands to, in a line for each thing that follows from it.
#[test]
fn presets_expand_to_what_an_operator_would_write() {
    let folder = cases("good");
    let model = load_case(&folder, "presets.yaml").unwrap().model;
    let mut text = String::new();
    for upstream in model.upstreams.values() {
        let EndpointSource::Workers(workers) = &upstream.source else { panic!("{}", upstream.name) };
        let WorkerSpec { command, transport, env, ready, program, .. } = workers;
        let cap = upstream.capacity.max_in_flight_per_endpoint;
        let WorkerProgram { preset, keep_alive, env: own } = program;
        text.push_str(&format!(
            "{}: {}\n  command {command:?}\n  {transport:?}, env {env:?}, {} of the preset\n  ready {ready:?}\n  \
             keep-alive {keep_alive:?}, idle {:?}, cap {cap:?}\n",
            upstream.name,
            preset.word(),
            own.len(),
            upstream.timeouts.idle,
        ));
    }
    compare_model(&folder.join("presets.model"), &text);
}

fn compare_model(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap();
    assert!(expected == text, "{text}");
}
