//! Metadata of a disk that nobody has attached: made, shown, wiped, its log applied.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;

use super::command::{complain, say};
use crate::replica::activity::{initialized_block, replay};
use crate::replica::bitmap::Bitmap;
use crate::replica::layout::{
    Flags, Layout, LayoutError, PAGE, Placement, Ring, Superblock, created, superblock_byte,
};
use crate::replica::settings::MetaDisk;
use crate::replica::text::dump_md::{Head, dump_md};

const SECTOR: u64 = 512;

/// An extent of the activity log: 4 MiB.
const EXTENT_SECTORS: u64 = 8192;

/// drbdmeta's exit codes.
const REFUSED: u8 = 40;
const UNUSABLE: u8 = 20;
const NO_METADATA: u8 = 1;

/// What ended a command before its end: the code, and the words for it.
#[derive(Debug)]
pub(super) struct Ended {
    pub code: u8,
    pub text: String,
}

impl Ended {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// A disk and where its metadata lies.
pub(super) struct Disk<'a> {
    pub minor: u32,
    pub data: &'a Path,
    pub meta: &'a MetaDisk,
}

/// Both open for this program alone.
struct Opened {
    meta: File,
    meta_path: PathBuf,
    data_sectors: u64,
    placement: Placement,
}

impl Disk<'_> {
    fn open(&self) -> Result<Opened, Ended> {
        let meta_path = match self.meta {
            MetaDisk::Internal => self.data.to_owned(),
            MetaDisk::External(path) | MetaDisk::Indexed(path, _) => path.clone(),
        };
        let mut data = self.open_one(self.data)?;
        let data_sectors = sectors_of(&mut data, self.data)?;
        let (meta, placement) = match self.meta {
            MetaDisk::Internal => (data, Placement::Internal),
            MetaDisk::External(_) | MetaDisk::Indexed(..) => {
                let mut meta = self.open_one(&meta_path)?;
                let metadata_sectors = sectors_of(&mut meta, &meta_path)?;
                let placement = match self.meta {
                    MetaDisk::Indexed(_, index) => Placement::Indexed {
                        index: *index,
                        metadata_sectors,
                    },
                    _ => Placement::External { metadata_sectors },
                };
                (meta, placement)
            }
        };
        Ok(Opened {
            meta,
            meta_path,
            data_sectors,
            placement,
        })
    }

    fn open_one(&self, path: &Path) -> Result<File, Ended> {
        let shown = path.display();
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(path);
        let file = opened.map_err(|error| {
            let mut text = format!("open({shown}) failed: {error}");
            if error.kind() == io::ErrorKind::ResourceBusy {
                let device = self.minor;
                let _ = write!(text, "\nIs it mounted, or device '{device}' attached? Unmount it, or `drbdadm detach` first.");
            }
            Ended::new(UNUSABLE, text)
        })?;
        let is_device = file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_block_device());
        if is_device {
            Ok(file)
        } else {
            Err(Ended::new(
                UNUSABLE,
                format!("'{shown}' is not a block device!"),
            ))
        }
    }

    /// How drbdmeta's command line names the place of the metadata.
    pub(super) fn place_word(&self) -> String {
        match self.meta {
            MetaDisk::Internal => "internal".to_owned(),
            MetaDisk::External(_) => "flex-external".to_owned(),
            MetaDisk::Indexed(_, index) => index.to_string(),
        }
    }

    /// The disk that holds the metadata.
    pub(super) fn meta_path(&self) -> &Path {
        match self.meta {
            MetaDisk::Internal => self.data,
            MetaDisk::External(path) | MetaDisk::Indexed(path, _) => path,
        }
    }
}

fn sectors_of(file: &mut File, path: &Path) -> Result<u64, Ended> {
    let bytes = file
        .seek(SeekFrom::End(0))
        .map_err(|error| Ended::new(UNUSABLE, format!("{}: {error}", path.display())))?;
    Ok(bytes / SECTOR)
}

