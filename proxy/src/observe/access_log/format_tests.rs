//! Tests of the three shapes, and that no client can break out of a line.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::record::{ClientCertificate, UpstreamRecord};
use super::*;
use tidegate_traffic::ClientIdentity;

/// A record with a value for everything but the reason.
fn record<'a>(field: &'a dyn Fn(&str) -> Option<&'a [u8]>) -> Record<'a> {
    Record {
        time: UNIX_EPOCH + Duration::from_millis(971_186_136_250),
        remote_addr: Some([192, 0, 2, 1].into()),
        method: b"GET",
        target: b"/a%20b?q=1",
        path: b"/a b",
        host: b"example.com",
        protocol: "HTTP/1.1",
        scheme: "https",
        status: 200,
        body_bytes_sent: 2326,
        request_body_bytes: 17,
        elapsed: Duration::from_micros(1_042_600),
        request_id: 0xabc,
        upstream: Some(UpstreamRecord {
            name: "app",
            address: "unix:/run/a.sock",
            status: Some(200),
            response_time: Duration::from_millis(41),
            tries: 2,
        }),
        site: "api",
        route: "/",
        reason: None,
        certificate: ClientCertificate::NotShown,
        field,
    }
}

/// A record with these fields, formatted.
fn line_of(format: &AccessFormat, edit: impl FnOnce(&mut Record<'_>), fields: &[(&str, &[u8])]) -> String {
    let fields: HashMap<&str, &[u8]> = fields.iter().copied().collect();
    let field = |name: &str| fields.get(name).copied();
    let mut record = record(&field);
    edit(&mut record);
    let mut line = Vec::new();
    format_line(&mut line, format, &record, &mut Timestamps::default());
    String::from_utf8(line).expect("every format writes UTF-8")
}

fn template(variables: &[AccessVariable]) -> AccessFormat {
    let part =
        |variable: &AccessVariable| [AccessPart::Variable(variable.clone()), AccessPart::Literal("|".to_owned())];
    AccessFormat::Template(variables.iter().flat_map(part).collect())
}

#[test]
fn combined_is_what_nginx_writes() {
    let fields: [(&str, &[u8]); 2] = [("referer", b"http://x/\"y"), ("user-agent", b"curl/8\x1b")];
    assert_eq!(
        line_of(&AccessFormat::Combined, |_| {}, &fields),
        "192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /a%20b?q=1 HTTP/1.1\" 200 2326 \"http://x/\\x22y\" \"curl/8\\x1B\"\n"
    );
    let bad = |record: &mut Record<'_>| {
        (record.method, record.remote_addr, record.status, record.body_bytes_sent) = (b"", None, 400, 0);
    };
    assert_eq!(
        line_of(&AccessFormat::Combined, bad, &[]),
        "unix: - - [10/Oct/2000:13:55:36 +0000] \"-\" 400 0 \"-\" \"-\"\n"
    );
}

#[test]
fn every_variable_has_its_value() {
    use AccessVariable as V;
    let variables = [
        V::RemoteAddr,
        V::RemoteUser,
        V::TimeLocal,
        V::TimeIso8601,
        V::Request,
        V::RequestMethod,
        V::RequestUri,
        V::Uri,
        V::Host,
        V::ServerProtocol,
        V::Scheme,
        V::Status,
        V::BodyBytesSent,
        V::RequestLength,
        V::RequestTime,
        V::RequestId,
        V::UpstreamName,
        V::UpstreamAddr,
        V::UpstreamStatus,
        V::UpstreamResponseTime,
        V::UpstreamTries,
        V::Site,
        V::Route,
        V::Reason,
        V::SslClientVerify,
        V::SslClientSubject,
        V::SslClientSerial,
        V::RequestHeader("x-a".to_owned()),
        V::RequestHeader("x-b".to_owned()),
    ];
    let mapped = |record: &mut Record<'_>| record.remote_addr = Some("::ffff:192.0.2.1".parse().unwrap());
    assert_eq!(
        line_of(&template(&variables), mapped, &[("x-a", b"1 2")]),
        "192.0.2.1|-|10/Oct/2000:13:55:36 +0000|2000-10-10T13:55:36+00:00|GET /a%20b?q=1 HTTP/1.1|GET|/a%20b?q=1|/a b|\
         example.com|HTTP/1.1|https|200|2326|17|1.042|00000000000000000000000000000abc|app|unix:/run/a.sock|200|0.041|2|api|/|\
         -|NONE|-|-|1 2|-|\n"
    );
    let refused = |record: &mut Record<'_>| (record.upstream, record.reason) = (None, Some("no_endpoint"));
    let few = [V::UpstreamName, V::UpstreamAddr, V::UpstreamStatus, V::UpstreamResponseTime, V::Reason];
    assert_eq!(line_of(&template(&few), refused, &[]), "-|-|-|-|no_endpoint|\n");
}

