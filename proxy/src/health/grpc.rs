//! gRPC's health protocol: `grpc.health.v1.Health/Check`, whose two messages are small enough to be written by hand.

use super::http::exchange;
use crate::edge::socket::Socket;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};

/// Most of an answer that is read.
const MOST: usize = 1024;
/// `ServingStatus::SERVING`
const SERVING: u64 = 1;

/// Asks for a service; why it does not serve.
pub(super) async fn ask(socket: Socket, service: &str, host: &str) -> Result<(), String> {
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| format!("request: {error}"))?;
    exchange(socket, request, Some(message(service)), async |response| {
        if response.status() != 200 {
            return Err(format!("status {}", response.status().as_u16()));
        }
        judge_code(response.headers())?;
        let mut stream = response.into_body();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            body.extend_from_slice(&data.map_err(|error| format!("answer: {error}"))?);
            if body.len() > MOST {
                return Err("answer: too long".to_owned());
            }
        }
        let trailers = stream.trailers().await.map_err(|error| format!("answer: {error}"))?;
        judge_code(&trailers.unwrap_or_default())?;
        match serving_status(&body) {
            Some(SERVING) => Ok(()),
            Some(2) => Err("NOT_SERVING".to_owned()),
            Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
            Some(_) => Err("UNKNOWN".to_owned()),
            None => Err("answer: no message of the health protocol".to_owned()),
        }
    })
    .await
}

/// The code of an answer, where it has come; 0 is fine.
fn judge_code(fields: &HeaderMap) -> Result<(), String> {
    match fields.get("grpc-status").map(|code| code.as_bytes()) {
        None | Some(b"0") => Ok(()),
        Some(b"5") => Err("the service is not known there (gRPC status 5)".to_owned()),
        Some(code) => Err(format!("gRPC status {}", String::from_utf8_lossy(code))),
    }
}

/// `HealthCheckRequest { string service = 1; }` behind its length.
fn message(service: &str) -> Bytes {
    let mut request = BytesMut::new();
    if !service.is_empty() {
        request.put_u8(0x0a);
        put_varint(&mut request, service.len() as u64);
        request.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(request.len()).unwrap_or(u32::MAX));
    message.put_slice(&request);
    message.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`; a status that is not written is 0.
fn serving_status(message: &[u8]) -> Option<u64> {
    let (head, mut rest) = message.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    // Compressed answers were not asked for.
    if head[0] != 0 || rest.len() != length {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_protobuf() {
        assert_eq!(message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(300);
        assert_eq!(message(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        let rows: [(&[u8], Option<u64>); 9] = [
            (&[0, 0, 0, 0, 2, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0, 0, 2, 0x12, 0xff], None),
            (&[], None),
        ];
        for (bytes, status) in rows {
            assert_eq!(serving_status(bytes), status, "{bytes:?}");
        }
    }
}
