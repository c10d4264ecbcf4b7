//! Routes: patterns, conditions and what becomes of a request.

use std::sync::Arc;
use std::time::Duration;

use super::buffer::Wishes;
use super::named_limits::Place;
use super::names::{Names, Unique};
use super::{Scene, error_pages, keep, retry};
use crate::fault::Code;
use crate::model::{
    Condition, ErrorPages, FixedResponse, ForwardPath, PathPattern, RateLimitUse, Route, RouteAction, ValuePattern,
};
use crate::pattern::{lies_under, parse_path, parse_value};
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;
use crate::units::Reason;

/// What a route takes over where it says nothing.
pub(crate) struct Inherited<'a> {
    pub(crate) scene: &'a Scene<'a>,
    pub(crate) max_body: u64,
    pub(crate) buffer: Wishes,
    pub(crate) rate_limits: Vec<RateLimitUse>,
    pub(crate) concurrency: Vec<String>,
    pub(crate) retry: retry::Wishes,
    pub(crate) deadline: Option<Duration>,
    pub(crate) error_pages: Arc<ErrorPages>,
    pub(crate) forward_path: ForwardPath,
    /// Name of the site.
    pub(crate) site: &'a str,
    /// Names of the routes around it.
    pub(crate) way: Option<String>,
    /// Pattern of the route around it, and where it stands.
    pub(crate) outer: Option<(&'a PathPattern, Span)>,
}

/// Compiles routes that stand beside each other.
pub(crate) fn routes(
    raw: Vec<raw::Route>,
    spot: Spot<'_>,
    inherited: &Inherited<'_>,
    names: &mut Names,
    report: &mut Report,
) -> Vec<Route> {
    let mut siblings: Vec<(Route, Span)> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let spot = spot.item(index);
        let span = if spot.has("name") { spot.key("name").span() } else { spot.key("path").span() };
        if let Some(route) = route(raw, spot, inherited, names, report) {
            siblings.push((route, span));
        }
    }
    check_siblings(&siblings, report);
    siblings.into_iter().map(|(route, _)| route).collect()
}

/// Two routes must differ in what they take and in their names.
fn check_siblings(siblings: &[(Route, Span)], report: &mut Report) {
    let mut taken = Unique::default();
    let mut named = Unique::default();
    for (route, span) in siblings {
        let matcher = format!("{:?} {:?}", route.path, route.conditions);
        let same_name = named.first(route.name.clone(), *span);
        if let Some(first) = taken.first(matcher, *span) {
            let problem = format!("no request reaches the route \"{}\": an earlier one takes them all", route.name);
            let finding = report.fault(*span, Code::Duplicate, problem);
            finding.related(first, "it is here").hint("remove one of them, or give one a condition");
        } else if let Some(first) = same_name {
            let problem = format!("a second route is called \"{}\"", route.name);
            let finding = report.fault(*span, Code::Duplicate, problem);
            finding.related(first, "the first one is here").hint("give one of them another name, such as name: other");
        }
    }
}

