//! Which endpoint a client stays with from this answer on.

use super::Exchange;
use crate::edits::HeadEdits;
use crate::pool::sticky::Bond;

impl Exchange {
    /// Has the client come back to the endpoint that answered: whichever that is, since what the client has begun is there
    /// now. HAProxy (`option redispatch`), Envoy and Traefik do the same.
    pub(super) fn bind(&self, edits: &mut HeadEdits<'static>) {
        let (Some(proxied), Some(endpoint)) = (self.proxied(), self.endpoint()) else { return };
        let Some(sticky) = &proxied.sticky else { return };
        if let Some(Bond::Set(token)) = proxied.pool.bond(sticky.asked(), endpoint.id()) {
            edits.add("set-cookie", sticky.set_cookie(&token));
        }
    }
}
