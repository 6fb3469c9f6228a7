//! ublk: the driver hands requests over as completions of `io_uring` commands, and takes
//! answers as the next commands.
//!
//! ```text
//!          add, parameters, fetch × depth, start           stop, delete
//!  absent ───────────────────────────────────────▶ live ───────────────▶ absent
//!                                                    │ the daemon dies
//!          start recovery, fetch × depth, end        ▼
//!  live  ◀─────────────────────────────────────── quiesced: requests wait, nothing fails
//! ```
//!
//! One ring carries the control device's commands and the queue's. Data moves by reading
//! and writing the character device, so that memory is taken for what is in flight and
//! not for every tag.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};
use nix::libc;

use super::abi::{
    self, Command, Control, DESCRIPTOR_BYTES, Descriptor, INFO_BYTES, Info, Parameters, STATE_LIVE,
    STATE_QUIESCED,
};
use super::load_module;
use super::node::Node;
use crate::replica::buffers::Pool;
use crate::replica::device::{
    DeviceData, DeviceOp, DeviceReply, DeviceRequest, Errno, Export, Presence,
};

const CONTROL: &str = "/dev/ublk-control";

/// Requests at once: twice what a busy file system keeps in flight on one disk.
const DEPTH: u16 = 128;

/// The largest request, and DRBD's.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

const SECTOR: u64 = 512;

/// Tells our devices from other servers'; the low half is the minor number.
const MARK: u64 = 0x6861_6c61_0000_0000;

/// The user data of the control device's commands; tags are 16 bits.
const CONTROL_DATA: u64 = 1 << 63;

/// Device files appear within this; udev may be busy.
const FILE_WAIT: Duration = Duration::from_secs(10);
/// The driver notices its server's death within this: it looks every five seconds.
const DEATH_WAIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

/// Any number that is free.
const ANY_DEVICE: u32 = u32::MAX;

/// A device over ublk.
pub(super) struct Ublk {
    ring: IoUring<Entry128>,
    control: File,
    node: Node,
    minor: u32,
    live: Option<Live>,
    /// A device whose server died; its users wait for this one.
    waiting: Option<Info>,
    pool: Pool,
    /// Completions that came while a control command was waited for.
    arrived: VecDeque<(u16, i32)>,
    /// Counts devices, so that a late answer is not taken for a request of the next.
    generation: u32,
}

struct Live {
    info: Info,
    character: File,
    descriptors: Mapping,
    presence: Presence,
    /// What was handed out and waits for its answer, by tag.
    outstanding: Vec<Option<Asked>>,
}

#[derive(Clone, Copy)]
struct Asked {
    bytes: u32,
}

impl std::fmt::Debug for Ublk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ublk")
            .field("node", &self.node)
            .field("presence", &self.live.as_ref().map(|live| live.presence))
            .finish_non_exhaustive()
    }
}

fn new_ring(entries: u32) -> io::Result<IoUring<Entry128>> {
    IoUring::builder().build(entries)
}

impl Ublk {
    pub(super) fn open(path: &str, minor: u32, pool: &Pool) -> io::Result<Self> {
        load_module("ublk_drv", CONTROL);
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        let ring = new_ring(u32::from(DEPTH) * 2)?;
        let mut export = Self {
            ring,
            control,
            node: Node::new(path, minor)?,
            minor,
            live: None,
            waiting: None,
            pool: pool.clone(),
            arrived: VecDeque::new(),
            generation: 0,
        };
        export.take_over()?;
        Ok(export)
    }

