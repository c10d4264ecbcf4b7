//! What is remembered of a request.

use std::sync::Arc;

use tidegate_config::model::{ForwardPath, Retry, UpstreamProtocol};

use crate::body::BodyPlan;
use crate::head::{HeadView, HttpVersion};
use crate::pool::Pool;
use crate::pool::charges::Column;
use crate::pool::key::Key;
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::is_idempotent;
use crate::router::{PoolId, RouteId, RouteInfo};
use crate::sticky_cookie::StickyRequest;
use crate::traffic::{PoolSettings, Traffic};

/// What is remembered of a routed request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) route: RouteId,
    pub(super) forward_path: ForwardPath,
    pub(super) default_host: Option<Arc<str>>,
    pub(super) plan: BodyPlan,
    pub(super) idempotent: bool,
    pub(super) proxied: Option<Proxied>,
}

/// What is remembered of a request that is forwarded.
#[derive(Debug)]
pub(super) struct Proxied {
    pub(super) pool: Arc<Pool>,
    pub(super) settings: PoolSettings,
    pub(super) key: Key,
    pub(super) sticky: Option<StickyRequest>,
    pub(super) websocket: bool,
    pub(super) retry: Retry,
    /// Where it is counted, if somebody wants to know what requests cost.
    pub(super) column: Option<Column>,
}

impl Request {
    pub(super) fn new(route: &RouteInfo, head: &HeadView<'_>) -> Self {
        Self {
            route: route.id,
            forward_path: route.forward_path,
            default_host: route.default_host.clone(),
            plan: BodyPlan::of(route.max_body, route.buffer),
            idempotent: is_idempotent(head.method),
            proxied: None,
        }
    }
}

impl Proxied {
    pub(super) fn new(traffic: &Traffic, id: PoolId, route: &RouteInfo, head: &HeadView<'_>) -> Result<Self, Refusal> {
        let missing = || Refusal::new(RefusalKind::Internal, "the route's upstream is not one of this snapshot");
        let (pool, settings) = traffic.upstream(id).ok_or_else(missing)?;
        // The length of an HTTP/2 endpoint's answer may be unknown, and chunks are beyond an HTTP/1.0 client.
        if settings.protocol == UpstreamProtocol::H2 && head.version == HttpVersion::Http10 {
            let detail = "an HTTP/1.0 client, and endpoints of HTTP/2";
            return Err(Refusal::new(RefusalKind::UnsupportedVersion, detail));
        }
        // Only HTTP/1.1 has an upgrade; to an HTTP/2 endpoint the request goes as an ordinary one.
        let websocket = head.upgrade && settings.protocol == UpstreamProtocol::Http1;
        let sticky = traffic.sticky_cookie(id).map(|cookie| StickyRequest::new(cookie, head));
        let key = match sticky.as_ref().and_then(|sticky| sticky.asked().token().copied()) {
            Some(token) => Key::Named(token, head.client.address()),
            None => Key::of(traffic.balance(id), head),
        };
        let column = traffic.column(route.id);
        Ok(Self { pool: Arc::clone(pool), settings: *settings, key, sticky, websocket, retry: route.retry, column })
    }
}
