//! The paths of the admin endpoint.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use super::control::Control;
use super::guard::Guard;
use super::view::Problem;
use super::worker_routes;

type Program = State<Arc<dyn Control>>;

/// All paths behind the guard.
pub(crate) fn router(control: Arc<dyn Control>, guard: Guard) -> Router {
    Router::new()
        .route("/status", get(async |State(program): Program| Json(program.status().await)))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/reload", post(reload))
        .route("/stop", post(stop))
        .merge(worker_routes::router())
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path".to_owned()))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "another method is needed".to_owned())
        })
        .with_state(control)
        .layer(from_fn_with_state(Arc::new(guard), guarded))
}

async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.admit(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denied) => problem(denied.status(), denied.to_string()),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

async fn metrics(State(program): Program) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], program.metrics().await)
}

async fn readyz(State(program): Program) -> impl IntoResponse {
    let readiness = program.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn reload(State(program): Program) -> impl IntoResponse {
    let report = program.reload().await;
    let status = if report.applied { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, Json(report))
}

async fn stop(State(program): Program) -> impl IntoResponse {
    program.stop().await;
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "stopping": true })))
}

pub(super) fn problem(status: StatusCode, error: String) -> Response {
    (status, Json(Problem { error })).into_response()
}
