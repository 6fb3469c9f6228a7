//! Online verify: one node drives, the other answers with digests; differences are marked,
//! and nothing is repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::core::{Engine, Purpose, range};
use super::resync::Pace;
use super::session::AfterPing;
use super::types::{Action, DiskOp};
use crate::replica::device::Errno;
use crate::replica::digest::{self, Algorithm};
use crate::replica::fields::{BLOCK, SECTOR, SECTORS_PER_BLOCK, field32, narrow, wide};
use crate::replica::message::{
    AckKind, BlockAck, BlockId, BlockRequest, DigestKind, Packet, RequestKind,
};
use crate::replica::state::{Connection, Disk, State};

/// Blocks that may be on their way: 1 MiB, four batches of what is read at once.
const WINDOW_BLOCKS: usize = 256;
/// How much is read at once, of neighbouring blocks.
const BATCH_BYTES_MAX: u64 = 256 << 10;

/// A verify that is under way, on either side.
#[derive(Debug)]
pub(super) struct Verify {
    starter: bool,
    algorithm: Algorithm,
    pub total: u64,
    pub left: u64,
    pub found: u64,
    pub pace: Pace,
    next_bit: u64,
    end_bit: u64,
    /// Blocks whose comparison is not over: writes to them wait.
    pub outstanding: BTreeMap<u64, u32>,
    /// Whether the answering side knows where the other began.
    begun: bool,
    to_read: Vec<BlockRequest>,
    to_compare: Vec<(BlockRequest, Bytes)>,
}

impl Engine {
    fn bits(&self) -> u64 {
        self.sectors.div_ceil(SECTORS_PER_BLOCK)
    }

    pub(super) fn begin_verify(&mut self) {
        let algorithm = self
            .net
            .as_ref()
            .and_then(|net| Algorithm::by_name(&net.verify_algorithm));
        let Some(algorithm) = algorithm else {
            self.protocol_error("a verify with an algorithm that is not known here");
            return;
        };
        let bits = self.bits();
        let (start, stop) = std::mem::take(&mut self.verify_range);
        let next_bit = (start / SECTORS_PER_BLOCK).min(bits);
        let end_bit = stop.map_or(bits, |stop| stop.div_ceil(SECTORS_PER_BLOCK).min(bits));
        let left = bits - next_bit;
        self.verify = Some(Verify {
            starter: self.state.connection == Connection::VerifyS,
            algorithm,
            total: left,
            left,
            found: 0,
            pace: Pace::new(self.now, left),
            next_bit,
            end_bit,
            outstanding: BTreeMap::new(),
            begun: false,
            to_read: Vec::new(),
            to_compare: Vec::new(),
        });
        self.log("online verify begins");
    }

    /// The state is no verify's any more.
    pub(super) fn verify_ended(&mut self) {
        if let Some(verify) = self.verify.take() {
            let first_open = verify.outstanding.keys().next().copied();
            if verify.starter && verify.left > 0 {
                self.verify_from = first_open.unwrap_or(verify.next_bit * SECTORS_PER_BLOCK);
            }
            self.save_bitmap();
        }
    }

    /// Asks for as many digests as the window allows.
    pub(super) fn advance_verify(&mut self) {
        if self.state.connection != Connection::VerifyS {
            return;
        }
        while let Some(verify) = &mut self.verify
            && verify.outstanding.len() < WINDOW_BLOCKS
            && verify.next_bit < verify.end_bit
        {
            let sector = verify.next_bit * SECTORS_PER_BLOCK;
            let end = (sector + SECTORS_PER_BLOCK).min(self.sectors);
            let bytes = field32((end - sector) * SECTOR);
            if self.locks.overlaps(&(sector..end)) {
                // A write that is not sent yet would be here and not there.
                break;
            }
            verify.next_bit += 1;
            verify.outstanding.insert(sector, bytes);
            self.send(Packet::Request(
                RequestKind::Verify,
                BlockRequest {
                    sector,
                    block_id: BlockId::SYNCER,
                    bytes,
                },
            ));
        }
        self.finish_verify_if_over();
    }

