//! What the admin endpoint asks of the program.

use std::sync::Arc;

use async_trait::async_trait;

use super::follow::Feed;
use super::order::{NotTaken, Order};
use super::view::{Costs, Deploys, Ordered, Plans, Readiness, ReloadReport, Status, Workers};

/// The program, as the admin endpoint sees it. Called on the control runtime; a method may be dropped at any await when
/// the client leaves, so a reload must go on by itself.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// The state of everything.
    async fn status(&self) -> Status;
    /// The text of `/metrics`.
    async fn metrics(&self) -> String;
    /// Whether requests are served as the configuration says.
    async fn readiness(&self) -> Readiness;
    /// Reads the configuration again; returns when it is in use or refused.
    async fn reload(&self) -> ReloadReport;
    /// Starts a graceful shutdown and returns at once.
    async fn stop(&self);
    /// The workers of one upstream, or of all.
    async fn workers(&self, upstream: Option<&str>) -> Result<Workers, NotTaken>;
    /// What requests cost the workers of one upstream, or of all that want to know.
    async fn costs(&self, upstream: Option<&str>) -> Result<Costs, NotTaken>;
    /// Gives an order about workers, and returns once it is taken.
    async fn order(&self, order: Order) -> Result<Ordered, NotTaken>;
    /// The last deploys of one upstream, or of all.
    fn deploys(&self, upstream: Option<&str>) -> Result<Deploys, NotTaken>;
    /// What a deploy of one upstream, or of all, would do now.
    async fn plans(&self, upstream: Option<&str>) -> Result<Plans, NotTaken>;
    /// What happens to the workers of one upstream, or of all.
    fn events(&self, upstream: Option<&str>) -> Result<Arc<dyn Feed>, NotTaken>;
    /// Lines that the workers of a slot, of one upstream, or all of them print.
    fn logs(&self, upstream: Option<&str>, slot: Option<u32>) -> Result<Arc<dyn Feed>, NotTaken>;
}