fn route(
    raw: raw::Route,
    spot: Spot<'_>,
    inherited: &Inherited<'_>,
    names: &mut Names,
    report: &mut Report,
) -> Option<Route> {
    let raw::Route {
        path,
        name,
        methods,
        headers,
        query,
        cookies,
        max_body,
        buffer,
        rate_limit,
        concurrency,
        retry,
        deadline,
        error_pages,
        forward_path,
        proxy,
        respond,
        routes,
    } = raw;
    let path_spot = spot.key("path");
    let pattern = path.as_ref().and_then(|text| keep(parse_path(text), text, path_spot, report));
    if let (Some(pattern), Some((outer, outer_span))) = (&pattern, inherited.outer) {
        check_nesting(pattern, outer, path_spot.span(), outer_span, report);
    }
    let conditions = conditions(Conditions { methods, headers, query, cookies }, spot, report);
    let max_body = max_body.map_or(inherited.max_body, |size| size.0);
    let forward_path = forward_path.map_or(inherited.forward_path, ForwardPath::from);
    let wishes = inherited.buffer.with(buffer, spot.key("buffer"));
    let kind = proxy.as_deref().and_then(|upstream| names.endpoint_kind(upstream));
    let buffer = wishes.settle(kind, max_body, spot, report);
    let retries = inherited.retry.with(retry, spot.key("retry"), report);
    let retry = retries.settle(proxy.as_deref().and_then(|name| names.retries.get(name)), kind, spot, report);
    let deadline = retry::deadline(deadline, inherited.deadline, spot.key("deadline"), report);
    retry::check_use(spot, report);
    let pages_spot = spot.key("error_pages");
    let error_pages =
        error_pages::error_pages(&inherited.error_pages, error_pages, pages_spot, inherited.scene, report);
    let name =
        name.or_else(|| path.as_deref().map(|path| default_name(path, conditions.as_deref().unwrap_or_default())));
    let way = way(inherited.way.as_deref(), name.as_deref().unwrap_or_default());
    let place = Place::Route { site: inherited.site, way: &way };
    let rate_limits = names.limits.chosen(rate_limit, &place, spot.key("rate_limit"), report);
    let rate_limits = rate_limits.unwrap_or_else(|| inherited.rate_limits.clone());
    let concurrency = names.concurrency.chosen(concurrency, &place, spot.key("concurrency"), report);
    let concurrency = concurrency.unwrap_or_else(|| inherited.concurrency.clone());
    let inner = Inherited {
        scene: inherited.scene,
        max_body,
        buffer: wishes,
        rate_limits: rate_limits.clone(),
        concurrency: concurrency.clone(),
        retry: retries,
        deadline,
        error_pages: Arc::clone(&error_pages),
        forward_path,
        site: inherited.site,
        way: Some(way),
        outer: pattern.as_ref().map(|pattern| (pattern, path_spot.span())),
    };
    let action = action(Actions { proxy, respond, routes }, spot, &inner, names, report);
    let (name, conditions) = (name?, conditions?);
    Some(Route {
        name,
        path: pattern?,
        conditions,
        action: action?,
        max_body,
        buffer,
        rate_limits,
        concurrency,
        retry,
        deadline,
        forward_path,
        error_pages,
    })
}

/// The names on the way to a route, as logs and metrics have them.
fn way(outer: Option<&str>, name: &str) -> String {
    outer.map_or_else(|| name.to_owned(), |outer| format!("{outer} > {name}"))
}

fn check_nesting(inner: &PathPattern, outer: &PathPattern, span: Span, outer_span: Span, report: &mut Report) {
    if lies_under(inner, outer) {
        return;
    }
    let problem = "no request reaches this route: its path does not lie under that of the route around it";
    let finding = report.fault(span, Code::Conflict, problem);
    finding.related(outer_span, "the outer path is here");
    if let PathPattern::Prefix(path) | PathPattern::PrefixStop(path) = outer {
        finding.hint(format!("write the whole path, such as \"{}/...\"", path.trim_end_matches('/')));
    }
}

/// The keys of a route that are conditions.
struct Conditions {
    methods: Option<Vec<String>>,
    headers: Option<raw::Named<raw::Text>>,
    query: Option<raw::Named<raw::Text>>,
    cookies: Option<raw::Named<raw::Text>>,
}

fn conditions(raw: Conditions, spot: Spot<'_>, report: &mut Report) -> Option<Vec<Condition>> {
    let Conditions { methods, headers, query, cookies } = raw;
    let mut conditions = Vec::new();
    let mut sound = true;
    if let Some(methods) = methods {
        let count = methods.len();
        let methods = super::each(methods, spot.key("methods"), report, method);
        sound &= methods.len() == count;
        conditions.push(Condition::Method(methods));
    }
    let mut add = |kind: &str, named: Option<raw::Named<raw::Text>>, make: fn(String, ValuePattern) -> Condition| {
        for (name, raw::Text(text)) in named.unwrap_or_default().0 {
            let spot = spot.key(kind).key(&name);
            let name = condition_name(kind, name, spot, report);
            let value = keep(parse_value(&text), &text, spot, report);
            match (name, value) {
                (Some(name), Some(value)) => conditions.push(make(name, value)),
                _ => sound = false,
            }
        }
    };
    add("headers", headers, Condition::Header);
    add("query", query, Condition::Query);
    add("cookies", cookies, Condition::Cookie);
    sound.then_some(conditions)
}

fn method(method: String, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    let reason = if !is_token(&method) {
        Reason::new("is not a method", "write GET, POST, PUT, ...")
    } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Reason::new("is not a method: they are in upper case", format!("write {}", method.to_ascii_uppercase()))
    } else {
        return Some(method);
    };
    keep(Err(reason), &method, spot, report)
}

