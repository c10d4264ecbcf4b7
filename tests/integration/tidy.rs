//! Rules of the house that no compiler checks: who may use whom, what pure code may not do, and that what the documents
//! show is there.
//!
//! It reads the sources as text, so it needs no build of the program except to load the example files. A rule with an
//! exception names it: an exception that nobody needs any more fails the test too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tidegate_tests::{
    binary::{Binary, repository},
    process::{Finished, run_to_end},
};

/// Packages and those of ours they may use. Whoever is not listed here is nobody's dependency below the program.
const LAYERS: [(&str, &[&str]); 6] = [
    ("proxy/config", &[]),
    ("proxy/http1", &["tidegate-config"]),
    ("proxy/traffic", &["tidegate-config"]),
    ("proxy/supervisor", &["tidegate-config"]),
    ("proxy", &["tidegate-config", "tidegate-http1", "tidegate-traffic", "tidegate-supervisor"]),
    ("upstream-demo", &[]),
];

/// Packages that know nothing of an async runtime.
const WITHOUT_RUNTIME: [&str; 4] = ["proxy/config", "proxy/http1", "proxy/traffic", "proxy/supervisor"];

/// Code that never waits and never reads the clock.
const PURE: [&str; 5] = [
    "proxy/http1/src",
    "proxy/traffic/src",
    "proxy/supervisor/src/state.rs",
    "proxy/supervisor/src/state",
    "proxy/supervisor/src/backoff.rs",
];

/// Where requests are served, so where a status could be chosen in passing.
const REQUEST_PATH: [&str; 4] = ["proxy/src/edge", "proxy/src/exchange", "proxy/src/upstream", "proxy/traffic/src"];

/// Numbers that look like a choice and are none: the engine wants one for its own books, the client sees the status
/// that `failure.rs` gives to the refusal kept beside it.
const ENGINE_NUMBERS: [&str; 2] = ["ErrorType::HTTPStatus(413)", "error_code: 500"];

/// What our own sources are in.
const SOURCES: [&str; 4] = ["proxy", "upstream-demo", "tests", "benches"];

#[test]
fn packages_depend_downwards_only() {
    for (package, allowed) in LAYERS {
        for dependency in dependencies(package, "dependencies") {
            let ours = dependency.starts_with("tidegate");
            assert!(!ours || allowed.contains(&dependency.as_str()), "{package} may not use {dependency}");
        }
    }
}

/// Another implementation of nginx's ring of hashes, which tests compare ours with. It knows nothing of the engine.
const ORACLE: &str = "pingora-ketama";

#[test]
fn only_the_program_knows_the_engine() {
    for package in members() {
        let every_kind = ["dependencies", "dev-dependencies", "build-dependencies"];
        let known = every_kind.iter().flat_map(|kind| dependencies(&package, kind));
        let engine = known.filter(|dependency| dependency.starts_with("pingora") && dependency != ORACLE);
        let engine: Vec<_> = engine.collect();
        assert_eq!(engine.is_empty(), package != "proxy", "{package} uses {engine:?}");
    }
}

#[test]
fn decisions_need_no_runtime() {
    for package in WITHOUT_RUNTIME {
        let runtime =
            |name: &String| name.starts_with("tokio") || name.starts_with("async-") || name.starts_with("hyper");
        let found: Vec<_> = dependencies(package, "dependencies").into_iter().filter(runtime).collect();
        assert!(found.is_empty(), "{package} uses {found:?}");
    }
}

#[test]
fn pure_code_neither_waits_nor_reads_the_clock() {
    let banned = ["Instant::now", "SystemTime::now", ".await", "async fn", "tokio", "thread::sleep", "std::net::Tcp"];
    refuse(&PURE, &banned, &[]);
}

#[test]
fn statuses_are_chosen_in_one_file() {
    let mut exceptions = BTreeSet::new();
    let mut chosen = Vec::new();
    for file in REQUEST_PATH.iter().flat_map(|path| rust_files(path)) {
        for (number, line) in code(&file) {
            if file.ends_with("exchange/failure.rs") || !error_statuses(&line) {
                continue;
            }
            match ENGINE_NUMBERS.iter().find(|known| line.contains(**known)) {
                Some(known) => {
                    exceptions.insert(*known);
                }
                None => chosen.push(format!("{}:{number}: {line}", file.display())),
            }
        }
    }
    assert!(chosen.is_empty(), "only exchange/failure.rs turns a refusal into a status:\n{}", chosen.join("\n"));
    assert_eq!(exceptions.len(), ENGINE_NUMBERS.len(), "an exception is not needed any more: {exceptions:?} are");
}

#[test]
fn one_file_has_unsafe_code() {
    refuse(&SOURCES, &["unsafe"], &["proxy/supervisor/src/process.rs"]);
}

