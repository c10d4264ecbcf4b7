//! Keys of TLS with servers. Each value has an upstream, and a site that forwards to it.

use std::sync::Arc;

use tidegate_tests::{
    authority::Authority,
    client::Ask,
    edge::{Edge, Home},
    site::Site,
    tls_origin::TlsOrigin,
};

use super::{Place, Row, check, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "upstreams.<name>.tls.ca",
        values: [
            "servers: [{ address: \"@open@\" }], tls: { server_name: one.example, ca: \"@dir@/right.pem\" }",
            "servers: [{ address: \"@open@\" }], tls: { server_name: one.example, ca: \"@dir@/wrong.pem\" }",
        ],
        observe: |place| Box::pin(status(place)),
        expected: ["200", "502"],
    },
    Row {
        key: "upstreams.<name>.tls.server_name",
        values: [
            "servers: [{ address: \"@open@\" }], tls: { ca: \"@dir@/right.pem\" }",
            "servers: [{ address: \"@open@\" }], tls: { ca: \"@dir@/right.pem\", server_name: one.example }",
        ],
        observe: |place| Box::pin(status(place)),
        expected: ["502", "200"],
    },
    Row {
        key: "upstreams.<name>.tls.verify",
        values: [
            "servers: [{ address: \"@open@\" }], tls: { ca: \"@dir@/wrong.pem\", verify: true }",
            "servers: [{ address: \"@open@\" }], tls: { verify: false }",
        ],
        observe: |place| Box::pin(status(place)),
        expected: ["502", "200"],
    },
    Row {
        key: "upstreams.<name>.tls.certificate",
        values: [ASKING, KNOWN],
        observe: |place| Box::pin(status(place)),
        expected: ["502", "200"],
    },
    Row {
        key: "upstreams.<name>.tls.key",
        values: [ASKING, KNOWN],
        observe: |place| Box::pin(status(place)),
        expected: ["502", "200"],
    },
];

const ASKING: &str = "servers: [{ address: \"@asking@\" }], tls: { server_name: one.example, ca: \"@dir@/right.pem\" }";
const KNOWN: &str = "servers: [{ address: \"@asking@\" }], tls: { server_name: one.example, ca: \"@dir@/right.pem\", \
                     certificate: \"@dir@/known.pem\", key: \"@dir@/known.key\" }";

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_upstream_tls_act() {
    let right = Authority::new("right");
    let identity = right.issue(&["one.example"]);
    let (open, asking) = (TlsOrigin::start(&identity, None).await, TlsOrigin::start(&identity, Some(&right)).await);
    let home = Home::new(&site().with("open", open.address()).with("asking", asking.address()));
    right.write(&home.path().join("right.pem"));
    Authority::new("wrong").write(&home.path().join("wrong.pem"));
    right.issue(&["us"]).write(home.path(), "known");
    let edge = Arc::new(Edge::launch(home).ready().await);
    check(ROWS, 8, Place::of(&edge)).await;
}

fn site() -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            sites
                .push_str(&format!("  - {{ hosts: [{name}.test.example], routes: [{{ path: /, proxy: {name} }}] }}\n"));
            upstreams.push_str(&format!("  {name}: {{ {} }}\n", value(row, index, side)));
        }
    }
    let listener = "{ name: plain, address: \"127.0.0.1:@port:plain@\" }";
    Site::new(format!("listeners: [{listener}]\nsites:\n{sites}\nupstreams:\n{upstreams}"))
}

async fn status(place: Place) -> String {
    place.ask(Ask::get("/")).await.status.as_u16().to_string()
}
