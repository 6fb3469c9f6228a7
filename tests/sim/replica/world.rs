//! Two nodes, their disks, the network between them and an application, all under one clock.
//!
//! What the daemon does with files and sockets is done here with values: actions in order,
//! saves one step at a time, packets in the order of their connection. A crash may come
//! between any two steps.

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use halab::replica::bitmap::Bitmap;
use halab::replica::control::{Answer, Command};
use halab::replica::device::{DeviceData, DeviceOp, DeviceReply, DeviceRequest, Errno};
use halab::replica::engine::{Action, Breakage, DiskIo, DiskOp, Engine, Event, OpenedDisk, Save};
use halab::replica::establish::LinkId;
use halab::replica::fields::{SECTOR, narrow, wide};
use halab::replica::generation::{Generation, Generations};
use halab::replica::layout::{Flags, PAGE, Superblock};
use halab::replica::message::{
    BareKind, Dialect, Packet, PacketReader, ReplicationProtocol, Socket,
};
use halab::replica::settings::{DiskSettings, MetaDisk, Names, NetSettings, OnIoError};
use halab::replica::state::{Connection, Disk, Role};

use super::disk::SimDisk;
use super::oracle::Oracle;
use super::random::Random;

const DEVICE_SECTORS: u64 = 9 * 2048;
/// Fewer than the device has extents, so that they are evicted.
const AL_EXTENTS: u16 = 2;
/// Where the application writes: a few places, so that writes meet.
const PLACES: u64 = 24;

/// Whether disks do what they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disks {
    Sound,
    Failing,
}

/// What fails, and what has failed.
#[derive(Debug)]
struct Failures {
    /// Not the world's: what happens otherwise does not depend on it.
    random: Random,
    policy: OnIoError,
    /// The disk that fails at times.
    node: Option<usize>,
    /// Something failed since the two were last in sync: the other has the only good copy.
    felt: [bool; 2],
    /// Metadata fails once a round, as a bad block that is found and replaced.
    metadata: bool,
    /// It did, and what it was to say is nowhere yet.
    metadata_felt: bool,
    /// The same, and not forgotten when both are well again.
    metadata_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Primary(usize),
    Secondary(usize),
    Connect(usize),
    Disconnect(usize),
    Attach(usize),
    Detach(usize),
    Verify(usize),
    Invalidate(usize),
    Pause(usize),
    Resume(usize),
}

#[derive(Debug)]
enum Happening {
    Tick,
    Packet(LinkId, Packet),
    Garbled(LinkId, String),
    Accepted(LinkId),
    Connected(LinkId),
    Closed(LinkId),
    Io(DiskIo, usize),
    SaveStep,
    Request,
}

struct Scheduled {
    at: Duration,
    order: u64,
    node: usize,
    life: u32,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
struct End {
    peer: LinkId,
    /// When the last thing that was sent arrives: nothing overtakes.
    arrives: Duration,
}

#[derive(Debug)]
enum SaveStep {
    FlushData(usize),
    Page(u64, Bytes),
    Flush(usize),
}

struct Node {
    engine: Option<Engine>,
    disk: SimDisk,
    life: u32,
    queue: VecDeque<Action>,
    save: Option<VecDeque<SaveStep>>,
    links: BTreeMap<LinkId, End>,
    listening: bool,
    attached: bool,
    tick_at: Option<Duration>,
    next_accepted: u64,
    /// Operations the disk has.
    disk_open: HashMap<u64, DiskIo>,
    /// The application's requests: tag → what.
    open: BTreeMap<u64, DeviceOp>,
    answers: HashMap<u64, Answer>,
    /// The command that shall make it Primary, answered or not.
    promoting: Option<u64>,
}

pub(crate) struct World {
    random: Random,
    now: Duration,
    order: u64,
    heap: BinaryHeap<Scheduled>,
    nodes: [Node; 2],
    /// Nothing passes; TCP sends it again when it does.
    partition: bool,
    held: Vec<(usize, Happening)>,
    /// Whose acknowledgements are kept back, as by a full queue.
    silenced: Option<usize>,
    kept_back: Vec<(LinkId, Packet, Dialect)>,
    delay_max: u64,
    pub(crate) oracle: Oracle,
    next_tag: u64,
    next_command: u64,
    pub(crate) steps: u64,
    protocol: ReplicationProtocol,
    checksums: bool,
    breakage: Option<Breakage>,
    failures: Failures,
    /// Packets are changed on their way, as by one who is not the peer.
    garbling: Option<Random>,
    trace: Option<String>,
    writing: bool,
}

fn net(node: usize, world: &World) -> NetSettings {
    let address =
        |node: usize| SocketAddr::from(([10, 0, 23, u8::try_from(node + 2).unwrap()], 7788));
    NetSettings {
        protocol: world.protocol,
        checksum_algorithm: if world.checksums { "crc32c" } else { "" }.to_owned(),
        verify_algorithm: "crc32c".to_owned(),
        ..NetSettings::new(address(node), address(1 - node))
    }
}

/// A packet as it arrives: most as it was sent, some with a few bytes changed or a part missing.
fn garbled(peer: LinkId, packet: Packet, dialect: Dialect, random: &mut Random) -> Happening {
    const ONE_IN: u64 = 12;
    if !random.one_in(ONE_IN) {
        return Happening::Packet(peer, packet);
    }
    let mut bytes = packet.encode(dialect, 0);
    for _ in 0..=random.below(3) {
        // Where the fields are, and not the data.
        let at = narrow(random.below(wide(bytes.len()).min(64)));
        bytes[at] = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ 1 << random.below(8),
            _ => random.next().to_le_bytes()[0],
        };
    }
    if random.one_in(4) {
        bytes.truncate(narrow(random.below(wide(bytes.len()))));
    }
    let mut reader = PacketReader::default();
    reader.push(&bytes);
    match reader.next_packet() {
        Ok(Some((_, packet))) => Happening::Packet(peer, packet),
        Ok(None) => Happening::Garbled(peer, "it ends in the middle".to_owned()),
        Err(error) => Happening::Garbled(peer, error.to_string()),
    }
}

