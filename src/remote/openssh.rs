//! An agent behind OpenSSH: one session a host, the agent uploaded once, one channel.
//!
//! In the usual case a connection costs one SSH handshake and one command: a small shell
//! script says `ready` and becomes the agent. Only when the agent is not on the guest yet
//! does the script say `want`, take the binary on the same channel, compressed where the guest
//! can unpack it, check its hash, move it into place under its own name, and go on.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, SessionBuilder, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::agent_file::{AgentBinary, AgentFile, GUEST_FOLDER, GUEST_LINK};
use super::agent_link::{AgentLink, Carrier};
use super::local::collect_last_words;
use super::reconnect::{Connect, ConnectFuture};
use super::ssh_config::HostKeyCheck;
use super::transport::RemoteError;

/// An SSH handshake takes 0.5 s under TCG and up to 3 s while three guests are busy.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// From the session to the agent's greeting, with an upload of 4 MiB in between.
const AGENT_WITHIN: Duration = Duration::from_secs(60);

/// A host that does not answer ssh three times in a row (ssh's count) is given up: after
/// 15 s at the most, so that one frozen machine does not hold the others up for long.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// When halab is killed it cannot close its sessions; they end by themselves after so long.
const ORPHANED_SESSION_SECONDS: usize = 15;

/// Where the agent lies on a guest whose disk is full.
const MEMORY_FOLDER: &str = "/dev/shm/halab";

/// Lines a login may print before the script's own.
const NOISE_LINES_MAX: usize = 200;

/// How one host is reached.
#[derive(Debug)]
pub struct OpenSshHost {
    /// Alias in the configuration file and name in messages.
    pub name: String,
    pub config_file: PathBuf,
    pub check_host_key: HostKeyCheck,
    /// Folder for ssh's control sockets: the lab's own, so that `status` knows them.
    pub control_dir: PathBuf,
    /// Start the agent as root with sudo, when the login is not root's.
    pub sudo: bool,
    pub agent: AgentFile,
}

impl OpenSshHost {
    fn error(&self, reason: impl Into<String>) -> RemoteError {
        RemoteError::Connect {
            host: self.name.clone(),
            reason: reason.into(),
        }
    }

    async fn open(&self) -> Result<AgentLink, RemoteError> {
        let agent = self
            .agent
            .binary()
            .map_err(|error| self.error(chain(&error)))?;
        let session = timeout(
            CONNECT_WITHIN,
            self.session_builder().connect_mux(&self.name),
        )
        .await
        .map_err(|_| {
            self.error(format!(
                "no SSH session within {} s",
                CONNECT_WITHIN.as_secs()
            ))
        })?
        .map_err(|error| self.error(chain(&error)))?;
        let session = Arc::new(session);
        let mut child = Arc::clone(&session)
            .arc_raw_command(start_script(agent, self.sudo))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .await
            .map_err(|error| self.error(chain(&error)))?;
        let stdin = child.stdin().take().expect("stdin is piped");
        let stdout = child.stdout().take().expect("stdout is piped");
        let stderr = child.stderr().take().expect("stderr is piped");
        let carrier = Carrier {
            // The channel goes first, the session with its last channel.
            keep: Box::new((child, session)),
            last_words: collect_last_words(stderr),
        };
        let last_words = Arc::clone(&carrier.last_words);
        let (mut reader, mut writer) = (BufReader::new(stdout), stdin);
        timeout(AGENT_WITHIN, install(&mut reader, &mut writer, agent))
            .await
            .map_err(|_| {
                let seconds = AGENT_WITHIN.as_secs();
                self.error(format!("the agent was not in place within {seconds} s"))
            })?
            .map_err(|reason| self.error(format!("{reason} {}", last_words()).trim()))?;
        AgentLink::open(&self.name, reader, writer, AGENT_WITHIN, carrier).await
    }

    fn session_builder(&self) -> SessionBuilder {
        let mut builder = SessionBuilder::default();
        builder
            .config_file(&self.config_file)
            .known_hosts_check(match self.check_host_key {
                HostKeyCheck::Strict => KnownHosts::Strict,
                HostKeyCheck::AcceptNew => KnownHosts::Add,
                HostKeyCheck::Off => KnownHosts::Accept,
            })
            .connect_timeout(CONNECT_WITHIN)
            .server_alive_interval(ALIVE_INTERVAL)
            .control_directory(&self.control_dir)
            .control_persist(NonZeroUsize::new(ORPHANED_SESSION_SECONDS).map_or(
                ControlPersist::ClosedAfterInitialConnection,
                ControlPersist::IdleFor,
            ));
        builder
    }
}

impl Connect for OpenSshHost {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(self.open())
    }
}

/// The script that finds or takes the agent and becomes it. The login shell runs it;
/// whatever shell that is, the rest is for `sh`. A link without the hash is for people and
/// playbooks that call the agent by name. A disk that is full has no room for the agent; memory has.
fn start_script(agent: &AgentBinary, sudo: bool) -> String {
    let name = agent.remote_name();
    let sha256 = &agent.sha256;
    let bytes = agent.content.len();
    let script = format!(
        "d={GUEST_FOLDER}; [ -w /usr/local/lib ] || d=$HOME/.cache/halab; a=; \
         for e in $d {MEMORY_FOLDER}; do [ -x $e/{name} ] && a=$e/{name} && break; done; \
         if [ -z $a ]; then umask 022; \
         for e in $d {MEMORY_FOLDER}; do \
         {{ mkdir -p $e && head -c {bytes} /dev/zero > $e/room.$$; }} 2>/dev/null; r=$?; rm -f $e/room.$$; \
         [ $r = 0 ] && d=$e && break; done; a=$d/{name}; \
         if command -v gunzip >/dev/null; then w=gzip; u=gunzip; else w=plain; u=cat; fi; \
         echo halab-want-$w; read -r n; head -c $n | $u > $a.$$ && \
         [ \"$(sha256sum < $a.$$)\" = \"{sha256}  -\" ] && chmod 755 $a.$$ && mv -f $a.$$ $a && ln -sfn {name} $d/{GUEST_LINK} || \
         {{ rm -f $a.$$; echo halab-failed; exit 1; }}; fi; \
         echo halab-ready; exec {sudo}$a serve",
        sudo = if sudo { "sudo -n " } else { "" },
    );
    format!("exec /bin/sh -c '{script}'")
}