impl Opened {
    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, Ended> {
        let mut content = vec![0; bytes];
        match self.meta.read_exact_at(&mut content, at) {
            Ok(()) => Ok(content),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Ended> {
        let written = self.meta.write_all_at(bytes, at);
        written.map_err(|error| self.failed("write", &error))
    }

    fn sync(&self) -> Result<(), Ended> {
        self.meta
            .sync_all()
            .map_err(|error| self.failed("flush", &error))
    }

    fn failed(&self, attempt: &str, error: &io::Error) -> Ended {
        let path = self.meta_path.display();
        Ended::new(UNUSABLE, format!("failed to {attempt} {path}: {error}"))
    }

    /// Reads what is there; `None` when it is no metadata.
    fn find(&self) -> Result<Option<(Layout, Superblock)>, Ended> {
        let at = superblock_byte(self.placement, self.data_sectors);
        let bytes = self.read(at, PAGE)?;
        let found = (|| {
            let ring = Superblock::ring(&bytes)?;
            let layout = Layout::of(self.placement, self.data_sectors, ring)?;
            Ok((layout, Superblock::decode(&bytes, &layout)?))
        })();
        match found {
            Ok(found) => Ok(Some(found)),
            Err(LayoutError::OldVersion) => {
                Err(Ended::new(NO_METADATA, LayoutError::OldVersion.to_string()))
            }
            Err(_) => Ok(None),
        }
    }

    fn must_find(&self) -> Result<(Layout, Superblock), Ended> {
        self.find()?
            .ok_or_else(|| Ended::new(NO_METADATA, "No valid meta data found"))
    }

    fn bitmap(&self, layout: &Layout, superblock: &Superblock) -> Result<Bitmap, Ended> {
        let sectors = superblock.agreed_sectors;
        let bytes = usize::try_from(Bitmap::bytes_on_disk(sectors)).expect("at most 32 GiB");
        let content = self.read(layout.bitmap_byte(), bytes)?;
        Ok(Bitmap::load(sectors, &content))
    }
}

/// Writes new metadata, after asking where something would be lost.
pub(super) fn create(disk: &Disk<'_>, is_forced: bool, ring: Ring) -> Result<(), Ended> {
    let opened = disk.open()?;
    let layout = Layout::of(opened.placement, opened.data_sectors, ring)
        .map_err(|error| Ended::new(UNUSABLE, format!("{}: {error}", disk.data.display())))?;
    if opened.find()?.is_some() {
        say(&format!(
            "There is DRBD metadata (v08, {}) on {} already, at byte {}.\nWith new metadata the data on it counts as unknown.",
            disk.place_word(),
            opened.meta_path.display(),
            layout.superblock_byte()
        ));
        confirm("Overwrite the existing metadata?", is_forced)?;
    } else {
        keep_content(&opened, &layout, is_forced)?;
    }
    let bitmap_bytes = Bitmap::bytes_on_disk(layout.usable_sectors);
    complain(&format!(
        "initializing bitmap ({} KB) to all zero",
        bitmap_bytes / 1024
    ));
    say("initializing activity log");
    for (at, bytes) in created(&layout, &Superblock::created(random()?)) {
        opened.write(at, &bytes)?;
        // In order: a creation that is cut short leaves none rather than half of it.
        opened.sync()?;
    }
    say("Writing meta data...\nNew drbd meta data block successfully created.");
    Ok(())
}

/// Refuses where a file system would lose blocks; asks where there seems to be room.
fn keep_content(opened: &Opened, layout: &Layout, is_forced: bool) -> Result<(), Ended> {
    let Some(content) = Content::look(&opened.meta) else {
        return Ok(());
    };
    let (is_internal, left_kb) = match opened.placement {
        Placement::Internal => (true, layout.usable_sectors / 2),
        _ => (false, 0),
    };
    let mut found = format!(
        "md_offset {}\nal_offset {}\nbm_offset {}\n\nFound {}\n",
        layout.superblock_byte(),
        layout.activity_byte(),
        layout.bitmap_byte(),
        content.name
    );
    if let Some(used_kb) = content.used_kb.filter(|_| is_internal) {
        let _ = write!(
            found,
            "{used_kb:12} kB data area apparently used\n{left_kb:12} kB left usable by current configuration\n"
        );
        if used_kb <= left_kb {
            say(&found);
            say("The metadata would lie behind it, as far as that can be guessed.");
            return confirm("Write it there?", is_forced);
        }
    }
    let path = opened.meta_path.display();
    Err(Ended::new(
        REFUSED,
        format!(
            "{found}\nThe metadata would overwrite a part of it. Shrink it first, keep the metadata on another disk\n(meta-disk), or zero this one if nothing on it is needed: dd if=/dev/zero of={path} bs=64K\nOperation refused.\n"
        ),
    ))
}

/// What stands on a disk that is not DRBD's.
struct Content {
    name: &'static str,
    /// Up to where it reaches; unknown where it says no size.
    used_kb: Option<u64>,
}

impl Content {
    /// Looks for the signatures that a lab or a server is likely to have.
    fn look(file: &File) -> Option<Self> {
        /// btrfs keeps its superblock at 64 KiB.
        const LOOKED_AT: usize = 0x1_0000 + 4096;
        let mut head = vec![0; LOOKED_AT];
        file.read_exact_at(&mut head, 0).ok()?;
        let le32 = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let le64 = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let be32 = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let be64 = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        if head[0x438..0x43a] == [0x53, 0xef] {
            let block_kb = 1u64.checked_shl(le32(0x418)).unwrap_or(1);
            return Some(Self {
                name: "ext3 filesystem",
                used_kb: u64::from(le32(0x404)).checked_mul(block_kb),
            });
        }
        if head.starts_with(b"XFSB") {
            return Some(Self {
                name: "xfs filesystem",
                used_kb: be64(8).checked_mul(u64::from(be32(4)) / 1024),
            });
        }
        if head[0x1_0040..0x1_0048] == *b"_BHRfS_M" {
            return Some(Self {
                name: "btrfs filesystem",
                used_kb: Some(le64(0x1_0070) / 1024),
            });
        }
        let without_size = [
            ("LVM2 physical volume signature", 512..520, &b"LABELONE"[..]),
            ("LUKS signature", 0..6, &b"LUKS\xba\xbe"[..]),
            ("swap space signature", 4086..4096, &b"SWAPSPACE2"[..]),
        ];
        without_size
            .into_iter()
            .find(|(_, place, magic)| head[place.clone()] == **magic)
            .map(|(name, ..)| Self {
                name,
                used_kb: None,
            })
    }
}

/// Takes the metadata away.
pub(super) fn wipe(disk: &Disk<'_>, is_forced: bool) -> Result<(), Ended> {
    let opened = disk.open()?;
    let Some((layout, _)) = opened.find()? else {
        say("There appears to be no drbd meta data to wipe out?");
        return Ok(());
    };
    confirm(
        "Do you really want to wipe out the DRBD meta data?",
        is_forced,
    )?;
    say("Wiping meta data...");
    opened.write(layout.superblock_byte(), &[0; PAGE])?;
    opened.sync()?;
    say("DRBD meta data block successfully wiped out.");
    Ok(())
}

/// Returns the superblock.
pub(super) fn superblock(disk: &Disk<'_>) -> Result<Superblock, Ended> {
    Ok(disk.open()?.must_find()?.1)
}

/// Returns the dump's text.
pub(super) fn dump(disk: &Disk<'_>, host: &str) -> Result<String, Ended> {
    let opened = disk.open()?;
    let (layout, superblock) = opened.must_find()?;
    if !superblock.clean() {
        let text = "Found meta data is \"unclean\", please apply-al first";
        return Err(Ended::new(NO_METADATA, text));
    }
    let bitmap = opened.bitmap(&layout, &superblock)?;
    let mut words = bitmap.words().to_vec();
    let whole_pages = Bitmap::bytes_on_disk(superblock.agreed_sectors) / 8;
    words.resize(usize::try_from(whole_pages).expect("at most 32 GiB"), 0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let command_line = format!(
        "drbdmeta {} v08 {} {} dump-md",
        disk.minor,
        disk.meta_path().display(),
        disk.place_word()
    );
    let head = Head {
        time: &local_time(),
        epoch: since.as_secs(),
        host,
        command_line: &command_line,
    };
    Ok(dump_md(head, &layout, &superblock, &words))
}

/// The time as the machine's zone has it; only `date` knows the zones.
fn local_time() -> String {
    let output = std::process::Command::new("date").arg("+%F %T %z").output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Applies the activity log: what may have been written and not sent counts as different.
pub(super) fn apply_activity_log(disk: &Disk<'_>) -> Result<(), Ended> {
    let opened = disk.open()?;
    let (layout, mut superblock) = opened.must_find()?;
    if superblock.clean() {
        return Ok(());
    }
    let blocks = usize::try_from(layout.ring.blocks()).expect("at most 16 GiB");
    let ring = opened.read(layout.activity_byte(), blocks * PAGE)?;
    let in_order = (0..u32::try_from(blocks).expect("checked with the ring")).map(|transaction| {
        let at =
            usize::try_from(layout.ring.block_of(transaction)).expect("within the ring") * PAGE;
        &ring[at..at + PAGE]
    });
    if superblock.flags.has(Flags::PRIMARY) {
        let extents = replay(in_order).map_err(|error| Ended::new(UNUSABLE, error.to_string()))?;
        let mut bitmap = opened.bitmap(&layout, &superblock)?;
        for extent in extents {
            let start = u64::from(extent) * EXTENT_SECTORS;
            let end = (start + EXTENT_SECTORS).min(superblock.agreed_sectors);
            bitmap.mark_sectors(start.min(end)..end);
        }
        for (number, page) in bitmap.take_unsaved() {
            opened.write(layout.bitmap_byte() + number * PAGE as u64, &page)?;
        }
        opened.sync()?;
        let marked_kib = bitmap.bits_set() * 4;
        if marked_kib > 0 {
            say(&format!(
                "{marked_kib} KB count as different from the peer's by the activity log."
            ));
        }
    }
    opened.write(layout.activity_byte(), &initialized_block().repeat(blocks))?;
    opened.sync()?;
    superblock.flags = superblock.flags.with(Flags::ACTIVITY_CLEAN, true);
    opened.write(layout.superblock_byte(), &superblock.encode(&layout))?;
    opened.sync()
}

/// Asks; only a person can say yes, or `--force`.
fn confirm(question: &str, is_forced: bool) -> Result<(), Ended> {
    say(&format!("\n{question}"));
    if is_forced {
        say("*** confirmation forced via --force option ***");
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        say("stdin not a TTY, not waiting for confirmation");
        return Err(Ended::new(1, "Operation cancelled."));
    }
    say("[need to type 'yes' to confirm]");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Ended::new(1, "Operation cancelled."))
    }
}

fn random() -> Result<u64, Ended> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Ended::new(UNUSABLE, format!("/dev/urandom: {error}")))?;
    Ok(u64::from_ne_bytes(bytes))
}
