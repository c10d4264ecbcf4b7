//! gRPC from a client through the edge to an endpoint: every kind of call, errors of the endpoint, and ours.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream};
use tidegate_tests::{
    client::Kind,
    edge::Edge,
    grpc::{GrpcOrigin, Text, client, method},
    site::{Site, free_port},
    wait::wait_for,
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};

const KINDS: [Kind; 2] = [Kind::H2c, Kind::H2Tls];

fn site(address: impl std::fmt::Display, more: &str) -> Site {
    let upstream = format!("app: {{ protocol: h2, servers: [{{ address: \"{address}\" }}]{more} }}");
    let routes =
        "- { path: /test.Echo/, proxy: app, max_body: 16MiB }\n- { path: /small/, proxy: app, max_body: 1KiB }";
    Site::usual(routes, &upstream)
}

async fn edge_before(origin: &GrpcOrigin) -> Edge {
    Edge::start(site(origin.address(), "")).await
}

async fn caller(edge: &Edge, kind: Kind) -> Grpc<Channel> {
    client(kind, edge.address(kind.listener())).await
}

async fn unary(caller: &mut Grpc<Channel>, name: &str, message: &str) -> Result<String, Status> {
    caller.ready().await.expect("a connection");
    let call = caller.unary(Request::new(message.to_owned()), method(name), Text);
    timeout(LIMIT, call).await.expect("an answer in time").map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_four_kinds_of_calls_pass() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        assert_eq!(unary(&mut caller, "Each", "one").await.expect("an answer"), "echo one");
        caller.ready().await.expect("a connection");
        let counted = caller.server_streaming(Request::new("500".to_owned()), method("Count"), Text).await;
        let counted: Vec<_> =
            counted.expect("a stream").into_inner().map(|number| number.expect("a number")).collect().await;
        assert_eq!(counted, (0..500).map(|number| number.to_string()).collect::<Vec<_>>(), "{kind}");
        caller.ready().await.expect("a connection");
        let words = stream::iter((0..500).map(|number| number.to_string()));
        let joined = caller.client_streaming(Request::new(words), method("Join"), Text).await.expect("an answer");
        assert_eq!(joined.into_inner(), counted.join(","), "{kind}");
        caller.ready().await.expect("a connection");
        let words = stream::iter(["a".to_owned(), "b".to_owned()]);
        let echoed = caller.streaming(Request::new(words), method("Each"), Text).await.expect("a stream");
        let echoed: Vec<_> = echoed.into_inner().map(|text| text.expect("a text")).collect().await;
        assert_eq!(echoed, ["echo a", "echo b"], "{kind}");
    }
}

#[tokio::test]
async fn each_message_is_answered_before_the_next_is_sent() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        let (sender, messages) = mpsc::channel::<String>(1);
        let messages = stream::unfold(messages, |mut messages| async { Some((messages.recv().await?, messages)) });
        sender.send("0".to_owned()).await.expect("the call reads");
        let answers = caller.streaming(Request::new(messages), method("Each"), Text);
        let mut answers = timeout(LIMIT, answers).await.expect("a head before the end").expect("a stream").into_inner();
        for number in 0..20 {
            let answer = timeout(LIMIT, answers.message()).await.expect("an answer before the end").expect("no error");
            assert_eq!(answer, Some(format!("echo {number}")), "{kind}");
            sender.send((number + 1).to_string()).await.expect("the call reads");
        }
        drop(sender);
        assert_eq!(answers.message().await.expect("no error"), Some("echo 20".to_owned()), "{kind}");
        assert_eq!(answers.message().await.expect("a status"), None, "{kind}");
    }
}

#[tokio::test]
async fn errors_and_what_belongs_to_them_arrive() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        let refused = unary(&mut caller, "Refuse", "x").await.expect_err("it refuses");
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not now"), "{kind}");
        assert_eq!(refused.metadata().get("x-detail").expect("a detail"), "spelled out", "{kind}");
        assert_eq!(unary(&mut caller, "Nothing", "x").await.expect_err("no method").code(), Code::Unimplemented);
        caller.ready().await.expect("a connection");
        let broken = caller.server_streaming(Request::new("x".to_owned()), method("Midway"), Text).await;
        let mut broken = broken.expect("a stream").into_inner();
        assert_eq!(broken.message().await.expect("a message").as_deref(), Some("0"), "{kind}");
        assert_eq!(broken.message().await.expect("a message").as_deref(), Some("1"), "{kind}");
        let status = broken.message().await.expect_err("it fails");
        assert_eq!((status.code(), status.message()), (Code::Aborted, "half way"), "{kind}");
    }
}

