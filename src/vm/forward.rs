//! Makes one service of the lab reachable on this machine's loopback.
//!
//! The listener stands outside the lab; each connection gets a socket from inside, which a
//! short-lived child made there and handed over. So this works rootless too, and nothing but
//! the one address can be reached.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::spec::Topology;
use super::state::{LabFolders, StateError, locked_text};

/// Connections at once; a browser opens six, `ab -c` more.
const CONNECTIONS_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("`{typed}` is no forward: expected PORT:HOST:PORT, for example 8080:10.0.0.1:80")]
    Spec { typed: String },
    #[error("failed to listen on 127.0.0.1:{port}")]
    Listen { port: u16, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// What is forwarded: a port of loopback to an address in the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSpec {
    pub port: u16,
    pub host: Ipv4Addr,
    pub host_port: u16,
}

impl ForwardSpec {
    /// Reads `PORT:HOST:PORT`; the host is an address or a machine's name.
    pub fn parse(typed: &str, topology: &Topology) -> Result<Self, ForwardError> {
        let parse = || {
            let (port, rest) = typed.split_once(':')?;
            let (host, host_port) = rest.rsplit_once(':')?;
            let host = match topology.machine(host) {
                Some(machine) => topology.address_for_client(machine),
                None => host.parse().ok()?,
            };
            Some(Self {
                port: port.parse().ok()?,
                host,
                host_port: host_port.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ForwardError::Spec {
            typed: typed.to_owned(),
        })
    }
}

/// Says that a forward is open, for as long as it lives.
#[derive(Debug)]
pub struct Registration {
    path: PathBuf,
    _lock: Flock<fs::File>,
}

impl Registration {
    fn new(folders: &LabFolders, text: &str) -> Result<Self, StateError> {
        let path = folders.forwards().join(std::process::id().to_string());
        let error = |source| StateError::File {
            what: "write",
            path: path.clone(),
            source,
        };
        fs::create_dir_all(folders.forwards()).map_err(error)?;
        fs::write(&path, text).map_err(error)?;
        let file = fs::File::open(&path).map_err(error)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| error(errno.into()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the forwards that are open now, and forgets those whose process is gone.
pub fn open_forwards(folders: &LabFolders) -> Vec<String> {
    let entries = fs::read_dir(folders.forwards()).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let text = locked_text(&entry.path());
            if text.is_none() {
                let _ = fs::remove_file(entry.path());
            }
            text
        })
        .collect()
}

/// Listens until the future is dropped. `ready` is told the port.
pub async fn forward(
    folders: &LabFolders,
    halab: &[String],
    spec: &ForwardSpec,
    ready: impl FnOnce(u16),
) -> Result<(), ForwardError> {
    let listen = |source| ForwardError::Listen {
        port: spec.port,
        source,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, spec.port))
        .await
        .map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    let target = format!("{}:{}", spec.host, spec.host_port);
    let text = format!("127.0.0.1:{port} -> {target}");
    let _registration = Registration::new(folders, &text)?;
    ready(port);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let (outside, _) = listener.accept().await.map_err(listen)?;
        let connect: Vec<String> = halab
            .iter()
            .cloned()
            .chain([
                "internal-connect".into(),
                spec.host.to_string(),
                spec.host_port.to_string(),
            ])
            .collect();
        tokio::spawn(async move {
            let _permit = permit;
            // A failed connection ends this one client's; the listener goes on.
            let _ = join(outside, connect).await;
        });
    }
}

async fn join(mut outside: TcpStream, connect: Vec<String>) -> io::Result<()> {
    let inside = tokio::task::spawn_blocking(move || connect_inside(&connect))
        .await
        .map_err(io::Error::other)??;
    inside.set_nonblocking(true)?;
    let mut inside = TcpStream::from_std(inside)?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside)
        .await
        .map(drop)
}

/// Lets a child connect inside the lab and takes the socket it hands over.
fn connect_inside(words: &[String]) -> io::Result<std::net::TcpStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::null())
        .spawn()?;
    let received = receive_descriptor(&ours);
    child.wait()?;
    received.map(std::net::TcpStream::from)
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            #[expect(unsafe_code, reason = "a received descriptor is a bare number")]
            // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*descriptor) });
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ConnectionRefused,
        "nothing in the lab took the connection",
    ))
}
