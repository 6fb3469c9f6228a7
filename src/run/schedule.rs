//! Which hosts do which slot next (pure).
//!
//! Every host has a cursor. With the linear strategy the lowest slot any host is at is
//! done by all hosts that are at it, before anything later is done by anybody; hosts in a
//! rescue wait for those still in the body, as in Ansible.
//!
//! ```text
//!            ok                      ok                ok
//!   body ─────────► (skip rescue) ─────────► always ─────────► next slot
//!    │ failed                                   ▲  │ failed before, or here
//!    ├────────► rescue ── ok: failure forgotten ┤  └─────► the block around, as failed
//!    │             └───── failed ───────────────┘
//!    └ no rescue: to always, failure pending
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::plan::{BlockId, Part, Slot, Work};

/// Where one host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// The slot it does next; past the end: done.
    at: usize,
    /// Blocks left with a failure, whose `always` runs now.
    pending: BTreeSet<BlockId>,
    /// Blocks whose `rescue` runs now.
    rescuing: BTreeSet<BlockId>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Running,
    /// Failed for good; with `force_handlers` it still goes to the next flush.
    Failed,
    /// Failed or ended: nothing more in this play.
    Out,
}

/// What a failure means for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A block around has a rescue.
    Rescued,
    /// Nothing will rescue it; what `always` there is still runs.
    Fatal,
}

/// One slot and the hosts that do it now.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub slot: usize,
    pub hosts: Vec<String>,
}

#[derive(Debug)]
pub struct Schedule {
    slots: Vec<Slot>,
    /// In the play's order of hosts.
    order: Vec<String>,
    cursors: BTreeMap<String, Cursor>,
    force_handlers: bool,
}

impl Schedule {
    pub fn new(slots: Vec<Slot>, hosts: &[String], force_handlers: bool) -> Self {
        let mut schedule = Self {
            slots,
            order: hosts.to_vec(),
            cursors: BTreeMap::new(),
            force_handlers,
        };
        for host in hosts {
            let mut cursor = Cursor::default();
            cursor.at = schedule.first_open(host, &cursor, 0);
            schedule.cursors.insert(host.clone(), cursor);
        }
        schedule
    }

    pub fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// Returns the next turn of the linear strategy; none when every host is done.
    pub fn next_turn(&self) -> Option<Turn> {
        let slot = self
            .order
            .iter()
            .filter_map(|host| self.position(host))
            .min()?;
        let at_slot = |host: &&String| self.position(host) == Some(slot);
        let hosts = self.order.iter().filter(at_slot).cloned().collect();
        Some(Turn { slot, hosts })
    }

    /// The slot a host does next, at its own pace.
    pub fn position(&self, host: &str) -> Option<usize> {
        let cursor = self.cursors.get(host)?;
        (cursor.standing != Standing::Out && cursor.at < self.slots.len()).then_some(cursor.at)
    }

    pub fn standing(&self, host: &str) -> Standing {
        self.cursors
            .get(host)
            .map_or(Standing::Out, |cursor| cursor.standing)
    }

    /// Hosts that have not failed and are not out, in the play's order.
    pub fn left(&self) -> Vec<String> {
        let left = |host: &&String| self.standing(host) == Standing::Running;
        self.order.iter().filter(left).cloned().collect()
    }

    /// The host did its slot, or skipped it.
    pub fn succeed(&mut self, host: &str) {
        let Some(mut cursor) = self.cursors.get(host).cloned() else {
            return;
        };
        if cursor.at < self.slots.len() {
            let from = cursor.at;
            let next = self.first_open(host, &cursor, from + 1);
            self.leave_blocks(host, &mut cursor, from, next);
        }
        self.cursors.insert(host.to_owned(), cursor);
    }

    /// The host failed at its slot.
    pub fn fail(&mut self, host: &str) -> Fate {
        let Some(mut cursor) = self.cursors.get(host).cloned() else {
            return Fate::Fatal;
        };
        let fate = self.fate(host);
        if cursor.at < self.slots.len() {
            let path = self.slots[cursor.at].path.clone();
            self.fall(host, &mut cursor, &path);
        } else {
            cursor.standing = Standing::Out;
        }
        self.cursors.insert(host.to_owned(), cursor);
        fate
    }

