//! The disk: reads, writes, flushes and saves of metadata, many at a time, through one
//! `io_uring` whose completions are looked for together with everything else.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use io_uring::{IoUring, opcode, types};
use nix::fcntl::{FallocateFlags, OFlag};

use crate::replica::bitmap::Bitmap;
use crate::replica::buffers::{ALIGNMENT, Buffer, Pool};
use crate::replica::control::{Rejection, failure};
use crate::replica::device::Errno;
use crate::replica::engine::{DiskIo, DiskOp, OpenedDisk, Save};
use crate::replica::fields::{SECTOR, field32, narrow, wide};
use crate::replica::layout::{Layout, PAGE, Placement, Superblock, superblock_byte};
use crate::replica::settings::{DiskSettings, MetaDisk};

/// Operations the kernel has at once; more wait here. It has room for twice as many
/// completions, so that none is without a place.
const RING_ENTRIES: u32 = 256;
/// Writes of a save that are under way at once, each of up to so many bytes: the bitmap of a
/// large device is neither written page by page nor held in memory once more.
const SAVE_WRITES_MAX: usize = 8;
const SAVE_WRITE_BYTES_MAX: usize = 128 << 10;
/// Pages of the bitmap that are read at once.
const BITMAP_PAGES_AT_ONCE: usize = 256;
/// Sectors are this large for direct access, whatever the disk would prefer.
const SECTOR_BYTES: usize = 512;
/// Zeroes are written in pieces of this size where the disk cannot be told.
const ZERO_BYTES: usize = 1 << 20;

/// Something the disk finished.
#[derive(Debug)]
pub enum Finished {
    Io {
        id: u64,
        result: Result<Bytes, Errno>,
    },
    Saved(Result<(), Errno>),
}

/// An open disk with its metadata.
#[derive(Debug)]
pub struct FileStore {
    data: File,
    meta: Option<File>,
    flushes: bool,
    ring: Ring,
    pool: Pool,
    under_way: HashMap<u64, UnderWay>,
    /// Begun, and not yet the kernel's: there is no room.
    waiting: VecDeque<io_uring::squeue::Entry>,
    in_kernel: u32,
    next_token: u64,
    save: Option<SaveInProgress>,
    finished: Vec<Finished>,
}

/// The ring itself says nothing worth printing.
struct Ring(IoUring);

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ring")
    }
}

/// An operation the kernel has, and the memory it works on.
#[derive(Debug)]
enum UnderWay {
    Read {
        id: u64,
        buffer: Buffer,
    },
    Write {
        id: u64,
        data: Bytes,
    },
    Zero {
        id: u64,
        byte: u64,
        len: u64,
        unmap: bool,
    },
    Flush {
        id: u64,
    },
    SaveWrite {
        data: Bytes,
    },
    SaveFlush,
}

/// A save: flush the data → write all → flush the metadata.
#[derive(Debug)]
struct SaveInProgress {
    steps: VecDeque<SaveStep>,
    /// Of the step that writes: what is not under way yet.
    writes: VecDeque<(u64, Bytes)>,
    stable: bool,
    open: usize,
    failed: Option<Errno>,
}

#[derive(Debug)]
enum SaveStep {
    FlushData,
    Write(Vec<(u64, Bytes)>, bool),
    FlushMeta,
}

