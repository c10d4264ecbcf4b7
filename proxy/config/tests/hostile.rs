//! Hostile and mangled input: refused quickly and in little memory, never with a panic, and every fault has a place that
//! exists.

#![expect(clippy::unwrap_used, reason = "a test that cannot make its files has failed")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate_config::environment::ReadError;
use tidegate_config::{Code, Environment, Faults, Place, System, diff, load, load_str};

/// Real files and a runtime folder; every variable is a long text.
struct Fixed(PathBuf);

impl Environment for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        (name != "UNSET").then(|| "v".repeat(100_000))
    }

    fn read(&self, path: &Path, most: u64) -> Result<String, ReadError> {
        self.system().read(path, most)
    }

    fn matches(&self, pattern: &str) -> Vec<PathBuf> {
        self.system().matches(pattern)
    }

    fn current_folder(&self) -> PathBuf {
        self.0.clone()
    }

    fn runtime_folder(&self) -> PathBuf {
        PathBuf::from("/run/tidegate")
    }
}

impl Fixed {
    fn system(&self) -> System {
        System { runtime_folder: self.runtime_folder() }
    }
}

/// Resident set of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Highest resident set so far.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn refused(text: &str) -> Faults {
    load_str("hostile.yaml", text, &Fixed(PathBuf::from("/"))).expect_err("it is refused")
}

fn alias_bomb(levels: usize) -> String {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..levels {
        let inner = vec![format!("*a{}", level - 1); 10].join(",");
        text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    text
}

/// What it is, and how its text is made.
type Row = (&'static str, fn() -> String);

/// The release build is many times quicker; the margin is for slow machines running this unoptimised.
const SOON: Duration = Duration::from_secs(8);
const LITTLE: u64 = 64 << 20;

#[test]
fn hostile_texts_are_refused_soon_and_in_little_memory() {
    const BASE: &str = "listeners: [{ address: ':80' }]\nsites: ";
    // Made one after the other: together they would take more memory than they are allowed to cost.
    let rows: [Row; 30] = [
        ("alias bomb", || alias_bomb(30)),
        ("flow nesting", || "[".repeat(100_000)),
        ("flow mapping nesting", || "{a: ".repeat(100_000)),
        ("block nesting", || "- ".repeat(100_000)),
        ("complex keys", || "? ".repeat(100_000)),
        ("block mapping nesting", || (0..2_000).map(|i| format!("{}k:\n", " ".repeat(i))).collect()),
        ("too large", || "#".repeat((4 << 20) + 1)),
        ("many values", || format!("{BASE}[{}]", "x,".repeat(1_900_000))),
        ("many lines", || format!("{BASE}\n{}", "  - x\n".repeat(210_000))),
        ("many keys", || (0..210_000).map(|i| format!("k{i}: 1\n")).collect()),
        ("many duplicate keys", || "k: 1\n".repeat(210_000)),
        ("many faults in one line", || format!("{BASE}[{}]", "{},".repeat(150_000))),
        ("many faults in one line of other letters", || format!("{BASE}[é,{}]", "{},".repeat(100_000))),
        ("many sites", || format!("{BASE}\n{}", "  - {}\n".repeat(150_000))),
        ("one long scalar", || format!("{BASE}{}", "x".repeat(4_000_000))),
        ("one long key", || format!("{}: 1", "x".repeat(4_000_000))),
        ("one long quoted scalar", || format!("{BASE}\"{}", "\\n".repeat(1_900_000))),
        ("many anchors", || format!("{BASE}[{}]", (0..210_000).map(|i| format!("&a{i} x,")).collect::<String>())),
        ("large variables", || format!("{BASE}[{}]", "'${V}',".repeat(50_000))),
        ("one large scalar of variables", || format!("{BASE}'{}'", "${V}".repeat(900_000))),
        ("open variables", || format!("{BASE}'{}'", "${V:-".repeat(700_000))),
        ("binary", || "\u{1}\u{7f}\u{0}\u{feff}".repeat(100_000)),
        ("line breaks", || "\r\n".repeat(2_000_000)),
        ("colons", || ":".repeat(1_000_000)),
        ("dashes", || "-\n".repeat(1_000_000)),
        ("quotes", || "\"a\" ".repeat(1_000_000)),
        ("question marks", || "?\n".repeat(200_000)),
        ("documents", || "---\n".repeat(1_000_000)),
        ("directives", || "%YAML 1.2\n".repeat(300_000)),
        ("tags", || format!("{BASE}[{}]", "!!str x,".repeat(100_000))),
    ];
    for (name, text) in rows {
        let text = text();
        let before = resident();
        // Writing 5 resets the high-water mark.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let start = Instant::now();
        let faults = refused(&text);
        let taken = start.elapsed();
        let grown = peak().saturating_sub(before);
        eprintln!("{name}: {taken:?}, {} MiB, {} faults", grown >> 20, faults.count());
        assert!(taken < SOON, "{name}: {taken:?}");
        assert!(grown < LITTLE, "{name}: {} MiB", grown >> 20);
        assert!(faults.to_string().len() < 1 << 20, "{name}");
    }
}

#[test]
fn files_that_are_no_files_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let socket = folder.path().join("socket.yaml");
    let _listener = UnixListener::bind(&socket).unwrap();
    let large = folder.path().join("large.yaml");
    fs::File::create(&large).unwrap().set_len(100 << 20).unwrap();
    let latin = folder.path().join("latin.yaml");
    fs::write(&latin, b"listeners:\n  - address: \"\xe9\"\n").unwrap();
    let missing = folder.path().join("missing.yaml");
    for (path, expected) in [
        (&fifo, "it is a pipe, socket or device, not a regular file"),
        (&socket, "it is a pipe, socket or device, not a regular file"),
        (&folder.path().to_owned(), "it is a folder, not a regular file"),
        (&PathBuf::from("/dev/zero"), "it is a pipe, socket or device, not a regular file"),
        (&large, "it is larger than 4194304 bytes"),
        (&latin, "it is not UTF-8 text (line 2)"),
        (&missing, "No such file or directory"),
    ] {
        let start = Instant::now();
        let faults = load(path, &Fixed(PathBuf::from("/"))).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(1), "{path:?}");
        assert!(faults.to_string().contains(expected), "{faults}");
        assert_eq!(faults.count(), 1, "{faults}");
        let text = format!("include: ['{0}']\nlisteners: [{{ address: '${{file:{0}}}' }}]", path.display());
        let included = refused(&text).to_string();
        // A variable may read a smaller file than an include.
        let expected = if expected.contains("larger") { "it is larger than" } else { expected };
        assert_eq!(included.matches(expected).count(), 2, "{included}");
    }
}

