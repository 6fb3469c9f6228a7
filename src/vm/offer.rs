//! The agent in the clean state: given to machines that boot, so that no run after a load has to
//! upload it. What an emulated guest needs most time for is deciphering; inside the lab's network
//! nobody listens, and the hash is told through the control port.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::netns::{Holder, NetnsError};

/// A machine takes it in tenths of a second.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// A program that machines shall have.
#[derive(Clone, Debug)]
pub struct GuestProgram {
    pub path: PathBuf,
    /// Its folder on a machine.
    pub folder: &'static str,
    /// Its name there: another build has another.
    pub name: String,
    /// Another name that leads to it.
    pub link: &'static str,
    pub sha256: String,
}

/// A process that gives a program to every machine that asks, until this is dropped.
#[derive(Debug)]
pub struct Offer {
    child: Child,
    /// Where it listens inside the lab.
    pub at: SocketAddrV4,
    pub program: GuestProgram,
}

impl Offer {
    /// Starts it; `halab` is this program's command for the lab.
    pub fn begin(
        halab: &[String],
        program: &GuestProgram,
        address: Ipv4Addr,
    ) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Run {
            command: "internal-hold offer".to_owned(),
            source,
        };
        let mut child = Command::new(&halab[0])
            .args(&halab[1..])
            .args(["internal-hold", "offer", &address.to_string()])
            .arg(&program.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let read = BufReader::new(stdout).read_line(&mut line).map_err(failed);
        let mut offer = Self {
            child,
            at: SocketAddrV4::new(address, 0),
            program: program.clone(),
        };
        read?;
        let port = line
            .trim()
            .parse()
            .map_err(|_| io::Error::other("it did not start"));
        offer.at.set_port(port.map_err(failed)?);
        Ok(offer)
    }

    /// What a machine does to take it. A machine that cannot gets it with its first task.
    pub fn script(&self) -> String {
        let GuestProgram {
            folder,
            name,
            link,
            sha256,
            ..
        } = &self.program;
        let (address, port) = (self.at.ip(), self.at.port());
        // The network may come up after everything else has.
        format!(
            "( mkdir -p {folder} && cd {folder} || exit
tries=20
until timeout 10 bash -c 'cat < /dev/tcp/{address}/{port}' > {name}.new || [ $tries = 0 ]; do
  sleep 0.5; tries=$((tries - 1))
done
[ \"$(sha256sum < {name}.new)\" = '{sha256}  -' ] && chmod 755 {name}.new &&
  mv -f {name}.new {name} && ln -sfn {name} {link} || rm -f {name}.new )
:"
        )
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// `internal-hold offer ADDRESS FILE`: says on which port of the lab it listens and gives the file
/// to whoever connects, until standard input ends.
pub fn offer(holder: Holder, address: Ipv4Addr, file: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Run {
        command: format!("offer {}", file.display()),
        source,
    };
    let content = Arc::new(fs::read(file).map_err(failed)?);
    holder.enter_network()?;
    let listener = TcpListener::bind(SocketAddrV4::new(address, 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let mut stdout = io::stdout();
    writeln!(stdout, "{port}")
        .and_then(|()| stdout.flush())
        .map_err(failed)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let content = Arc::clone(&content);
            thread::spawn(move || {
                let _ = stream.set_write_timeout(Some(WRITE_DEADLINE));
                let _ = stream.write_all(&content);
            });
        }
    });
    let mut rest = Vec::new();
    io::stdin().read_to_end(&mut rest).map(drop).map_err(failed)
}