impl FileStore {
    /// Opens the disk for this program alone, and reads its metadata.
    pub fn open(settings: &DiskSettings, pool: Pool) -> Result<(Self, OpenedDisk), Rejection> {
        let data = open_device(&settings.disk).map_err(|error| match error.raw_os_error() {
            Some(16) => failure::disk_in_use().because(settings.disk.display()),
            _ => failure::disk_open().because(format!("{}: {error}", settings.disk.display())),
        })?;
        let device_sectors = sectors_of(&data, &settings.disk)
            .map_err(|error| failure::disk_no_block_device().because(error))?;
        let (meta, metadata_sectors, placement) = open_meta(settings, device_sectors)?;
        let holder = meta.as_ref().unwrap_or(&data);
        let read = |byte: u64, length: usize| -> io::Result<Bytes> {
            let mut buffer = pool.take(length);
            holder.read_exact_at(buffer.as_mut(), byte)?;
            Ok(buffer.freeze())
        };
        let io_error = |error: io::Error| failure::io_of_metadata().because(error);
        let superblock =
            read(superblock_byte(placement, device_sectors), PAGE).map_err(io_error)?;
        let none = |error| {
            failure::no_metadata().because(format!(
                "{}: {error}; `drbdadm create-md` writes new metadata",
                settings.disk.display()
            ))
        };
        let ring = Superblock::ring(&superblock).map_err(none)?;
        let layout = Layout::of(placement, device_sectors, ring).map_err(none)?;
        Superblock::decode(&superblock, &layout).map_err(none)?;
        let mut activity = Vec::with_capacity(narrow(layout.ring.blocks()) * PAGE);
        let in_order = u32::try_from(layout.ring.blocks()).unwrap_or(u32::MAX);
        for number in 0..in_order {
            let at = layout.activity_byte() + layout.ring.block_of(number) * wide(PAGE);
            activity.extend_from_slice(&read(at, PAGE).map_err(io_error)?);
        }
        let mut bitmap = Bitmap::new(layout.usable_sectors);
        let pages = Bitmap::bytes_on_disk(layout.usable_sectors) / wide(PAGE);
        for page in (0..pages).step_by(BITMAP_PAGES_AT_ONCE) {
            let length = narrow(pages - page).min(BITMAP_PAGES_AT_ONCE) * PAGE;
            let bytes = read(layout.bitmap_byte() + page * wide(PAGE), length).map_err(io_error)?;
            bitmap.load_page(page, &bytes);
        }
        let ring = IoUring::new(RING_ENTRIES)
            .map_err(|error| failure::disk_open().because(format!("io_uring: {error}")))?;
        let opened = OpenedDisk {
            settings: settings.clone(),
            device_sectors,
            metadata_sectors,
            superblock,
            activity: activity.into(),
            bitmap,
            discards: discards(&settings.disk),
        };
        let store = Self {
            data,
            meta,
            flushes: settings.md_flushes,
            ring: Ring(ring),
            pool,
            under_way: HashMap::new(),
            waiting: VecDeque::new(),
            in_kernel: 0,
            next_token: 1,
            save: None,
            finished: Vec::new(),
        };
        Ok((store, opened))
    }

