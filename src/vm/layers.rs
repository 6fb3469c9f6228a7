//! A disk as QEMU sees it: a writable layer over frozen ones, and what an empty disk holds.
//!
//! Every snapshot freezes the writable layer and puts an empty one on top, so no state is
//! ever copied: a snapshot is a list of frozen layers and a file of memory, and loading it is
//! an empty layer on that list. Frozen layers are never written again, so several snapshots,
//! several labs and the cache may share them (by hard links).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::units::ByteSize;

/// Deepest stack of layers; each one costs a look-up per read, and a lab this deep should go
/// back to an earlier snapshot.
pub const LAYERS_MAX: usize = 48;

const SECTOR_BYTES: usize = 512;
/// Partitions begin on whole mebibytes, as every tool aligns them today.
const ALIGNMENT_SECTORS: u64 = 2048;

/// The files of one disk, the writable one first, the base last. Names are within the lab's
/// folder of disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers(Vec<String>);

impl Layers {
    pub fn new(base: String) -> Self {
        Self(vec![base])
    }

    #[must_use]
    pub fn with_top(&self, top: String) -> Self {
        let mut names = vec![top];
        names.extend(self.0.iter().cloned());
        Self(names)
    }

    /// Returns the frozen layers below the writable one.
    #[must_use]
    pub fn below_top(&self) -> Self {
        Self(self.0[1..].to_vec())
    }

    /// Returns the top on the lowest `kept` layers: what is between them was moved into the top.
    #[must_use]
    pub fn flattened(&self, kept: usize) -> Self {
        let mut names = vec![self.0[0].clone()];
        names.extend(self.0[self.0.len() - kept..].iter().cloned());
        Self(names)
    }

    pub fn top(&self) -> &str {
        &self.0[0]
    }

    /// Names the layers' block nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.0.iter().map(|name| node_name(name)).collect()
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Describes the stack to QEMU; only the top may be written.
    pub fn blockdev(&self, folder: &str) -> Value {
        let mut below: Option<Value> = None;
        for (index, name) in self.0.iter().enumerate().rev() {
            let mut node = layer(name, folder, index == 0);
            if let Some(below) = below {
                node["backing"] = below;
            }
            below = Some(node);
        }
        below.expect("a disk has at least one layer")
    }

    /// Describes a new top alone, for a running machine: QEMU puts it on what it has.
    pub fn blockdev_top(&self, folder: &str) -> Value {
        let mut node = layer(self.top(), folder, true);
        node["backing"] = Value::Null;
        node
    }

    pub fn top_node(&self) -> String {
        node_name(self.top())
    }
}

/// A lab's disk need not survive a crash of the host, so no write waits for the host's disk.
fn layer(name: &str, folder: &str, writable: bool) -> Value {
    json!({
        "driver": "qcow2",
        "node-name": node_name(name),
        "read-only": !writable,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": format!("{folder}/{name}"),
            "read-only": !writable,
            "discard": "unmap",
            "cache": {"direct": false, "no-flush": true},
        },
    })
}

/// Names a block node after its layer's file; QEMU takes at most 31 bytes, the last of which
/// tell layers apart.
pub fn node_name(file: &str) -> String {
    const NODE_NAME_BYTES_MAX: usize = 31;
    let stem = file.strip_suffix(".qcow2").unwrap_or(file);
    let start = stem.len().saturating_sub(NODE_NAME_BYTES_MAX - 2);
    format!("n-{}", &stem[start..])
}

/// Returns the first sector of an empty disk with so many partitions of equal size (an MBR).
pub fn partition_table(size: ByteSize, partitions: u8) -> [u8; SECTOR_BYTES] {
    assert!(partitions <= 4, "the topology's reader bounds them");
    let mut sector = [0; SECTOR_BYTES];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let sectors = size.bytes() / SECTOR_BYTES as u64;
    let share = (sectors - ALIGNMENT_SECTORS) / u64::from(partitions.max(1)) / ALIGNMENT_SECTORS
        * ALIGNMENT_SECTORS;
    for index in 0..partitions {
        let start = ALIGNMENT_SECTORS + u64::from(index) * share;
        let entry = &mut sector[446 + 16 * usize::from(index)..][..16];
        // Cylinders and heads out of range: readers use the sector numbers.
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        // A Linux file system.
        entry[4] = 0x83;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        let word = |value: u64| {
            u32::try_from(value)
                .expect("the topology's reader keeps disks below 2 TiB")
                .to_le_bytes()
        };
        entry[8..12].copy_from_slice(&word(start));
        entry[12..16].copy_from_slice(&word(share));
    }
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_top_of_a_stack_may_be_written() {
        let layers = Layers::new("base.qcow2".into())
            .with_top("vm-sda.1.qcow2".into())
            .with_top("vm-sda.2.qcow2".into());
        let node = layers.blockdev("disks");
        assert_eq!(node["node-name"], "n-vm-sda.2");
        assert_eq!(node["read-only"], false);
        assert_eq!(node["backing"]["file"]["filename"], "disks/vm-sda.1.qcow2");
        assert_eq!(node["backing"]["backing"]["read-only"], true);
        assert!(node["backing"]["backing"].get("backing").is_none());
        assert_eq!(layers.blockdev_top("disks")["backing"], Value::Null);
        assert_eq!(layers.below_top().top(), "vm-sda.1.qcow2");
    }

    #[test]
    fn names_of_nodes_are_short_and_keep_their_numbers() {
        let long = format!("{}-sda.17.qcow2", "m".repeat(60));
        let name = node_name(&long);
        assert_eq!(name.len(), 31);
        assert!(name.ends_with("-sda.17"), "{name}");
    }

    #[test]
    fn partitions_share_the_disk_and_are_aligned() {
        let table = partition_table(ByteSize::from_mib(256), 2);
        let number = |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().expect("four"));
        assert_eq!((number(446 + 8), number(446 + 12)), (2048, 260_096));
        assert_eq!((number(462 + 8), number(462 + 12)), (262_144, 260_096));
        assert_eq!(&table[510..], [0x55, 0xaa]);
        assert_eq!(partition_table(ByteSize::from_mib(8), 0)[446..510], [0; 64]);
    }
}
