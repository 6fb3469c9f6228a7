//! `wait_for`: looks again and again, until it has come or the time is over.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::error::ModuleError;
use super::super::files;
use super::super::net::resolve;
use super::super::work::Work;
use crate::task::outcome::{Outcome, Refusal};
use crate::task::pattern::Pattern;
use crate::task::wait::{Sight, Target, connections, is_met, outcome};

/// How much of a server's greeting is searched.
const GREETING_BYTES_MAX: usize = 64 * 1024;

pub(super) fn wait_for(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let target = Target::from_args(args)?;
    let search = args
        .text("search_regex")
        .map(Pattern::multi_line)
        .transpose()?;
    let started = Instant::now();
    let limit = Duration::from_secs(args.amount("timeout"));
    work.lifeline
        .wait(Duration::from_secs(args.amount("delay")))?;
    if work.check {
        return Ok(outcome(args, &target, started.elapsed().as_secs()));
    }
    if let Target::Nothing = target {
        work.lifeline.wait(limit)?;
        return Ok(outcome(args, &target, started.elapsed().as_secs()));
    }
    loop {
        let sight = look(work, &target, search.as_ref())?;
        if is_met(args.word("state"), &sight, search.as_ref()) {
            return Ok(outcome(args, &target, started.elapsed().as_secs()));
        }
        if started.elapsed() >= limit {
            let refusal = Refusal::new(target.waited_for(args));
            return Err(refusal.with("elapsed", started.elapsed().as_secs()).into());
        }
        // Often what is waited for comes within moments: Ansible's whole second is long.
        let pause = Duration::from_secs(args.amount("sleep")).min(Duration::from_millis(200));
        work.lifeline.wait(pause)?;
    }
}

fn look(work: &Work, target: &Target, search: Option<&Pattern>) -> Result<Sight, ModuleError> {
    match target {
        Target::Nothing => Ok(Sight::Absent),
        Target::Path(path) => look_at_path(Path::new(&work.expand(path)), search),
        Target::Port { port, .. } if work.args().word("state") == "drained" => {
            let states = work.args().list("active_connection_states");
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(files::text_of);
            let count = tables
                .iter()
                .map(|table| connections(table, *port, &states))
                .sum();
            Ok(Sight::Connections(count))
        }
        Target::Port { host, port } => look_at_port(work, host, *port, search),
    }
}

fn look_at_path(path: &Path, search: Option<&Pattern>) -> Result<Sight, ModuleError> {
    if files::link_metadata(path)?.is_none() {
        return Ok(Sight::Absent);
    }
    let text = match search {
        Some(_) => {
            files::read_if_there(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        None => None,
    };
    Ok(Sight::Present { text })
}

fn look_at_port(
    work: &Work,
    host: &str,
    port: u16,
    search: Option<&Pattern>,
) -> Result<Sight, ModuleError> {
    let address = SocketAddr::new(resolve(host)?, port);
    let limit = Duration::from_secs(work.args().amount("connect_timeout").max(1));
    let Ok(stream) = TcpStream::connect_timeout(&address, limit) else {
        return Ok(Sight::Absent);
    };
    let text = search.map(|pattern| greeting(stream, pattern, limit));
    Ok(Sight::Present { text })
}

/// Reads what the server says first, until it is what is searched for.
fn greeting(mut stream: TcpStream, pattern: &Pattern, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() < GREETING_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
        if pattern.is_in(&String::from_utf8_lossy(&bytes)) {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
