//! `check`: everything that would keep a configuration from running, without binding, creating or starting anything.

use std::io;
use std::time::SystemTime;

use serde_json::{Value, json};
use tidegate_config::model::{EndpointSource, Model};
use tidegate_config::{Faults, Loaded};

use super::arguments::{Check, OutputFormat};
use super::{ConfigSource, Exit, Host, Streams, locate};
use crate::expansion::Expansion;
use crate::privileges::Account;
use crate::sticky;
use crate::tls::fault::{Severity, TlsFault};
use crate::tls::policy::TlsPolicies;
use crate::tls::store::CertificateStore;
use crate::tls::upstream::UpstreamTlsSet;

/// Largest file that `--print` prints; the loader takes none that is larger.
const LARGEST_FILE: u64 = 16 << 20;

pub(super) fn check(check: &Check, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let source = match locate::source(check.config.config.as_deref(), host) {
        Ok(source) => source,
        Err(problem) => {
            writeln!(streams.err, "error: {problem}")?;
            return Ok(Exit::Config);
        }
    };
    let findings = Findings::of(&source, host);
    match check.format {
        OutputFormat::Text => findings.print_text(&source, streams)?,
        OutputFormat::Json => findings.print_json(&source, streams)?,
    }
    if check.print
        && let Ok(loaded) = &findings.loaded
    {
        print_files(&source, loaded, host, streams)?;
    }
    Ok(if findings.good() { Exit::Fine } else { Exit::Config })
}

/// Everything that was found.
struct Findings {
    loaded: Result<Loaded, Faults>,
    certificates: Vec<TlsFault>,
    accounts: Vec<String>,
}

impl Findings {
    fn of(source: &ConfigSource, host: &Host<'_>) -> Self {
        let loaded = source.load(host.environment);
        let (certificates, accounts) = match &loaded {
            Ok(Loaded { model, .. }) => {
                let state = (host.state_folder)(&model.server, host.environment);
                let mut certificates = CertificateStore::check(model, &state, SystemTime::now());
                certificates.extend(TlsPolicies::check(model));
                certificates.extend(UpstreamTlsSet::check(model));
                certificates.extend(sticky::check(model));
                (certificates, missing_accounts(model))
            }
            Err(_) => Default::default(),
        };
        Self { loaded, certificates, accounts }
    }

    fn good(&self) -> bool {
        let broken = self.certificates.iter().any(|fault| fault.severity == Severity::Error);
        self.loaded.is_ok() && !broken && self.accounts.is_empty()
    }

    fn print_text(&self, source: &ConfigSource, streams: &mut Streams<'_>) -> io::Result<()> {
        match &self.loaded {
            Err(faults) => return writeln!(streams.err, "{faults}"),
            Ok(Loaded { warnings, .. }) => {
                for warning in warnings {
                    write!(streams.err, "{warning}")?;
                }
            }
        }
        for fault in &self.certificates {
            write!(streams.err, "{}", fault.report())?;
        }
        for problem in &self.accounts {
            writeln!(streams.err, "error: {problem}")?;
        }
        match &self.loaded {
            Ok(Loaded { model, .. }) if self.good() => {
                writeln!(streams.out, "{}: ok ({})", source.name(), counts(model))?;
                for expansion in Expansion::all(model) {
                    writeln!(streams.out, "{expansion}")?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn print_json(&self, source: &ConfigSource, streams: &mut Streams<'_>) -> io::Result<()> {
        let mut faults = match &self.loaded {
            Ok(Loaded { warnings, .. }) => tidegate_config::fault::records(warnings),
            Err(faults) => faults.to_json(),
        };
        if let Value::Array(faults) = &mut faults {
            faults.extend(self.certificates.iter().map(certificate_record));
            faults.extend(self.accounts.iter().map(|problem| record("error", "account", None, problem, None)));
        }
        let mut report = json!({ "ok": self.good(), "file": source.name(), "faults": faults });
        if let Ok(Loaded { model, .. }) = &self.loaded {
            report["listeners"] = model.listeners.len().into();
            report["sites"] = model.sites.len().into();
            report["upstreams"] = model.upstreams.len().into();
            report["presets"] = Expansion::all(model).map(|expansion| expansion.record()).collect();
        }
        writeln!(streams.out, "{report:#}")
    }
}

fn certificate_record(fault: &TlsFault) -> Value {
    let file = fault.path.as_ref().map(|path| path.display().to_string());
    let problem = format!("{} ({} \"{}\")", fault.problem, fault.kind.word(), fault.site);
    record(fault.severity.word(), "certificate", file, &problem, Some(&fault.remedy))
}

/// The shape of the loader's records, for what has no place in a site file.
fn record(severity: &str, code: &str, file: Option<String>, problem: &str, hint: Option<&str>) -> Value {
    json!({
        "severity": severity, "code": code, "file": file, "line": null, "column": null, "end_column": null,
        "problem": problem, "hint": hint, "related": [],
    })
}

/// Accounts that the configuration names and the machine does not have.
fn missing_accounts(model: &Model) -> Vec<String> {
    let workers = model.upstreams.values().filter_map(|upstream| match &upstream.source {
        EndpointSource::Workers(workers) => {
            workers.user.as_ref().map(|user| (format!("upstreams.{}.workers.user", upstream.name), user))
        }
        EndpointSource::Servers(_) => None,
    });
    let program = model.server.user.as_ref().map(|user| ("server.user".to_owned(), user));
    let missing = |(key, user): (String, &String)| Account::find(user).err().map(|error| format!("{key}: {error}"));
    program.into_iter().chain(workers).filter_map(missing).collect()
}

fn counts(model: &Model) -> String {
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let Model { listeners, sites, upstreams, .. } = model;
    [count(listeners.len(), "listener"), count(sites.len(), "site"), count(upstreams.len(), "upstream")].join(", ")
}

/// Every file as it is, variables not replaced, as `nginx -T` does.
fn print_files(source: &ConfigSource, loaded: &Loaded, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<()> {
    if let ConfigSource::Text { name, text } = source {
        writeln!(streams.out, "# {name}\n{}", text.trim_end())?;
    }
    for path in &loaded.files {
        let text =
            host.environment.read(path, LARGEST_FILE).unwrap_or_else(|error| format!("# cannot be read: {error}"));
        writeln!(streams.out, "# {}\n{}", path.display(), text.trim_end())?;
    }
    Ok(())
}
