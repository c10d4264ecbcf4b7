//! Which TLS policy the connection of a request must have been made under.
//!
//! A handshake verifies by the server name, a request is routed by its host, and a client may send any host on any
//! connection. So every request is held against the policy of the site it was routed to (RFC 9110 section 15.5.20).

use std::collections::BTreeMap;

use tidegate_config::model::{Model, Transport};

use crate::head::{HeadView, TlsClient, TlsPolicyId};
use crate::refusal::{Refusal, RefusalKind};
use crate::traffic::Identities;

/// The policies of all listeners and sites.
#[derive(Debug, Default)]
pub(super) struct Policies {
    all: Vec<Policy>,
    /// By the listener's place.
    of_listeners: Vec<OfListener>,
    /// By the site's place; `None` goes by the listener.
    of_sites: Vec<Option<usize>>,
}

#[derive(Debug)]
struct OfListener {
    /// Place in `all`.
    policy: usize,
    /// It speaks TLS now; connections from before a reload may not.
    tls: bool,
}

#[derive(Debug)]
struct Policy {
    name: Box<str>,
    id: TlsPolicyId,
    /// Clients are asked for certificates.
    asks: bool,
    /// Clients without one are turned away.
    requires: bool,
}

impl Policies {
    pub(super) fn new(model: &Model, identities: &Identities) -> Self {
        let mut places = BTreeMap::new();
        let mut all = Vec::new();
        for (place, (name, policy)) in model.tls_policies.iter().enumerate() {
            places.insert(name.as_str(), place);
            let asked = policy.client_certificates.as_ref();
            all.push(Policy {
                name: name.as_str().into(),
                id: identities.policies.get(name).copied().unwrap_or(TlsPolicyId(0)),
                asks: asked.is_some(),
                requires: asked.is_some_and(|asked| asked.required),
            });
        }
        // A checked model has them all; a name without a policy is met by no connection.
        let place = |name: &String| places.get(name.as_str()).copied().unwrap_or(usize::MAX);
        Self {
            of_listeners: model
                .listeners
                .iter()
                .map(|listener| OfListener {
                    policy: place(&listener.tls_policy),
                    tls: listener.transport == Transport::Tls,
                })
                .collect(),
            of_sites: model.sites.iter().map(|site| site.tls_policy.as_ref().map(place)).collect(),
            all,
        }
    }

    /// Whether a site takes requests of a connection. A policy that asks for certificates takes only connections made
    /// under exactly this content of it; another one also those made before a reload changed it.
    ///
    /// `expected`: the connection was made for the very host of the request, so that only a reload can have come between.
    pub(super) fn check(
        &self,
        listener: usize,
        site: usize,
        tls: Option<&TlsClient>,
        expected: bool,
    ) -> Result<(), Refusal> {
        let own = self.of_sites.get(site).copied().flatten();
        let of_listener = self.of_listeners.get(listener);
        let needed = own.or_else(|| of_listener.map(|of| of.policy)).and_then(|place| self.all.get(place));
        let Some(needed) = needed else {
            return Err(Refusal::new(RefusalKind::Internal, "a site without a TLS policy"));
        };
        match tls {
            Some(tls) if tls.policy.id == needed.id => Ok(()),
            Some(tls) if !needed.asks && *tls.policy.name == *needed.name => Ok(()),
            // A listener without TLS has no policy to speak of; one that has TLS now may have connections without.
            None if !needed.requires || own.is_none() && of_listener.is_some_and(|of| !of.tls) => Ok(()),
            tls => {
                let made = tls.map_or("none", |tls| &tls.policy.name);
                let detail = format!("TLS policy of the site: {}, of the connection: {made}", needed.name);
                let outdated = match tls {
                    Some(tls) => expected || *tls.policy.name == *needed.name,
                    None => of_listener.is_some_and(|of| of.tls),
                };
                let kind = if outdated { RefusalKind::TlsPolicyChanged } else { RefusalKind::Misdirected };
                Err(Refusal::new(kind, detail))
            }
        }
    }
}

