//! How the codec is to read heads, as the configuration says.

use tidegate_config::model::Parsing;
use tidegate_http1::ParsePolicy;

/// The codec's word for a setting.
pub(crate) const fn policy(parsing: Parsing) -> ParsePolicy {
    match parsing {
        Parsing::Strict => ParsePolicy::Strict,
        Parsing::Lenient => ParsePolicy::Lenient,
    }
}
