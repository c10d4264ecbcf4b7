//! Changes of what a new worker is asked for before it gets requests.

use super::settings::{Settings, list};
use crate::model::Warmup;
use crate::units::format_duration;

pub(super) fn warmup(old: Option<&Warmup>, new: Option<&Warmup>, settings: &mut Settings) {
    let paths = |warmup: Option<&Warmup>| warmup.map(|warmup| warmup.paths.clone()).unwrap_or_default();
    settings.compare("warmup", &paths(old), &paths(new), |paths| match paths.as_slice() {
        [] => "none".to_owned(),
        paths => list(paths.iter().cloned()),
    });
    if let (Some(old), Some(new)) = (old, new) {
        settings.compare("warmup_timeout", &old.timeout, &new.timeout, |&time| format_duration(time));
    }
}