    /// Becomes readable when something is finished.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.ring.0.as_fd_borrowed()
    }

    pub fn saving(&self) -> bool {
        self.save.is_some()
    }

    /// Whether everything handed over is finished.
    pub fn idle(&self) -> bool {
        self.under_way.is_empty() && self.save.is_none() && self.finished.is_empty()
    }

    /// Begins an operation; it reaches the kernel with the next [`Self::submit`].
    pub fn begin(&mut self, io: DiskIo) {
        let fd = types::Fd(self.data.as_raw_fd());
        let DiskIo { id, op } = io;
        match op {
            DiskOp::Read { byte, len } => {
                let mut buffer = self.pool.take(narrow(len.into()));
                let entry = opcode::Read::new(fd, buffer.as_mut().as_mut_ptr(), len)
                    .offset(byte)
                    .build();
                self.push(entry, UnderWay::Read { id, buffer });
            }
            DiskOp::Write { byte, data, stable } => {
                let data = self.aligned(data);
                let entry = write_entry(fd.0, byte, &data, stable);
                self.push(entry, UnderWay::Write { id, data });
            }
            DiskOp::Zero { byte, len, unmap } => {
                let mode = if unmap {
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE
                } else {
                    FallocateFlags::FALLOC_FL_ZERO_RANGE
                };
                let entry = opcode::Fallocate::new(fd, len)
                    .offset(byte)
                    .mode(mode.bits())
                    .build();
                let work = UnderWay::Zero {
                    id,
                    byte,
                    len,
                    unmap,
                };
                self.push(entry, work);
            }
            DiskOp::Flush => {
                let entry = flush_entry(fd.0);
                self.push(entry, UnderWay::Flush { id });
            }
        }
    }

    /// Begins a save; one at a time.
    pub fn begin_save(&mut self, save: Save) {
        let mut steps = VecDeque::new();
        if save.flush_data && self.flushes {
            steps.push_back(SaveStep::FlushData);
        }
        // A single block is made stable by its own write.
        let single = save.writes.len() == 1;
        if !save.writes.is_empty() {
            steps.push_back(SaveStep::Write(save.writes, single && self.flushes));
        }
        if !single && self.flushes {
            steps.push_back(SaveStep::FlushMeta);
        }
        self.save = Some(SaveInProgress {
            steps,
            writes: VecDeque::new(),
            stable: false,
            open: 0,
            failed: None,
        });
        self.next_save_step();
    }

    fn next_save_step(&mut self) {
        let Some(save) = &mut self.save else {
            return;
        };
        if save.failed.is_some() {
            save.writes.clear();
        }
        if !save.writes.is_empty() {
            return self.begin_save_writes();
        }
        if save.open > 0 {
            return;
        }
        let step = match save.failed {
            None => save.steps.pop_front(),
            Some(_) => None,
        };
        let Some(step) = step else {
            let result = save.failed.map_or(Ok(()), Err);
            self.save = None;
            self.finished.push(Finished::Saved(result));
            return;
        };
        let meta = self.meta.as_ref().unwrap_or(&self.data).as_raw_fd();
        match step {
            SaveStep::FlushData => {
                save.open = 1;
                let entry = flush_entry(self.data.as_raw_fd());
                self.push(entry, UnderWay::SaveFlush);
            }
            SaveStep::FlushMeta => {
                save.open = 1;
                self.push(flush_entry(meta), UnderWay::SaveFlush);
            }
            SaveStep::Write(writes, stable) => {
                save.writes = writes.into();
                save.stable = stable;
                self.begin_save_writes();
            }
        }
    }

    /// Begins as many of a save's writes as may be under way, those that lie side by side as one.
    fn begin_save_writes(&mut self) {
        let meta = self.meta.as_ref().unwrap_or(&self.data).as_raw_fd();
        while let Some(save) = &mut self.save
            && save.open < SAVE_WRITES_MAX
            && let Some((byte, data)) = save.writes.pop_front()
        {
            let mut length = data.len();
            let mut run = vec![data];
            while let Some((at, next)) = save.writes.front()
                && *at == byte + wide(length)
                && length + next.len() <= SAVE_WRITE_BYTES_MAX
            {
                length += next.len();
                run.extend(save.writes.pop_front().map(|(_, next)| next));
            }
            save.open += 1;
            let stable = save.stable;
            let data = if run.len() == 1 {
                self.aligned(run.remove(0))
            } else {
                self.joined(&run, length)
            };
            let entry = write_entry(meta, byte, &data, stable);
            self.push(entry, UnderWay::SaveWrite { data });
        }
    }

    fn joined(&self, run: &[Bytes], length: usize) -> Bytes {
        let mut buffer = self.pool.take(length);
        let mut rest = buffer.as_mut();
        for piece in run {
            let (place, after) = rest.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            rest = after;
        }
        buffer.freeze()
    }

    fn aligned(&self, data: Bytes) -> Bytes {
        if data.as_ptr().align_offset(SECTOR_BYTES) == 0 {
            data
        } else {
            self.pool.copy(&data)
        }
    }

    fn push(&mut self, entry: io_uring::squeue::Entry, work: UnderWay) {
        let token = self.next_token;
        self.next_token += 1;
        self.under_way.insert(token, work);
        self.waiting.push_back(entry.user_data(token));
    }

    /// Hands the kernel what was begun, as much as there is room for.
    pub fn submit(&mut self) -> io::Result<()> {
        while self.in_kernel < RING_ENTRIES
            && let Some(entry) = self.waiting.pop_front()
        {
            // SAFETY: the memory the entry points to is owned by its work, which stays in
            // `under_way` until the kernel's completion for its token was taken.
            #[expect(unsafe_code, reason = "the ring takes raw addresses")]
            let pushed = unsafe { self.ring.0.submission().push(&entry) };
            pushed.expect("the ring has room for as many as the kernel may have");
            self.in_kernel += 1;
        }
        if self.ring.0.submission().is_empty() {
            return Ok(());
        }
        match self.ring.0.submit() {
            Ok(_) => Ok(()),
            // Busy or interrupted: the entries stay, and go with the next turn.
            Err(error) if matches!(error.raw_os_error(), Some(4 | 11 | 16)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Appends what is finished.
    pub fn take(&mut self, into: &mut Vec<Finished>) {
        loop {
            let done: Vec<(u64, i32)> = self
                .ring
                .0
                .completion()
                .map(|entry| (entry.user_data(), entry.result()))
                .collect();
            if done.is_empty() {
                break;
            }
            for (token, result) in done {
                self.in_kernel -= 1;
                self.done(token, result);
            }
        }
        into.append(&mut self.finished);
    }

    fn done(&mut self, token: u64, result: i32) {
        let Some(work) = self.under_way.remove(&token) else {
            return;
        };
        let of = |expected: usize| match usize::try_from(result) {
            Ok(length) if length == expected => Ok(()),
            Ok(_) => Err(Errno::IO),
            Err(_) => Err(Errno(-result)),
        };
        match work {
            UnderWay::Read { id, buffer } => {
                let result = of(buffer.as_ref().len()).map(|()| buffer.freeze());
                self.finished.push(Finished::Io { id, result });
            }
            UnderWay::Write { id, data } => {
                let result = of(data.len()).map(|()| Bytes::new());
                self.finished.push(Finished::Io { id, result });
            }
            UnderWay::Zero {
                id,
                byte,
                len,
                unmap,
            } => {
                let result = match of(0) {
                    Err(Errno::NOT_SUPPORTED) => self.zero_by_hand(byte, len, unmap),
                    other => other,
                };
                let result = result.map(|()| Bytes::new());
                self.finished.push(Finished::Io { id, result });
            }
            UnderWay::Flush { id } => {
                let result = of(0).map(|()| Bytes::new());
                self.finished.push(Finished::Io { id, result });
            }
            UnderWay::SaveWrite { data } => self.save_step_done(of(data.len())),
            UnderWay::SaveFlush => self.save_step_done(of(0)),
        }
    }

    fn save_step_done(&mut self, result: Result<(), Errno>) {
        if let Some(save) = &mut self.save {
            save.open -= 1;
            save.failed = save.failed.or_else(|| result.err());
            self.next_save_step();
        }
    }

    /// The disk cannot be told to be zero there: then it is written.
    fn zero_by_hand(&self, byte: u64, len: u64, unmap: bool) -> Result<(), Errno> {
        if unmap
            && nix::fcntl::fallocate(
                self.data.as_fd(),
                FallocateFlags::FALLOC_FL_ZERO_RANGE,
                i64::try_from(byte).unwrap_or(i64::MAX),
                i64::try_from(len).unwrap_or(i64::MAX),
            )
            .is_ok()
        {
            return Ok(());
        }
        let zeroes = self.pool.copy(&vec![0; ZERO_BYTES.min(narrow(len))]);
        let mut at = byte;
        while at < byte + len {
            let piece = narrow((byte + len - at).min(wide(zeroes.len())));
            self.data
                .write_all_at(&zeroes[..piece], at)
                .map_err(|error| Errno(error.raw_os_error().unwrap_or(5)))?;
            at += wide(piece);
        }
        Ok(())
    }
}

/// The ring's descriptor as one that can be waited for.
trait AsFdBorrowed {
    fn as_fd_borrowed(&self) -> BorrowedFd<'_>;
}

impl AsFdBorrowed for IoUring {
    fn as_fd_borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's, and the borrow does not outlive it.
        #[expect(unsafe_code, reason = "the ring does not lend its descriptor itself")]
        unsafe {
            BorrowedFd::borrow_raw(self.as_raw_fd())
        }
    }
}

fn write_entry(fd: RawFd, byte: u64, data: &Bytes, stable: bool) -> io_uring::squeue::Entry {
    /// As `pwritev2` counts its flags.
    const RWF_DSYNC: i32 = 2;
    opcode::Write::new(types::Fd(fd), data.as_ptr(), field32(wide(data.len())))
        .offset(byte)
        .rw_flags(if stable { RWF_DSYNC } else { 0 })
        .build()
}

fn flush_entry(fd: RawFd) -> io_uring::squeue::Entry {
    opcode::Fsync::new(types::Fd(fd))
        .flags(types::FsyncFlags::DATASYNC)
        .build()
}

fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_DIRECT | OFlag::O_EXCL | OFlag::O_CLOEXEC).bits())
        .open(path)
}