fn kind_of(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::Read { .. } => "read",
        DiskOp::Write { .. } => "write",
        DiskOp::Zero { .. } => "zero",
        DiskOp::Flush => "flush",
    }
}

/// Whether a history of its own began between two moments.
fn began_a_generation(before: Option<Generations>, after: Option<Generations>) -> bool {
    before.zip(after).is_some_and(|(before, after)| {
        !before.current.same(after.current) && before.current.same(after.bitmap)
    })
}

impl World {
    pub(crate) fn new(seed: u64, breakage: Option<Breakage>, disks: Disks, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let mut failures = Failures {
            random: Random::new(!seed),
            policy: OnIoError::default(),
            node: None,
            felt: [false; 2],
            metadata: false,
            metadata_felt: false,
            metadata_failed: false,
        };
        if disks == Disks::Failing {
            failures.policy = match failures.random.below(3) {
                0 => OnIoError::PassOn,
                1 => OnIoError::CallLocalIoError,
                _ => OnIoError::Detach,
            };
        }
        let fresh = random.one_in(8);
        let mut superblock = Superblock::created(7);
        if !fresh {
            superblock.generations = Generations {
                current: Generation(0x1000),
                ..Generations::JUST_CREATED
            };
            superblock.flags = superblock
                .flags
                .with(Flags::CONSISTENT, true)
                .with(Flags::WAS_UP_TO_DATE, true);
            let probe = SimDisk::new(DEVICE_SECTORS, &superblock);
            superblock.agreed_sectors = probe.layout.usable_sectors;
        }
        let protocol = match random.below(8) {
            0 => ReplicationProtocol::A,
            1 => ReplicationProtocol::B,
            _ => ReplicationProtocol::C,
        };
        let checksums = random.one_in(4);
        let delay_max = [200, 2_000, 20_000][narrow(random.below(3))];
        let node = || Node {
            engine: None,
            disk: SimDisk::new(DEVICE_SECTORS, &superblock),
            life: 0,
            queue: VecDeque::new(),
            save: None,
            links: BTreeMap::new(),
            listening: false,
            attached: false,
            tick_at: None,
            next_accepted: 2,
            disk_open: HashMap::new(),
            open: BTreeMap::new(),
            answers: HashMap::new(),
            promoting: None,
        };
        let nodes = [node(), node()];
        let sectors = nodes[0].disk.sectors().len();
        let mut world = Self {
            random,
            now: Duration::ZERO,
            order: 0,
            heap: BinaryHeap::new(),
            nodes,
            partition: false,
            held: Vec::new(),
            silenced: None,
            kept_back: Vec::new(),
            delay_max,
            oracle: Oracle::new(sectors, protocol == ReplicationProtocol::C),
            next_tag: 1,
            next_command: 1,
            steps: 0,
            protocol,
            checksums,
            breakage,
            failures,
            garbling: None,
            trace: traced.then(String::new),
            writing: false,
        };
        world.note(&format!(
            "protocol {protocol}, fresh {fresh}, checksums {checksums}"
        ));
        for node in 0..2 {
            world.start(node);
        }
        if fresh {
            world.run_until(Duration::from_secs(60), |world| {
                world.state(0).connection == Connection::Connected
            });
            let answer = world.tool_forced_primary(0);
            assert_eq!(
                answer,
                Some(Answer::Done),
                "a fresh pair is promoted by force"
            );
        }
        world
    }

