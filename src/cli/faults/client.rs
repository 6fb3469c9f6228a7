//! The client of a campaign: a process in the lab's network that writes numbered records through the service, asks
//! who has its address, and says on its standard output what it sees. It ends with its standard input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::unistd::write;

use super::sights::{Ack, Line, records};
use crate::capture::socket::{PacketSocket, bind, raw_socket};
use crate::task::arp::{self, Station};
use crate::task::http::{Reader, Request, Response, Url};
use crate::task::rtnetlink::station;
use crate::vm::lab::unix_now;
use crate::vm::netns::Holder;

/// From one record to the next: what a small emulated machine keeps up with, and how finely times are told.
const PACE: Duration = Duration::from_millis(250);
/// A node that is there takes a connection at once; the kernel would repeat its SYN after a second only.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);
/// After it a record counts as not acknowledged. A write that waits until DRBD has given its peer up takes less: ten
/// seconds of silence, and half a one for the answer to a ping.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// Reading them all, from a busy machine.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// Records that are waited for at once: more than a machine can keep would leave it no time for any.
const WAITING_MAX: usize = 6;
/// One that takes longer than this may wait for a machine that is gone, and keeps no other from being begun.
const WAITING_LIMIT: Duration = Duration::from_secs(4);
/// From one question for the address's owner to the next.
const QUESTION_PACE: Duration = Duration::from_millis(200);
/// Asks under a card of its own, so that the client's kernel does not learn from the answers where the address is:
/// it has to be told as any client has.
const ASKER: Station = [0x02, 0x68, 0x61, 0x6c, 0x61, 0x62];

/// `internal-hold records ADDRESS INTERFACE`.
pub(crate) fn write_records(
    holder: Holder,
    address: Ipv4Addr,
    interface: &str,
) -> anyhow::Result<()> {
    holder.enter_network()?;
    let watch = Watch::open(interface, address)?;
    thread::spawn(move || watch.run());
    thread::spawn(move || write_on(address));
    for line in io::stdin().lock().lines() {
        if line? == "read" {
            say(&match read_all(address) {
                Ok(numbers) => Line::Kept(numbers),
                Err(error) => Line::Unread(format!("{error:#}")),
            });
        }
    }
    Ok(())
}

/// Begins a record after the other, whatever became of those before.
fn write_on(address: Ipv4Addr) {
    let waiting: Arc<Mutex<BTreeMap<u64, Instant>>> = Arc::default();
    let mut number = 0;
    loop {
        let now = Instant::now();
        let mut begun = lock(&waiting);
        let young = begun
            .values()
            .filter(|at| now.duration_since(**at) < WAITING_LIMIT);
        if young.count() < WAITING_MAX {
            number += 1;
            begun.insert(number, now);
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || {
                if let Some(ack) = keep(address, number) {
                    say(&Line::Ack(ack));
                }
                lock(&waiting).remove(&number);
            });
        }
        drop(begun);
        thread::sleep(PACE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a record; `None` when it was not acknowledged in time.
fn keep(address: Ipv4Addr, number: u64) -> Option<Ack> {
    let sent = unix_ms();
    let answer = ask(address, "POST", &format!("/keep?{number}"), ANSWER_LIMIT).ok()?;
    let text = answer.text();
    let (kept, node) = text.trim_end().split_once(' ')?;
    (answer.status == 200 && kept.parse() == Ok(number)).then(|| Ack {
        number,
        node: node.to_owned(),
        sent,
        done: unix_ms(),
    })
}

fn read_all(address: Ipv4Addr) -> anyhow::Result<BTreeSet<u64>> {
    let answer = ask(address, "GET", "/records/kept", READ_LIMIT)?;
    anyhow::ensure!(
        answer.status == 200,
        "the service answered {}",
        answer.status
    );
    Ok(records(&answer.text()))
}

fn ask(address: Ipv4Addr, method: &str, target: &str, limit: Duration) -> anyhow::Result<Response> {
    let url = Url::parse(&format!("http://{address}{target}"))?;
    let request = Request {
        method,
        url: &url,
        headers: Vec::new(),
        body: &[],
        keep_open: false,
    };
    let end = Instant::now() + limit;
    let place = SocketAddrV4::new(address, url.port).into();
    let mut stream = TcpStream::connect_timeout(&place, CONNECT_LIMIT.min(limit))?;
    stream.set_nodelay(true)?;
    stream.write_all(&request.encode()?)?;
    let mut reader = Reader::new(method);
    let mut chunk = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "no answer within {} s", limit.as_secs());
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut chunk)?;
        reader.push(&chunk[..count]);
        if let Some(response) = reader.response(count == 0)? {
            return Ok(response);
        }
    }
}

/// Asks on the wire who has the address.
struct Watch {
    listener: PacketSocket,
    speaker: OwnedFd,
    question: [u8; 42],
    address: Ipv4Addr,
}

impl Watch {
    fn open(interface: &str, address: Ipv4Addr) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let speaker = raw_socket(0)?;
        // No protocol: it only speaks.
        bind(&speaker, index, 0)?;
        Ok(Self {
            listener: PacketSocket::open(interface)?,
            speaker,
            // Of nobody, RFC 5227: nobody learns an address from it.
            question: arp::question(ASKER, Ipv4Addr::UNSPECIFIED, address),
            address,
        })
    }

    fn run(self) {
        let mut before = None;
        loop {
            let owners = self.owners();
            if before.as_ref() != Some(&owners) {
                say(&Line::Owners {
                    at: unix_ms(),
                    macs: owners.clone(),
                });
                before = Some(owners);
            }
        }
    }

    /// Asks once, and returns everybody who answers until the next question.
    fn owners(&self) -> BTreeSet<String> {
        let end = Instant::now() + QUESTION_PACE;
        // A bridge that is just going down takes nothing; then nobody answers.
        let _ = write(&self.speaker, &self.question);
        let mut owners = BTreeSet::new();
        let mut buffer = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.listener.wait(left).is_err() {
                return owners;
            }
            while let Ok(Some(frame)) = self.listener.receive(&mut buffer) {
                owners.extend(owner(&buffer[..frame.captured], self.address));
            }
        }
    }
}

/// Returns the card that a frame says has the address, when it answers our question.
fn owner(frame: &[u8], address: Ipv4Addr) -> Option<String> {
    let is_ours = frame.starts_with(&ASKER);
    let has_it = arp::answer(frame, address).filter(|_| is_ours);
    has_it.map(|card| station(&card))
}

/// Milliseconds since 1970, for this process and the one that reads its lines.
pub(super) fn unix_ms() -> u64 {
    u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX)
}

/// One line, whole; a reader that went away has no use for it.
fn say(line: &Line) {
    let mut text = line.text();
    text.push('\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_question_names_an_owner() {
        let address = Ipv4Addr::new(10, 0, 0, 50);
        let asked = arp::question(ASKER, Ipv4Addr::UNSPECIFIED, address);
        assert_eq!(owner(&asked, address), None);
        let mut answered = arp::question([2, 0, 0, 0, 0, 0x1f], address, address);
        answered[20..22].copy_from_slice(&[0, 2]);
        // To everybody, or to somebody else: not what was asked for.
        assert_eq!(owner(&answered, address), None);
        answered[..6].copy_from_slice(&ASKER);
        assert_eq!(
            owner(&answered, address).as_deref(),
            Some("02:00:00:00:00:1f")
        );
        assert_eq!(owner(&answered, Ipv4Addr::new(10, 0, 0, 51)), None);
        assert_eq!(owner(&answered[..41], address), None);
    }
}
