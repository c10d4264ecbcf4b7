//! Files that are watched while an application is developed.

use std::path::PathBuf;

use super::file_path;
use crate::fault::Code;
use crate::model::{Address, Listener, Upstream};
use crate::report::Report;
use crate::tree::Spot;

/// Compiles `workers.watch`.
pub(super) fn paths(raw: Vec<String>, spot: Spot<'_>, report: &mut Report) -> Vec<PathBuf> {
    let mut paths = Vec::with_capacity(raw.len());
    for (index, written) in raw.into_iter().enumerate() {
        let spot = spot.item(index);
        let path = file_path(&written, spot, report);
        if path.parent().is_none() {
            report
                .fault(spot.span(), Code::BadValue, "this is everything there is")
                .hint("name the folder of the application, such as .");
        }
        paths.push(path);
    }
    paths
}

/// Whoever can reach a listener sees the code and the variables that tracebacks show.
pub(super) fn check_listeners(
    upstreams: &[(String, Upstream)],
    listeners: &[Listener],
    spot: Spot<'_>,
    report: &mut Report,
) {
    let is_public =
        |listener: &&Listener| matches!(&listener.address, Address::Tcp(address) if !address.ip().is_loopback());
    let Some(public) = listeners.iter().find(is_public) else { return };
    for (name, _) in upstreams.iter().filter(|(_, upstream)| !upstream.watch.is_empty()) {
        let problem = format!(
            "watch is for development: it shows tracebacks to every client, and the listener \"{}\" is open to others",
            public.name
        );
        let span = spot.key(name).key("workers").key("watch").key_span();
        report.warning(span, Code::Suspicious, problem).hint("listen on 127.0.0.1, or remove watch");
    }
}
