//! A reload carries pools over, and changes nothing before it is accepted.

use super::*;
use crate::fixtures::{model, proxy, route, servers, site, upstream};

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

#[test]
fn routes_point_at_their_pools() {
    let model = one(vec![upstream("zoo", servers(&[])), upstream("app", servers(&[])), upstream("bar", servers(&[]))]);
    let traffic = Traffic::build(&model, None, &Identities::default());
    let id = traffic.router.routes()[0].upstream.unwrap();
    assert_eq!(traffic.upstream(id).unwrap().0.name().as_ref(), "app");
    assert!(traffic.upstream(PoolId(7)).is_none());
}