    fn finish_verify_if_over(&mut self) {
        let over = self.verify.as_ref().is_some_and(|verify| {
            if verify.starter {
                verify.outstanding.is_empty() && verify.next_bit >= verify.end_bit
            } else {
                verify.begun && verify.left == 0
            }
        });
        if over {
            self.after_ping(AfterPing::Finish);
        }
    }

    /// The other side asks for a block's digest.
    pub(super) fn verify_request(&mut self, request: BlockRequest) {
        if let Err(why) = self.fits_device(request.sector, request.bytes, BLOCK) {
            self.protocol_error(why);
            return;
        }
        let bits = self.bits();
        let ready = self.disk.is_some() && self.state.disk == Disk::UpToDate;
        let Some(verify) = self.verify.as_mut().filter(|_| ready) else {
            self.acknowledge(
                AckKind::ResyncReadFailed,
                request.sector,
                request.block_id,
                request.bytes,
            );
            return;
        };
        if !verify.begun {
            verify.begun = true;
            verify.left = bits - request.sector / SECTORS_PER_BLOCK;
            verify.total = verify.left;
            verify.pace = Pace::new(self.now, verify.left);
        }
        verify.outstanding.insert(request.sector, request.bytes);
        verify.to_read.push(request);
    }

    /// Reads what was asked for since the last turn, neighbours at once.
    pub(super) fn read_for_verify(&mut self) {
        let Some(verify) = &mut self.verify else {
            return;
        };
        let to_read = std::mem::take(&mut verify.to_read);
        let to_compare = std::mem::take(&mut verify.to_compare);
        for batch in batches(to_read, |request| *request) {
            let (sectors, op) = read_of(batch.iter().copied());
            self.disk_io(Some(sectors), op, Purpose::VerifyAnswer(batch));
        }
        for batch in batches(to_compare, |(request, _)| *request) {
            let (sectors, op) = read_of(batch.iter().map(|(request, _)| *request));
            self.disk_io(Some(sectors), op, Purpose::VerifyCompare(batch));
        }
    }

    pub(super) fn verify_read_done(
        &mut self,
        blocks: &[BlockRequest],
        result: &Result<Bytes, Errno>,
    ) {
        let Some(algorithm) = self.verify.as_ref().map(|verify| verify.algorithm) else {
            return;
        };
        let mut rest = result.clone().unwrap_or_default();
        for request in blocks {
            let digest = if result.is_ok() {
                algorithm.of(&rest.split_to(narrow(request.bytes.into())))
            } else {
                // What no data has: it counts as different.
                vec![0; algorithm.bytes()]
            };
            self.send(Packet::Digest(
                DigestKind::VerifyReply,
                *request,
                digest.into(),
            ));
        }
        if result.is_err() {
            self.local_error("a verify's read failed");
        }
    }

    /// The other side's digest arrived.
    pub(super) fn verify_reply(&mut self, request: BlockRequest, digest: Bytes) {
        let Some(verify) = &mut self.verify else {
            return;
        };
        if verify.outstanding.get(&request.sector) != Some(&request.bytes) {
            self.protocol_error("a digest that nobody asked for");
            return;
        }
        if self.disk.is_none() || self.state.disk != Disk::UpToDate {
            self.verified(request, true);
            return;
        }
        verify.to_compare.push((request, digest));
    }

    pub(super) fn verify_compared(
        &mut self,
        blocks: &[(BlockRequest, Bytes)],
        result: &Result<Bytes, Errno>,
    ) {
        let mut rest = result.clone().unwrap_or_default();
        for (request, expected) in blocks {
            let Some(algorithm) = self.verify.as_ref().map(|verify| verify.algorithm) else {
                return;
            };
            let same = result.is_ok()
                && digest::same(
                    &algorithm.of(&rest.split_to(narrow(request.bytes.into()))),
                    expected,
                );
            self.verified(*request, same);
        }
        if result.is_err() {
            self.local_error("a verify's read failed");
        }
    }