    /// Finds what an earlier daemon left: a device that waits is kept for its users.
    fn take_over(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + DEATH_WAIT;
        while let Some(found) = find(&mut self.ring, &self.control, self.minor) {
            if found.state == STATE_QUIESCED {
                self.waiting = Some(found);
                let device = PathBuf::from(format!("/dev/ublkb{}", found.device));
                return self.node.point_to(&device);
            }
            if found.state != STATE_LIVE {
                self.delete_soon(found.device);
                return Ok(());
            }
            let served = PathBuf::from(format!("/proc/{}", found.pid)).exists();
            if served || Instant::now() > deadline {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("process {} serves /dev/ublkb{}", found.pid, found.device),
                ));
            }
            // The driver does not know yet that its server is dead.
            thread::sleep(POLL);
        }
        Ok(())
    }

    // Control.

    /// Sends a command of the control device and waits for its end; what the queue says
    /// meanwhile is kept.
    fn control(&mut self, command: Command, control: Control) -> io::Result<i32> {
        push(
            &mut self.ring,
            &control_entry(&self.control, command, control),
        )?;
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                other => drop(other?),
            }
            let mut ended = None;
            let completions = self.ring.completion();
            for entry in completions {
                match tag_of(&entry) {
                    Some(tag) => self.arrived.push_back((tag, entry.result())),
                    None => ended = Some(entry.result()),
                }
            }
            // Nobody else answers while this waits: a device that goes has no users.
            if command == Command::Stop {
                self.refuse_arrived()?;
            }
            if let Some(result) = ended {
                return if result < 0 {
                    Err(io::Error::from_raw_os_error(-result))
                } else {
                    Ok(result)
                };
            }
        }
    }

    fn add(&mut self) -> io::Result<Info> {
        if let Some(waiting) = self.waiting {
            return Ok(waiting);
        }
        // Its own number where that is free: /dev/ublkb0 for /dev/drbd0.
        match self.try_add(self.minor) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.try_add(ANY_DEVICE),
            other => other,
        }
    }

    fn try_add(&mut self, device: u32) -> io::Result<Info> {
        let wanted = Info {
            queue_depth: DEPTH,
            state: 0,
            request_bytes_max: REQUEST_BYTES_MAX,
            device,
            pid: -1,
            flags: Info::FLAGS,
            mark: MARK | u64::from(self.minor),
        };
        let mut bytes = wanted.encode();
        let control = with_buffer(device, &mut bytes);
        self.control(Command::Add, control)?;
        let info = Info::decode(&bytes);
        if !info.has_user_copy() {
            self.delete(info.device)?;
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel's ublk cannot copy on demand (Linux 6.5 can)",
            ));
        }
        Ok(info)
    }

    fn delete(&mut self, device: u32) -> io::Result<()> {
        let control = Control {
            device,
            ..Control::default()
        };
        self.control(Command::Delete, control).map(drop)
    }

    /// Lets a device go whose users keep it open, and will for as long as they like.
    fn delete_soon(&mut self, device: u32) {
        let control = Control {
            device,
            ..Control::default()
        };
        // An older kernel has no word for it: the dead device stays until the machine stops.
        let _ = self.control(Command::DeleteSoon, control);
    }

    // Life.

    fn start(&mut self, presence: Presence, bytes: u64) -> io::Result<()> {
        let info = self.add()?;
        let started = self.start_added(info, presence, bytes);
        if started.is_ok() {
            self.waiting = None;
        } else {
            self.live = None;
            if self.waiting.is_none() {
                let _ = self.delete(info.device);
            }
        }
        started
    }

    /// Begins to serve a device that waits; its last server may be on its way out still.
    fn start_recovery(&mut self, control: Control) -> io::Result<()> {
        let deadline = Instant::now() + DEATH_WAIT;
        loop {
            match self.control(Command::StartRecovery, control) {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    thread::sleep(POLL);
                }
                other => return other.map(drop),
            }
        }
    }

    fn start_added(&mut self, info: Info, presence: Presence, bytes: u64) -> io::Result<()> {
        let is_recovery = info.state == STATE_QUIESCED;
        let mut control = Control {
            device: info.device,
            ..Control::default()
        };
        if is_recovery {
            self.start_recovery(control)?;
        } else {
            let parameters = Parameters {
                sectors: bytes / SECTOR,
                request_sectors_max: info.request_bytes_max / 512,
                read_only: matches!(presence, Presence::ReadOnly { .. }),
            };
            let mut encoded = parameters.encode();
            self.control(
                Command::SetParameters,
                with_buffer(info.device, &mut encoded),
            )?;
        }
        let path = format!("/dev/ublkc{}", info.device);
        let character = wait_for(|| OpenOptions::new().read(true).write(true).open(&path))?;
        let descriptors =
            Mapping::new(&character, usize::from(info.queue_depth) * DESCRIPTOR_BYTES)?;
        self.generation = self.generation.wrapping_add(1);
        self.arrived.clear();
        let mut entries = Vec::new();
        for tag in 0..info.queue_depth {
            entries.push(queue_entry(&character, Command::Fetch, tag, 0));
        }
        self.live = Some(Live {
            info,
            character,
            descriptors,
            presence,
            outstanding: vec![None; usize::from(info.queue_depth)],
        });
        without_admin(|| {
            for entry in &entries {
                push(&mut self.ring, entry)?;
            }
            self.ring.submit().map(drop)
        })?;
        control.data = std::process::id().into();
        let command = if is_recovery {
            Command::EndRecovery
        } else {
            Command::Start
        };
        self.control(command, control)?;
        let device = PathBuf::from(format!("/dev/ublkb{}", info.device));
        wait_for(|| self.node.point_to(&device))
    }

    fn stop(&mut self) -> io::Result<()> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        self.node.point_nowhere()?;
        let device = live.info.device;
        let unanswered: Vec<u16> = (0..live.info.queue_depth)
            .filter(|tag| live.outstanding[usize::from(*tag)].take().is_some())
            .collect();
        for tag in unanswered {
            self.answer(tag, -libc::EIO)?;
        }
        self.refuse_arrived()?;
        let control = Control {
            device,
            ..Control::default()
        };
        self.control(Command::Stop, control)?;
        self.live = None;
        self.arrived.clear();
        self.delete(device)
    }

    /// Answers what came while the device goes.
    fn refuse_arrived(&mut self) -> io::Result<()> {
        while let Some((tag, result)) = self.arrived.pop_front() {
            if result == 0 {
                self.answer(tag, -libc::EIO)?;
            }
        }
        self.ring.submit().map(drop)
    }

    fn resize(&mut self, bytes: u64) -> io::Result<()> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        let control = Control {
            device: live.info.device,
            data: bytes / SECTOR,
            ..Control::default()
        };
        self.control(Command::UpdateSize, control).map(drop)
    }

    // The queue.

    fn answer(&mut self, tag: u16, result: i32) -> io::Result<()> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        let entry = queue_entry(&live.character, Command::CommitAndFetch, tag, result);
        push(&mut self.ring, &entry)
    }

    fn take_one(
        &mut self,
        tag: u16,
        result: i32,
        requests: &mut Vec<DeviceRequest>,
    ) -> io::Result<()> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        // Aborted: the device goes.
        if result != 0 || usize::from(tag) >= live.outstanding.len() {
            return Ok(());
        }
        let descriptor = live.descriptors.descriptor(tag);
        let bytes = u64::from(descriptor.sectors) * SECTOR;
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        // A flush has no place; the driver says -1.
        let offset = descriptor.start_sector.saturating_mul(SECTOR);
        let op = match descriptor.operation {
            abi::READ => DeviceOp::Read { offset, len },
            abi::WRITE => {
                if len > live.info.request_bytes_max {
                    return self.answer(tag, -libc::EINVAL);
                }
                let mut buffer = self.pool.take(len as usize);
                let read = live
                    .character
                    .read_exact_at(buffer.as_mut(), abi::data_offset(tag));
                if let Err(error) = read {
                    return self.answer(tag, -error.raw_os_error().unwrap_or(libc::EIO));
                }
                DeviceOp::Write {
                    offset,
                    data: buffer.freeze(),
                    fua: descriptor.flags & abi::FLAG_FUA != 0,
                }
            }
            abi::FLUSH => DeviceOp::Flush,
            abi::DISCARD => DeviceOp::Discard { offset, len: bytes },
            abi::WRITE_ZEROES => DeviceOp::WriteZeroes { offset, len: bytes },
            _ => return self.answer(tag, -libc::EOPNOTSUPP),
        };
        live.outstanding[usize::from(tag)] = Some(Asked { bytes: len });
        requests.push(DeviceRequest {
            tag: u64::from(self.generation) << 16 | u64::from(tag),
            op,
        });
        Ok(())
    }

    fn result_of(live: &Live, tag: u16, asked: Asked, result: &Result<DeviceData, Errno>) -> i32 {
        let done = i32::try_from(asked.bytes).unwrap_or(i32::MAX);
        match result {
            Ok(DeviceData::Done) => done,
            Ok(DeviceData::Read(data)) => {
                match live.character.write_all_at(data, abi::data_offset(tag)) {
                    Ok(()) => i32::try_from(data.len()).unwrap_or(done),
                    Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
                }
            }
            Err(errno) => -errno.0,
        }
    }
}

