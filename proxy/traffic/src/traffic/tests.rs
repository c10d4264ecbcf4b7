//! A reload carries pools over, and changes nothing before it is accepted.

use super::*;
use crate::fixtures::{model, proxy, route, servers, site, upstream};
use crate::pool::Expectation;
use crate::pool::endpoint::WorkerKey;

fn one(upstreams: Vec<Upstream>) -> Model {
    model(vec![site("s", &["h"], vec![route("/", proxy("app"))])], upstreams)
}

#[test]
fn pools_are_carried_over_by_name() {
    let old_model = one(vec![upstream("app", servers(&[(1, 1)])), upstream("zoo", servers(&[(5, 1)]))]);
    let old = Traffic::build(&old_model, None, &Identities::default());
    let kept = old.pools[0].endpoints();
    let mut changed = upstream("app", servers(&[(2, 1), (1, 3)]));
    changed.idle_connections = 99;
    let new_model = one(vec![upstream("aaa", servers(&[(9, 1)])), changed]);
    let new = Traffic::build(&new_model, Some(&old), &Identities::default());

    assert!(Arc::ptr_eq(old.pool_named("app").unwrap(), new.pool_named("app").unwrap()));
    assert!(new.pool_named("zoo").is_none());
    assert_eq!(old.pools[0].endpoints().len(), 1, "a reload that is refused has changed nothing");
    assert_eq!(old.upstream(PoolId(0)).unwrap().1.idle_connections, 8);
    assert_eq!(new.upstream(PoolId(1)).unwrap().1.idle_connections, 99);

    for _ in 0..2 {
        new.commit(&new_model);
        let endpoints = new.pools[1].endpoints();
        assert_eq!(endpoints.len(), 2);
        assert!(Arc::ptr_eq(&endpoints[1], &kept[0]), "the same address is the same endpoint");
        assert_eq!(endpoints[1].weight(), 3);
    }
    let mut ids: Vec<_> =
        new.pools.iter().chain(&old.pools).flat_map(|pool| pool.endpoints()).map(|e| e.id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "names are unique over all pools");
}

/// A model whose only upstream is spoken to like this.
fn spoken_to(source: EndpointSource, change: impl FnOnce(&mut Upstream)) -> Model {
    let mut app = upstream("app", source);
    change(&mut app);
    one(vec![app])
}

#[test]
fn a_pool_that_is_spoken_to_otherwise_is_another_one() {
    let old_model = spoken_to(servers(&[(1, 1)]), |_| {});
    let old = Traffic::build(&old_model, None, &Identities::default());
    let tls = Identities { transports: [("app".to_owned(), TransportId(1))].into(), ..Identities::default() };
    let rows: [(&str, Model, &Identities, bool); 5] = [
        ("servers", spoken_to(servers(&[(2, 1)]), |_| {}), &Identities::default(), true),
        ("time", spoken_to(servers(&[(1, 1)]), |app| app.idle_connections = 9), &Identities::default(), true),
        ("tls", spoken_to(servers(&[(1, 1)]), |_| {}), &tls, false),
        (
            "protocol",
            spoken_to(servers(&[(1, 1)]), |app| app.protocol = UpstreamProtocol::H2),
            &Identities::default(),
            false,
        ),
        (
            "header",
            spoken_to(servers(&[(1, 1)]), |app| app.proxy_protocol = Some(ProxyHeader::V1)),
            &Identities::default(),
            false,
        ),
    ];
    for (what, model, identities, kept) in rows {
        let new = Traffic::build(&model, Some(&old), identities);
        assert_eq!(Arc::ptr_eq(&old.pools[0], &new.pools[0]), kept, "{what}");
    }
    let model = spoken_to(servers(&[(2, 1)]), |_| {});
    let new = Traffic::build(&model, Some(&old), &tls);
    new.commit(&model);
    assert_eq!(*old.pools[0].endpoints()[0].address(), crate::fixtures::tcp(1), "the old requests' servers stay");
    assert_eq!(*new.pools[0].endpoints()[0].address(), crate::fixtures::tcp(2));
}

#[test]
fn workers_pass_to_the_pool_that_speaks_to_them_otherwise() {
    let workers = || EndpointSource::Workers(crate::fixtures::worker_spec());
    let key = |slot| WorkerKey { slot, spawn: 1 };
    let old = Traffic::build(&spoken_to(workers(), |_| {}), None, &Identities::default());
    let kept = old.pools[0].add_worker(key(0), 10, crate::fixtures::tcp(1));
    old.pools[0].add_worker(key(1), 11, crate::fixtures::tcp(2));
    old.pools[0].drain_worker(key(1), Box::new(|| {}));
    old.pools[0].set_expecting(Expectation::Nothing);
    let model = spoken_to(workers(), |app| app.proxy_protocol = Some(ProxyHeader::V2));
    let new = Traffic::build(&model, Some(&old), &Identities::default());
    assert!(new.pools[0].endpoints().is_empty(), "a reload that is refused has changed nothing");
    // A worker that comes before the change is accepted is not lost.
    let late = old.pools[0].add_worker(key(2), 12, crate::fixtures::tcp(3));
    for _ in 0..2 {
        new.commit(&model);
        let ids: Vec<_> = new.pools[0].endpoints().iter().map(|endpoint| endpoint.id()).collect();
        assert_eq!(ids, [kept.id(), late.id()]);
        assert_eq!(new.pools[0].status().expectation, Expectation::Nothing);
    }
    assert_eq!(old.pools[0].endpoints().len(), 3, "requests of before finish there");
}

#[test]
fn routes_point_at_their_pools() {
    let model = one(vec![upstream("zoo", servers(&[])), upstream("app", servers(&[])), upstream("bar", servers(&[]))]);
    let traffic = Traffic::build(&model, None, &Identities::default());
    let id = traffic.router.routes()[0].upstream.unwrap();
    assert_eq!(traffic.upstream(id).unwrap().0.name().as_ref(), "app");
    assert!(traffic.upstream(PoolId(7)).is_none());
}