/// Sectors of a block device, or of a file that stands for one.
fn sectors_of(file: &File, path: &Path) -> Result<u64, String> {
    use std::io::Seek;
    let kind = file
        .metadata()
        .map_err(|error| error.to_string())?
        .file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Err(format!("{}", path.display()));
    }
    let mut file = file;
    file.seek(io::SeekFrom::End(0))
        .map(|bytes| bytes / SECTOR)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn open_meta(
    settings: &DiskSettings,
    device_sectors: u64,
) -> Result<(Option<File>, u64, Placement), Rejection> {
    let path = match &settings.meta {
        MetaDisk::Internal => return Ok((None, device_sectors, Placement::Internal)),
        MetaDisk::External(path) | MetaDisk::Indexed(path, _) => path,
    };
    // Slots of one device belong to several resources: it is not taken alone.
    let mut options = OpenOptions::new();
    let alone = match settings.meta {
        MetaDisk::External(_) => OFlag::O_EXCL,
        _ => OFlag::empty(),
    };
    let file = options
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_DIRECT | OFlag::O_CLOEXEC | alone).bits())
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(16) => failure::meta_disk_in_use().because(path.display()),
            _ => failure::meta_disk_open().because(format!("{}: {error}", path.display())),
        })?;
    let metadata_sectors = sectors_of(&file, path)
        .map_err(|error| failure::meta_disk_no_block_device().because(error))?;
    let placement = match settings.meta {
        MetaDisk::Indexed(_, index) => Placement::Indexed {
            index,
            metadata_sectors,
        },
        _ => Placement::External { metadata_sectors },
    };
    Ok((Some(file), metadata_sectors, placement))
}

