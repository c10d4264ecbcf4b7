//! Changes in how names are resolved.

use super::settings::{Settings, list};
use crate::model::Dns;
use crate::units::format_duration;

/// Names what differs; an upstream that gets its first name, or loses its last, differs in its servers.
pub(super) fn settings(old: Option<&Dns>, new: Option<&Dns>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else { return };
    let Dns { servers, min_ttl, max_ttl, timeout, families, keep_missing } = old;
    settings.compare("dns.servers", servers, &new.servers, |servers| match servers.as_slice() {
        [] => "those of the system".to_owned(),
        servers => list(servers.iter().map(ToString::to_string)),
    });
    settings.time("dns.min_ttl", min_ttl, &new.min_ttl);
    settings.time("dns.max_ttl", max_ttl, &new.max_ttl);
    settings.compare("dns.timeout", timeout, &new.timeout, |time| {
        time.map_or_else(|| "that of the system".to_owned(), format_duration)
    });
    settings.debug("dns.families", families, &new.families);
    settings.compare("dns.keep_missing", keep_missing, &new.keep_missing, |time| {
        time.map_or_else(|| "for ever".to_owned(), format_duration)
    });
}