#[test]
fn statics_hold_no_state() {
    refuse(&SOURCES, &["thread_local!", "static mut", "lazy_static"], &[]);
    let changing = ["Atomic", "Mutex", "RwLock", "Cell", "OnceLock", "LazyLock", "Lazy<", "Once", "ArcSwap"];
    let is_static = |line: &str| line.split("static ").next().is_some_and(|before| before.len() < line.len());
    for file in SOURCES.iter().flat_map(|path| rust_files(path)) {
        for (number, line) in code(&file).iter().filter(|(_, line)| is_static(line) && !line.contains("'static")) {
            let declared = line.split('=').next().unwrap_or_default();
            let found = changing.iter().find(|kind| declared.contains(**kind));
            assert!(found.is_none(), "{}:{number}: state belongs to a value that is passed: {line}", file.display());
        }
    }
}

/// Paths of somebody's machine and talk about how the text came to be. Words are written in halves here, so that this
/// file passes too.
#[test]
fn the_repository_speaks_of_itself_alone() {
    let banned = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["brief", ".md"],
        ["issue", " #"],
        ["clau", "de"],
        ["anthro", "pic"],
        ["open", "ai"],
        ["co", "pilot"],
        ["chat", "gpt"],
        ["language", " model"],
        ["as an", " ai"],
        ["system", " prompt"],
        ["sub", "agent"],
    ]
    .map(|halves| halves.concat());
    for file in files(&repository().join(".")).into_iter().filter(|file| !file.ends_with("Cargo.lock")) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let text = text.to_lowercase();
        let found: Vec<_> = banned.iter().filter(|word| text.contains(word.as_str())).collect();
        assert!(found.is_empty(), "{} has {found:?}", file.display());
    }
}

/// In a file whose tests go through every client, one that does not says why.
#[test]
fn tests_go_through_every_client_or_say_why_not() {
    for file in files(&repository().join("tests/integration")) {
        let text = text(&file);
        let lines: Vec<&str> = text.lines().collect();
        if !lines.contains(&"every_client! {") {
            continue;
        }
        for (index, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("#[tokio::test")) {
            let before = lines[index - 1];
            assert!(before.starts_with("// Once: "), "{}:{}: is it for every client?", file.display(), index + 1);
        }
    }
}

#[tokio::test]
async fn every_example_file_loads_without_a_warning() {
    let examples = files(&repository().join("conf"));
    let examples: Vec<_> = examples.into_iter().filter(|file| has_extension(file, "yaml")).collect();
    assert!(examples.len() >= 10, "{examples:?}");
    for example in examples {
        let mut command = check();
        command.arg("-c").arg(&example);
        assert_loads(&example.display().to_string(), &run_to_end(command, LIMIT).await);
    }
}

#[tokio::test]
async fn every_whole_site_file_in_the_documents_loads() {
    let mut count = 0;
    for document in documents() {
        for (number, block) in yaml_blocks(&text(&document)).iter().enumerate() {
            if !block.lines().any(|line| line.starts_with("listeners:")) {
                continue;
            }
            let folder = tempfile::tempdir().expect("the system has a temporary directory");
            let file = folder.path().join("site.yaml");
            // A reader tries it in the repository, where relative paths lead to the test certificates.
            let certificates = format!("{}/certs/", repository().display());
            fs::write(&file, block.replace("certs/", &certificates)).expect("the directory is ours");
            let mut command = check();
            command.arg("-c").arg(&file);
            assert_loads(&format!("{} (block {number})", document.display()), &run_to_end(command, LIMIT).await);
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        for target in links(&text(&document)) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = document.parent().expect("a file has a folder");
            let file = if path.is_empty() { document.clone() } else { folder.join(path) };
            assert!(file.exists(), "{}: there is no {}", document.display(), file.display());
            let known = anchor.is_empty() || anchors(&text(&file)).contains(anchor);
            assert!(known, "{}: there is no heading #{anchor} in {}", document.display(), file.display());
            count += 1;
        }
    }
    assert!(count >= 50, "{count}");
}

const LIMIT: Duration = Duration::from_secs(10);

fn check() -> Command {
    let mut command = Binary::Tidegate.command();
    command.arg("check").current_dir(repository()).env_remove("DATABASE_URL").env_remove("APP_DIR");
    command
}

fn assert_loads(name: &str, finished: &Finished) {
    let said = without_open_test_keys(&finished.stderr);
    assert!(finished.status.success() && said.is_empty(), "{name}:\n{}", finished.stderr);
}

/// A checkout cannot keep the test keys private: git knows no such mode.
fn without_open_test_keys(text: &str) -> Vec<&str> {
    let mut left = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.contains("/certs/") && line.contains("private key is open to other accounts") {
            lines.next();
        } else {
            left.push(line);
        }
    }
    left
}