/// Whether the disk takes discards.
fn discards(path: &Path) -> bool {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(name) = name.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let of = |folder: String| {
        std::fs::read_to_string(folder)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    of(format!("/sys/class/block/{name}/queue/discard_max_bytes"))
        .or_else(|| {
            of(format!(
                "/sys/class/block/{name}/../queue/discard_max_bytes"
            ))
        })
        .is_some_and(|bytes| bytes > 0)
}

const _: () = assert!(
    ALIGNMENT.is_multiple_of(SECTOR_BYTES),
    "pages hold whole sectors"
);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::replica::layout::{Ring as LogRing, created};
    use crate::replica::settings::{OnIoError, ResyncSettings};

    /// As long as nothing on a disk takes.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A sparse disk of so many sectors with new metadata.
    fn disk(sectors: u64) -> (tempfile::NamedTempFile, Layout, DiskSettings) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(sectors * SECTOR).expect("sparse");
        let layout = Layout::of(Placement::Internal, sectors, LogRing::default()).expect("large");
        for (byte, bytes) in created(&layout, &Superblock::created(7)) {
            file.as_file().write_all_at(&bytes, byte).expect("written");
        }
        let settings = DiskSettings {
            disk: file.path().to_owned(),
            meta: MetaDisk::Internal,
            size_sectors: 0,
            on_io_error: OnIoError::Detach,
            fencing: false,
            al_extents: 1237,
            disk_flushes: true,
            md_flushes: true,
            resync: ResyncSettings::default(),
        };
        (file, layout, settings)
    }

    fn run(mut store: FileStore, save: Save) -> Finished {
        store.begin_save(save);
        let mut finished = Vec::new();
        while finished.is_empty() {
            store.submit().expect("the ring takes it");
            store.take(&mut finished);
        }
        finished.remove(0)
    }

    #[test]
    fn a_save_of_more_than_the_ring_has_room_for_is_written() {
        let (file, layout, settings) = disk(512 << 21);
        let pages = Bitmap::bytes_on_disk(layout.usable_sectors) / wide(PAGE);
        let page =
            |number: u64| Bytes::from(vec![u8::try_from(number % 251).expect("small"); PAGE]);
        let (store, _) = FileStore::open(&settings, Pool::default()).expect("opened");
        let writes =
            (0..pages).map(|number| (layout.bitmap_byte() + number * wide(PAGE), page(number)));
        let save = Save {
            flush_data: true,
            writes: writes.collect(),
        };
        let (done, is_done) = channel();
        thread::spawn(move || done.send(run(store, save)));
        let finished = is_done.recv_timeout(LIMIT).expect("it is saved in time");
        assert!(matches!(finished, Finished::Saved(Ok(()))), "{finished:?}");
        let mut found = vec![0; PAGE];
        for number in 0..pages {
            let at = layout.bitmap_byte() + number * wide(PAGE);
            file.as_file().read_exact_at(&mut found, at).expect("read");
            assert_eq!(found, page(number), "page {number} of {pages}");
        }
    }
}
