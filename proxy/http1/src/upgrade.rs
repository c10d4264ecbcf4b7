//! Whether a request may become a tunnel: only a complete WebSocket handshake may (RFC 6455 section 4.1).

use crate::octet;

/// What a request asks to turn its connection into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing.
    None,
    /// A valid WebSocket handshake. The tunnel starts only after the upstream answered 101.
    WebSocket,
    /// Something this proxy does not do (`h2c`, an incomplete handshake). The request is an ordinary one and its
    /// `Upgrade` field goes no further.
    Other,
}

/// The handshake fields seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UpgradeFields {
    upgrades: u8,
    websocket: bool,
    keys: u8,
    key_is_valid: bool,
    versions: u8,
    version_is_13: bool,
}

impl UpgradeFields {
    pub(crate) fn upgrade(&mut self, value: &[u8]) {
        self.upgrades = self.upgrades.saturating_add(1);
        self.websocket = value.eq_ignore_ascii_case(b"websocket");
    }

    pub(crate) fn key(&mut self, value: &[u8]) {
        self.keys = self.keys.saturating_add(1);
        self.key_is_valid = is_key(value);
    }

    pub(crate) fn version(&mut self, value: &[u8]) {
        self.versions = self.versions.saturating_add(1);
        self.version_is_13 = value == b"13";
    }

    /// Whether any `Upgrade` field was sent.
    pub(crate) fn is_present(self) -> bool {
        self.upgrades > 0
    }

    /// Whether the one `Upgrade` field says `websocket`.
    pub(crate) fn is_websocket(self) -> bool {
        self.upgrades == 1 && self.websocket
    }

    /// Whether the client's half of the handshake is complete, each field sent once.
    pub(crate) fn is_handshake(self) -> bool {
        self.is_websocket() && self.keys == 1 && self.key_is_valid && self.versions == 1 && self.version_is_13
    }
}

/// Sixteen bytes in base64: 22 characters and two of padding.
fn is_key(value: &[u8]) -> bool {
    matches!(value, [key @ .., b'=', b'='] if key.len() == 22 && octet::run(key, octet::BASE64) == 22)
}