    /// What a failure at the host's present slot would mean.
    pub fn fate(&self, host: &str) -> Fate {
        let Some(slot) = self.position(host).map(|at| &self.slots[at]) else {
            return Fate::Fatal;
        };
        let rescued = slot.path.iter().any(|(block, part)| {
            *part == Part::Body && self.part_slots(host, *block, Part::Rescue).is_some()
        });
        if rescued { Fate::Rescued } else { Fate::Fatal }
    }

    /// Takes the host out of the play at once: unreachable, `end_host`, `end_play`.
    pub fn remove(&mut self, host: &str) {
        if let Some(cursor) = self.cursors.get_mut(host) {
            cursor.standing = Standing::Out;
        }
    }

    /// Puts included slots behind a slot.
    pub fn insert_after(&mut self, slot: usize, included: Vec<Slot>) {
        let count = included.len();
        self.slots.splice(slot + 1..=slot, included);
        for cursor in self.cursors.values_mut() {
            if cursor.at > slot {
                cursor.at += count;
            }
        }
    }

    /// Sends a failed host through rescue and always outwards from `path`.
    fn fall(&self, host: &str, cursor: &mut Cursor, path: &[(BlockId, Part)]) {
        for (block, part) in path.iter().rev() {
            cursor.rescuing.remove(block);
            cursor.pending.remove(block);
            if *part == Part::Body
                && let Some(rescue) = self.part_slots(host, *block, Part::Rescue)
            {
                cursor.rescuing.insert(*block);
                cursor.at = self.first_open(host, cursor, rescue.start);
                return;
            }
            if *part != Part::Always
                && let Some(always) = self.part_slots(host, *block, Part::Always)
            {
                cursor.pending.insert(*block);
                cursor.at = self.first_open(host, cursor, always.start);
                return;
            }
        }
        self.end_failed(cursor);
    }

    fn end_failed(&self, cursor: &mut Cursor) {
        let is_flush = |slot: &Slot| slot.work == Work::Flush;
        let from = (cursor.at + 1).min(self.slots.len());
        let flush = self.slots[from..].iter().position(is_flush);
        match flush {
            Some(offset) if self.force_handlers && cursor.standing == Standing::Running => {
                cursor.standing = Standing::Failed;
                cursor.at = from + offset;
            }
            _ => cursor.standing = Standing::Out,
        }
    }

    /// Moves a cursor from one slot to a later one; a block left with a failure pending
    /// fails the block around it.
    fn leave_blocks(&self, host: &str, cursor: &mut Cursor, from: usize, to: usize) {
        if cursor.standing == Standing::Failed {
            cursor.standing = Standing::Out;
            return;
        }
        let path = self.slots[from].path.clone();
        let stays = self
            .slots
            .get(to)
            .map_or(0, |slot| common(&path, &slot.path));
        for depth in (stays..path.len()).rev() {
            let (block, _) = path[depth];
            cursor.rescuing.remove(&block);
            if cursor.pending.remove(&block) {
                return self.fall(host, cursor, &path[..depth]);
            }
        }
        // Within one block, from its rescue to its always: the failure is forgotten.
        if let Some((block, Part::Rescue)) = path.get(stays)
            && self
                .slots
                .get(to)
                .is_some_and(|slot| slot.path.get(stays) == Some(&(*block, Part::Always)))
        {
            cursor.rescuing.remove(block);
        }
        cursor.at = to;
    }

    /// The first slot from `from` on that the host may do.
    fn first_open(&self, host: &str, cursor: &Cursor, from: usize) -> usize {
        let is_open = |slot: &Slot| {
            meets(slot, host)
                && slot
                    .path
                    .iter()
                    .all(|(block, part)| *part != Part::Rescue || cursor.rescuing.contains(block))
        };
        let rest = self.slots.get(from..).unwrap_or_default();
        from + rest.iter().position(is_open).unwrap_or(rest.len())
    }

