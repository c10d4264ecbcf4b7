//! Time of the HTTP/1.1 codec: reading and writing heads, finding the end of bodies.

use divan::{Bencher, black_box, counter::BytesCount};
use tidegate_http1::{
    Asked, BodyDecoder, BodyEncoder, BodyFraming, HeadLimits, HeadWriter, ParsePolicy, RequestHead, ResponseHead,
};

fn main() {
    divan::main();
}

/// A load generator's request, a browser's, and an API client's upload.
#[divan::bench(args = ["small", "browser", "upload"])]
fn read_request(bencher: Bencher<'_, '_>, kind: &str) {
    let bytes = request(kind);
    let limits = HeadLimits::default();
    let mut head = RequestHead::new();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        head.clear();
        head.parse(black_box(bytes), &limits, ParsePolicy::Strict).is_ok_and(|length| length.is_some())
    });
    head.clear();
    assert_eq!(
        head.parse(bytes, &limits, ParsePolicy::Strict),
        Ok(Some(bytes.len())),
        "the codec must accept what is measured"
    );
}

/// The same head in pieces of 16 bytes: work done must not be repeated.
#[divan::bench]
fn read_request_in_pieces(bencher: Bencher<'_, '_>) {
    let bytes = request("browser");
    let limits = HeadLimits::default();
    let mut head = RequestHead::new();
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        head.clear();
        (16..bytes.len() + 16)
            .step_by(16)
            .all(|end| head.parse(&bytes[..end.min(bytes.len())], &limits, ParsePolicy::Strict).is_ok())
    });
}

/// An application server's answer.
#[divan::bench]
fn read_response(bencher: Bencher<'_, '_>) {
    let limits = HeadLimits::default();
    let mut head = ResponseHead::new();
    bencher.counter(BytesCount::new(RESPONSE.len())).bench_local(|| {
        head.clear();
        head.parse(black_box(RESPONSE), &limits, Asked::Other, ParsePolicy::Strict).is_ok_and(|length| length.is_some())
    });
    head.clear();
    assert_eq!(head.parse(RESPONSE, &limits, Asked::Other, ParsePolicy::Strict), Ok(Some(RESPONSE.len())));
}

/// What forwarding a browser's request writes: its fields, and those a proxy adds.
#[divan::bench]
fn forward_request(bencher: Bencher<'_, '_>) {
    let bytes = request("browser");
    let mut head = RequestHead::new();
    head.parse(bytes, &HeadLimits::default(), ParsePolicy::Strict).expect("a sound head");
    let mut out = Vec::with_capacity(4096);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        out.clear();
        let mut writer = HeadWriter::new(&mut out);
        writer.request_line(head.method(bytes), head.path_and_query(bytes));
        for field in head.forwardable(bytes) {
            writer.forward(&field);
        }
        writer.field("X-Forwarded-For", "192.0.2.7").field("X-Forwarded-Proto", "https").end();
        black_box(out.len())
    });
}

/// The framing of 64 KiB of body in chunks of so many bytes. The data itself is not touched, so there is no rate.
#[divan::bench(args = [64, 4096, 65536])]
fn read_chunked(bencher: Bencher<'_, '_>, chunk: usize) {
    let mut bytes = Vec::new();
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    for part in vec![b'x'; 65536].chunks(chunk) {
        encoder.encode(part, &mut bytes).expect("chunked bodies have no length to break");
    }
    encoder.finish(&mut bytes).expect("chunked bodies may end anywhere");
    bencher.bench(|| {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
        let (mut at, mut data) = (0, 0);
        while !decoder.is_done() {
            let decoded = decoder.decode(black_box(&bytes[at..])).expect("what the encoder wrote");
            at += decoded.consumed;
            data += decoded.data.len();
        }
        assert_eq!(data, 65536);
    });
}

fn request(kind: &str) -> &'static [u8] {
    match kind {
        "small" => b"GET /tiny HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: h2load nghttp2/1.52.0\r\n\r\n",
        "browser" => BROWSER,
        _ => UPLOAD,
    }
}

const BROWSER: &[u8] = b"GET /articles/2026/a-long-title-of-an-article?utm_source=feed&page=2 HTTP/1.1\r\n\
Host: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.com/articles/2026/\r\n\
Connection: keep-alive\r\n\
Cookie: session=6f1d2c3b4a5968778695a4b3c2d1e0f0; theme=dark; consent=necessary%2Cstatistics; seen=1795230807\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
If-None-Match: \"5f3c-62a7b1c0\"\r\n\
Priority: u=0, i\r\n\r\n";

const UPLOAD: &[u8] = b"POST /api/v1/files HTTP/1.1\r\n\
Host: api.example.com\r\n\
Authorization: Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl\r\n\
Content-Type: application/octet-stream\r\n\
Content-Length: 1048576\r\n\
Accept: application/json\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
date: Sat, 21 Nov 2026 03:09:42 GMT\r\n\
server: uvicorn\r\n\
content-length: 1234\r\n\
content-type: application/json\r\n\
cache-control: private, max-age=0\r\n\
vary: Accept-Encoding\r\n\
etag: \"5f3c-62a7b1c0\"\r\n\r\n";