#[tokio::test]
async fn deadline_and_metadata_reach_the_endpoint() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        let mut request = Request::new(String::new());
        request.set_timeout(Duration::from_secs(7));
        request.metadata_mut().insert("x-own", "value".parse().expect("a value"));
        let answer = caller.unary(request, method("Metadata"), Text).await.expect("an answer").into_inner();
        assert_eq!(answer, "timeout 7000000u te trailers own value", "{kind}");
    }
}

#[tokio::test]
async fn a_call_given_up_ends_at_the_endpoint() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for (index, kind) in KINDS.into_iter().enumerate() {
        let mut caller = caller(&edge, kind).await;
        let ticks = caller.server_streaming(Request::new(String::new()), method("Endless"), Text).await;
        let mut ticks = ticks.expect("a stream").into_inner();
        assert_eq!(ticks.message().await.expect("a message").as_deref(), Some("tick"));
        assert_eq!(origin.cancelled(), index, "{kind}: it goes on");
        drop(ticks);
        wait_for("the end at the endpoint", LIMIT, || (origin.cancelled() == index + 1).then_some(())).await;
        assert_eq!(unary(&mut caller, "Each", "after").await.expect("the connection stays"), "echo after", "{kind}");
    }
}

#[tokio::test]
async fn large_messages_pass() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        let large = "m".repeat(3 << 20);
        let answer = unary(&mut caller, "Each", &large).await.expect("an answer");
        assert!(answer == format!("echo {large}"), "{kind}: {} bytes came back", answer.len());
    }
}

#[tokio::test]
async fn our_own_refusals_speak_grpc() {
    let origin = GrpcOrigin::start().await;
    let edge = edge_before(&origin).await;
    let nobody = Edge::start(site(format!("127.0.0.1:{}", free_port(&Default::default())), "")).await;
    for kind in KINDS {
        let mut caller = caller(&edge, kind).await;
        let lost = caller.unary(Request::new(String::new()), "/lost/".parse().expect("a path"), Text).await;
        let lost = lost.expect_err("no route");
        assert_eq!(lost.code(), Code::Unimplemented, "{kind}: {lost:?}");
        assert_eq!(lost.metadata().get("x-tidegate-reason").expect("a reason"), "no_route", "{kind}");
        caller.ready().await.expect("a connection");
        let large = caller.unary(Request::new("m".repeat(2_000)), "/small/Each".parse().expect("a path"), Text).await;
        let large = large.expect_err("too large");
        assert_eq!(large.code(), Code::ResourceExhausted, "{kind}: {large:?}");
        let mut caller = client(kind, nobody.address(kind.listener())).await;
        for _ in 0..4 {
            // First the connect that fails, then the endpoint that is out.
            let gone = unary(&mut caller, "Each", "x").await.expect_err("nobody is there");
            assert_eq!(gone.code(), Code::Unavailable, "{kind}: {gone:?}");
            assert!(gone.metadata().get("x-tidegate-reason").is_some(), "{kind}: {gone:?}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_dies_or_keeps_silent_is_no_success() {
    for kind in KINDS {
        let origin = GrpcOrigin::start().await;
        let edge = Edge::start(site(origin.address(), ", timeouts: { head: 1s, read: 1s }")).await;
        let mut caller = caller(&edge, kind).await;
        let silent = unary(&mut caller, "Silent", "x").await.expect_err("nothing comes");
        assert_ne!(silent.code(), Code::Ok, "{kind}");
        caller.ready().await.expect("the connection stays");
        let ticks = caller.server_streaming(Request::new(String::new()), method("Endless"), Text).await;
        let mut ticks = pin!(ticks.expect("a stream").into_inner());
        assert!(ticks.next().await.expect("a message").is_ok());
        drop(origin);
        let last = async { while let Some(Ok(_)) = ticks.next().await {} };
        timeout(LIMIT, last).await.expect("an end");
        let after = unary(&mut caller, "Each", "x").await.expect_err("the endpoint is gone");
        assert_eq!(after.code(), Code::Unavailable, "{kind}: {after:?}");
    }
}

const LIMIT: Duration = Duration::from_secs(15);