#[test]
fn the_json_form_is_flat_and_complete() {
    let faults =
        refused("listeners: [{ adress: ':80' }]\nsites: [{ hosts: [a.example], routes: [{ path: /, proxy: x }] }]\n");
    let json = faults.to_json();
    assert_eq!(json[0]["file"], "hostile.yaml");
    assert_eq!((&json[0]["line"], &json[0]["column"], &json[0]["end_column"]), (&1.into(), &15.into(), &21.into()));
    assert_eq!(json[0]["problem"], "unknown key \"adress\"");
    assert_eq!(json[0]["hint"], "did you mean \"address\"?");
    assert_eq!(json[0]["code"], "unknown-key");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json.as_array().unwrap().len(), faults.count());
}

fn good_texts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/good");
    ["everything", "defaults-long", "anchors", "warnings"]
        .iter()
        .map(|name| fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap())
        .collect()
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Mutation {
    Delete(usize, usize),
    Insert(usize, String),
    Swap(usize, usize),
    Truncate(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let piece = prop_oneof![
        "[\\[\\]{}:,\\-?&*!|>'\"%@`#$~ \n\t\r\u{0}é]{1,3}",
        Just("${UNSET}".to_owned()),
        Just("${V:-".to_owned()),
        Just("<<: *a".to_owned()),
        Just("\n---\n".to_owned()),
        Just("null".to_owned()),
        Just("-1".to_owned()),
        Just("99999999999999999999999999999999999999999".to_owned()),
        ".{1,8}",
    ];
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(at, count)| Mutation::Delete(at, count)),
        (any::<usize>(), piece).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        any::<usize>().prop_map(Mutation::Truncate),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let length = chars.len().max(1);
        match mutation {
            Mutation::Delete(at, count) => {
                let at = at % length;
                chars.drain(at.min(chars.len())..(at + count).min(chars.len()));
            }
            Mutation::Insert(at, text) => {
                let at = (at % length).min(chars.len());
                chars.splice(at..at, text.chars());
            }
            Mutation::Swap(a, b) if !chars.is_empty() => chars.swap(a % length, b % length),
            Mutation::Swap(..) => {}
            // Mostly near the end, so that something is left.
            Mutation::Truncate(at) => chars.truncate(length - (at % length) / 4),
        }
    }
    chars.into_iter().collect()
}

/// A place lies within its line, and the line is the one of the text.
fn check_place(place: &Place, text: &str) -> Result<(), TestCaseError> {
    if place.file != "mutated.yaml" {
        return Ok(());
    }
    let normal = text.replace("\r\n", "\n").replace('\r', "\n");
    let line = normal.split('\n').nth(place.line as usize - 1);
    let shown = line.map(|line| line.chars().skip(place.source_column as usize - 1).take(240).collect::<String>());
    prop_assert_eq!(shown.as_deref(), Some(place.source_line.as_str()), "line {}", place.line);
    let width = line.unwrap_or_default().chars().count() as u32;
    prop_assert!(place.column >= 1 && place.column <= width + 1, "{place:?}");
    prop_assert!(place.end_column > place.column && place.end_column <= width.max(place.column) + 1, "{place:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mangled_files_never_panic_and_every_fault_has_a_place(
        which in 0..4_usize,
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let text = mutate(&good_texts()[which], &mutations);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/good");
        match load_str("mutated.yaml", &text, &Fixed(folder)) {
            Ok(loaded) => prop_assert!(diff(&loaded.model, &loaded.model).is_empty()),
            Err(faults) => {
                prop_assert!(faults.count() > 0);
                for fault in faults.as_slice() {
                    prop_assert_ne!(fault.code, Code::Internal, "{}", fault);
                    let place = fault.place.as_ref();
                    prop_assert!(place.is_some(), "{}", fault);
                    for place in place.into_iter().chain(fault.related.iter().map(|related| &related.place)) {
                        check_place(place, &text)?;
                    }
                }
                prop_assert!(!faults.to_string().chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn no_text_at_all_panics(text in "[a-z:\\-\\[\\]{}?&*!|>'\"%@`#$~, \n\t0-9]{0,60}") {
        if let Err(faults) = load_str("any.yaml", &text, &Fixed(PathBuf::from("/"))) {
            prop_assert!(faults.as_slice().iter().all(|fault| fault.code != Code::Internal), "{}", faults);
        }
    }
}
