//! What an application may expect to read, and who may be made Primary.

use std::collections::{HashMap, HashSet};

use halab::replica::device::DeviceOp;
use halab::replica::fields::{SECTOR, narrow, wide};

/// One value a sector may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    number: u64,
    tag: u64,
    acknowledged: bool,
    flushed: bool,
}

/// Every sector's values, oldest first; what is older than the last one that is certain is
/// gone.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    sectors: Vec<Vec<Value>>,
    open: HashMap<u64, (u64, u64)>,
    /// Open when the last node with all data lost power: their answers may have been on their way, from a cache
    /// that is gone.
    unsure: HashSet<u64>,
    /// Writes that were acknowledged since the last flush was asked for: tags.
    flushes: HashMap<u64, Vec<u64>>,
    unflushed: Vec<u64>,
    reads: HashMap<u64, Vec<u64>>,
    places: HashMap<u64, (u64, u64)>,
    good: [bool; 2],
    /// The Primary lost power, and nobody took over yet: when it comes back first it goes on
    /// with what it had flushed, as with any disk's cache.
    doubt: Option<usize>,
    /// Only protocol C keeps what it acknowledged when the other node takes over.
    certain: bool,
}

fn area(op: &DeviceOp) -> (u64, u64) {
    let (offset, length) = match op {
        DeviceOp::Read { offset, len } => (*offset, u64::from(*len)),
        DeviceOp::Write { offset, data, .. } => (*offset, wide(data.len())),
        DeviceOp::Discard { offset, len } | DeviceOp::WriteZeroes { offset, len } => {
            (*offset, *len)
        }
        DeviceOp::Flush => (0, 0),
    };
    (offset / SECTOR, (offset + length) / SECTOR)
}

impl Oracle {
    pub(crate) fn new(sectors: usize, certain: bool) -> Self {
        let first = Value {
            number: 0,
            tag: 0,
            acknowledged: true,
            flushed: true,
        };
        Self {
            sectors: vec![vec![first]; sectors],
            open: HashMap::new(),
            unsure: HashSet::new(),
            flushes: HashMap::new(),
            unflushed: Vec::new(),
            reads: HashMap::new(),
            places: HashMap::new(),
            good: [true; 2],
            doubt: None,
            certain,
        }
    }

    pub(crate) fn good(&self, node: usize) -> bool {
        self.good[node]
    }

    pub(crate) fn both_good(&mut self) {
        if self.doubt.take().is_some() {
            self.weaken();
        }
        self.good = [true; 2];
    }

    /// A node's data is being replaced: by what the one that lost power had flushed, if that is
    /// the other.
    pub(crate) fn gives_way(&mut self, node: usize) {
        if self.doubt == Some(1 - node) {
            self.doubt = None;
            self.weaken();
        }
    }

    /// A node is Primary: if it is not the one that lost power, it goes on with all there is.
    pub(crate) fn primary(&mut self, node: usize) {
        if self.doubt == Some(1 - node) {
            self.doubt = None;
        }
    }

    /// A Primary without its peer began a history of its own, whether it writes or not: who
    /// promotes the other from here on splits them.
    pub(crate) fn alone(&mut self, node: usize) {
        self.good[1 - node] = false;
    }

    pub(crate) fn asked(&mut self, tag: u64, op: &DeviceOp) {
        let (start, end) = area(op);
        let number = match op {
            DeviceOp::Write { .. } => tag,
            DeviceOp::WriteZeroes { .. } | DeviceOp::Discard { .. } => 0,
            DeviceOp::Flush => {
                self.flushes.insert(tag, self.unflushed.clone());
                return;
            }
            DeviceOp::Read { .. } => {
                let floors = (start..end)
                    .map(|sector| self.allowed(sector).first().map_or(0, |value| value.tag))
                    .collect();
                self.reads.insert(tag, floors);
                return;
            }
        };
        self.open.insert(tag, (start, end));
        for sector in start..end {
            self.sectors[narrow(sector)].push(Value {
                number,
                tag,
                acknowledged: false,
                flushed: false,
            });
        }
    }

