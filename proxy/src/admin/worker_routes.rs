//! The paths about workers.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::control::Control;
use super::follow::{self, Feed};
use super::order::{NotTaken, Order, Scale};
use super::routes::problem;

type Program = State<Arc<dyn Control>>;

/// Who follows something at a time: far fewer than there may be connections, so that orders get through.
const MOST_FOLLOWERS: usize = 16;

pub(super) fn router() -> Router<Arc<dyn Control>> {
    Router::new()
        .route("/workers", get(workers))
        .route("/workers/cost", get(costs))
        .route("/workers/restart", post(restart))
        .route("/workers/drain", post(drain))
        .route("/workers/scale", post(scale))
        .route("/workers/deploy", post(deploy))
        .route("/workers/deploys", get(deploys))
        .route("/workers/plan", get(plans))
        .route("/events", get(events))
        .route("/logs", get(logs))
        .layer(Extension(Arc::new(Semaphore::new(MOST_FOLLOWERS))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    upstream: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    upstream: String,
    slot: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    upstream: String,
    slot: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    upstream: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleTo {
    upstream: String,
    /// A number, or `auto`.
    count: Option<String>,
    by: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Events {
    upstream: Option<String>,
    /// Only what came after that number.
    after: Option<u64>,
    /// Only the last ones.
    last: Option<usize>,
    #[serde(default)]
    follow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Logs {
    upstream: Option<String>,
    slot: Option<u32>,
    after: Option<u64>,
    last: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn workers(State(program): Program, Query(Which { upstream }): Query<Which>) -> Response {
    match program.workers(upstream.as_deref()).await {
        Ok(workers) => Json(workers).into_response(),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn costs(State(program): Program, Query(Which { upstream }): Query<Which>) -> Response {
    match program.costs(upstream.as_deref()).await {
        Ok(costs) => Json(costs).into_response(),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn restart(State(program): Program, Query(Restart { upstream, slot }): Query<Restart>) -> Response {
    give(&program, Order::Restart { upstream, slot }).await
}

async fn drain(State(program): Program, Query(Drain { upstream, slot }): Query<Drain>) -> Response {
    give(&program, Order::Drain { upstream, slot }).await
}

async fn deploy(State(program): Program, Query(Deploy { upstream }): Query<Deploy>) -> Response {
    give(&program, Order::Deploy { upstream }).await
}

async fn plans(State(program): Program, Query(Which { upstream }): Query<Which>) -> Response {
    match program.plans(upstream.as_deref()).await {
        Ok(plans) => Json(plans).into_response(),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn deploys(State(program): Program, Query(Which { upstream }): Query<Which>) -> Response {
    match program.deploys(upstream.as_deref()) {
        Ok(deploys) => Json(deploys).into_response(),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn scale(State(program): Program, Query(ScaleTo { upstream, count, by }): Query<ScaleTo>) -> Response {
    let to = match (count.as_deref(), by) {
        (Some("auto"), None) => Ok(Scale::File),
        (Some(count), None) => count.parse().map(Scale::To).map_err(|_| format!("\"{count}\" is no number of workers")),
        (None, Some(by)) => Ok(Scale::By(by)),
        _ => Err("either count or by is needed".to_owned()),
    };
    match to {
        Ok(to) => give(&program, Order::Scale { upstream, to }).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, error),
    }
}

async fn give(program: &Arc<dyn Control>, order: Order) -> Response {
    match program.order(order).await {
        Ok(ordered) => (StatusCode::ACCEPTED, Json(ordered)).into_response(),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn events(
    State(program): Program,
    Extension(seats): Extension<Arc<Semaphore>>,
    Query(Events { upstream, after, last, follow }): Query<Events>,
) -> Response {
    match program.events(upstream.as_deref()) {
        Ok(feed) => entries(feed, after, last, follow, seats),
        Err(not_taken) => refused(&not_taken),
    }
}

async fn logs(
    State(program): Program,
    Extension(seats): Extension<Arc<Semaphore>>,
    Query(Logs { upstream, slot, after, last, follow }): Query<Logs>,
) -> Response {
    match program.logs(upstream.as_deref(), slot) {
        Ok(feed) => entries(feed, after, last, follow, seats),
        Err(not_taken) => refused(&not_taken),
    }
}

fn entries(
    feed: Arc<dyn Feed>,
    after: Option<u64>,
    last: Option<usize>,
    follow: bool,
    seats: Arc<Semaphore>,
) -> Response {
    let seat = if follow { seats.try_acquire_owned().ok() } else { None };
    if follow && seat.is_none() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, format!("{MOST_FOLLOWERS} others follow already"));
    }
    let after = after.unwrap_or(0).max(last.map_or(0, |count| feed.before_last(count)));
    ([(CONTENT_TYPE, "application/x-ndjson")], follow::body(feed, after, seat)).into_response()
}

fn refused(not_taken: &NotTaken) -> Response {
    let status = match not_taken {
        NotTaken::NotThere(_) => StatusCode::NOT_FOUND,
        NotTaken::Stopping => StatusCode::CONFLICT,
    };
    problem(status, not_taken.to_string())
}
