//! A simulated disk with a volatile cache: what was not flushed is lost at random, and the
//! last write may be torn.

use std::collections::HashMap;

use bytes::Bytes;
use halab::replica::fields::{SECTOR, narrow, wide};
use halab::replica::layout::{Layout, PAGE, Placement, Ring, Superblock, created};

use super::random::Random;

/// Data is told apart by the number each sector is filled with.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    pub layout: Layout,
    pub device_sectors: u64,
    now: Content,
    stable: Content,
    /// Writes the medium may not have yet, in the order they were done.
    unflushed: Vec<Write>,
    /// How many were done before those.
    flushed: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Content {
    sectors: Vec<u64>,
    pages: HashMap<u64, Bytes>,
}

#[derive(Clone, Debug)]
enum Write {
    Sectors(u64, Vec<u64>),
    Page(u64, Bytes),
}

impl Content {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Sectors(first, numbers) => {
                let first = narrow(*first);
                self.sectors[first..first + numbers.len()].copy_from_slice(numbers);
            }
            Write::Page(page, bytes) => {
                self.pages.insert(*page, bytes.clone());
            }
        }
    }
}

impl SimDisk {
    /// A disk with metadata as create-md writes it, or as the superblock says.
    pub(crate) fn new(device_sectors: u64, superblock: &Superblock) -> Self {
        let layout = Layout::of(Placement::Internal, device_sectors, Ring::default())
            .expect("the disk is large enough");
        let mut content = Content {
            sectors: vec![0; narrow(layout.usable_sectors)],
            pages: HashMap::new(),
        };
        for (byte, bytes) in created(&layout, superblock) {
            for (index, page) in (0..).zip(bytes.chunks(PAGE)) {
                content
                    .pages
                    .insert(byte / wide(PAGE) + index, Bytes::copy_from_slice(page));
            }
        }
        Self {
            layout,
            device_sectors,
            now: content.clone(),
            stable: content,
            unflushed: Vec::new(),
            flushed: 0,
        }
    }

    pub(crate) fn sectors(&self) -> &[u64] {
        &self.now.sectors
    }

    pub(crate) fn read(&self, byte: u64, len: u64) -> Bytes {
        let first = narrow(byte / SECTOR);
        let count = narrow(len / SECTOR);
        let mut bytes = vec![0; narrow(len)];
        for (number, sector) in self.now.sectors[first..first + count]
            .iter()
            .zip(bytes.chunks_mut(narrow(SECTOR)))
        {
            sector[..8].copy_from_slice(&number.to_le_bytes());
        }
        bytes.into()
    }

    pub(crate) fn metadata(&self, byte: u64, len: u64) -> Bytes {
        let pages = byte / wide(PAGE)..(byte + len) / wide(PAGE);
        pages
            .flat_map(|page| {
                self.now
                    .pages
                    .get(&page)
                    .cloned()
                    .unwrap_or_else(|| Bytes::from(vec![0; PAGE]))
            })
            .collect::<Vec<u8>>()
            .into()
    }

    pub(crate) fn write(&mut self, byte: u64, data: &[u8]) {
        let numbers = data
            .chunks(narrow(SECTOR))
            .map(|sector| u64::from_le_bytes(sector[..8].try_into().expect("eight bytes")))
            .collect();
        self.do_write(Write::Sectors(byte / SECTOR, numbers));
    }

    pub(crate) fn zero(&mut self, byte: u64, len: u64) {
        self.do_write(Write::Sectors(byte / SECTOR, vec![0; narrow(len / SECTOR)]));
    }

    pub(crate) fn write_page(&mut self, byte: u64, page: &Bytes) {
        self.do_write(Write::Page(byte / wide(PAGE), page.clone()));
    }

    fn do_write(&mut self, write: Write) {
        self.now.apply(&write);
        self.unflushed.push(write);
    }

    /// How many writes were done up to now; what a flush that begins now will cover.
    pub(crate) fn mark(&self) -> usize {
        self.flushed + self.unflushed.len()
    }

    /// Everything that was done up to the mark is on the medium.
    pub(crate) fn flush(&mut self, mark: usize) {
        let count = mark.saturating_sub(self.flushed).min(self.unflushed.len());
        for write in self.unflushed.drain(..count) {
            self.stable.apply(&write);
        }
        self.flushed += count;
    }

    /// The power goes: each write that was not flushed is there, or not, or in part.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        self.flushed += self.unflushed.len();
        for write in std::mem::take(&mut self.unflushed) {
            match (random.below(4), write) {
                (0 | 1, write) => self.stable.apply(&write),
                (2, Write::Sectors(first, mut numbers)) => {
                    numbers.truncate(narrow(random.below(wide(numbers.len()) + 1)));
                    self.stable.apply(&Write::Sectors(first, numbers));
                }
                // What matters of the superblock lies in its first sector.
                (2, Write::Page(page, bytes)) => {
                    let cut = narrow(random.below(8) * SECTOR);
                    let old = self.stable.pages.get(&page).cloned().unwrap_or_default();
                    let mut torn = bytes.to_vec();
                    if old.len() == torn.len() {
                        torn[cut..].copy_from_slice(&old[cut..]);
                    }
                    self.stable.apply(&Write::Page(page, torn.into()));
                }
                _ => {}
            }
        }
        self.now = self.stable.clone();
    }
}
