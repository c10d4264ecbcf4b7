//! What a worker finds when it starts: exactly what it should, and nothing of ours.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::bed::{Bed, TESTBED, custom, lives, pool, until, with, within};

fn environment(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).expect("environment");
    let variables = text.split('\0').filter_map(|one| one.split_once('='));
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_environment_is_what_the_spec_says() {
    let preparation = "export TOKEN=secret KEPT=yes NOTIFY_SOCKET=/n LISTEN_FDS=1 WATCHDOG_USEC=1 WEB_CONCURRENCY=7";
    let mut bed = Bed::started_by(preparation);
    let file = bed.path("environment");
    let dump = format!("cat /proc/$$/environ > {}", file.display());
    let changes = json!({
        "env": { "ADDRESS": "unix://{socket}", "LITERAL": "{{slot}", "TIDEGATE_INSTANCE": "fake" },
        "env_inherit": { "only": ["KEPT", "TOKEN", "NOTIFY_SOCKET"] },
        "env_secret": ["TOKEN"],
    });
    bed.set(&[with(pool(1, &dump), &changes)]);
    let worker = bed.ready(0);
    let mut found = environment(&file);
    let instance = found.remove("TIDEGATE_INSTANCE").expect("marker");
    assert_eq!(instance.len(), 32);
    let expected = [
        ("ADDRESS", format!("unix://{}", worker.socket().display())),
        ("FORWARDED_ALLOW_IPS", "*".to_owned()),
        ("KEPT", "yes".to_owned()),
        ("LITERAL", "{slot}".to_owned()),
        ("NODE_APP_INSTANCE", "0".to_owned()),
        ("PATH", std::env::var("PATH").expect("PATH")),
        ("PYTHONFAULTHANDLER", "1".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("WEB_CONCURRENCY", "1".to_owned()),
        ("WORKER_GENERATION", "1".to_owned()),
        ("WORKER_SLOT", "0".to_owned()),
    ];
    assert_eq!(found, expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
}

#[test]
fn descriptors_signals_and_limits_are_those_of_a_fresh_program() {
    // Descriptor 9 leaks, two signals are ignored, and the soft limit is not the hard one.
    let mut bed = Bed::started_by("exec 9</dev/null; trap '' HUP USR1; ulimit -Sn 777");
    let dump = "echo \"zero $(readlink /proc/$$/fd/0)\"
        grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/$$/status | tr -d '\\t ' | tr '\\n' ' '; echo
        echo \"files $(ulimit -Sn)\"; echo \"mask $(umask)\"; echo \"oom $(cat /proc/$$/oom_score_adj)\"
        echo \"ids $$ $(cut -d' ' -f5,6 /proc/$$/stat)\"; echo end";
    bed.set(&[pool(1, dump)]);
    let worker = bed.ready(0);
    bed.printed("end");
    // The fourth is the listener that the worker itself has opened; the probe's connection may still be open too.
    let open = || std::fs::read_dir(format!("/proc/{}/fd", worker.pid)).expect("descriptors").count();
    until("four descriptors", || open() == 4);
    assert_eq!(bed.printed("zero "), "/dev/null");
    // Signals 32 and 33 belong to the C library, which lets nobody change them.
    let signals = bed.printed("SigBlk:0000000000000000 SigIgn:0000000");
    assert!(["000000000 NoNewPrivs:1 ", "180000000 NoNewPrivs:1 "].contains(&signals.as_str()), "{signals}");
    assert_eq!(bed.printed("files "), "777");
    assert_eq!(bed.printed("mask "), "0022");
    let ours: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").expect("score").trim().parse().expect("score");
    assert_eq!(bed.printed("oom "), (ours + 300).min(1000).to_string());
    assert_eq!(bed.printed("ids "), format!("{0} {0} {0}", worker.pid), "leader of a group and session of its own");
}

#[test]
fn everything_around_a_worker_is_what_its_spec_says() {
    let is_root = rustix::process::geteuid().is_root();
    // Descriptor 9 leaks, and so do variables that are others' business.
    let mut bed =
        Bed::started_by("exec 9</dev/null; umask 002; export TOKEN=secret KEPT=yes LISTEN_FDS=1 WEB_CONCURRENCY=8");
    let file = bed.path("env");
    std::fs::write(&file, "KEPT=no\nURL='db://u:p@h'\nWEB_CONCURRENCY=4\nLISTEN_PID=1\n").expect("file");
    let spec = with(
        custom(1, &[TESTBED, "dump", "{socket}", "{pool}:{slot}:{generation}:{pid_proxy}"]),
        &json!({
            "cwd": "/usr", "user": is_root.then_some("nobody"), "env": { "ADDRESS": "unix://{socket}" },
            "env_inherit": { "only": ["KEPT", "TOKEN"] }, "env_secret": ["TOKEN"],
            "launch": {
                "env_files": [file], "umask": 0o027,
                "limits": {
                    "nofile": 512, "core": 0, "nproc": 4000, "address_space": 17_179_869_184_u64, "nice": 7,
                    "oom_score_adj": 555,
                },
            },
        }),
    );
    bed.set(&[spec]);
    let worker = bed.ready(0);
    let line = bed.printed("{\"arguments\"");
    let mut found: Value = serde_json::from_str(&format!("{{\"arguments\"{line}")).expect("a dump");

    let marker = found["environment"].as_object_mut().expect("environment").remove("TIDEGATE_INSTANCE");
    assert_eq!(marker.expect("marker").as_str().map(str::len), Some(32));
    let socket = worker.socket().to_string_lossy();
    let limits = found["limits"].as_object_mut().expect("limits");
    let asked = ["Max open files", "Max core file size", "Max processes", "Max address space"];
    limits.retain(|name, _| asked.contains(&name.as_str()));
    let (uid, gid, groups) = account(is_root.then_some("nobody"));
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    let none = "0".repeat(16);
    let mut environment = json!({
        "ADDRESS": format!("unix://{socket}"), "FORWARDED_ALLOW_IPS": "*", "KEPT": "no", "URL": "db://u:p@h",
        "NODE_APP_INSTANCE": "0", "PATH": std::env::var("PATH").expect("PATH"), "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1", "WEB_CONCURRENCY": "1", "WORKER_GENERATION": "1", "WORKER_SLOT": "0",
    });
    if is_root {
        environment = with(environment, &json!({ "HOME": "/nonexistent", "USER": "nobody", "LOGNAME": "nobody" }));
    }
    let expected = json!({
        "arguments": [TESTBED, "dump", socket, format!("app:0:1:{}", bed.pid())],
        "environment": environment,
        "folder": "/usr",
        "uid": four(uid), "gid": four(gid), "groups": groups, "mask": "0027",
        "capabilities": [none, none, none, none],
        "no_new_privileges": "1", "blocked": none,
        "descriptors": { "0": "/dev/null", "1": "pipe", "2": "pipe" },
        "limits": {
            "Max open files": "512 512", "Max core file size": "0 0", "Max processes": "4000 4000",
            "Max address space": "17179869184 17179869184",
        },
        "leads": { "group": true, "session": true },
        "nice": "7",
        "oom_score_adj": "555",
    });
    assert_eq!(found, expected);
}

/// Uid, gid and groups of an account, or our own.
fn account(name: Option<&str>) -> (u32, u32, String) {
    use nix::unistd::{Gid, Uid, User, getgrouplist, getgroups};
    let (uid, gid, mut groups) = match name {
        None => (Uid::effective(), Gid::effective(), getgroups().expect("groups")),
        Some(name) => {
            let user = User::from_name(name).expect("accounts").expect("the account");
            let name = std::ffi::CString::new(name).expect("a name");
            (user.uid, user.gid, getgrouplist(&name, user.gid).expect("groups"))
        }
    };
    groups.sort_unstable_by_key(|group| group.as_raw());
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    (uid.as_raw(), gid.as_raw(), groups.join(" "))
}

#[test]
fn an_inherited_socket_is_all_that_is_inherited() {
    let mut bed = Bed::started_by("exec 3</dev/null 4</dev/null 9</dev/null; export LISTEN_FDS=2 LISTEN_PID=1");
    let is_root = rustix::process::geteuid().is_root();
    let script = "echo \"it is $$ $LISTEN_PID $LISTEN_FDS\"; exec \"$0\" dump fd";
    let changes = json!({
        "transport": "fd", "ready": { "http": "/" }, "user": is_root.then_some("nobody"), "launch": { "umask": 0o077 },
    });
    bed.set(&[with(custom(1, &["sh", "-c", script, TESTBED]), &changes)]);
    let worker = bed.ready(0);
    assert_eq!(bed.printed("it is "), format!("{0} {0} 1", worker.pid));
    let found: Value =
        serde_json::from_str(&format!("{{\"arguments\"{}", bed.printed("{\"arguments\""))).expect("a dump");
    assert_eq!(found["arguments"], json!([TESTBED, "dump", "fd"]));
    assert_eq!(found["descriptors"], json!({ "0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket" }));
    let owner = std::fs::symlink_metadata(worker.socket()).expect("socket").uid();
    assert_eq!(owner, account(is_root.then_some("nobody")).0);
}

#[test]
fn a_limit_that_cannot_be_set_is_told_by_name() {
    let mut bed = Bed::started_by("ulimit -n 700");
    // Root may raise it: then another one is impossible for everybody.
    let limits = json!({ "launch": { "limits": { "nofile": 2_000_000_000 } } });
    bed.set(&[with(pool(1, ""), &limits)]);
    let failure = bed.failure(0);
    let message = failure["message"].as_str().expect("a message");
    assert!(
        message.starts_with("limits.nofile 2000000000: ") && message.ends_with("the hard limit is 700"),
        "{message}"
    );
}

#[test]
fn files_of_variables_are_read_once_for_each_generation() {
    let mut bed = Bed::new();
    let file = bed.path("env");
    let pool = |release: &str| {
        with(pool(1, "echo \"color $COLOR\""), &json!({ "launch": { "env_files": [file] }, "env": { "R": release } }))
    };
    std::fs::write(&file, "COLOR=red\n").expect("file");
    bed.set(&[pool("1")]);
    let worker = bed.ready(0);
    std::fs::write(&file, "COLOR=blue\n").expect("file");
    crate::bed::kill_nine(worker.pid);
    let worker = bed.ready(1);
    bed.set(&[pool("2")]);
    bed.ready(2);
    let colors = bed.all(|line| line.pointer("/output/line")?.as_str()?.strip_prefix("color ").map(str::to_owned));
    assert_eq!(colors, ["red", "red", "blue"]);

    // A file that is gone gives nobody a half environment: the new generation fails, and who serves stays.
    bed.gone(&worker);
    std::fs::write(&file, "COLOR=green\nnonsense-secret\n").expect("file");
    bed.set(&[pool("3")]);
    let failure = bed.failure(1);
    let message = failure["message"].as_str().expect("a message");
    assert_eq!(message, format!("env_file {}, line 2: not of the form NAME=value", file.display()));
    assert_eq!(bed.status()["ready"], 1);
}

#[test]
fn workers_are_stopped_by_the_signal_of_their_spec() {
    let mut bed = Bed::new();
    let script = "trap '' TERM; trap 'echo told INT; exit 0' INT; \"$0\" worker \"$1\" & while :; do wait; done";
    let spec = custom(1, &["sh", "-c", script, TESTBED, "{socket}"]);
    bed.set(&[with(spec, &json!({ "launch": { "stop_signal": "int" }, "stop_timeout_ms": 60_000 }))]);
    let worker = bed.ready(0);
    bed.send(&json!({ "set_count": { "pool": "app", "count": 0 } }));
    bed.printed("told INT");
    bed.gone(&worker);
}

#[test]
fn who_asked_for_a_worker_may_end_before_it() {
    // The bed sends each command from a thread that ends 0.3 s later; a parent-death signal would come with that.
    let mut bed = Bed::new();
    bed.set(&[pool(3, "")]);
    let workers: Vec<_> = (0..3).map(|nth| bed.ready(nth)).collect();
    bed.send(&json!({ "set_count": { "pool": "app", "count": 4 } }));
    let late = bed.ready(3);
    // The time in which nothing may happen is what is tested.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(workers.iter().chain([&late]).all(|worker| lives(worker.pid)));
    assert!(bed.all(|line| line.pointer("/event/failure").cloned()).is_empty());
}

#[test]
fn a_worker_runs_in_the_folder_and_as_the_account_of_its_spec() {
    if !rustix::process::geteuid().is_root() {
        // Only root can start anything as somebody else.
        return;
    }
    let mut bed = Bed::new();
    let script =
        "echo \"who $(id -un) $(id -gn) $HOME $USER\"; echo \"caps $(grep CapEff /proc/$$/status | cut -f2)\"; pwd";
    bed.set(&[with(pool(1, script), &json!({ "user": "nobody", "cwd": "/usr" }))]);
    let group = bed.printed("who nobody ");
    assert!(group.ends_with(" /nonexistent nobody"), "{group}");
    assert_eq!(bed.printed("caps "), "0000000000000000");
    bed.printed("/usr");
    let worker = bed.ready(0);
    let folder = std::fs::metadata(worker.socket().parent().expect("folder")).expect("folder");
    assert_eq!(folder.mode() & 0o7777, 0o700);
    let socket = std::fs::symlink_metadata(worker.socket()).expect("socket");
    assert_eq!(folder.uid(), socket.uid());
    assert_ne!(folder.uid(), 0);
}

#[test]
fn the_folder_of_a_generation_does_not_change_with_its_link() {
    let mut bed = Bed::new();
    let (old, new, link) = (bed.path("old"), bed.path("new"), bed.path("current"));
    std::fs::create_dir(&old).expect("old");
    std::fs::create_dir(&new).expect("new");
    std::os::unix::fs::symlink(&old, &link).expect("link");
    bed.set(&[with(pool(1, "echo in $(pwd -P)"), &json!({ "cwd": link }))]);
    let worker = bed.ready(0);
    std::fs::remove_file(&link).expect("link");
    std::os::unix::fs::symlink(&new, &link).expect("link");
    crate::bed::kill_nine(worker.pid);
    let folder = |line: &Value| line.pointer("/output/line")?.as_str()?.strip_prefix("in ").map(str::to_owned);
    let folders = [0, 1].map(|nth| bed.wait_nth(nth, "its folder", folder));
    assert_eq!(folders, [old.to_string_lossy(), old.to_string_lossy()]);
}

#[test]
fn without_root_another_account_needs_only_some_capabilities() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let kept = "+setuid,+setgid,+kill,+chown,+dac_override";
    let mut bed = Bed::started_by(&format!(
        "chmod 777 \"${{1%/*}}\"; exec setpriv --reuid=nobody --clear-groups --inh-caps={kept} --ambient-caps={kept} \"$0\" \"$1\""
    ));
    let script =
        "echo \"who $(id -un)\"; grep -E '^Cap(Eff|Amb)' /proc/$$/status | tr -d '\\t'; sleep 1000 & echo child $!";
    let command = format!("{script}\nexec \"$0\" worker \"$1\"");
    let account = json!({ "user": "daemon" });
    bed.set(&[
        with(pool(1, script), &account),
        with(
            custom(1, &["sh", "-c", &command, TESTBED, "{port}"]),
            &with(account.clone(), &json!({ "transport": "port", "name": "port" })),
        ),
    ]);
    bed.ready(0);
    bed.ready(1);
    bed.printed("who daemon");
    assert_eq!((bed.printed("CapEff:"), bed.printed("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
    let child: i32 = bed.printed("child ").parse().expect("pid");
    bed.kill_nine();
    within(std::time::Duration::from_secs(1), "nobody left", || !lives(child));
}
