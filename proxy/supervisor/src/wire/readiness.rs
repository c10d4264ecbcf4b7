//! JSON form of [`model::Readiness`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

use super::milliseconds;

/// When a worker may get requests.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Readiness {
    Connect,
    Http(String),
    Log(#[serde(with = "pattern")] model::LinePattern),
    Notify,
    DelayMs(u64),
    AllOf(Vec<Readiness>),
}

/// A regular expression is its text.
mod pattern {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use tidegate_config::model::LinePattern;

    pub(super) fn serialize<S: Serializer>(pattern: &LinePattern, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(pattern.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LinePattern, D::Error> {
        LinePattern::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl From<model::Readiness> for Readiness {
    fn from(model: model::Readiness) -> Self {
        match model {
            model::Readiness::Connect => Self::Connect,
            model::Readiness::Http(path) => Self::Http(path),
            model::Readiness::Log(pattern) => Self::Log(pattern),
            model::Readiness::Notify => Self::Notify,
            model::Readiness::Delay(time) => Self::DelayMs(milliseconds(time)),
            model::Readiness::AllOf(parts) => Self::AllOf(parts.into_iter().map(Self::from).collect()),
        }
    }
}

impl From<Readiness> for model::Readiness {
    fn from(wire: Readiness) -> Self {
        match wire {
            Readiness::Connect => Self::Connect,
            Readiness::Http(path) => Self::Http(path),
            Readiness::Log(pattern) => Self::Log(pattern),
            Readiness::Notify => Self::Notify,
            Readiness::DelayMs(time) => Self::Delay(Duration::from_millis(time)),
            Readiness::AllOf(parts) => Self::AllOf(parts.into_iter().map(Self::from).collect()),
        }
    }
}
