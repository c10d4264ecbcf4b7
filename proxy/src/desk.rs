//! Where the admin endpoint is served: moved by a reload that changes its address or token.

use crate::admin::control::Control;
use crate::admin::guard::Guard;
use crate::admin::server;
use crate::admin::socket::AdminSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_config::model::{Address, Admin};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the program's end waits for who reads an answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The admin endpoint that is served now.
pub(crate) struct Desk {
    runtime: Handle,
    /// Guards the endpoint in use; taken by start, reloads and stop only.
    served: Mutex<Option<Served>>,
}

struct Served {
    admin: Admin,
    guard: Guard,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// An endpoint that was bound for a configuration that is not in use yet.
pub(crate) struct PreparedDesk {
    fresh: Option<AdminSocket>,
}

impl Desk {
    /// Serves nothing yet; `runtime` will carry it.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, served: Mutex::new(None) }
    }

    /// Binds what `admin` needs beyond what is bound.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound; names it.
    pub(crate) fn prepare(&self, admin: &Admin) -> Result<PreparedDesk, String> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.as_ref().is_some_and(|served| served.admin.listen == admin.listen) {
            return Ok(PreparedDesk { fresh: None });
        }
        AdminSocket::bind(&admin.listen)
            .map(|socket| PreparedDesk { fresh: Some(socket) })
            .map_err(|error| error.to_string())
    }

    /// Serves at a new address from now on, and ends the old one after its answers. Nothing can fail.
    pub(crate) fn apply(&self, admin: &Admin, prepared: PreparedDesk, control: &Arc<dyn Control>) {
        let Some(socket) = prepared.fresh else { return self.replace_token(admin) };
        let (stop, mut stopped) = watch::channel(false);
        let guard = match (&admin.listen, &admin.token) {
            (Address::Tcp(_), Some(token)) => Guard::tcp(token.clone()),
            // Compile lets no TCP endpoint through without a token.
            (Address::Tcp(_), None) | (Address::Unix(_), _) => Guard::unix(admin.token.clone()),
        };
        let served_guard = guard.clone();
        let control = control.clone();
        let task = self.runtime.spawn(async move {
            // The error says that nobody can stop it any more, which ends it as well.
            let shutdown = async { drop(stopped.wait_for(|stopped| *stopped).await) };
            if let Err(error) = server::serve(socket, control, guard, shutdown).await {
                tracing::error!(%error, "admin endpoint ended");
            }
        });
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = served.replace(Served { admin: admin.clone(), guard: served_guard, stop, task }) {
            // The old server may have ended by itself.
            let _ = old.stop.send(true);
        }
    }

    fn replace_token(&self, admin: &Admin) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = &mut *served {
            served.guard.replace_token(admin.token.clone());
            served.admin = admin.clone();
        }
    }

    /// Ends it after its answers, if they end soon.
    pub(crate) async fn close(&self) {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(served) = served {
            let _ = served.stop.send(true);
            let _ = tokio::time::timeout(LAST_ANSWERS, served.task).await;
        }
    }
}
