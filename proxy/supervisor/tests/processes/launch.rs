//! What a worker finds when it starts: exactly what it should, and nothing of ours.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

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
    bed.ready(1);
    let folders = bed.all(|line| line.pointer("/output/line")?.as_str()?.strip_prefix("in ").map(str::to_owned));
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
