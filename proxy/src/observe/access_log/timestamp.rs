//! Times of log lines, formatted once a second. Always UTC: a log that is shipped elsewhere must not depend on where
//! the machine stands.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The formatted times of the last second that was asked for.
#[derive(Debug, Default)]
pub struct Timestamps {
    second: Option<u64>,
    local: Vec<u8>,
    iso: Vec<u8>,
}

impl Timestamps {
    /// nginx's `$time_local`: `10/Oct/2000:13:55:36 +0000`.
    pub fn local(&mut self, time: SystemTime) -> &[u8] {
        self.advance(seconds_of(time));
        &self.local
    }

    /// nginx's `$time_iso8601`: `2000-10-10T13:55:36+00:00`.
    pub fn iso8601(&mut self, time: SystemTime) -> &[u8] {
        self.advance(seconds_of(time));
        &self.iso
    }

    /// Adds `2000-10-10T13:55:36.123Z` (RFC 3339).
    pub(crate) fn push_precise(&mut self, line: &mut Vec<u8>, time: SystemTime) {
        let iso = self.iso8601(time);
        line.extend_from_slice(iso.strip_suffix(b"+00:00").unwrap_or(iso));
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
        let _ = write!(line, ".{millis:03}Z");
    }

    fn advance(&mut self, second: u64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        self.local.clear();
        self.iso.clear();
        let (year, month, day) = civil_date(second / 86_400);
        let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let name = MONTHS[month - 1];
        let _ = write!(self.local, "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
        let _ = write!(self.iso, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00");
    }
}

fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
///
/// Counts from 1 March of the year 0, so that the leap day is the last one of a year, in eras of 400 years.
fn civil_date(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_agree_with_the_calendar_of_httpdate() {
        let mut times = Timestamps::default();
        // A step of about 11 days that visits every second of a day over 400 years.
        for step in 0..13_000_u64 {
            let time = UNIX_EPOCH + Duration::from_secs(step * 971_111);
            let wanted = httpdate::fmt_http_date(time);
            let parts: Vec<&str> = wanted.split([' ', ':']).collect();
            let local = String::from_utf8(times.local(time).to_vec()).unwrap();
            let [_, day, month, year, hour, minute, second, _] = parts[..] else { panic!("{wanted}") };
            assert_eq!(local, format!("{day}/{month}/{year}:{hour}:{minute}:{second} +0000"));
        }
    }

    #[test]
    fn the_cached_second_is_left_when_time_moves_either_way() {
        let mut times = Timestamps::default();
        let at = |seconds: u64, millis: u64| UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        let mut precise = |time| {
            let mut line = Vec::new();
            times.push_precise(&mut line, time);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(precise(at(971_186_136, 7)), "2000-10-10T13:55:36.007Z");
        assert_eq!(precise(at(971_186_136, 999)), "2000-10-10T13:55:36.999Z");
        assert_eq!(precise(at(971_186_137, 0)), "2000-10-10T13:55:37.000Z");
        assert_eq!(precise(at(971_186_100, 0)), "2000-10-10T13:55:00.000Z");
        assert_eq!(precise(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
    }
}
