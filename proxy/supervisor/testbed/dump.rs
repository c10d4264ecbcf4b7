//! Everything that a process finds around itself, as JSON. Called before it opens anything.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// Arguments, environment, folder, ids, descriptors, limits and the rest of what a launch sets.
pub(crate) fn everything() -> Value {
    // First, so that no descriptor of ours is among them; the folder itself is gone when its links are read.
    let descriptors: Vec<String> = fs::read_dir("/proc/self/fd")
        .map(|folder| folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let descriptors = descriptors.into_iter().filter_map(|number| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        let target = target.to_string_lossy();
        let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind).to_owned();
        Some((number, kind))
    });
    let status = fields("/proc/self/status", ":");
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limits = limits.lines().filter_map(|line| {
        let name = line.get(..26)?.trim();
        let values: Vec<&str> = line.get(26..)?.split_whitespace().take(2).collect();
        Some((name.to_owned(), values.join(" ")))
    });
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat: Vec<&str> = stat.rsplit_once(") ").map(|(_, tail)| tail.split(' ').collect()).unwrap_or_default();
    let own = std::process::id().to_string();
    let named = |name: &str| status.get(name).cloned().unwrap_or_default();
    json!({
        "arguments": std::env::args().collect::<Vec<_>>(),
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "folder": std::env::current_dir().unwrap_or_default(),
        "uid": named("Uid"), "gid": named("Gid"), "groups": named("Groups"), "mask": named("Umask"),
        "capabilities": [named("CapInh"), named("CapPrm"), named("CapEff"), named("CapAmb")],
        "no_new_privileges": named("NoNewPrivs"), "blocked": named("SigBlk"),
        "descriptors": descriptors.collect::<BTreeMap<_, _>>(),
        "limits": limits.collect::<BTreeMap<_, _>>(),
        "leads": { "group": stat.get(2) == Some(&&*own), "session": stat.get(3) == Some(&&*own) },
        "nice": stat.get(16),
        "oom_score_adj": fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default().trim(),
    })
}

fn fields(file: &str, separator: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    pairs.map(|(name, value)| (name.to_owned(), words(value))).collect()
}