/// Fails for every line of code below `paths` that has one of the `banned` texts, the `except`ed files apart; those
/// must need it.
fn refuse(paths: &[&str], banned: &[&str], except: &[&str]) {
    let mut found = Vec::new();
    let mut excepted = BTreeSet::new();
    for file in paths.iter().flat_map(|path| rust_files(path)) {
        let name = file.strip_prefix(repository()).unwrap_or(&file).display().to_string();
        for (number, line) in code(&file) {
            let Some(word) = banned.iter().find(|word| has_word(&line, word)) else { continue };
            if except.contains(&name.as_str()) {
                excepted.insert(name.clone());
            } else {
                found.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "not here:\n{}", found.join("\n"));
    assert_eq!(excepted.len(), except.len(), "an exception is not needed any more: {excepted:?} are");
}

/// `word` in `line`, and not as a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let part = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let bytes = line.as_bytes();
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let starts = word.starts_with('.') || !part(before);
        starts && (word.ends_with("Tcp") || !part(bytes.get(at + word.len()).copied()))
    })
}

/// A number from 400 to 599 that stands alone.
fn error_statuses(line: &str) -> bool {
    let mut numbers = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    numbers.any(|word| word.len() == 3 && word.parse().is_ok_and(|number: u16| (400..600).contains(&number)))
}

/// Lines of code with their numbers: without comments, texts and the tests at the end of a file.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = text(file);
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().enumerate();
    lines.map(|(index, line)| (index + 1, without_texts(line))).filter(|(_, line)| !line.is_empty()).collect()
}

fn without_texts(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line.trim();
    while let Some(at) = rest.find(['"', '/']) {
        kept.push_str(&rest[..at]);
        let found = &rest[at..];
        if found.starts_with("//") {
            return kept.trim_end().to_owned();
        }
        rest = &found[1..];
        if found.starts_with('"') {
            rest = after_text(rest);
        } else {
            kept.push('/');
        }
    }
    kept.push_str(rest);
    kept.trim_end().to_owned()
}

/// What follows the end of the text that `rest` begins in.
fn after_text(rest: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return &rest[at + 1..],
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    ""
}

/// Folders of the workspace's packages.
fn members() -> Vec<String> {
    let manifest = text(&repository().join("Cargo.toml"));
    let list = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("a workspace").0;
    list.split(',').map(|member| member.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Names in the tables of one kind (`dependencies`), those of single platforms included.
fn dependencies(package: &str, kind: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in text(&repository().join(package).join("Cargo.toml")).lines() {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table == kind || table.ends_with(&format!(".{kind}"));
            names.extend(table.strip_prefix(&format!("{kind}.")).map(str::to_owned));
        } else if inside && !line.trim().is_empty() && !line.starts_with('#') {
            names.extend(line.split(['.', '=', ' ']).next().map(str::to_owned));
        }
    }
    names
}

/// Files with Rust code at or below a path of the repository, tests beside their subject apart.
fn rust_files(path: &str) -> Vec<PathBuf> {
    let is_test = |file: &Path| {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let in_tests = file.components().any(|part| part.as_os_str() == "tests");
        path != "tests" && (in_tests || stem == "tests" || stem.ends_with("_tests") || stem == "fixtures")
    };
    let found = files(&repository().join(path));
    let found: Vec<_> = found.into_iter().filter(|file| has_extension(file, "rs") && !is_test(file)).collect();
    assert!(!found.is_empty(), "{path} has no code: is it called otherwise now?");
    found
}

/// README, ARCHITECTURE, CHANGELOG and everything in docs.
fn documents() -> Vec<PathBuf> {
    let mut found = files(&repository().join("docs"));
    found.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| repository().join(name)));
    found.retain(|file| has_extension(file, "md"));
    found
}

/// All files at or below a path, without what is hidden, built or measured.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && !["target", "out", "__pycache__"].contains(&name.as_ref()) {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{} cannot be read: {error}", file.display()))
}

/// The contents of fenced blocks marked as YAML.
fn yaml_blocks(document: &str) -> Vec<String> {
    let starts = document.split("```yaml\n").skip(1);
    starts.filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| format!("{block}\n")).collect()
}

/// Targets of links that are no web addresses, code blocks apart.
fn links(document: &str) -> Vec<String> {
    let prose: String = document.split("```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// Headings as the anchors that web views make of them.
fn anchors(document: &str) -> BTreeSet<String> {
    let prose: String = document.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn texts_and_comments_are_no_code() {
    for (line, code) in [
        ("let a = \"unsafe // \\\" x\"; // unsafe", "let a = ;"),
        ("a / b; unsafe { }", "a / b; unsafe { }"),
        ("/// unsafe", ""),
        ("f(\"a\", \"b\", 404)", "f(, , 404)"),
    ] {
        assert_eq!(without_texts(line), code);
    }
    assert!(error_statuses("X => 404,") && !error_statuses("x404 1_404 4040 40.4 399"));
    assert!(has_word("unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe") && has_word("a.await?", ".await"));
}