/// Follows the script until it becomes the agent; uploads the binary when asked.
async fn install(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    agent: &AgentBinary,
) -> Result<(), String> {
    let explain = |error: io::Error| format!("the connection failed: {error}");
    for _ in 0..NOISE_LINES_MAX {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).await.map_err(explain)? == 0 {
            return Err("the login ended before the agent started".to_owned());
        }
        match line.trim_ascii() {
            b"halab-ready" => return Ok(()),
            b"halab-want-gzip" => send(writer, agent.gzip()).await.map_err(explain)?,
            b"halab-want-plain" => send(writer, &agent.content).await.map_err(explain)?,
            b"halab-failed" => return Err("the agent could not be put in place:".to_owned()),
            _ => {}
        }
    }
    Err(format!(
        "the login printed more than {NOISE_LINES_MAX} lines"
    ))
}

/// Sends what the script waits for: the number of bytes in a line, then the bytes.
async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer
        .write_all(format!("{}\n", bytes.len()).as_bytes())
        .await?;
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// An error and its causes in one line, each said once; without the frame of `@` that ssh
/// draws around a changed host key.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(words.trim()) {
            text = format!("{text}: {}", words.trim());
        }
        cause = inner.source();
    }
    let lines = text.lines().map(|line| line.trim_matches(['@', ' ', '\r']));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_becomes_one_line() {
        let said = "failed: @@@@@@@\r\n@   WARNING: CHANGED!   @\r\n@@@@@@@\nHost key is another.";
        let error = chain(&io::Error::other(said));
        assert_eq!(error, "failed: WARNING: CHANGED! Host key is another.");
    }

    /// The script itself, by the shell of this machine, in a home of its own.
    fn taken_by_the_script(path: &str) -> String {
        let home = tempfile::tempdir().expect("a folder");
        taken_at_home(home.path(), path, "lib")
    }

    /// What the script says; the agent has to be in that folder then.
    fn taken_at_home(home: &std::path::Path, path: &str, folder: &str) -> String {
        let agent = AgentBinary::new(b"#!/bin/sh\nprintf %s \"$1\"; cat\n".repeat(50));
        let script = start_script(&agent, false)
            .replace("/usr/local/lib/halab", &format!("{}/lib", home.display()))
            .replace(MEMORY_FOLDER, &format!("{}/shm", home.display()))
            .replace("[ -w /usr/local/lib ]", "true");
        let bytes = if path.is_empty() {
            agent.gzip()
        } else {
            &agent.content
        };
        let count = format!("{}\n", bytes.len());
        let input = [count.as_bytes(), bytes].concat();
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        if !path.is_empty() {
            command.env("PATH", path);
        }
        let mut child = command.spawn().expect("a shell");
        let mut stdin = child.stdin.take().expect("a pipe");
        io::Write::write_all(&mut stdin, &input).expect("the script reads");
        drop(stdin);
        let output = child.wait_with_output().expect("the script ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let file = home.join(folder).join(agent.remote_name());
        let put = std::fs::read(file).unwrap_or_default();
        assert_eq!(put, agent.content, "{said}");
        said
    }

    #[test]
    fn a_guest_takes_the_agent_packed_where_it_can_unpack_it() {
        let said = taken_by_the_script("");
        assert!(
            said.starts_with("halab-want-gzip\nhalab-ready\nserve"),
            "{said}"
        );
        let tools = tempfile::tempdir().expect("a folder");
        for tool in [
            "mkdir",
            "head",
            "cat",
            "sha256sum",
            "chmod",
            "mv",
            "ln",
            "rm",
        ] {
            let found = ["/usr/bin", "/bin"].map(|folder| std::path::Path::new(folder).join(tool));
            let found = found.iter().find(|path| path.exists()).expect("coreutils");
            std::os::unix::fs::symlink(found, tools.path().join(tool)).expect("a link");
        }
        let said = taken_by_the_script(tools.path().to_str().expect("a plain path"));
        assert!(
            said.starts_with("halab-want-plain\nhalab-ready\nserve"),
            "{said}"
        );
    }

    #[test]
    fn a_guest_without_room_on_its_disk_takes_the_agent_into_memory() {
        let home = tempfile::tempdir().expect("a folder");
        // Nothing can be written below it.
        std::fs::write(home.path().join("lib"), "").expect("written");
        let said = taken_at_home(home.path(), "", "shm");
        assert!(said.starts_with("halab-want-gzip\nhalab-ready"), "{said}");
        let again = taken_at_home(home.path(), "", "shm");
        assert!(again.starts_with("halab-ready"), "{again}");
    }

    #[test]
    fn the_agent_is_sent_when_the_script_wants_it() {
        let agent = AgentBinary::new(b"agent".to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let said = &b"motd\nhalab-want-plain\nhalab-ready\nframe"[..];
        let (mut reader, mut sent) = (BufReader::new(said), Vec::new());
        runtime
            .block_on(install(&mut reader, &mut sent, &agent))
            .expect("installed");
        assert_eq!(sent, b"5\nagent");
        assert_eq!(reader.buffer(), b"frame");
    }
}