    pub(crate) fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or("")
    }

    fn note(&mut self, text: &str) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>12?} {text}", self.now);
        }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.random.one_in(count)
    }

    pub(crate) fn running(&self, node: usize) -> bool {
        self.nodes[node].engine.is_some()
    }

    pub(crate) fn state(&self, node: usize) -> halab::replica::state::State {
        self.nodes[node]
            .engine
            .as_ref()
            .map_or(halab::replica::state::State::UNCONFIGURED, Engine::state)
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        (0..2).find(|node| self.state(*node).role == Role::Primary)
    }

    /// Whether a node was told to become Primary and did not answer yet.
    pub(crate) fn promoting(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        let open = |id| !this.answers.contains_key(&id);
        this.engine.is_some() && this.promoting.is_some_and(open)
    }

    pub(crate) fn attached(&self, node: usize) -> bool {
        self.nodes[node].attached
    }

    pub(crate) fn in_sync(&self) -> bool {
        (0..2).all(|node| {
            let state = self.state(node);
            state.connection == Connection::Connected
                && state.disk == Disk::UpToDate
                && state.peer_disk == Disk::UpToDate
        })
    }

    /// Starts a node's daemon, attaches its disk and looks for the peer.
    pub(crate) fn start(&mut self, node: usize) {
        self.note(&format!("node {node} starts"));
        let names = Names {
            resource: "r0".to_owned(),
            minor: 0,
            volume: 0,
        };
        let seed = self.random.next();
        let mut engine = Engine::new(names, seed);
        if let Some(breakage) = self.breakage {
            engine.break_rule(breakage);
        }
        self.nodes[node].engine = Some(engine);
        self.tool(Tool::Attach(node));
        self.tool(Tool::Connect(node));
    }

    /// The power of a node goes.
    pub(crate) fn crash(&mut self, node: usize) {
        self.note(&format!("node {node} loses power"));
        let good = self.oracle.good(node);
        let was_primary = self.primary() == Some(node);
        // One that was told to replace its data by this node's is no other.
        let gives_way = matches!(
            self.state(1 - node).disk,
            Disk::Outdated | Disk::Inconsistent
        );
        let other_good = self.running(1 - node)
            && self.nodes[1 - node].attached
            && self.oracle.good(1 - node)
            && !gives_way;
        let had_failed = std::mem::take(&mut self.failures.felt[node]);
        let this = &mut self.nodes[node];
        this.life += 1;
        this.engine = None;
        this.queue.clear();
        this.save = None;
        this.listening = false;
        this.attached = false;
        this.tick_at = None;
        this.answers.clear();
        this.promoting = None;
        // What the disk was just doing is done, or not, or half.
        let mut doing: Vec<DiskIo> = this.disk_open.drain().map(|(_, io)| io).collect();
        doing.sort_by_key(|io| io.id);
        for io in doing {
            if let DiskOp::Write { byte, data, .. } = io.op
                && self.random.one_in(2)
            {
                this.disk.write(byte, &data);
            }
        }
        this.disk.lose_power(&mut self.random);
        let open = std::mem::take(&mut this.open);
        for tag in open.into_keys() {
            self.oracle.left_open(tag);
        }
        self.cut(node);
        // An error of its disk that it had not written down yet did not happen either: for what the node knows
        // at its next start, its data are as good as before.
        let passes_for_good = had_failed && self.has_flags_on_disk(node, Flags::WAS_UP_TO_DATE);
        if good || passes_for_good {
            // A demotion that was not on disk yet did not happen.
            let primary = was_primary || self.has_flags_on_disk(node, Flags::PRIMARY);
            self.oracle.crashed(node, other_good, primary);
        }
    }

    fn has_flags_on_disk(&self, node: usize, flags: Flags) -> bool {
        let disk = &self.nodes[node].disk;
        let page = disk.metadata(disk.layout.superblock_byte(), wide(PAGE));
        Superblock::decode(&page, &disk.layout).is_ok_and(|superblock| superblock.flags.has(flags))
    }

    pub(crate) fn garble(&mut self, seed: u64) {
        self.garbling = Some(Random::new(seed));
    }

    /// One disk, the other or none fails at times from now on.
    pub(crate) fn set_failing(&mut self, on: bool) {
        let chosen = usize::try_from(self.failures.random.below(3)).expect("below three");
        self.failures.node = Some(chosen).filter(|node| on && *node < 2);
        self.failures.metadata = on && self.failures.random.one_in(2);
    }

    /// Whether the other node has nothing that this one lacks; two misfortunes at once lose
    /// what only the one had.
    pub(crate) fn may_lose(&self, node: usize) -> bool {
        !self.failures.felt[1 - node] && !self.failures.metadata_felt
    }

    pub(crate) fn metadata_failed(&self) -> bool {
        self.failures.metadata_failed
    }

    /// Whether both have all there is. A Primary without a disk that loses its peer, too, refuses
    /// the peer's data if it missed the word of its new generation, as the kernel's does: not for
    /// a machine to mend.
    pub(crate) fn may_part(&self) -> bool {
        self.failures.felt == [false; 2]
    }

    fn fails(&mut self, node: usize, op: &DiskOp) -> bool {
        const ONE_IN: u64 = 30;
        if self.failures.node != Some(node) || self.state(node).connection.verifying() {
            return false;
        }
        // A disk that is given up is of no use without its peer.
        if !self.has_a_good_peer(node) {
            return false;
        }
        let fails = self.failures.random.one_in(ONE_IN);
        if fails {
            self.note(&format!("node {node}'s disk fails: {}", kind_of(op)));
            self.failures.felt[node] = true;
        }
        fails
    }

    fn has_a_good_peer(&self, node: usize) -> bool {
        let (own, other) = (self.state(node), self.state(1 - node));
        let meets = |state: halab::replica::state::State| {
            state.connection >= Connection::Connected && state.disk == Disk::UpToDate
        };
        !self.partition
            && own.peer_disk == Disk::UpToDate
            && meets(own)
            && meets(other)
            && self.oracle.good(1 - node)
            && self.nodes.iter().all(|node| !node.links.is_empty())
    }

    /// A write of which nobody knows how much was done.
    fn in_part(&mut self, node: usize, op: &DiskOp) {
        if let DiskOp::Write { byte, data, .. } = op {
            let sectors = self.failures.random.below(wide(data.len()) / SECTOR + 1);
            let data = data.slice(..narrow(sectors * SECTOR));
            self.nodes[node].disk.write(*byte, &data);
        }
    }

    /// Every connection of the pair breaks; each side notices when it notices.
    pub(crate) fn cut(&mut self, crashed: usize) {
        let mut ends = Vec::new();
        for node in 0..2 {
            for link in std::mem::take(&mut self.nodes[node].links).into_keys() {
                ends.push((node, link));
            }
        }
        for (node, link) in ends {
            if node != crashed || self.running(node) {
                let delay = self.delay();
                self.schedule(node, delay, Happening::Closed(link));
            }
        }
    }

    pub(crate) fn set_partition(&mut self, on: bool) {
        self.note(&format!("partition {on}"));
        self.partition = on;
        if !on {
            // After everything that was on its way before.
            let last = self
                .nodes
                .iter()
                .flat_map(|node| node.links.values())
                .map(|end| end.arrives)
                .fold(self.now, Duration::max)
                + Duration::from_nanos(1);
            for node in &mut self.nodes {
                for end in node.links.values_mut() {
                    end.arrives = last;
                }
            }
            for (node, what) in std::mem::take(&mut self.held) {
                self.schedule_at(node, last, what);
            }
        }
    }

    /// Keeps back what a node sends on the meta connection, or lets all of it go.
    pub(crate) fn silence(&mut self, node: usize, on: bool) {
        self.silenced = on.then_some(node);
        if !on {
            for (link, packet, dialect) in std::mem::take(&mut self.kept_back) {
                self.send(node, link, packet, dialect);
            }
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(20 + self.random.below(self.delay_max))
    }

    fn schedule(&mut self, node: usize, after: Duration, what: Happening) {
        self.schedule_at(node, self.now + after, what);
    }

    fn schedule_at(&mut self, node: usize, at: Duration, what: Happening) {
        self.order += 1;
        self.heap.push(Scheduled {
            at,
            order: self.order,
            node,
            life: self.nodes[node].life,
            what,
        });
    }

    fn tool_forced_primary(&mut self, node: usize) -> Option<Answer> {
        let id = self.command(node, Command::Primary { force: true });
        let until = self.now + Duration::from_secs(10);
        self.run_until(until, |world| world.nodes[node].answers.contains_key(&id));
        self.nodes[node].answers.remove(&id)
    }

    fn command(&mut self, node: usize, command: Command) -> u64 {
        let id = self.next_command;
        self.next_command += 1;
        let device_open = false;
        self.handle(
            node,
            Event::Command {
                id,
                command: Box::new(command),
                device_open,
            },
        );
        id
    }

    /// A tool is run on a node that runs.
    pub(crate) fn tool(&mut self, tool: Tool) {
        self.note(&format!("{tool:?}"));
        let (node, command) = match tool {
            Tool::Primary(node) => (node, Command::Primary { force: false }),
            Tool::Secondary(node) => (node, Command::Secondary),
            Tool::Connect(node) => (
                node,
                Command::Connect {
                    net: net(node, self),
                    discard_my_data: false,
                    tentative: false,
                },
            ),
            Tool::Disconnect(node) => (node, Command::Disconnect { force: false }),
            Tool::Attach(node) => {
                let mut disk = DiskSettings::new(PathBuf::from("/dev/sdb1"), MetaDisk::Internal);
                disk.al_extents = AL_EXTENTS;
                disk.on_io_error = self.failures.policy;
                (node, Command::Attach(disk))
            }
            Tool::Detach(node) => (node, Command::Detach { force: false }),
            Tool::Verify(node) => (
                node,
                Command::Verify {
                    start: None,
                    stop: None,
                },
            ),
            Tool::Invalidate(node) => (node, Command::Invalidate),
            Tool::Pause(node) => (node, Command::PauseSync),
            Tool::Resume(node) => (node, Command::ResumeSync),
        };
        if self.running(node) {
            let id = self.command(node, command);
            if matches!(tool, Tool::Primary(_)) {
                self.nodes[node].promoting = Some(id);
            }
        }
    }

    /// The application writes as long as there is a Primary.
    pub(crate) fn write(&mut self, on: bool) {
        self.writing = on;
        if on {
            for node in 0..2 {
                self.schedule(node, Duration::from_micros(1), Happening::Request);
            }
        }
    }

    fn request(&mut self, node: usize) {
        if !self.writing {
            return;
        }
        let pause = Duration::from_micros(self.random.below(3_000));
        self.schedule(node, pause, Happening::Request);
        if self.state(node).role != Role::Primary || self.nodes[node].open.len() >= 8 {
            return;
        }
        let sectors = wide(self.nodes[node].disk.sectors().len());
        let place = self.random.below(PLACES) * (sectors / PLACES);
        let offset = place + self.random.below(12);
        let count = (1 + self.random.below(20)).min(sectors - offset);
        let tag = self.next_tag;
        self.next_tag += 1;
        let op = match self.random.below(12) {
            0 => DeviceOp::Flush,
            1 | 2 => DeviceOp::Read {
                offset: offset * SECTOR,
                len: u32::try_from(count * SECTOR).unwrap(),
            },
            3 => DeviceOp::WriteZeroes {
                offset: offset * SECTOR,
                len: count * SECTOR,
            },
            kind => {
                let mut data = vec![0; narrow(count * SECTOR)];
                for sector in data.chunks_mut(narrow(SECTOR)) {
                    sector[..8].copy_from_slice(&tag.to_le_bytes());
                }
                DeviceOp::Write {
                    offset: offset * SECTOR,
                    data: data.into(),
                    fua: kind == 4,
                }
            }
        };
        if self.trace.is_some() {
            let kind = match &op {
                DeviceOp::Read { .. } => "read",
                DeviceOp::Flush => "flush",
                DeviceOp::Write { fua: true, .. } => "write, stable",
                DeviceOp::Write { .. } => "write",
                _ => "zero",
            };
            self.note(&format!(
                "node {node} asks {tag}: {kind} {offset}..{}",
                offset + count
            ));
        }
        self.ask(node, tag, op);
    }

    fn ask(&mut self, node: usize, tag: u64, op: DeviceOp) {
        self.oracle.asked(tag, &op);
        self.nodes[node].open.insert(tag, op.clone());
        self.handle(node, Event::Device(DeviceRequest { tag, op }));
    }

    /// The application writes to so many sectors.
    pub(crate) fn write_at(&mut self, node: usize, sector: u64, count: u64) {
        let tag = self.next_tag;
        self.next_tag += 1;
        let data = vec![tag.to_le_bytes(); narrow(count * SECTOR / 8)].concat();
        let op = DeviceOp::Write {
            offset: sector * SECTOR,
            data: data.into(),
            fua: false,
        };
        self.ask(node, tag, op);
    }

    fn replied(&mut self, node: usize, reply: &DeviceReply) {
        let Some(op) = self.nodes[node].open.remove(&reply.tag) else {
            panic!("a reply to a request that is not open: {reply:?}");
        };
        if self.trace.is_some() {
            self.note(&format!("node {node} answers {}", reply.tag));
        }
        let state = self.state(node);
        let alone =
            state.connection < Connection::Connected || state.peer_disk < Disk::Inconsistent;
        match &reply.result {
            // What an attacker sends in the peer's place is as good as the peer's.
            Ok(DeviceData::Read(_)) if self.garbling.is_some() => {}
            Ok(DeviceData::Read(data)) => self.oracle.read(reply.tag, &op, data),
            Ok(DeviceData::Done) => self.oracle.done(reply.tag, &op, node, alone),
            Err(errno) => {
                self.note(&format!("request {} failed: {}", reply.tag, errno.0));
                self.oracle.left_open(reply.tag);
            }
        }
    }

    fn handle(&mut self, node: usize, event: Event) {
        let now = self.now;
        if let Some(engine) = &mut self.nodes[node].engine {
            let before = engine.generations();
            engine.handle(now, event);
            engine.end_turn();
            // It may have been alone and Primary for no longer than this.
            if began_a_generation(before, engine.generations()) {
                self.oracle.alone(node);
            }
        }
        self.perform(node);
        self.observe();
    }

    /// Who has all there is to have, as far as the engines say so themselves.
    fn observe(&mut self) {
        for node in 0..2 {
            let disk = self.state(node).disk;
            if matches!(disk, Disk::Outdated | Disk::Inconsistent) {
                self.oracle.gives_way(node);
            }
            if self.failures.felt[node] && disk != Disk::UpToDate {
                self.oracle.detached(node);
            }
        }
        if let Some(node) = self.primary() {
            self.oracle.primary(node);
            if self.state(node).connection < Connection::Connected {
                self.oracle.alone(node);
            }
        }
        if self.in_sync() {
            self.oracle.both_good();
            self.failures.felt = [false; 2];
            self.failures.metadata_felt = false;
        }
    }

    fn perform(&mut self, node: usize) {
        loop {
            while let Some(action) = self.nodes[node]
                .engine
                .as_mut()
                .and_then(Engine::next_action)
            {
                if let Action::Send {
                    link,
                    packet: packet @ Packet::Bare(BareKind::PingAck),
                    dialect,
                } = action
                {
                    self.send(node, link, packet, dialect);
                } else {
                    self.nodes[node].queue.push_back(action);
                }
            }
            if self.nodes[node].save.is_some() {
                break;
            }
            let Some(action) = self.nodes[node].queue.pop_front() else {
                break;
            };
            self.perform_one(node, action);
        }
        let deadline = self.nodes[node]
            .engine
            .as_ref()
            .and_then(Engine::next_deadline);
        if let Some(at) = deadline {
            let at = at.max(self.now + Duration::from_micros(100));
            if self.nodes[node].tick_at.is_none_or(|there| at < there) {
                self.nodes[node].tick_at = Some(at);
                self.schedule_at(node, at, Happening::Tick);
            }
        }
    }

    fn perform_one(&mut self, node: usize, action: Action) {
        match action {
            Action::Send {
                link,
                packet,
                dialect,
            } => self.send(node, link, packet, dialect),
            Action::Disk(io) => {
                let delay = self.delay();
                let mark = self.nodes[node].disk.mark();
                self.nodes[node].disk_open.insert(io.id, io.clone());
                self.schedule(node, delay, Happening::Io(io, mark));
            }
            Action::Save(save) => self.begin_save(node, save),
            Action::Reply(reply) => self.replied(node, &reply),
            Action::Answer { id, answer } => {
                if let Answer::Refused(rejection) = &*answer {
                    self.note(&format!("node {node} refuses: {rejection}"));
                }
                self.nodes[node].answers.insert(id, *answer);
            }
            Action::OpenDisk(settings) => {
                let opened = self.opened(node, *settings);
                self.nodes[node].attached = true;
                self.handle(node, Event::DiskOpened(Ok(Box::new(opened))));
            }
            Action::CloseDisk => {
                // Whatever the disk has is finished first.
                let mut doing: Vec<DiskIo> = self.nodes[node]
                    .disk_open
                    .drain()
                    .map(|(_, io)| io)
                    .collect();
                doing.sort_by_key(|io| io.id);
                for io in doing {
                    self.on_disk(node, &io, usize::MAX);
                }
                self.nodes[node].attached = false;
                self.oracle.detached(node);
            }
            Action::Listen => self.nodes[node].listening = true,
            Action::StopListening => self.nodes[node].listening = false,
            Action::Call(link) => self.call(node, link),
            Action::Close(link) => {
                if let Some(end) = self.nodes[node].links.remove(&link) {
                    if self.partition {
                        self.held.push((1 - node, Happening::Closed(end.peer)));
                        return;
                    }
                    let at = end.arrives.max(self.now) + self.delay();
                    self.schedule_at(1 - node, at, Happening::Closed(end.peer));
                }
            }
            Action::Handler(name) => {
                self.note(&format!("node {node} handler {name}"));
                assert!(
                    name != "split-brain" || self.garbling.is_some(),
                    "nobody split anything"
                );
            }
            Action::Log(line) => self.note(&format!("node {node}: {line}")),
            Action::Present(_) | Action::Exit => {}
        }
    }

    fn opened(&self, node: usize, settings: DiskSettings) -> OpenedDisk {
        let disk = &self.nodes[node].disk;
        let layout = &disk.layout;
        let bitmap_bytes =
            (layout.activity_byte() - layout.bitmap_byte()) / wide(PAGE) * wide(PAGE);
        OpenedDisk {
            settings,
            device_sectors: disk.device_sectors,
            metadata_sectors: disk.device_sectors,
            superblock: disk.metadata(layout.superblock_byte(), wide(PAGE)),
            activity: disk.metadata(layout.activity_byte(), layout.ring.blocks() * wide(PAGE)),
            bitmap: Bitmap::load(
                layout.usable_sectors,
                &disk.metadata(layout.bitmap_byte(), bitmap_bytes),
            ),
            discards: true,
        }
    }

    fn begin_save(&mut self, node: usize, save: Save) {
        let mut steps = VecDeque::new();
        if save.flush_data {
            steps.push_back(SaveStep::FlushData(self.nodes[node].disk.mark()));
        }
        for (byte, bytes) in save.writes {
            for (index, page) in (0..).zip(bytes.chunks(PAGE)) {
                let page = bytes.slice_ref(page);
                steps.push_back(SaveStep::Page(byte + index * wide(PAGE), page));
            }
        }
        steps.push_back(SaveStep::Flush(usize::MAX));
        self.nodes[node].save = Some(steps);
        let delay = self.delay();
        self.schedule(node, delay, Happening::SaveStep);
    }

    fn save_step(&mut self, node: usize) {
        let fails = self.failures.metadata
            && self.failures.node == Some(node)
            && self.has_a_good_peer(node)
            && self.failures.random.one_in(8);
        if fails {
            self.note(&format!("node {node}'s metadata fails"));
            self.failures.metadata = false;
            self.failures.metadata_felt = true;
            self.failures.metadata_failed = true;
            self.failures.felt[node] = true;
            self.nodes[node].save = None;
            self.handle(node, Event::SaveFailed);
            return;
        }
        let this = &mut self.nodes[node];
        let Some(steps) = &mut this.save else {
            return;
        };
        match steps.pop_front() {
            Some(SaveStep::FlushData(mark) | SaveStep::Flush(mark)) => this.disk.flush(mark),
            Some(SaveStep::Page(byte, page)) => this.disk.write_page(byte, &page),
            None => {}
        }
        if steps.is_empty() {
            this.save = None;
            self.perform(node);
        } else {
            let delay = self.delay();
            self.schedule(node, delay, Happening::SaveStep);
        }
    }

    fn on_disk(&mut self, node: usize, io: &DiskIo, mark: usize) -> Bytes {
        let disk = &mut self.nodes[node].disk;
        match &io.op {
            DiskOp::Read { byte, len } => return disk.read(*byte, u64::from(*len)),
            DiskOp::Write { byte, data, stable } => {
                disk.write(*byte, data);
                if *stable {
                    disk.flush(disk.mark());
                }
            }
            DiskOp::Zero { byte, len, .. } => disk.zero(*byte, *len),
            DiskOp::Flush => disk.flush(mark),
        }
        Bytes::new()
    }

    fn call(&mut self, node: usize, link: LinkId) {
        let delay = self.delay();
        let peer = &mut self.nodes[1 - node];
        if self.partition || !peer.listening {
            let late = if self.partition { 3_000 } else { 1 };
            self.schedule(
                node,
                delay + Duration::from_millis(late),
                Happening::Closed(link),
            );
            return;
        }
        let accepted = LinkId(peer.next_accepted);
        peer.next_accepted += 2;
        let now = self.now;
        let end = |peer| End { peer, arrives: now };
        peer.links.insert(accepted, end(link));
        self.nodes[node].links.insert(link, end(accepted));
        self.schedule(1 - node, delay, Happening::Accepted(accepted));
        self.nodes[1 - node]
            .links
            .get_mut(&accepted)
            .expect("just made")
            .arrives = now + delay;
        self.schedule(node, delay, Happening::Connected(link));
        self.nodes[node]
            .links
            .get_mut(&link)
            .expect("just made")
            .arrives = now + delay;
    }

    fn send(&mut self, node: usize, link: LinkId, packet: Packet, dialect: Dialect) {
        if self.silenced == Some(node) && packet.socket() == Socket::Meta {
            self.kept_back.push((link, packet, dialect));
            return;
        }
        let arrives_as = |peer: LinkId, packet: Packet, random: &mut Option<Random>| match random {
            Some(random) => garbled(peer, packet, dialect, random),
            None => Happening::Packet(peer, packet),
        };
        let delay = self.delay();
        let now = self.now;
        let partition = self.partition;
        let Some(end) = self.nodes[node].links.get_mut(&link) else {
            return;
        };
        let what = arrives_as(end.peer, packet, &mut self.garbling);
        if partition {
            self.held.push((1 - node, what));
            return;
        }
        end.arrives = end.arrives.max(now) + delay / 8 + Duration::from_nanos(1);
        let at = end.arrives;
        self.schedule_at(1 - node, at, what);
    }

    /// Lets one thing happen; false when nothing is left.
    pub(crate) fn step(&mut self) -> bool {
        let Some(next) = self.heap.pop() else {
            return false;
        };
        self.now = self.now.max(next.at);
        self.steps += 1;
        let node = next.node;
        if next.life != self.nodes[node].life {
            if matches!(next.what, Happening::Request) {
                self.schedule(node, Duration::from_millis(1), Happening::Request);
            }
            return true;
        }
        match next.what {
            Happening::Tick => {
                self.nodes[node].tick_at = None;
                self.handle(node, Event::Tick);
            }
            Happening::Packet(link, packet) => {
                if self.nodes[node].links.contains_key(&link) {
                    if self.trace.is_some() {
                        let shown: String = format!("{packet:?}").chars().take(150).collect();
                        self.note(&format!("node {node} hears {shown}"));
                    }
                    self.handle(node, Event::Packet(link, packet));
                }
            }
            Happening::Garbled(link, why) => {
                if self.nodes[node].links.contains_key(&link) {
                    self.handle(node, Event::Garbled(link, why));
                }
            }
            Happening::Accepted(link) => self.handle(node, Event::Accepted(link)),
            Happening::Connected(link) => self.handle(node, Event::Connected(link)),
            Happening::Closed(link) => {
                self.nodes[node].links.remove(&link);
                self.handle(node, Event::Closed(link, "cut".to_owned()));
            }
            Happening::Io(io, mark) => {
                if self.nodes[node].disk_open.remove(&io.id).is_some() {
                    let result = if self.fails(node, &io.op) {
                        self.in_part(node, &io.op);
                        Err(Errno::IO)
                    } else {
                        Ok(self.on_disk(node, &io, mark))
                    };
                    self.handle(node, Event::Io { id: io.id, result });
                }
            }
            Happening::SaveStep => self.save_step(node),
            Happening::Request => self.request(node),
        }
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_until(until, |_| false);
    }

    /// Runs up to a time or a state; says whether the state came.
    pub(crate) fn run_until(&mut self, until: Duration, reached: impl Fn(&Self) -> bool) -> bool {
        while self.heap.peek().is_some_and(|next| next.at <= until) {
            if reached(self) {
                return true;
            }
            self.step();
        }
        self.now = self.now.max(until);
        reached(self)
    }

    pub(crate) fn quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.open.is_empty() && node.disk_open.is_empty() && node.save.is_none())
    }

    pub(crate) fn last_sector(&self) -> u64 {
        wide(self.nodes[0].disk.sectors().len())
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn contents(&self, node: usize) -> &[u64] {
        self.nodes[node].disk.sectors()
    }

    /// Time enough passes for the disks' caches to empty.
    pub(crate) fn flush_disks(&mut self) {
        for node in &mut self.nodes {
            node.disk.flush(usize::MAX);
        }
    }

    /// Blocks each side counts as different.
    pub(crate) fn out_of_sync(&self, node: usize) -> u64 {
        self.nodes[node]
            .engine
            .as_ref()
            .map_or(0, |engine| engine.status().counters.out_of_sync_kib / 4)
    }
}