    /// Where a part of a block stands, when the host has anything to do in it.
    fn part_slots(&self, host: &str, block: BlockId, part: Part) -> Option<Range<usize>> {
        let within = |slot: &Slot| meets(slot, host) && slot.path.contains(&(block, part));
        let start = self.slots.iter().position(within)?;
        let end = self.slots.iter().rposition(within)? + 1;
        Some(start..end)
    }
}

fn meets(slot: &Slot, host: &str) -> bool {
    slot.only.as_ref().is_none_or(|only| only.contains(host))
}

/// How many blocks, from the outermost, two paths share; another part of a block is the
/// same block.
fn common(left: &[(BlockId, Part)], right: &[(BlockId, Part)]) -> usize {
    let mut shared = 0;
    for ((left_block, left_part), (right_block, right_part)) in left.iter().zip(right) {
        if left_block != right_block {
            break;
        }
        shared += 1;
        if left_part != right_part {
            break;
        }
    }
    shared
}

/// Cuts hosts into batches; the last size is used again for those left over.
pub fn batches(hosts: &[String], sizes: &[usize]) -> Vec<Vec<String>> {
    let mut rest = hosts;
    let mut sizes = sizes.iter().copied().filter(|size| *size > 0);
    let mut size = sizes.next().unwrap_or(hosts.len());
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(size.min(rest.len()));
        batches.push(batch.to_vec());
        rest = others;
        size = sizes.next().unwrap_or(size);
    }
    batches
}

/// The hosts of a percentage, rounded down, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a number of hosts, cut to a whole one"
)]
pub fn share(percent: f64, hosts: usize) -> usize {
    ((percent / 100.0 * hosts as f64) as usize).max(1)
}