#[test]
fn json_has_the_variables_names_and_leaves_out_what_is_missing() {
    let fields: [(&str, &[u8]); 1] = [("user-agent", b"curl/8")];
    assert_eq!(
        line_of(&AccessFormat::Json, |_| {}, &fields),
        "{\"time\":\"2000-10-10T13:55:36.250Z\",\"remote_addr\":\"192.0.2.1\",\"request_method\":\"GET\",\
         \"request_uri\":\"/a%20b?q=1\",\"uri\":\"/a b\",\"host\":\"example.com\",\"server_protocol\":\"HTTP/1.1\",\
         \"scheme\":\"https\",\"status\":200,\"body_bytes_sent\":2326,\"request_length\":17,\"request_time\":1.042,\
         \"request_id\":\"00000000000000000000000000000abc\",\"site\":\"api\",\"route\":\"/\",\"upstream_name\":\"app\",\
         \"upstream_addr\":\"unix:/run/a.sock\",\"upstream_status\":200,\"upstream_response_time\":0.041,\"upstream_tries\":2,\
         \"http_user_agent\":\"curl/8\"}\n"
    );
}

#[test]
fn a_verified_client_is_named() {
    use AccessVariable as V;
    let someone = ClientIdentity { subject: "CN=some\"one,O=x".into(), serial: "8A0B".into() };
    // A record of any lifetime is to hold it.
    let verified = ClientCertificate::Verified(Box::leak(Box::new(someone)));
    let format = template(&[V::SslClientVerify, V::SslClientSubject, V::SslClientSerial]);
    let of = |format: &AccessFormat, certificate| line_of(format, |record| record.certificate = certificate, &[]);
    assert_eq!(of(&format, verified), "SUCCESS|CN=some\\x22one,O=x|8A0B|\n");
    assert_eq!(of(&format, ClientCertificate::NoTls), "-|-|-|\n");
    let json = of(&AccessFormat::Json, verified);
    assert!(json.contains(r#","ssl_client_s_dn":"CN=some\"one,O=x","ssl_client_serial":"8A0B""#), "{json}");
}

#[test]
fn whatever_a_client_sends_stays_one_line_and_json_stays_json() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[3]
    };
    let all =
        template(&[AccessVariable::Request, AccessVariable::Host, AccessVariable::RequestHeader("referer".to_owned())]);
    for _ in 0..3_000 {
        let mut value = || -> Vec<u8> { (0..byte() % 24).map(|_| byte()).collect() };
        let [method, target, host, agent] = [value(), value(), value(), value()];
        let field = |_: &str| Some(&agent[..]);
        let record = Record { method: &method, target: &target, host: &host, ..record(&field) };
        for format in [&AccessFormat::Combined, &AccessFormat::Json, &all] {
            let mut line = Vec::new();
            format_line(&mut line, format, &record, &mut Timestamps::default());
            let line = String::from_utf8(line).expect("every format writes UTF-8");
            let text = line.strip_suffix('\n').unwrap();
            assert!(!text.chars().any(char::is_control), "{text:?}");
            if *format == AccessFormat::Json {
                let parsed: serde_json::Value = serde_json::from_str(text).expect(text);
                if let Ok(host) = std::str::from_utf8(&host)
                    && !host.is_empty()
                {
                    assert_eq!(parsed["host"], host, "valid text comes back as it was");
                }
            }
        }
    }
}

#[test]
fn times_come_from_the_record() {
    let early = |record: &mut Record<'_>| record.time = SystemTime::UNIX_EPOCH;
    let line = line_of(&template(&[AccessVariable::TimeLocal]), early, &[]);
    assert_eq!(line, "01/Jan/1970:00:00:00 +0000|\n");
}