impl Export for Ublk {
    fn present(&mut self, presence: Presence) -> io::Result<()> {
        let (is_same, shown) = match &self.live {
            Some(live) => (live.presence == presence, Some(live.presence)),
            None => (presence == Presence::Absent, None),
        };
        // Users of a device that waits are served by a Primary, or not at all.
        let waits_on = self.waiting.is_some() && !matches!(presence, Presence::Writable { .. });
        if is_same || waits_on {
            return Ok(());
        }
        match (shown, presence) {
            (_, Presence::Absent) => self.stop(),
            (None, Presence::ReadOnly { bytes } | Presence::Writable { bytes }) => {
                self.start(presence, bytes)
            }
            (Some(shown), Presence::ReadOnly { bytes } | Presence::Writable { bytes }) => {
                let same_mode = matches!(
                    (shown, presence),
                    (Presence::Writable { .. }, Presence::Writable { .. })
                        | (Presence::ReadOnly { .. }, Presence::ReadOnly { .. })
                );
                if same_mode && self.resize(bytes).is_ok() {
                    if let Some(live) = &mut self.live {
                        live.presence = presence;
                    }
                    return Ok(());
                }
                if self.in_use() {
                    return Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "this kernel cannot change a ublk device that is in use (Linux 6.16 can change its size)",
                    ));
                }
                self.stop()?;
                self.start(presence, bytes)
            }
        }
    }

    fn in_use(&self) -> bool {
        self.node.in_use()
    }

    fn interrupted(&self) -> bool {
        self.waiting.is_some()
    }

    fn abandon(&mut self) -> io::Result<()> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        self.node.point_nowhere()?;
        let control = Control {
            device: waiting.device,
            ..Control::default()
        };
        self.control(Command::Stop, control)?;
        self.delete_soon(waiting.device);
        Ok(())
    }

    #[expect(unsafe_code, reason = "the ring lends its descriptor as a bare number")]
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref()?;
        // SAFETY: the ring owns the descriptor and lives as long as the borrow.
        Some(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }

    fn take(&mut self, requests: &mut Vec<DeviceRequest>) -> io::Result<()> {
        for entry in self.ring.completion() {
            if let Some(tag) = tag_of(&entry) {
                self.arrived.push_back((tag, entry.result()));
            }
        }
        while let Some((tag, result)) = self.arrived.pop_front() {
            self.take_one(tag, result, requests)?;
        }
        Ok(())
    }

    fn reply(&mut self, reply: DeviceReply) {
        let generation = u64::from(self.generation);
        let Some(live) = &mut self.live else {
            return;
        };
        let tag = u16::try_from(reply.tag & 0xffff).expect("it was masked");
        let Some(slot) = live.outstanding.get_mut(usize::from(tag)) else {
            return;
        };
        if reply.tag >> 16 != generation {
            return;
        }
        let Some(asked) = slot.take() else {
            return;
        };
        let result = Self::result_of(live, tag, asked, &reply.result);
        // A full submission queue is submitted first; only a broken ring fails here, and
        // then the next take says so.
        let _ = self.answer(tag, result);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.ring.submit().map(drop)
    }
}

