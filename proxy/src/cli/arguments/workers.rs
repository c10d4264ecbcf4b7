//! Arguments of the commands about workers.

use std::str::FromStr;

use clap::Args;

use super::{Endpoint, OutputFormat};
use crate::admin::order::Scale as ScaleTo;

#[derive(Debug, Args)]
pub(in crate::cli) struct Workers {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Only those of this upstream
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: Option<String>,
    /// What requests of each route cost them: CPU time, and memory that they grow by
    #[arg(long)]
    pub(in crate::cli) cost: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: OutputFormat,
}

/// How long an order is watched.
#[derive(Debug, Args)]
pub(in crate::cli) struct Wait {
    /// Seconds to wait for the result
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(in crate::cli) timeout: u64,
    /// Return once the order is taken
    #[arg(long)]
    pub(in crate::cli) no_wait: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Restart {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Name of the upstream
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: String,
    /// Only the worker of this slot
    #[arg(value_name = "SLOT")]
    pub(in crate::cli) slot: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) wait: Wait,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Drain {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Name of the upstream
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: String,
    /// Which slot
    #[arg(value_name = "SLOT")]
    pub(in crate::cli) slot: u32,
    #[command(flatten)]
    pub(in crate::cli) wait: Wait,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Scale {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Name of the upstream
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: String,
    /// How many: a number, so many more (+1) or fewer (-1), or `auto` for as many as the file says
    #[arg(value_name = "N|+N|-N|auto", allow_hyphen_values = true, value_parser = Number::from_str)]
    pub(in crate::cli) to: Number,
    #[command(flatten)]
    pub(in crate::cli) wait: Wait,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Events {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Only those of this upstream
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: Option<String>,
    /// Go on with what happens from now on
    #[arg(long, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// How many of the past to begin with [default: all that are known, 10 with --follow]
    #[arg(long, short = 'n', value_name = "N")]
    pub(in crate::cli) last: Option<usize>,
    /// How to print them; one object in each line for programs
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Only lines of this upstream, or of this slot of it
    #[arg(value_name = "UPSTREAM[/SLOT]", value_parser = Whose::from_str)]
    pub(in crate::cli) whose: Option<Whose>,
    /// Go on with what they print from now on
    #[arg(long, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// How many of the past lines to begin with [default: 100; up to 1000 of each slot are known]
    #[arg(long, short = 'n', value_name = "N")]
    pub(in crate::cli) lines: Option<usize>,
    /// How to print them; one object in each line for programs
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: OutputFormat,
}

/// Workers of an upstream, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Whose {
    pub(in crate::cli) upstream: String,
    pub(in crate::cli) slot: Option<u32>,
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((upstream, slot)) = text.split_once('/') else {
            return Ok(Self { upstream: text.to_owned(), slot: None });
        };
        let slot = slot.parse().map_err(|_| "write UPSTREAM or UPSTREAM/SLOT, such as app/0".to_owned())?;
        Ok(Self { upstream: upstream.to_owned(), slot: Some(slot) })
    }
}

/// How many workers, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Number(pub(in crate::cli) ScaleTo);

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = |digits: &str, sign: i32| digits.parse::<u16>().ok().map(|step| ScaleTo::By(sign * i32::from(step)));
        let to = match (text, text.strip_prefix('+'), text.strip_prefix('-')) {
            ("auto", ..) => Some(ScaleTo::File),
            (_, Some(digits), _) => step(digits, 1),
            (_, _, Some(digits)) => step(digits, -1),
            _ => text.parse().ok().filter(|count| *count <= MOST).map(ScaleTo::To),
        };
        to.map(Self).ok_or_else(|| format!("write a number up to {MOST}, +1, -1 or auto"))
    }
}

/// As many as a site file may ask for.
const MOST: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_named_by_upstream_and_slot() {
        let whose = |upstream: &str, slot| Ok(Whose { upstream: upstream.to_owned(), slot });
        assert_eq!("app".parse(), whose("app", None));
        assert_eq!("app/12".parse(), whose("app", Some(12)));
        for text in ["app/", "app/x", "app/-1", "app/1/2"] {
            assert!(text.parse::<Whose>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, to) in [
            ("3", ScaleTo::To(3)),
            ("0", ScaleTo::To(0)),
            ("1000", ScaleTo::To(1_000)),
            ("+2", ScaleTo::By(2)),
            ("-1", ScaleTo::By(-1)),
            ("auto", ScaleTo::File),
        ] {
            assert_eq!(text.parse(), Ok(Number(to)), "{text}");
        }
        for text in ["", "1001", "+", "-", "two", "1.5", "+-1", "--1", "AUTO", "+99999"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
    }
}