    fn verified(&mut self, request: BlockRequest, same: bool) {
        if !same {
            self.found_different(request.sector, request.bytes);
        }
        if let Some(session) = &mut self.session {
            let sequence = session.next_sequence();
            let ack = BlockAck {
                sector: request.sector,
                block_id: if same {
                    BlockId::IN_SYNC
                } else {
                    BlockId::OUT_OF_SYNC
                },
                bytes: request.bytes,
                sequence,
            };
            self.send(Packet::Ack(AckKind::VerifyResult, ack));
        }
        self.verify_counted(request.sector);
    }

    fn found_different(&mut self, sector: u64, bytes: u32) {
        self.mark(range(sector, bytes));
        if let Some(verify) = &mut self.verify {
            verify.found += 1;
        }
        self.log(format!(
            "out of sync: sector {sector}, {} sectors",
            bytes / 512
        ));
    }

    fn verify_counted(&mut self, sector: u64) {
        let now = self.now;
        if let Some(verify) = &mut self.verify {
            verify.outstanding.remove(&sector);
            verify.left = verify.left.saturating_sub(1);
            verify.pace.mark(now, verify.left);
        }
        self.finish_verify_if_over();
    }

    /// The starter's verdict on a block.
    pub(super) fn verify_result(&mut self, ack: BlockAck) {
        if ack.block_id == BlockId::OUT_OF_SYNC {
            self.found_different(ack.sector, ack.bytes);
        }
        self.verify_counted(ack.sector);
    }

    pub(super) fn verify_refused(&mut self, ack: BlockAck) {
        let asked = self
            .verify
            .as_ref()
            .is_some_and(|verify| verify.outstanding.contains_key(&ack.sector));
        if asked {
            self.verify_counted(ack.sector);
        }
    }

    pub(super) fn finish_verify(&mut self) {
        let Some(verify) = &mut self.verify else {
            return;
        };
        let found = verify.found;
        let seconds = verify.pace.elapsed(self.now).as_secs().max(1);
        let done = verify.total - verify.left;
        verify.left = 0;
        self.verify_from = 0;
        self.log(format!(
            "online verify done: {} KiB in {seconds} s, {} KiB/s; {found} blocks are different",
            done * 4,
            done * 4 / seconds
        ));
        self.change(State {
            connection: Connection::Connected,
            ..self.state
        });
        if found > 0 {
            self.act(Action::Handler("out-of-sync"));
        }
    }

    pub(super) fn elapsed_ms(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Cuts a list where blocks are no neighbours, or where it gets too long for one read.
fn batches<T>(list: Vec<T>, block: impl Fn(&T) -> BlockRequest) -> Vec<Vec<T>> {
    let mut found: Vec<Vec<T>> = Vec::new();
    for item in list {
        let request = block(&item);
        let fits = found.last().and_then(|batch| {
            let first = block(batch.first()?);
            let last = block(batch.last()?);
            let end = range(last.sector, last.bytes).end;
            let bytes = (end - first.sector) * SECTOR;
            Some(end == request.sector && bytes < BATCH_BYTES_MAX)
        });
        if fits == Some(true) {
            found.last_mut().expect("it fits").push(item);
        } else {
            found.push(vec![item]);
        }
    }
    found
}

fn read_of(blocks: impl Iterator<Item = BlockRequest>) -> (std::ops::Range<u64>, DiskOp) {
    let (mut start, mut end) = (u64::MAX, 0);
    for request in blocks {
        let own = range(request.sector, request.bytes);
        (start, end) = (start.min(own.start), end.max(own.end));
    }
    let sectors = start..end;
    let op = DiskOp::Read {
        byte: sectors.start * SECTOR,
        len: field32(wide(narrow((sectors.end - sectors.start) * SECTOR))),
    };
    (sectors, op)
}