impl Drop for Ublk {
    fn drop(&mut self) {
        // What ends by a defect is started again, and the device's users go on then.
        if thread::panicking() {
            return;
        }
        let _ = self.stop();
        // One that waited for this daemon in vain goes, too: nobody will come for it.
        let _ = self.abandon();
    }
}

/// Looks for a device of ours with that minor number: under its own number, or among the
/// others there are.
fn find(ring: &mut IoUring<Entry128>, control: &File, minor: u32) -> Option<Info> {
    let others = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("ublkc")?
                .parse()
                .ok()
        });
    others
        .filter_map(|device| info_of(ring, control, device))
        .find(|info| info.mark == MARK | u64::from(minor))
}

/// Asks for a device's info. Only while no queue is live: other completions are dropped.
fn info_of(ring: &mut IoUring<Entry128>, control: &File, device: u32) -> Option<Info> {
    let mut bytes = [0; INFO_BYTES];
    let entry = control_entry(control, Command::GetInfo, with_buffer(device, &mut bytes));
    push(ring, &entry).ok()?;
    ring.submit_and_wait(1).ok()?;
    let ended = ring.completion().find(|entry| tag_of(entry).is_none())?;
    (ended.result() >= 0).then(|| Info::decode(&bytes))
}

fn tag_of(entry: &cqueue::Entry) -> Option<u16> {
    u16::try_from(entry.user_data()).ok()
}

