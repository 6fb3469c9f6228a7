//! A host that is connected when first needed, kept for the whole run, and connected
//! again, once, when it went away between two tasks (its machine was reset).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::agent_link::AgentLink;
use super::transport::{Remote, RemoteError, RemoteFuture};
use crate::base::wire::TaskRequest;

/// A link that was silent for longer is asked for a sign of life before it gets a task:
/// a machine set back to a snapshot answers nothing, and a task sent there would count as
/// begun. Shorter than any reset takes.
const PROBE_AFTER: Duration = Duration::from_millis(500);

/// How long the sign of life may take: a `ping` takes 2 ms under TCG, a busy guest more.
const PROBE_WITHIN: Duration = Duration::from_secs(3);

pub type ConnectFuture<'a> =
    Pin<Box<dyn Future<Output = Result<AgentLink, RemoteError>> + Send + 'a>>;

/// Makes links to one host's agent.
pub trait Connect: Send + Sync + fmt::Debug {
    fn connect(&self) -> ConnectFuture<'_>;
}

/// An agent somewhere, as a [`Remote`].
#[derive(Debug)]
pub struct AgentRemote<C> {
    connect: C,
    /// Held while connecting, so that tasks that come at once share one connection.
    link: Mutex<Option<Arc<AgentLink>>>,
}

impl<C: Connect> AgentRemote<C> {
    pub fn new(connect: C) -> Self {
        Self {
            connect,
            link: Mutex::new(None),
        }
    }

    async fn link(&self) -> Result<Arc<AgentLink>, RemoteError> {
        let mut kept = self.link.lock().await;
        if let Some(link) = kept.as_ref()
            && answers(link).await
        {
            return Ok(Arc::clone(link));
        }
        // The old session goes before the new one comes.
        *kept = None;
        let link = Arc::new(self.connect.connect().await?);
        *kept = Some(Arc::clone(&link));
        Ok(link)
    }
}

async fn answers(link: &AgentLink) -> bool {
    if !link.is_alive() {
        return false;
    }
    if link.silent_for() < PROBE_AFTER {
        return true;
    }
    let ping = TaskRequest {
        module: "ping".to_owned(),
        ..TaskRequest::default()
    };
    matches!(timeout(PROBE_WITHIN, link.run(ping, &[])).await, Ok(Ok(_)))
}

impl<C: Connect> Remote for AgentRemote<C> {
    fn run(&self, request: TaskRequest, body: Vec<u8>) -> RemoteFuture<'_> {
        Box::pin(async move { self.link().await?.run(request, &body).await })
    }

    fn reset(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async { *self.link.lock().await = None })
    }
}
