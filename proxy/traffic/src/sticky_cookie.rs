//! The cookie by which a client stays with an endpoint: how it is read, written, and kept from endpoints.

use std::fmt::Write;
use std::sync::Arc;

use tidegate_config::model::{SameSite, Sticky};

use crate::head::HeadView;
use crate::parameters;
use crate::pool::sticky::{Asked, Seals, Token};

/// What an upstream's clients stay by.
#[derive(Debug, Clone)]
pub(crate) struct Stickiness {
    pub(crate) cookie: Arc<StickyCookie>,
    pub(crate) seals: Seals,
}

/// The cookie of an upstream.
#[derive(Debug)]
pub(crate) struct StickyCookie {
    name: String,
    /// What follows its value.
    attributes: String,
    secure: Option<bool>,
}

/// A request for an upstream whose clients stay.
#[derive(Debug)]
pub(crate) struct StickyRequest {
    cookie: Arc<StickyCookie>,
    asked: Asked,
    /// The client spoke TLS, as far as is known for sure.
    over_tls: bool,
}

impl StickyCookie {
    pub(crate) fn new(sticky: &Sticky) -> Self {
        let Sticky { cookie, secrets: _, max_age, path, domain, secure, same_site, http_only } = sticky;
        let mut attributes = format!("; Path={path}");
        // Writing to a string does not fail.
        if let Some(domain) = domain {
            let _ = write!(attributes, "; Domain={domain}");
        }
        if let Some(max_age) = max_age {
            let _ = write!(attributes, "; Max-Age={}", max_age.as_secs());
        }
        if *http_only {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        Self { name: cookie.clone(), attributes, secure: *secure }
    }
}

impl StickyRequest {
    pub(crate) fn new(cookie: &Arc<StickyCookie>, head: &HeadView<'_>) -> Self {
        let mut asked = Asked::Nothing;
        // A site beside ours can add one of the same name (RFC 6265 section 8.6): it does not hide ours.
        parameters::cookies(head.fields, &cookie.name, &mut |value| {
            if asked.token().is_none() {
                asked = Asked::of(Some(value));
            }
        });
        Self { cookie: Arc::clone(cookie), asked, over_tls: head.client.scheme() == "https" }
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked
    }

    /// What endpoints do not get to see.
    pub(crate) fn name(&self) -> &str {
        &self.cookie.name
    }

    /// The value of `Set-Cookie` (RFC 6265 section 4.1).
    pub(crate) fn set_cookie(&self, token: &Token) -> String {
        let StickyCookie { name, attributes, secure } = &*self.cookie;
        let token = token.text();
        let secure = if secure.unwrap_or(self.over_tls) { "; Secure" } else { "" };
        format!("{name}={}{attributes}{secure}", String::from_utf8_lossy(token.as_bytes()))
    }
}
