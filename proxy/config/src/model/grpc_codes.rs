//! Codes with which gRPC calls end.

use std::fmt;

/// A set of codes (`google.rpc.Code`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcCodes(u32);

impl GrpcCodes {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// By whoever asked, mostly.
    pub const CANCELLED: Self = Self(1 << 1);
    /// Too late.
    pub const DEADLINE_EXCEEDED: Self = Self(1 << 4);
    /// A quota, or no room.
    pub const RESOURCE_EXHAUSTED: Self = Self(1 << 8);
    /// Broken.
    pub const INTERNAL: Self = Self(1 << 13);
    /// Not now.
    pub const UNAVAILABLE: Self = Self(1 << 14);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::CANCELLED, "cancelled"),
        (Self::DEADLINE_EXCEEDED, "deadline_exceeded"),
        (Self::RESOURCE_EXHAUSTED, "resource_exhausted"),
        (Self::INTERNAL, "internal"),
        (Self::UNAVAILABLE, "unavailable"),
    ];

    /// Those of both.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a code is in the set.
    #[must_use]
    pub fn contains(self, code: u32) -> bool {
        1_u32.checked_shl(code).is_some_and(|bit| self.0 & bit != 0)
    }
}

/// As a site file writes it.
impl fmt::Display for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(code, _)| self.0 & code.0 != 0).map(|(_, name)| *name);
        write!(f, "[{}]", names.collect::<Vec<_>>().join(", "))
    }
}
