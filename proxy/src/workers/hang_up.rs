//! What SIGHUP does about workers that a reload leaves alone.

use super::WorkerBridge;
use crate::admin::order::Order;
use std::collections::BTreeMap;
use tidegate_config::model::{EndpointSource, Model, OnHup};
use tidegate_supervisor::PoolStatus;

/// The last deploy of each upstream, by the number of its generation.
pub(crate) struct Deployed(BTreeMap<String, u64>);

impl WorkerBridge {
    /// Who was deployed last, before a reload.
    pub(crate) fn deployed(&self) -> Deployed {
        let last = |group: &PoolStatus| Some((group.name.to_string(), last_generation(group)?));
        Deployed(self.groups().iter().filter_map(last).collect())
    }

    /// Deploys who is to be deployed by SIGHUP, after the reload that came of it. Whoever that has begun to deploy, or to
    /// start for the first time, is not deployed twice.
    pub(crate) fn deploy_on_hup(&self, before: &Deployed, model: &Model) {
        for group in self.groups() {
            let is_begun = before.0.get(group.name.as_ref()).copied() != last_generation(&group);
            if deploys_on_hup(model, &group.name) && !is_begun {
                // An upstream that a second reload has just taken away needs no deploy.
                let _ = self.order(&Order::Deploy { upstream: group.name.to_string() });
            }
        }
    }
}

fn last_generation(group: &PoolStatus) -> Option<u64> {
    group.deploys.last().map(|deploy| deploy.generation)
}

fn deploys_on_hup(model: &Model, upstream: &str) -> bool {
    match model.upstreams.get(upstream).map(|upstream| &upstream.source) {
        Some(EndpointSource::Workers(spec)) => spec.deploy.on_hup == OnHup::Deploy,
        Some(EndpointSource::Servers(_)) | None => false,
    }
}
