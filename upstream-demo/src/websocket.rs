//! `/ws`: gives every text and binary message back, and closes in good manners.

use futures_util::{SinkExt, StreamExt};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::{body::Body, server::Session};

/// Answers the handshake (RFC 6455 section 4.2.2) and echoes in a task of its own.
/// A request that is no handshake gets 426 and is told what is missing.
pub(crate) fn upgrade(session: &Session, request: Request<Incoming>) -> Response<Body> {
    let Some(accept) = accept_key(request.headers()) else { return refusal() };
    let upgrading = hyper::upgrade::on(request);
    let session = session.clone();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            // How a conversation ended is the peer's business; a broken one is not ours to report.
            let _ = echo(upgraded, session).await;
        }
    });
    let mut response = Response::new(Body::whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "upgrade".parse().expect("a constant"));
    headers.insert(UPGRADE, "websocket".parse().expect("a constant"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is a header value"));
    response
}

async fn echo(upgraded: Upgraded, mut session: Session) -> Result<(), Error> {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = session.stopping() => break,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await?,
            // The library answers pings and closes by itself.
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
    let away = CloseFrame { code: CloseCode::Away, reason: "the worker stops".into() };
    socket.close(Some(away)).await?;
    while let Some(message) = socket.next().await {
        message?;
    }
    Ok(())
}

fn accept_key(headers: &HeaderMap) -> Option<String> {
    let lists = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    let asked = lists(CONNECTION, "upgrade") && lists(UPGRADE, "websocket") && lists(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    Some(derive_accept_key(key.as_bytes()))
}

fn refusal() -> Response<Body> {
    let text = "this path speaks WebSocket (RFC 6455, version 13): send the upgrade headers\n";
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(UPGRADE, "websocket".parse().expect("a constant"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, "13".parse().expect("a constant"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn the_key_of_the_rfc_gets_the_answer_of_the_rfc() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        assert_eq!(accept_key(&asked).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn half_a_handshake_is_none() {
        assert_eq!(accept_key(&headers(&[("upgrade", "websocket"), ("sec-websocket-key", "x")])), None);
        assert_eq!(accept_key(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])), None);
    }
}