/// Whether more hosts failed than `max_fail_percentage` allows.
#[expect(clippy::cast_precision_loss, reason = "numbers of hosts are small")]
pub fn too_many_failed(failed: usize, batch: usize, percent: f64) -> bool {
    failed as f64 / batch.max(1) as f64 > percent / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots that are told apart by their index; `path` as pairs of block and part.
    fn slot(path: &[(usize, Part)]) -> Slot {
        Slot {
            work: Work::GatherFacts,
            path: path
                .iter()
                .map(|(id, part)| (BlockId(*id), *part))
                .collect(),
            only: None,
            params: Vec::new(),
        }
    }

    fn flush() -> Slot {
        Slot {
            work: Work::Flush,
            ..slot(&[])
        }
    }

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Walks one host; `fails` are the slots it fails at. Returns the slots it did.
    fn walk(slots: Vec<Slot>, fails: &[usize]) -> (Vec<usize>, Standing) {
        let mut schedule = Schedule::new(slots, &hosts(&["h"]), false);
        let mut done = Vec::new();
        while let Some(at) = schedule.position("h") {
            done.push(at);
            if fails.contains(&at) {
                schedule.fail("h");
            } else {
                schedule.succeed("h");
            }
        }
        (done, schedule.standing("h"))
    }

    use Part::{Always, Body, Rescue};

    fn block_between() -> Vec<Slot> {
        vec![
            slot(&[]),
            slot(&[(0, Body)]),
            slot(&[(0, Body)]),
            slot(&[(0, Rescue)]),
            slot(&[(0, Always)]),
            slot(&[]),
        ]
    }

    #[test]
    fn a_block_that_works_skips_its_rescue() {
        let (done, standing) = walk(block_between(), &[]);
        assert_eq!(done, [0, 1, 2, 4, 5]);
        assert_eq!(standing, Standing::Running);
    }

    #[test]
    fn a_failure_goes_through_rescue_and_always_and_on() {
        assert_eq!(
            walk(block_between(), &[1]),
            (vec![0, 1, 3, 4, 5], Standing::Running)
        );
    }

    #[test]
    fn a_failure_in_the_rescue_runs_always_and_ends_the_host() {
        assert_eq!(
            walk(block_between(), &[1, 3]),
            (vec![0, 1, 3, 4], Standing::Out)
        );
    }

    #[test]
    fn an_inner_failure_is_rescued_by_the_outer_block_after_the_inner_always() {
        let slots = vec![
            slot(&[(0, Body), (1, Body)]),
            slot(&[(0, Body), (1, Always)]),
            slot(&[(0, Body)]),
            slot(&[(0, Rescue)]),
            slot(&[]),
        ];
        assert_eq!(walk(slots, &[0]), (vec![0, 1, 3, 4], Standing::Running));
    }

    #[test]
    fn a_block_inside_a_rescue_is_entered_once() {
        let slots = vec![
            slot(&[(0, Body)]),
            slot(&[(0, Rescue), (1, Body)]),
            slot(&[(0, Rescue), (1, Rescue)]),
            slot(&[(0, Rescue)]),
            slot(&[]),
        ];
        assert_eq!(
            walk(slots.clone(), &[0, 1]),
            (vec![0, 1, 2, 3, 4], Standing::Running)
        );
        assert_eq!(walk(slots, &[0]), (vec![0, 1, 3, 4], Standing::Running));
    }

    #[test]
    fn fate_tells_rescued_from_fatal() {
        let mut schedule = Schedule::new(block_between(), &hosts(&["h"]), false);
        assert_eq!(schedule.fate("h"), Fate::Fatal);
        schedule.succeed("h");
        assert_eq!(schedule.fail("h"), Fate::Rescued);
        assert_eq!(schedule.fail("h"), Fate::Fatal);
    }

    #[test]
    fn hosts_wait_for_each_other() {
        let mut schedule = Schedule::new(block_between(), &hosts(&["b", "a"]), false);
        let turn = schedule.next_turn().expect("a turn");
        assert_eq!((turn.slot, turn.hosts), (0, hosts(&["b", "a"])));
        schedule.succeed("a");
        schedule.succeed("b");
        schedule.fail("b");
        schedule.succeed("a");
        // b is in the rescue, a still in the body: a first.
        let turn = schedule.next_turn().expect("a turn");
        assert_eq!((turn.slot, turn.hosts), (2, hosts(&["a"])));
    }

    #[test]
    fn a_failed_host_goes_to_the_last_flush_when_handlers_are_forced() {
        let slots = vec![slot(&[]), slot(&[]), flush(), slot(&[])];
        let mut schedule = Schedule::new(slots, &hosts(&["h"]), true);
        schedule.fail("h");
        assert_eq!(schedule.position("h"), Some(2));
        assert!(schedule.left().is_empty());
        schedule.succeed("h");
        assert_eq!(schedule.position("h"), None);
    }

    #[test]
    fn included_slots_come_next_for_their_hosts_alone() {
        let mut schedule = Schedule::new(vec![slot(&[]), slot(&[])], &hosts(&["a", "b"]), false);
        let mut extra = slot(&[]);
        extra.only = Some(BTreeSet::from(["a".to_owned()]));
        schedule.insert_after(0, vec![extra.clone(), extra]);
        schedule.succeed("a");
        schedule.succeed("b");
        assert_eq!(schedule.position("a"), Some(1));
        assert_eq!(schedule.position("b"), Some(3));
    }

    #[test]
    fn batches_use_the_last_size_again() {
        let all = hosts(&["a", "b", "c", "d", "e"]);
        let sizes =
            |sizes: &[usize]| -> Vec<usize> { batches(&all, sizes).iter().map(Vec::len).collect() };
        assert_eq!(sizes(&[]), [5]);
        assert_eq!(sizes(&[2]), [2, 2, 1]);
        assert_eq!(sizes(&[1, 3]), [1, 3, 1]);
        assert_eq!(share(30.0, 5), 1);
        assert_eq!(share(10.0, 5), 1);
        assert_eq!(share(50.0, 5), 2);
    }

    #[test]
    fn the_failure_share_must_be_exceeded() {
        assert!(!too_many_failed(1, 2, 50.0));
        assert!(too_many_failed(1, 1, 50.0));
    }
}
