//! Clients that stay with an endpoint.

use std::time::Duration;

use super::variables::cookie_name;
use super::{file_path, keep};
use crate::fault::Code;
use crate::host::parse_host;
use crate::model::{Balance, HostPattern, SameSite, Sticky};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::Reason;

/// Compiles `balance: { sticky: ... }`: who is chosen for new clients, and the cookie by which they stay.
pub(super) fn sticky(raw: raw::Sticky, spot: Spot<'_>, report: &mut Report) -> Option<(Balance, Sticky)> {
    let raw::Sticky { cookie, secret, by, max_age, path, domain, secure, same_site, http_only } = raw;
    let name = cookie?;
    let max_age = max_age.map(|time| time.0);
    if max_age.is_some_and(|time| time < Duration::from_secs(1)) {
        let problem = "browsers count whole seconds, and forget a cookie of none at once";
        report.fault(spot.key("max_age").span(), Code::BadValue, problem).hint("write 1s or more");
    }
    let cookie = keep(cookie_name(&name), &name, spot.key("cookie"), report);
    let path = path.unwrap_or_else(|| "/".to_owned());
    let path = keep(cookie_path(&path), &path, spot.key("path"), report);
    let domain = match domain {
        Some(domain) => Some(keep(cookie_domain(&domain), &domain, spot.key("domain"), report)?),
        None => None,
    };
    let secrets = match secret {
        None => Vec::new(),
        Some(raw::Secrets::One(file)) => vec![file_path(&file, spot.key("secret"), report)],
        Some(raw::Secrets::Several(files)) => {
            files.iter().map(|file| file_path(file, spot.key("secret"), report)).collect()
        }
    };
    let mut sticky = Sticky {
        cookie: cookie?,
        secrets,
        max_age,
        path: path?,
        domain,
        secure,
        same_site: same_site.map_or(SameSite::Lax, SameSite::from),
        http_only: http_only.unwrap_or(true),
    };
    check_promises(&mut sticky, spot, report);
    Some((by.map_or(Balance::LeastConn, Balance::from), sticky))
}

/// Browsers drop a cookie without a word that breaks what its name or `SameSite=None` promises (RFC 6265bis sections 4.1.3
/// and 5.7).
fn check_promises(sticky: &mut Sticky, spot: Spot<'_>, report: &mut Report) {
    let begins =
        |prefix: &str| sticky.cookie.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let is_host = begins("__Host-");
    let promise = match sticky.same_site {
        _ if is_host => "the prefix __Host-",
        _ if begins("__Secure-") => "the prefix __Secure-",
        SameSite::None => "same_site: none",
        SameSite::Strict | SameSite::Lax => return,
    };
    let conflict = |key: &str, needs: &str, report: &mut Report| {
        let problem = format!("browsers drop this cookie: {promise} needs {needs}");
        report.fault(spot.key(key).span(), Code::Conflict, problem).hint("remove one of both");
    };
    if sticky.secure == Some(false) {
        conflict("secure", "secure: true", report);
    }
    if is_host && sticky.domain.is_some() {
        conflict("domain", "a cookie without domain", report);
    }
    if is_host && sticky.path != "/" {
        conflict("path", "path: /", report);
    }
    sticky.secure = Some(true);
}

/// What `Path` may hold (RFC 6265 section 4.1.1).
fn cookie_path(path: &str) -> Result<String, Reason> {
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
        return Ok(path.to_owned());
    }
    Err(Reason::new("is no path of a cookie", "write a path that begins with \"/\", such as /app"))
}

fn cookie_domain(domain: &str) -> Result<String, Reason> {
    match parse_host(domain.strip_prefix('.').unwrap_or(domain))? {
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Wildcard(_) | HostPattern::Any => {
            Err(Reason::new("is not one name", "write the name alone: hosts below it are meant too"))
        }
    }
}

impl From<raw::SameSite> for SameSite {
    fn from(raw: raw::SameSite) -> Self {
        match raw {
            raw::SameSite::Strict => Self::Strict,
            raw::SameSite::Lax => Self::Lax,
            raw::SameSite::None => Self::None,
        }
    }
}
