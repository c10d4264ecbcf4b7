//! Orders of an operator, passed on to the supervisor once they make sense.

use super::WorkerBridge;
use crate::admin::order::{NotTaken, Order, Scale};
use crate::admin::view::{Ordered, OrderedWorker};
use std::sync::PoisonError;
use tidegate_supervisor::{Command, PoolStatus, WorkerStatus};

impl WorkerBridge {
    /// Passes an order on.
    ///
    /// # Errors
    /// When it names what is not there.
    pub(crate) fn order(&self, order: &Order) -> Result<Ordered, NotTaken> {
        let (upstream, slot) = match order {
            Order::Restart { upstream, slot } => (upstream, *slot),
            Order::Drain { upstream, slot } => (upstream, Some(*slot)),
            Order::Deploy { upstream } | Order::Scale { upstream, .. } => (upstream, None),
        };
        let pool = self.group(upstream)?;
        let concerned: Vec<u32> = match slot {
            Some(slot) => vec![existing(&pool, slot)?],
            None => pool.slots.clone(),
        };
        let workers = match order {
            Order::Deploy { .. } | Order::Scale { .. } => Vec::new(),
            _ => concerned.iter().map(|slot| ordered(&pool, *slot)).collect(),
        };
        let last_event = self.journal.last();
        let deploy = matches!(order, Order::Deploy { .. }).then(|| self.next_deploy());
        for command in commands(order, &concerned, deploy) {
            tracing::info!(?command, "order about workers");
            self.send(command);
        }
        Ok(Ordered { upstream: upstream.clone(), workers, target: pool.target, last_event, deploy })
    }

    /// One worker more or less in every group.
    pub(crate) fn scale_all(&self, by: i32) {
        for pool in self.groups() {
            self.send(Command::ChangeCount { pool: pool.name.to_string(), by });
        }
    }

    /// Groups of workers that the configuration has, by name.
    pub(crate) fn groups(&self) -> Vec<PoolStatus> {
        let Some(handle) = self.handle.get() else { return Vec::new() };
        let wanted = self.pools.lock().unwrap_or_else(PoisonError::into_inner).wanted.clone();
        handle.status().iter().filter(|pool| wanted.contains(pool.name.as_ref())).cloned().collect()
    }

    /// The group of that name.
    ///
    /// # Errors
    /// When there is none; tells which there are.
    pub(crate) fn group(&self, name: &str) -> Result<PoolStatus, NotTaken> {
        let groups = self.groups();
        if let Some(group) = groups.iter().find(|group| *group.name == *name) {
            return Ok(group.clone());
        }
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_ref()).collect();
        let there =
            if names.is_empty() { "no upstream has any".to_owned() } else { format!("they are: {}", names.join(", ")) };
        Err(NotTaken::NotThere(format!("\"{name}\" is no upstream with workers; {there}")))
    }
}

/// A slot that there is.
fn existing(pool: &PoolStatus, slot: u32) -> Result<u32, NotTaken> {
    if pool.slots.contains(&slot) {
        return Ok(slot);
    }
    let slots: Vec<String> = pool.slots.iter().map(ToString::to_string).collect();
    let there = if slots.is_empty() { "it has none now".to_owned() } else { format!("they are: {}", slots.join(", ")) };
    Err(NotTaken::NotThere(format!("upstream \"{}\" has no slot {slot}; {there}", pool.name)))
}

/// The worker of a slot that would stay without the order.
fn ordered(pool: &PoolStatus, slot: u32) -> OrderedWorker {
    let stays = |worker: &&WorkerStatus| worker.id.slot == slot && worker.state.is_staying();
    let worker = pool.workers.iter().filter(stays).max_by_key(|worker| worker.id.spawn);
    OrderedWorker { slot, spawn: worker.map(|worker| worker.id.spawn), pid: worker.and_then(|worker| worker.pid) }
}

fn commands(order: &Order, slots: &[u32], deploy: Option<u64>) -> Vec<Command> {
    match order {
        Order::Restart { upstream, .. } => {
            slots.iter().map(|slot| Command::RestartWorker { pool: upstream.clone(), slot: *slot }).collect()
        }
        Order::Drain { upstream, slot } => vec![Command::DrainWorker { pool: upstream.clone(), slot: *slot }],
        Order::Deploy { upstream } => {
            deploy.into_iter().map(|id| Command::Deploy { pool: upstream.clone(), id }).collect()
        }
        Order::Scale { upstream: pool, to } => vec![match *to {
            Scale::To(count) => Command::SetCount { pool: pool.clone(), count },
            Scale::By(by) => Command::ChangeCount { pool: pool.clone(), by },
            Scale::File => Command::ReleaseCount { pool: pool.clone() },
        }],
    }
}
