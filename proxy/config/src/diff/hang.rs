//! Changes of when a worker counts as hung.

use super::settings::{Settings, list};
use crate::model::Hang;

/// All of them apply live.
pub(super) fn hang(old: Option<&Hang>, new: Option<&Hang>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else {
        let word = |hang: &bool| if *hang { "on" } else { "off" }.to_owned();
        settings.compare("hang", &old.is_some(), &new.is_some(), word);
        return;
    };
    let Hang { suspect_after, tries, try_timeout, path, guard, kill_interval, on_hang, spares_full } = old;
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