/// Whether the connection was made for the host of the request.
pub(super) fn is_for_host(head: &HeadView<'_>) -> bool {
    let server_name = head.client.tls().and_then(|tls| tls.server_name.as_deref());
    let named = |name: &str, host: &str| name.trim_end_matches('.').eq_ignore_ascii_case(host);
    server_name.zip(head.host).is_some_and(|(name, host)| named(name, host.name()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use tidegate_config::model::{ClientCertificates, Model, TlsPolicy};

    use super::*;
    use crate::fixtures::{listener, model, respond, route, site};
    use crate::head::TlsPolicyRef;

    fn asking(required: bool) -> TlsPolicy {
        let asked = ClientCertificates { ca: "/ca.pem".into(), required, forward: false };
        TlsPolicy { client_certificates: Some(asked), ..TlsPolicy::default() }
    }

    /// Sites in this order: open, modern, staff, guests, other staff; all but the first with a policy of their own.
    /// Listeners: one of the default policy, one where everybody is asked, one without TLS.
    fn sites() -> Model {
        let names = ["open", "modern", "staff", "guests", "others"];
        let sites = names.map(|name| site(name, &[name], vec![route("/", respond("x"))]));
        let mut model = model(sites.into(), Vec::new());
        for (site, name) in model.sites.iter_mut().zip(names).skip(1) {
            site.tls_policy = Some(name.to_owned());
        }
        model.listeners = vec![listener("main", None), listener("strict", None), listener("plain", None)];
        model.listeners[0].transport = Transport::Tls;
        model.listeners[1].transport = Transport::Tls;
        model.listeners[1].tls_policy = "staff".to_owned();
        let policies = [
            ("modern", TlsPolicy::default()),
            ("staff", asking(true)),
            ("guests", asking(false)),
            ("others", asking(true)),
        ];
        model.tls_policies.extend(policies.map(|(name, policy)| (name.to_owned(), policy)));
        model
    }

    const NAMES: [&str; 5] = ["default", "modern", "staff", "guests", "others"];

    fn connection(name: &str, id: u64) -> TlsClient {
        let policy = TlsPolicyRef { id: TlsPolicyId(id), name: Arc::from(name) };
        TlsClient { server_name: None, policy, certificate: None, identity: None }
    }

    #[test]
    fn a_site_takes_connections_of_its_own_policy_only() {
        let ids: HashMap<String, TlsPolicyId> =
            NAMES.iter().zip(0..).map(|(name, id)| ((*name).to_owned(), TlsPolicyId(id))).collect();
        let policies = Policies::new(&sites(), &Identities { policies: ids, ..Identities::default() });
        // Rows are policies of connections, columns are sites; then one row for a connection without TLS.
        let on_main = ["y....", ".y...", "..y..", "...y.", "....y", "yy.y."];
        // Its last row is of a connection from before the listener had TLS.
        let on_strict = [".....", ".y...", "y.y..", "...y.", "....y", ".y.y."];
        let on_plain = on_main;
        for (listener, expected) in [on_main, on_strict, on_plain].iter().enumerate() {
            for (row, expected) in expected.iter().enumerate() {
                let tls = NAMES.get(row).map(|name| connection(name, row as u64));
                let taken = |site| policies.check(listener, site, tls.as_ref(), false).map_or('.', |()| 'y');
                let seen: String = (0..5).map(taken).collect();
                assert_eq!(seen, *expected, "listener {listener}, connection of {:?}", NAMES.get(row));
            }
        }
    }

    #[test]
    fn a_changed_policy_lets_go_of_connections_only_where_certificates_count() {
        let ids = NAMES.iter().map(|name| ((*name).to_owned(), TlsPolicyId(9))).collect();
        let policies = Policies::new(&sites(), &Identities { policies: ids, ..Identities::default() });
        for (site, name, taken) in
            [(0, "default", true), (1, "modern", true), (2, "staff", false), (3, "guests", false)]
        {
            let verdict = policies.check(0, site, Some(&connection(name, 1)), false).map_err(|refusal| refusal.kind);
            assert_eq!(verdict, if taken { Ok(()) } else { Err(RefusalKind::TlsPolicyChanged) }, "{name}");
        }
    }

    #[test]
    fn only_a_connection_that_was_right_once_is_out_of_date() {
        let ids = NAMES.iter().zip(0..).map(|(name, id)| ((*name).to_owned(), TlsPolicyId(id))).collect();
        let policies = Policies::new(&sites(), &Identities { policies: ids, ..Identities::default() });
        let of = |name: &str| NAMES.iter().position(|known| *known == name).map(|id| connection(name, id as u64));
        // Listener, connection, whether it was made for the host; all for the site `staff`.
        for (listener, tls, expected, kind) in [
            (0, of("default"), false, RefusalKind::Misdirected),
            (0, of("default"), true, RefusalKind::TlsPolicyChanged),
            (0, Some(connection("staff", 77)), false, RefusalKind::TlsPolicyChanged),
            (1, None, false, RefusalKind::TlsPolicyChanged),
            (2, None, false, RefusalKind::Misdirected),
        ] {
            let verdict = policies.check(listener, 2, tls.as_ref(), expected).map_err(|refusal| refusal.kind);
            assert_eq!(verdict, Err(kind), "{listener}, {tls:?}, {expected}");
        }
    }
}
