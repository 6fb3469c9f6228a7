//! TCP and HTTP on the host: names from the hosts' table, connections with deadlines.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::error::ModuleError;
use super::files;
use crate::task::http::{HttpError, Reader, Request, Response};
use crate::task::outcome::Refusal;

/// Returns the address behind a name. There is no name server in a lab, and the agent has
/// no resolver: an address, or a name of `/etc/hosts`.
pub fn resolve(host: &str) -> Result<IpAddr, ModuleError> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let hosts = files::text_of("/etc/hosts");
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    let mut found: Vec<IpAddr> = lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let ip = words.next()?.parse().ok()?;
            words
                .any(|name| name.eq_ignore_ascii_case(host))
                .then_some(ip)
        })
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    match found.first() {
        Some(ip) => Ok(*ip),
        None if host == "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        None => Err(Refusal::new(format!(
            "`{host}` is neither an address nor a name of /etc/hosts"
        ))
        .into()),
    }
}

/// Why a request came to no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("failed to connect to {address}: {source}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("lost {address}: {source}")]
    Lost {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address}: {source}")]
    Http {
        address: SocketAddr,
        #[source]
        source: HttpError,
    },
    #[error("{address} did not answer within {seconds} s")]
    TimedOut { address: SocketAddr, seconds: f64 },
}

/// A response and the connection it came over.
#[derive(Debug)]
pub struct Fetched {
    pub response: Response,
    pub stream: TcpStream,
}

/// Connects anew, sends one request and reads its response.
pub fn fetch(
    address: SocketAddr,
    request: &[u8],
    method: &str,
    limit: Duration,
) -> Result<Fetched, FetchError> {
    let deadline = Instant::now() + limit;
    let timed_out = || FetchError::TimedOut {
        address,
        seconds: limit.as_secs_f64(),
    };
    let mut stream = match TcpStream::connect_timeout(&address, limit.max(Duration::from_millis(1)))
    {
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(timed_out()),
        Err(source) => return Err(FetchError::Connect { address, source }),
        Ok(stream) => stream,
    };
    let lost = |source: io::Error| match source.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => timed_out(),
        _ => FetchError::Lost { address, source },
    };
    stream
        .set_write_timeout(remaining(deadline))
        .map_err(lost)?;
    stream.write_all(request).map_err(lost)?;
    let mut reader = Reader::new(method);
    let mut buffer = [0; 16 * 1024];
    loop {
        let Some(left) = remaining(deadline) else {
            return Err(timed_out());
        };
        stream.set_read_timeout(Some(left)).map_err(lost)?;
        let count = stream.read(&mut buffer).map_err(lost)?;
        reader.push(&buffer[..count]);
        let response = reader.response(count == 0);
        match response.map_err(|source| FetchError::Http { address, source })? {
            Some(response) => return Ok(Fetched { response, stream }),
            None if count == 0 => return Err(timed_out()),
            None => {}
        }
    }
}

/// Returns what is left until the deadline; `None` when nothing is.
fn remaining(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// Sends a request to where its URL says.
pub fn fetch_url(request: &Request<'_>, limit: Duration) -> Result<Fetched, ModuleError> {
    let address = SocketAddr::new(resolve(&request.url.host)?, request.url.port);
    let bytes = request.encode()?;
    fetch(address, &bytes, request.method, limit).map_err(|error| {
        Refusal::new(format!("Request failed: {error}"))
            .with("status", -1)
            .into()
    })
}