/// The path pattern, behind the methods if there are any: routes of one path that differ in them differ in name too.
fn default_name(path: &str, conditions: &[Condition]) -> String {
    let methods = conditions.iter().find_map(|condition| match condition {
        Condition::Method(methods) => Some(methods.join(",")),
        _ => None,
    });
    methods.map_or_else(|| path.to_owned(), |methods| format!("{methods} {path}"))
}

/// Field names are held in lower case.
fn condition_name(kind: &str, name: String, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    if kind == "query" {
        return Some(name);
    }
    if !is_token(&name) {
        let problem = format!("\"{}\" is not the name of a header or cookie", crate::walk::shorten(&name));
        report.fault(spot.key_span(), Code::BadValue, problem).hint("names consist of letters, digits and \"-\"");
        return None;
    }
    Some(if kind == "headers" { name.to_ascii_lowercase() } else { name })
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The keys of a route that are actions.
struct Actions {
    proxy: Option<String>,
    respond: Option<raw::Respond>,
    routes: Option<Vec<raw::Route>>,
}

fn action(
    raw: Actions,
    spot: Spot<'_>,
    inner: &Inherited<'_>,
    names: &mut Names,
    report: &mut Report,
) -> Option<RouteAction> {
    let given: Vec<&str> = ["proxy", "respond", "routes"].into_iter().filter(|key| spot.has(key)).collect();
    if let [first, second, ..] = given.as_slice() {
        let problem = format!("a route has one action, and this one has \"{first}\" and \"{second}\"");
        let finding = report.fault(spot.key(second).key_span(), Code::Conflict, problem);
        finding.related(spot.key(first).key_span(), "the other one is here").hint("keep one of them");
    } else if given.is_empty() && !spot.is_damaged() {
        let problem = "a route needs one of the keys \"proxy\", \"respond\" and \"routes\"";
        report.fault(spot.span(), Code::MissingKey, problem).hint("for example proxy: app");
    }
    // Looked into even when there are too many: each may have faults of its own.
    let Actions { proxy, respond, routes } = raw;
    let proxy = proxy.filter(|name| names.use_upstream(name, spot.key("proxy"), report)).map(RouteAction::Proxy);
    let respond = respond.and_then(|respond| fixed_response(respond, spot.key("respond"), report));
    let nested =
        routes.map(|routes| RouteAction::Nested(self::routes(routes, spot.key("routes"), inner, names, report)));
    proxy.or_else(|| respond.map(RouteAction::Respond)).or(nested)
}

fn fixed_response(raw: raw::Respond, spot: Spot<'_>, report: &mut Report) -> Option<FixedResponse> {
    let raw::Respond { status, headers, body } = raw;
    let status = status.unwrap_or(200);
    let body = body.unwrap_or_default();
    let has_no_body = matches!(status, 204 | 205 | 304);
    if has_no_body && !body.is_empty() {
        let problem = format!("an answer with status {status} has no body");
        report
            .fault(spot.key("body").span(), Code::Conflict, problem)
            .hint("remove the body, or choose another status");
        return None;
    }
    let headers = headers.unwrap_or_default().0;
    let count = headers.len();
    let headers = headers.into_iter().filter_map(|(name, value)| field(name, value, spot.key("headers"), report));
    let mut headers: Vec<(String, String)> = headers.collect();
    if headers.len() < count {
        return None;
    }
    if !has_no_body && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
    }
    Some(FixedResponse { status, headers, body: Arc::from(body.into_bytes()) })
}

/// Fields that belong to the connection or to the framing of a message.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
];

pub(super) fn field(name: String, value: raw::Text, spot: Spot<'_>, report: &mut Report) -> Option<(String, String)> {
    let spot = spot.key(&name);
    let lower = name.to_ascii_lowercase();
    let raw::Text(value) = value;
    if !is_token(&name) {
        let problem = format!("\"{}\" is not the name of a header", crate::walk::shorten(&name));
        report.fault(spot.key_span(), Code::BadValue, problem).hint("names consist of letters, digits and \"-\"");
        return None;
    }
    if OURS.contains(&lower.as_str()) {
        let problem = format!("the header \"{name}\" is set by the program itself");
        report.fault(spot.key_span(), Code::Conflict, problem).hint("remove it");
        return None;
    }
    let is_value = !value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') && value.trim_ascii() == value;
    if !is_value {
        let problem =
            format!("the value of the header \"{name}\" has line breaks, control characters or spaces around it");
        report.fault(spot.span(), Code::BadValue, problem).hint("write it on one line, without spaces around it");
        return None;
    }
    Some((lower, value))
}