    /// Answered: from now on it must be there; `alone`: only on this node.
    pub(crate) fn done(&mut self, tag: u64, op: &DeviceOp, node: usize, alone: bool) {
        if alone {
            self.good[1 - node] = false;
        }
        if let Some(written) = self.flushes.remove(&tag) {
            for tag in written {
                let Some((start, end)) = self.places.get(&tag).copied() else {
                    continue;
                };
                self.change(tag, start, end, |value| value.flushed = true);
            }
            return;
        }
        let (start, end) = self.open.remove(&tag).expect("it was asked for");
        let fua = matches!(op, DeviceOp::Write { fua: true, .. });
        let sure = !self.unsure.remove(&tag) || fua;
        self.change(tag, start, end, |value| {
            value.acknowledged = sure;
            value.flushed |= fua;
        });
        self.places.insert(tag, (start, end));
        self.unflushed.push(tag);
    }

    fn change(&mut self, tag: u64, start: u64, end: u64, how: impl Fn(&mut Value)) {
        for sector in start..end {
            for value in &mut self.sectors[narrow(sector)] {
                if value.tag == tag {
                    how(value);
                }
            }
        }
    }

    /// Never answered, or answered with an error: it may be there or not.
    pub(crate) fn left_open(&mut self, tag: u64) {
        self.open.remove(&tag);
        self.flushes.remove(&tag);
        self.reads.remove(&tag);
    }

    pub(crate) fn detached(&mut self, node: usize) {
        if self.good[1 - node] {
            self.good[node] = false;
        }
    }

    /// A node with all data lost power: what it had not flushed is gone there.
    pub(crate) fn crashed(&mut self, node: usize, other_good: bool, primary: bool) {
        if other_good {
            self.good[node] = false;
            if primary {
                self.doubt = Some(node);
            }
            return;
        }
        // Nobody else has it: only what was flushed is certain, and who is to go on with it
        // is for the two to find out.
        self.good = [false; 2];
        self.doubt = None;
        self.unsure.extend(self.open.keys());
        self.weaken();
    }

    /// Only what was flushed is certain.
    fn weaken(&mut self) {
        for values in &mut self.sectors {
            for value in values {
                value.acknowledged &= value.flushed;
            }
        }
        self.unflushed.clear();
    }

    /// The values a sector may have now: overlapping writes take effect in the order they
    /// were asked for, so nothing older than the last that was acknowledged.
    fn allowed(&self, sector: u64) -> &[Value] {
        let values = &self.sectors[narrow(sector)];
        let oldest = values
            .iter()
            .rposition(|value| value.acknowledged)
            .filter(|_| self.certain)
            .unwrap_or(0);
        &values[oldest..]
    }

    /// What an application read, of what was there when it asked, or newer.
    pub(crate) fn read(&mut self, tag: u64, op: &DeviceOp, data: &[u8]) {
        let (start, end) = area(op);
        let Some(floors) = self.reads.remove(&tag) else {
            return;
        };
        for ((sector, bytes), floor) in (start..end).zip(data.chunks(narrow(SECTOR))).zip(floors) {
            let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            let values = &self.sectors[narrow(sector)];
            assert!(
                values
                    .iter()
                    .any(|value| value.number == number && value.tag >= floor),
                "an application reads {number} from sector {sector}, older than {floor}: {values:?}"
            );
        }
    }

    fn check(&self, sector: u64, number: u64, who: &str) {
        let allowed = self.allowed(sector);
        assert!(
            allowed.iter().any(|value| value.number == number),
            "{who} {number} in sector {sector}; it must be one of {allowed:?}"
        );
    }

    /// Compares a disk at rest, and takes what it holds for what there is.
    pub(crate) fn settle(&mut self, contents: &[u64]) {
        for (sector, number) in (0..).zip(contents) {
            if self.sectors[narrow(sector)].len() > 1 {
                self.check(sector, *number, "the disk holds");
            }
            assert!(
                self.sectors[narrow(sector)]
                    .iter()
                    .any(|value| value.number == *number),
                "sector {sector} holds {number}, which was never written"
            );
        }
        for (sector, number) in (0..).zip(contents) {
            let values: &mut Vec<Value> = &mut self.sectors[sector];
            let value = values
                .iter()
                .copied()
                .find(|value| value.number == *number)
                .expect("it was just checked");
            *values = vec![Value {
                acknowledged: true,
                ..value
            }];
        }
        self.open.clear();
        self.reads.clear();
        self.unflushed.clear();
        self.places.clear();
    }
}
