//! A task as somebody else (`become_user`): the agent starts itself once more, which
//! first becomes that user and then does the one task. Nothing of the serving agent,
//! whose threads share one identity, ever changes its user.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use serde_json::{Map, Value};

use super::error::ModuleError;
use super::lifeline::Lifeline;
use super::serve::perform;
use super::work::accounts;
use crate::base::frame::{self, Decoder, FrameError};
use crate::base::wire::{TaskReply, TaskRequest};
use crate::task::accounts::{Accounts, User};
use crate::task::outcome::Refusal;

/// The first argument under which the agent is the helper; the user's name follows.
pub const HELPER_COMMAND: &str = "task";

#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("failed to read the host's accounts")]
    Accounts(#[source] ModuleError),
    #[error("failed to become {user}")]
    Become {
        user: String,
        #[source]
        source: nix::Error,
    },
    #[error("failed to speak with the agent")]
    Pipe(#[source] io::Error),
    #[error("failed to understand the agent")]
    Frame(#[from] FrameError),
    #[error("the agent sent no task")]
    NoTask,
}

/// Has a helper do the task as `user`.
pub fn run_as(
    user: &str,
    request: &TaskRequest,
    body: &[u8],
    lifeline: &Arc<Lifeline>,
) -> Result<Map<String, Value>, ModuleError> {
    let accounts = accounts()?;
    let account = accounts
        .user(user)
        .ok_or_else(|| Refusal::new(format!("become_user: there is no user `{user}`")))?;
    let frame = frame::encode(&own_request(request, account), body)
        .map_err(|error| Refusal::new(format!("failed to pass the task on: {error}")))?;
    let failed = || ModuleError::system(format!("do the task as {user}"));
    let mut child = Command::new("/proc/self/exe")
        .arg0("halab-agent")
        .args([HELPER_COMMAND, user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(failed())?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id is an i32"));
    let adopted = lifeline.adopt(pid);
    let mut stdin = child.stdin.take().expect("the child's stdin is a pipe");
    let mut stdout = child.stdout.take().expect("the child's stdout is a pipe");
    let mut answer = Vec::new();
    let spoken = stdin.write_all(&frame).and_then(|()| {
        drop(stdin);
        stdout.read_to_end(&mut answer)
    });
    adopted.kill();
    let _ = child.wait();
    lifeline.check()?;
    spoken.map_err(failed())?;
    let mut decoder = Decoder::default();
    decoder.push(&answer);
    match decoder.next_frame::<TaskReply>() {
        Ok(Some((reply, _))) => Ok(reply.result),
        _ => Err(Refusal::new(format!("the task ended without an answer as {user}")).into()),
    }
}

/// Returns the request as the helper gets it: nobody to become, the user's environment.
fn own_request(request: &TaskRequest, account: &User) -> TaskRequest {
    let mut environment = Map::new();
    let own = [
        ("HOME", &account.home),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", &account.shell),
    ];
    for (name, value) in own {
        environment.insert(name.to_owned(), Value::from(value.as_str()));
    }
    environment.extend(request.environment.clone());
    TaskRequest {
        become_user: None,
        timeout_ms: None,
        environment,
        ..request.clone()
    }
}

/// The helper's whole life: become the user, take one task, answer it.
pub fn serve_once(user: &str) -> Result<(), HelperError> {
    let accounts = accounts().map_err(HelperError::Accounts)?;
    become_user(user, &accounts)?;
    let mut request = Vec::new();
    io::stdin()
        .read_to_end(&mut request)
        .map_err(HelperError::Pipe)?;
    let mut decoder = Decoder::default();
    decoder.push(&request);
    let (request, body) = decoder
        .next_frame::<TaskRequest>()?
        .ok_or(HelperError::NoTask)?;
    let lifeline = Arc::new(Lifeline::of_helper());
    let id = request.id;
    let result = perform(request, body, &lifeline, &mut None);
    let reply = TaskReply { id, result };
    let frame = frame::encode(&reply, &[])?;
    io::stdout().write_all(&frame).map_err(HelperError::Pipe)
}

/// Gives up this process's identity for another, groups first.
fn become_user(name: &str, accounts: &Accounts) -> Result<(), HelperError> {
    let failed = |source| HelperError::Become {
        user: name.to_owned(),
        source,
    };
    let user = accounts
        .user(name)
        .ok_or_else(|| failed(nix::Error::ENOENT))?;
    if Uid::effective().as_raw() == user.uid {
        return Ok(());
    }
    let mut groups = vec![Gid::from_raw(user.gid)];
    let memberships = accounts.groups_of(name).into_iter();
    groups.extend(memberships.map(|group| Gid::from_raw(group.gid)));
    setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(user.gid)))
        .and_then(|()| setuid(Uid::from_raw(user.uid)))
        .map_err(failed)
}
