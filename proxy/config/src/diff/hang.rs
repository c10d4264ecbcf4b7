//! Changes of when a worker counts as hung.

use std::time::Duration;

use super::settings::{Settings, list};
use crate::model::Hang;
use crate::units::format_duration;

/// All of them apply live, but what workers learn at their start.
pub(super) fn hang(old: Option<&Hang>, new: Option<&Hang>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else {
        let word = |hang: &bool| if *hang { "on" } else { "off" }.to_owned();
        settings.compare("hang", &old.is_some(), &new.is_some(), word);
        return;
    };
    let Hang { suspect_after, watchdog: _, tries, try_timeout, path, guard, kill_interval, on_hang, spares_full } = old;
    settings.time("hang.suspect_after", suspect_after, &new.suspect_after);
    settings.compare("hang.tries", tries, &new.tries, ToString::to_string);
    settings.time("hang.try_timeout", try_timeout, &new.try_timeout);
    settings.compare("hang.path", path, &new.path, Clone::clone);
    settings.compare("hang.guard", guard, &new.guard, |share| format!("{share}%"));
    settings.time("hang.kill_interval", kill_interval, &new.kill_interval);
    settings.compare("hang.on_hang", on_hang, &new.on_hang, |command| match command {
        Some(command) => list(command.iter().cloned()),
        None => "none".to_owned(),
    });
    settings.compare("hang of full workers", spares_full, &new.spares_full, |spares| {
        if *spares { "not looked for" } else { "looked for" }.to_owned()
    });
}

/// What workers learn at their start.
pub(super) fn watchdog(old: Option<&Hang>, new: Option<&Hang>, settings: &mut Settings) {
    let time = |hang: Option<&Hang>| hang.and_then(|hang| hang.watchdog);
    let text = |time: &Option<Duration>| time.map_or_else(|| "none".to_owned(), format_duration);
    settings.compare("hang.watchdog", &time(old), &time(new), text);
}
