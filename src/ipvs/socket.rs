//! The kernel's ear: one generic netlink socket for questions and changes.
//!
//! Many changes travel in one send. Only the last of them asks to be acknowledged: the
//! kernel works through a send in order and answers every refusal anyway, so when the
//! acknowledgement comes all refusals have come before it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::codec::{self, Acknowledge, CodecError, Content, Counters, FamilyNumber, Query};
use super::model::{
    Change, Daemon, DestinationEntry, Info, Service, ServiceEntry, ServiceId, Statistics, Timeouts,
};
use super::refusal::{Operation, Refusal};
use super::sockopt::Entries;

/// Requests in one send. Should all be refused, the answers (under 1.5 KiB each as the
/// kernel counts) still fit the socket's default buffer of 208 KiB.
const REQUESTS_PER_SEND_MAX: usize = 128;

/// Bytes of one read: the kernel fills a dump's messages up to 32 KiB.
const READ_BYTES_MAX: usize = 64 * 1024;

/// The kernel answers before the send returns; when nothing comes by then, nothing will.
const ANSWER_WAIT_S: i64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("failed to {step} the netlink socket")]
    Netlink {
        step: &'static str,
        #[source]
        errno: Errno,
    },
    #[error("the kernel's answer cannot be read")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the kernel dropped answers: the socket's buffer was full")]
    Overrun,
    #[error("the kernel gave no answer to what was asked")]
    NoAnswer,
    /// The module is not there and could not be loaded.
    #[error("the kernel has no IP Virtual Server (module ip_vs)")]
    NoModule,
}

impl SocketError {
    /// Returns the kernel's "no", where it was that.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            _ => None,
        }
    }
}

/// A socket that has found the IPVS family and may use it.
#[derive(Debug)]
pub struct IpvsSocket {
    wire: Wire,
    family: FamilyNumber,
    info: Info,
}

impl IpvsSocket {
    /// Opens a socket, loading the kernel's module where it is missing.
    pub fn open() -> Result<Self, SocketError> {
        let mut wire = Wire::open()?;
        let family = match wire.find_family() {
            Err(SocketError::NoModule) if load_module() => wire.find_family(),
            found => found,
        }?;
        let content = wire.ask_one(family, &Query::Info, Operation::GetInfo)?;
        let info = codec::decode_info(&content)?;
        Ok(Self { wire, family, info })
    }

