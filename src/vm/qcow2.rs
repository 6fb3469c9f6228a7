//! The few bytes of the qcow2 format halab needs: is this file one, how large is its disk, and
//! an empty overlay.
//!
//! Overlays are written here rather than by `qemu-img`, because a warm start and each snapshot
//! make one for every disk, and a process each would cost more than the machine's own start.
//!
//! Layout of an overlay of [`empty_overlay`], one cluster (64 KiB) a row:
//!
//! | cluster | content |
//! |---|---|
//! | 0 | header, end of extensions, name of the backing file |
//! | 1 | refcount table: one entry, the block in cluster 2 |
//! | 2 | refcount block: each used cluster is used once |
//! | 3… | L1 table, all zero: every read goes to the backing file |

const MAGIC: u32 = 0x5146_49fb;
const VERSION: u32 = 3;
/// QEMU's own default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// Bytes of a version 3 header, without compression type.
const HEADER_BYTES: u32 = 104;
/// One L1 entry leads to one L2 table of 8-byte entries, one a cluster.
const BYTES_PER_L1_ENTRY: u64 = CLUSTER_BYTES / 8 * CLUSTER_BYTES;
/// The specification's bound.
pub const BACKING_NAME_BYTES_MAX: usize = 1023;
/// Bytes from a file's start that [`Header::parse`] looks at.
pub const HEAD_BYTES: usize = 80;
/// Of the incompatible features: the disk's content is in another file, which the header names.
const EXTERNAL_DATA: u64 = 1 << 2;

/// What a qcow2 file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub disk_bytes: u64,
    /// Where its backing file's name is, and how long.
    pub backing_name: Option<(u64, u32)>,
    pub has_external_data: bool,
    pub is_encrypted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("it does not begin with `QFI\\xfb`")]
    Magic,
    #[error("it ends within the header, after {found} bytes")]
    Short { found: usize },
    #[error("it is of version {found}, not 2 or 3")]
    Version { found: u32 },
}

impl Header {
    /// Reads a file's first [`HEAD_BYTES`] bytes (or fewer, when the file is shorter).
    pub fn parse(head: &[u8]) -> Result<Self, HeaderError> {
        if head.get(..4) != Some(&MAGIC.to_be_bytes()) {
            return Err(HeaderError::Magic);
        }
        if head.len() < HEAD_BYTES {
            return Err(HeaderError::Short { found: head.len() });
        }
        let version = be32(head, 4);
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Version { found: version });
        }
        let backing_at = be64(head, 8);
        Ok(Self {
            disk_bytes: be64(head, 24),
            backing_name: (backing_at != 0).then(|| (backing_at, be32(head, 16))),
            has_external_data: version >= 3 && be64(head, 72) & EXTERNAL_DATA != 0,
            is_encrypted: be32(head, 32) != 0,
        })
    }

    pub fn has_backing_file(&self) -> bool {
        self.backing_name.is_some()
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Returns a whole qcow2 file that holds nothing of its own: a disk of `disk_bytes`, read
/// from `backing`. The name serves `qemu-img info`; halab hands QEMU each layer itself.
pub fn empty_overlay(disk_bytes: u64, backing: &str) -> Vec<u8> {
    assert!(
        backing.len() <= BACKING_NAME_BYTES_MAX,
        "file names are shorter than qcow2's bound"
    );
    let l1_entries = disk_bytes.div_ceil(BYTES_PER_L1_ENTRY).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER_BYTES);
    let clusters = 3 + l1_clusters;
    let mut file = vec![0; usize::try_from(clusters * CLUSTER_BYTES).expect("a few clusters")];
    // Format name of the backing file, then the end of the extensions.
    let extension_at = HEADER_BYTES as usize;
    let format = b"qcow2";
    let backing_at = extension_at + 8 + 8 + 8;
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_be_bytes());
    put(4, &VERSION.to_be_bytes());
    put(8, &(backing_at as u64).to_be_bytes());
    put(
        16,
        &u32::try_from(backing.len())
            .expect("bounded above")
            .to_be_bytes(),
    );
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &disk_bytes.to_be_bytes());
    put(
        36,
        &u32::try_from(l1_entries)
            .expect("a disk below 2^61 bytes")
            .to_be_bytes(),
    );
    put(40, &(3 * CLUSTER_BYTES).to_be_bytes());
    put(48, &CLUSTER_BYTES.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    // 16-bit refcounts (order 4).
    put(96, &4_u32.to_be_bytes());
    put(100, &HEADER_BYTES.to_be_bytes());
    put(extension_at, &0xe279_2aca_u32.to_be_bytes());
    put(extension_at + 4, &5_u32.to_be_bytes());
    put(extension_at + 8, format);
    put(backing_at, backing.as_bytes());
    let cluster = 1 << CLUSTER_BITS;
    put(cluster, &(2 * CLUSTER_BYTES).to_be_bytes());
    for used in 0..usize::try_from(clusters).expect("a few clusters") {
        put(2 * cluster + 2 * used, &1_u16.to_be_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_says_what_it_is() {
        let mut file = empty_overlay(4 << 30, "base.qcow2");
        assert_eq!(
            Header::parse(&file),
            Ok(Header {
                disk_bytes: 4 << 30,
                backing_name: Some((128, 10)),
                has_external_data: false,
                is_encrypted: false
            })
        );
        let name_at = usize::try_from(be64(&file, 8)).expect("small");
        assert_eq!(&file[name_at..name_at + 10], b"base.qcow2");
        assert_eq!(file.len() as u64, 4 * CLUSTER_BYTES);
        file[79] |= 4;
        assert!(Header::parse(&file).expect("a header").has_external_data);
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        assert_eq!(Header::parse(b"MZ"), Err(HeaderError::Magic));
        assert_eq!(Header::parse(b""), Err(HeaderError::Magic));
        assert_eq!(
            Header::parse(b"QFI\xfb\0\0\0\x03"),
            Err(HeaderError::Short { found: 8 })
        );
        let mut file = empty_overlay(1 << 20, "b");
        file[7] = 9;
        assert_eq!(Header::parse(&file), Err(HeaderError::Version { found: 9 }));
    }
}
