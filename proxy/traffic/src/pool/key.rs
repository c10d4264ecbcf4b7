//! What a request is told apart by when its endpoint is chosen.

use std::net::IpAddr;

use tidegate_config::model::{Balance, Variable};

use super::sticky::Token;
use crate::head::HeadView;
use crate::variable;

/// Kept with the exchange, because a later attempt is chosen by it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The policy needs none, or the request has none.
    None,
    /// The client's address.
    Address(IpAddr),
    /// The value of a variable.
    Bytes(Box<[u8]>),
    /// An endpoint that the client stays with, and the client's address in case it cannot.
    Named(Token, IpAddr),
}

impl Key {
    /// The key of a request under a policy: the value of the first variable that the request has.
    #[must_use]
    pub fn of(balance: &Balance, head: &HeadView<'_>) -> Self {
        match balance {
            Balance::IpHash => Self::Address(head.client.address()),
            other => other.key().map_or(Self::None, |variables| Self::first(variables, head)),
        }
    }

    fn first(variables: &[Variable], head: &HeadView<'_>) -> Self {
        let value = variables.iter().find_map(|one| variable::look(one, head, |value| value.into()));
        value.map_or(Self::None, Self::Bytes)
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) | Self::Named(_, address) => Some(*address),
            Self::None | Self::Bytes(_) => None,
        }
    }

    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Named(token, _) => Some(token),
            Self::None | Self::Address(_) | Self::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::None | Self::Address(_) | Self::Named(..) => None,
        }
    }
}