fn control_entry(control: &File, command: Command, content: Control) -> Entry128 {
    opcode::UringCmd80::new(types::Fd(control.as_raw_fd()), command.code())
        .cmd(content.encode())
        .build()
        .user_data(CONTROL_DATA)
}

fn queue_entry(character: &File, command: Command, tag: u16, result: i32) -> Entry128 {
    opcode::UringCmd16::new(types::Fd(character.as_raw_fd()), command.code())
        .cmd(abi::queue_command(tag, result))
        .build()
        .user_data(tag.into())
        .into()
}

/// A command whose buffer the kernel reads or fills before the command ends.
fn with_buffer<const N: usize>(device: u32, buffer: &mut [u8; N]) -> Control {
    Control {
        device,
        address: buffer.as_mut_ptr().expose_provenance() as u64,
        bytes: u16::try_from(N).expect("these structures are small"),
        data: 0,
    }
}

#[expect(unsafe_code, reason = "the crate cannot know what a command refers to")]
fn push(ring: &mut IoUring<Entry128>, entry: &Entry128) -> io::Result<()> {
    if ring.submission().is_full() {
        ring.submit()?;
    }
    // SAFETY: what entries refer to outlives them: files belong to the device and are
    // closed after its commands ended, buffers stand in the frame that waits for the end.
    unsafe { ring.submission().push(entry) }
        .map_err(|_| io::Error::other("the submission queue stays full"))
}

/// Waits for a file that the kernel or udev is about to make.
fn wait_for<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + FILE_WAIT;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            other => return other,
        }
    }
}

/// The driver's page of request descriptors.
struct Mapping {
    start: *const u8,
    bytes: usize,
}

impl Mapping {
    #[expect(unsafe_code, reason = "mapping the driver's memory")]
    fn new(character: &File, bytes: usize) -> io::Result<Self> {
        let page = 4096;
        let bytes = bytes.next_multiple_of(page);
        // SAFETY: a fresh read-only mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                character.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    #[expect(
        unsafe_code,
        reason = "the driver writes a tag's descriptor before it completes it"
    )]
    fn descriptor(&self, tag: u16) -> Descriptor {
        let at = usize::from(tag) * DESCRIPTOR_BYTES;
        assert!(
            at + DESCRIPTOR_BYTES <= self.bytes,
            "tags are below the queue's depth"
        );
        let mut bytes = [0; DESCRIPTOR_BYTES];
        // SAFETY: within the mapping; the driver leaves it alone until the tag is answered.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.add(at), bytes.as_mut_ptr(), DESCRIPTOR_BYTES);
        }
        Descriptor::decode(bytes)
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "unmapping what was mapped")]
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any more.
        unsafe {
            libc::munmap(self.start.cast_mut().cast(), self.bytes);
        }
    }
}

// The mapping is memory of the driver's that any thread may read.
#[expect(unsafe_code, reason = "a pointer into a mapping of its own")]
// SAFETY: the mapping is read only, and belongs to this value.
unsafe impl Send for Mapping {}

/// Runs something without the right to administer the system: the driver looks for
/// partitions only on devices whose server has it, and that look would be asked of a
/// thread that waits for its end. DRBD's devices have no partitions.
fn without_admin<T>(run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    const CAP_SYS_ADMIN: u32 = 1 << 21;
    let mut sets = capabilities()?;
    let effective = sets[0].effective;
    sets[0].effective &= !CAP_SYS_ADMIN;
    set_capabilities(&sets)?;
    let result = run();
    sets[0].effective = effective;
    set_capabilities(&sets)?;
    result
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `struct __user_cap_header_struct`, version 3, this thread.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const THIS_THREAD: CapabilityHeader = CapabilityHeader {
    version: 0x2008_0522,
    pid: 0,
};

#[expect(unsafe_code, reason = "libc does not wrap capabilities")]
fn capabilities() -> io::Result<[CapabilitySet; 2]> {
    let mut header = THIS_THREAD;
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: both structures have version 3's layout.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if result == 0 {
        Ok(sets)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(unsafe_code, reason = "libc does not wrap capabilities")]
fn set_capabilities(sets: &[CapabilitySet; 2]) -> io::Result<()> {
    let mut header = THIS_THREAD;
    // SAFETY: both structures have version 3's layout.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