    /// The module's version and size, as they were when the socket was opened.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Asks for each change in order; a refusal does not stop those after it. Returns the
    /// refused ones by their index.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<(usize, Refusal)>, SocketError> {
        let mut refused = Vec::new();
        for (batch, changes) in changes.chunks(REQUESTS_PER_SEND_MAX).enumerate() {
            let start = batch * REQUESTS_PER_SEND_MAX;
            let found = self.wire.apply_batch(self.family, changes)?;
            refused.extend(
                found
                    .into_iter()
                    .map(|(index, refusal)| (start + index, refusal)),
            );
        }
        Ok(refused)
    }

    /// Returns all services with their destinations, in the kernel's order.
    pub fn table(&mut self) -> Result<Vec<ServiceEntry>, SocketError> {
        self.services(Counters::Read)
    }

    /// The same with all counters at zero: what is configured, for those who compare it.
    pub fn configuration(&mut self) -> Result<Vec<ServiceEntry>, SocketError> {
        self.services(Counters::Skipped)
    }

    fn services(&mut self, counters: Counters) -> Result<Vec<ServiceEntry>, SocketError> {
        let mut services = Vec::new();
        self.wire.dump(
            self.family,
            &Query::Services,
            Operation::GetServices,
            |content| {
                services.push(codec::decode_service(content, counters)?);
                Ok(())
            },
        )?;
        // Counters are told by netlink alone in full width.
        let entries = (counters == Counters::Skipped)
            .then(Entries::open)
            .flatten();
        services
            .into_iter()
            .map(|found| {
                let fast = entries
                    .as_ref()
                    .and_then(|entries| entries.destinations(found.0.id));
                match fast {
                    Some(destinations) => Ok(ServiceEntry {
                        service: found.0,
                        statistics: found.1,
                        destinations,
                    }),
                    None => self.with_destinations(found, counters),
                }
            })
            .collect()
    }

    /// Returns one service with its destinations; an unknown one is a refusal.
    pub fn service(&mut self, id: ServiceId) -> Result<ServiceEntry, SocketError> {
        let content = self
            .wire
            .ask_one(self.family, &Query::Service(id), Operation::GetService)?;
        let found = codec::decode_service(&content, Counters::Read)?;
        self.with_destinations(found, Counters::Read)
    }

    /// Returns one service with its destinations, or `None` where there is no such service.
    pub fn find_service(&mut self, id: ServiceId) -> Result<Option<ServiceEntry>, SocketError> {
        match self.service(id) {
            Ok(entry) => Ok(Some(entry)),
            Err(SocketError::Refused(refusal)) if refusal.errno == Errno::ESRCH as i32 => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn timeouts(&mut self) -> Result<Timeouts, SocketError> {
        let content = self
            .wire
            .ask_one(self.family, &Query::Timeouts, Operation::GetTimeouts)?;
        Ok(codec::decode_timeouts(&content)?)
    }

    pub fn daemons(&mut self) -> Result<Vec<Daemon>, SocketError> {
        let mut daemons = Vec::new();
        self.wire.dump(
            self.family,
            &Query::Daemons,
            Operation::GetDaemons,
            |content| {
                daemons.push(codec::decode_daemon(content)?);
                Ok(())
            },
        )?;
        Ok(daemons)
    }

    fn with_destinations(
        &mut self,
        (service, statistics): (Service, Statistics),
        counters: Counters,
    ) -> Result<ServiceEntry, SocketError> {
        let mut destinations: Vec<DestinationEntry> = Vec::new();
        let query = Query::Destinations(service.id);
        self.wire
            .dump(self.family, &query, Operation::GetDestinations, |content| {
                let family = service.id.family();
                destinations.push(codec::decode_destination(content, family, counters)?);
                Ok(())
            })?;
        Ok(ServiceEntry {
            service,
            statistics,
            destinations,
        })
    }
}

/// Asks for the module as ipvsadm does; whether it came is seen by looking again.
fn load_module() -> bool {
    let program = std::fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let program = match program.trim() {
        "" => "/sbin/modprobe",
        program => program,
    };
    Command::new(program)
        .args(["-q", "--", "ip_vs"])
        .status()
        .is_ok_and(|status| status.success())
}

/// The socket itself, its numbering and its buffers.
#[derive(Debug)]
struct Wire {
    socket: OwnedFd,
    sequence: u32,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Wire {
    fn open() -> Result<Self, SocketError> {
        let failed = |step| move |errno| SocketError::Netlink { step, errno };
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )
        .map_err(failed("open"))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_WAIT_S))
            .map_err(failed("set up"))?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed("connect"))?;
        Ok(Self {
            socket,
            sequence: 0,
            request: Vec::new(),
            answer: vec![0; READ_BYTES_MAX],
        })
    }

    fn find_family(&mut self) -> Result<FamilyNumber, SocketError> {
        self.begin();
        codec::encode_family_query(self.sequence, &mut self.request);
        match self.exchange_one(Operation::GetInfo) {
            Ok(content) => Ok(codec::decode_family(&content)?),
            Err(SocketError::Refused(refusal)) if refusal.errno == Errno::ENOENT as i32 => {
                Err(SocketError::NoModule)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks a question that one message answers; returns its attributes.
    fn ask_one(
        &mut self,
        family: FamilyNumber,
        query: &Query,
        operation: Operation,
    ) -> Result<Vec<u8>, SocketError> {
        self.begin();
        codec::encode_query(family, self.sequence, query, &mut self.request);
        self.exchange_one(operation)
    }

    fn exchange_one(&mut self, operation: Operation) -> Result<Vec<u8>, SocketError> {
        let mut answer = None;
        self.exchange(operation, |content| {
            answer = Some(content.to_vec());
            Ok(())
        })?;
        answer.ok_or(SocketError::NoAnswer)
    }

    /// Asks a question that any number of messages answer.
    fn dump(
        &mut self,
        family: FamilyNumber,
        query: &Query,
        operation: Operation,
        take: impl FnMut(&[u8]) -> Result<(), CodecError>,
    ) -> Result<(), SocketError> {
        self.begin();
        codec::encode_query(family, self.sequence, query, &mut self.request);
        self.exchange(operation, take)
    }

    /// Sends the request and gives `take` each answer's attributes, to the end.
    fn exchange(
        &mut self,
        operation: Operation,
        mut take: impl FnMut(&[u8]) -> Result<(), CodecError>,
    ) -> Result<(), SocketError> {
        self.send()?;
        loop {
            let length = self.receive(MsgFlags::empty())?;
            for message in codec::messages(&self.answer[..length]) {
                let message = message?;
                // What is left of an earlier exchange that failed half-way.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.content {
                    Content::Attributes(attributes) => take(attributes)?,
                    Content::Done { errno: 0 } | Content::Answer { errno: 0 } => return Ok(()),
                    Content::Done { errno } | Content::Answer { errno } => {
                        return Err(SocketError::Refused(Refusal { operation, errno }));
                    }
                    Content::Overrun => return Err(SocketError::Overrun),
                    Content::Nothing => {}
                }
            }
        }
    }

    /// Returns the refused changes by their index.
    fn apply_batch(
        &mut self,
        family: FamilyNumber,
        changes: &[Change],
    ) -> Result<Vec<(usize, Refusal)>, SocketError> {
        let Some(last) = changes.len().checked_sub(1) else {
            return Ok(Vec::new());
        };
        self.begin();
        let first_sequence = self.sequence;
        for (index, change) in changes.iter().enumerate() {
            let acknowledge = if index == last {
                Acknowledge::Always
            } else {
                Acknowledge::OnlyRefusal
            };
            if index > 0 {
                self.sequence = self.sequence.wrapping_add(1);
            }
            codec::encode_change(
                family,
                self.sequence,
                acknowledge,
                change,
                &mut self.request,
            );
        }
        self.send()?;
        self.refusals(first_sequence, changes)
    }

    /// Collects answers up to the last change's. All of them are there when the send returns;
    /// one never comes: netlink swallows `EINTR`, the kernel's answer when a sync daemon is
    /// stopped before its thread first ran. It is stopped then. (The real ipvsadm waits for ever.)
    fn refusals(
        &mut self,
        first_sequence: u32,
        changes: &[Change],
    ) -> Result<Vec<(usize, Refusal)>, SocketError> {
        let mut refused = Vec::new();
        loop {
            let length = match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(SocketError::NoAnswer)
                    if matches!(changes.last(), Some(Change::StopDaemon { .. })) =>
                {
                    return Ok(refused);
                }
                received => received?,
            };
            for message in codec::messages(&self.answer[..length]) {
                let message = message?;
                if message.content == Content::Overrun {
                    return Err(SocketError::Overrun);
                }
                let index = message.sequence.wrapping_sub(first_sequence) as usize;
                let (Content::Answer { errno }, Some(change)) =
                    (message.content, changes.get(index))
                else {
                    continue;
                };
                if errno != 0 {
                    refused.push((
                        index,
                        Refusal {
                            operation: change.into(),
                            errno,
                        },
                    ));
                }
                if index + 1 == changes.len() {
                    return Ok(refused);
                }
            }
        }
    }

    fn begin(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.request.clear();
    }

    fn send(&self) -> Result<(), SocketError> {
        send(self.socket.as_raw_fd(), &self.request, MsgFlags::empty())
            .map(drop)
            .map_err(|errno| SocketError::Netlink {
                step: "write to",
                errno,
            })
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<usize, SocketError> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.answer, flags) {
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(SocketError::NoAnswer),
                Err(errno) => {
                    return Err(SocketError::Netlink {
                        step: "read from",
                        errno,
                    });
                }
            }
        }
    }
}
