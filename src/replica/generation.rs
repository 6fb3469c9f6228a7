//! Two nodes' data generations → in sync, who is source, or split brain.
//!
//! A generation is a random number for one history of the data. Each node keeps its
//! current one, the one its bitmap counts from, and two older ones. Both nodes decide
//! alone, from the same numbers, and must come to mirrored results: nothing is
//! negotiated. [`compare`] is the table of rules on the numbers alone; [`decide`] weighs
//! its result with disks, roles, policies and what the administrator said.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::state::{Disk, Role};

/// One generation of the data. Bit 0 says that its holder is, or died, Primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation(pub u64);

/// What a resync's own generation is away from the one its bitmap counted from.
const SYNC_STEP: u64 = 0x0001_0000_0000_0000;

impl Generation {
    /// Written by create-md: no data yet that anybody knows of.
    pub const JUST_CREATED: Self = Self(4);
    pub const NONE: Self = Self(0);

    /// Whether both name the same data, whoever holds it in whatever role.
    pub fn same(self, other: Self) -> bool {
        self.0 & !1 == other.0 & !1
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    fn blank(self) -> bool {
        self.same(Self::JUST_CREATED) || self.same(Self::NONE)
    }

    pub fn primary(self) -> bool {
        self.0 & 1 == 1
    }

    /// Returns the generation with bit 0 as the role demands.
    #[must_use]
    pub fn held_as(self, role: Role) -> Self {
        Self(self.0 & !1 | u64::from(role == Role::Primary))
    }

    /// The generation a resync that starts from this one leaves behind.
    #[must_use]
    pub fn of_resync(self) -> Self {
        Self(self.0.wrapping_add(SYNC_STEP))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016X}", self.0)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// What a node keeps in its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Generations {
    pub current: Generation,
    /// The generation since which the bitmap records differences; none when it does not.
    pub bitmap: Generation,
    /// Older ones, the younger first.
    pub history: [Generation; 2],
}

impl Generations {
    pub const JUST_CREATED: Self = Self {
        current: Generation::JUST_CREATED,
        bitmap: Generation::NONE,
        history: [Generation::NONE; 2],
    };

    fn remember(&mut self, generation: Generation) {
        self.history = [generation, self.history[0]];
    }

    /// Replaces the bitmap's generation; the one that was there goes into the history.
    pub fn set_bitmap(&mut self, generation: Generation) {
        if !self.bitmap.is_none() {
            self.remember(self.bitmap);
        }
        self.bitmap = generation;
    }

    /// Starts a new generation: what changes from here on is recorded against the old one.
    pub fn start(&mut self, random: u64, role: Role) {
        self.bitmap = self.current;
        self.current = fresh(random).held_as(role);
    }

    /// Becomes the source of a resync; returns the generation the target starts from.
    pub fn start_resync_source(&mut self, random: u64) -> Generation {
        let resync = if self.bitmap.blank() {
            fresh(random)
        } else {
            self.bitmap.of_resync()
        };
        self.set_bitmap(resync);
        resync
    }

    /// Becomes the target of a resync: the data is, from now on, neither old nor new.
    pub fn start_resync_target(&mut self, resync: Generation, role: Role) {
        self.current = resync.held_as(role);
        self.bitmap = Generation::NONE;
    }

    /// The resync is complete, this side was the source.
    pub fn finish_resync_source(&mut self) {
        self.set_bitmap(Generation::NONE);
    }

    /// The resync is complete, this side was the target: the history is the source's.
    pub fn finish_resync_target(&mut self, source: Self, role: Role) {
        let resync = self.current;
        self.bitmap = source.bitmap;
        self.history = source.history;
        self.set_bitmap(resync);
        self.current = source.current.held_as(role);
        self.set_bitmap(Generation::NONE);
    }

    fn all_history(&self) -> [Generation; 2] {
        self.history
    }
}

/// A random number that is a generation of its own.
fn fresh(random: u64) -> Generation {
    let generation = Generation(random & !1);
    if generation.blank() {
        // One in 2^62 random numbers; any other constant will do.
        return Generation(SYNC_STEP | 2);
    }
    generation
}

/// Who wins: the data here, or the data there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Own,
    Peer,
}

impl Source {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Own => Self::Peer,
            Self::Peer => Self::Own,
        }
    }
}

/// How much has to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// What the bitmaps mark.
    Marked,
    /// Everything.
    Everything,
}

/// What two sets of generations say about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    Same,
    Behind(Source, Extent),
    /// Both went on alone; `ancestor` when the bitmaps count from the same generation.
    SplitBrain {
        ancestor: bool,
    },
    Unrelated,
    /// Told apart only by a feature the peer has not.
    CannotTell,
}

/// A correction of generations that one side missed to write when a resync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Correction {
    Own(Generations),
    Peer(Generations),
}

/// The result of the table, with the rule that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    pub relation: Relation,
    pub rule: u8,
    pub correction: Option<Correction>,
}

/// What one node brings to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    pub generations: Generations,
    pub role: Role,
    /// The disk as it is; for one being attached, what it will be.
    pub disk: Disk,
    /// The disk is just being attached: a Primary does not stand on its data.
    pub attaching: bool,
    pub bits_set: u64,
    pub crashed_primary: bool,
    pub discard_my_data: bool,
}

/// What both nodes know of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meeting {
    /// This node accepted the meta connection: breaks ties.
    pub resolves_conflicts: bool,
    /// `FF_WSAME` was agreed: a crashed Primary meets one that is running.
    pub crashed_meets_primary: bool,
}

/// Applies the table of rules; the first that fits decides.
pub fn compare(own: &Side, peer: &Side, meeting: Meeting) -> Comparison {
    let (s, p) = (&own.generations, &peer.generations);
    if let Some(found) = blank_rules(s, p) {
        return found;
    }
    if s.current.same(p.current) {
        return same_current(own, peer, meeting);
    }
    different_current(s, p)
}

fn ruled(rule: u8, relation: Relation) -> Comparison {
    Comparison {
        relation,
        rule,
        correction: None,
    }
}

fn behind(rule: u8, source: Source, extent: Extent) -> Comparison {
    ruled(rule, Relation::Behind(source, extent))
}

fn blank_rules(s: &Generations, p: &Generations) -> Option<Comparison> {
    let created = |generations: &Generations| generations.current.same(Generation::JUST_CREATED);
    if created(s) && created(p) {
        return Some(ruled(10, Relation::Same));
    }
    if s.current.blank() && !created(p) {
        return Some(behind(20, Source::Peer, Extent::Everything));
    }
    if !created(s) && p.current.blank() {
        return Some(behind(30, Source::Own, Extent::Everything));
    }
    None
}

fn same_current(own: &Side, peer: &Side, meeting: Meeting) -> Comparison {
    let (s, p) = (&own.generations, &peer.generations);
    if p.bitmap.is_none() && !s.bitmap.is_none() {
        return missed_end_here(s, p);
    }
    if s.bitmap.is_none() && !p.bitmap.is_none() {
        return missed_end_there(s, p);
    }
    let relation = crashed_relation(own, peer, meeting);
    let primary_now = own.role == Role::Primary || peer.role == Role::Primary;
    let crashed = own.crashed_primary || peer.crashed_primary;
    ruled(if crashed && primary_now { 41 } else { 40 }, relation)
}

/// The peer ended the resync it was target of; this side died before it wrote so.
fn missed_end_here(s: &Generations, p: &Generations) -> Comparison {
    let found = behind(36, Source::Own, Extent::Marked);
    if s.bitmap.same(p.history[0]) && s.history[0].same(p.history[1]) {
        let mut corrected = *s;
        corrected.set_bitmap(Generation::NONE);
        return Comparison {
            rule: 34,
            correction: Some(Correction::Own(corrected)),
            ..found
        };
    }
    found
}

fn missed_end_there(s: &Generations, p: &Generations) -> Comparison {
    let found = behind(37, Source::Peer, Extent::Marked);
    if s.history[0].same(p.bitmap) && s.history[1].same(p.history[0]) {
        let mut corrected = *p;
        corrected.set_bitmap(Generation::NONE);
        return Comparison {
            rule: 35,
            correction: Some(Correction::Peer(corrected)),
            ..found
        };
    }
    found
}

/// Same data, as far as the numbers go; a Primary that crashed may have written more.
fn crashed_relation(own: &Side, peer: &Side, meeting: Meeting) -> Relation {
    let marked = |source| Relation::Behind(source, Extent::Marked);
    if !own.crashed_primary && !peer.crashed_primary {
        return Relation::Same;
    }
    match (own.role == Role::Primary, peer.role == Role::Primary) {
        (false, false) => match (own.crashed_primary, peer.crashed_primary) {
            (true, false) => marked(Source::Own),
            (false, true) => marked(Source::Peer),
            _ => marked(tie(meeting)),
        },
        _ if !meeting.crashed_meets_primary => Relation::CannotTell,
        (true, true) => Relation::SplitBrain { ancestor: false },
        (true, false) => marked(Source::Own),
        (false, true) => marked(Source::Peer),
    }
}

/// The node that breaks ties lets the other win.
fn tie(meeting: Meeting) -> Source {
    if meeting.resolves_conflicts {
        Source::Peer
    } else {
        Source::Own
    }
}

fn different_current(s: &Generations, p: &Generations) -> Comparison {
    if s.current.same(p.bitmap) {
        return behind(50, Source::Peer, Extent::Marked);
    }
    if s.current.same(p.history[0]) && p.history[0].of_resync().same(p.bitmap) {
        return Comparison {
            correction: Some(Correction::Peer(without_lost_resync(p))),
            ..behind(51, Source::Peer, Extent::Marked)
        };
    }
    if p.all_history().iter().any(|old| old.same(s.current)) {
        return behind(60, Source::Peer, Extent::Everything);
    }
    if s.bitmap.same(p.current) {
        return behind(70, Source::Own, Extent::Marked);
    }
    if s.history[0].same(p.current) && s.history[0].of_resync().same(s.bitmap) {
        return Comparison {
            correction: Some(Correction::Own(without_lost_resync(s))),
            ..behind(71, Source::Own, Extent::Marked)
        };
    }
    if s.all_history().iter().any(|old| old.same(p.current)) {
        return behind(80, Source::Own, Extent::Everything);
    }
    if s.bitmap.same(p.bitmap) && !s.bitmap.same(Generation::NONE) {
        return ruled(90, Relation::SplitBrain { ancestor: true });
    }
    let related = s
        .all_history()
        .iter()
        .any(|old| p.all_history().iter().any(|other| old.same(*other)));
    if related {
        // Two that have no history at all are alike, too: nobody can tell them apart.
        return ruled(100, Relation::SplitBrain { ancestor: false });
    }
    ruled(0, Relation::Unrelated)
}

/// The resync started here and never arrived there: as if it had not been.
fn without_lost_resync(generations: &Generations) -> Generations {
    Generations {
        bitmap: generations.history[0],
        history: [generations.history[1], generations.history[1]],
        ..*generations
    }
}

/// What to do about a split brain, by how many are Primary when they meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policies {
    pub no_primary: AfterSplitBrain,
    pub one_primary: AfterSplitBrain,
    pub two_primaries: AfterSplitBrain,
    /// Applies the policies even where the common ancestor is not known.
    pub always: bool,
    pub role_conflict: RoleConflict,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            no_primary: AfterSplitBrain::Disconnect,
            one_primary: AfterSplitBrain::Disconnect,
            two_primaries: AfterSplitBrain::Disconnect,
            always: false,
            role_conflict: RoleConflict::Disconnect,
        }
    }
}

/// The values of after-sb-0pri, -1pri and -2pri, in the order of their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AfterSplitBrain {
    Disconnect,
    DiscardYoungerPrimary,
    DiscardOlderPrimary,
    DiscardZeroChanges,
    DiscardLeastChanges,
    DiscardLocal,
    DiscardRemote,
    Consensus,
    DiscardSecondary,
    CallPriLostAfterSb,
    ViolentlyAs0p,
}

impl AfterSplitBrain {
    const ALL: [Self; 11] = [
        Self::Disconnect,
        Self::DiscardYoungerPrimary,
        Self::DiscardOlderPrimary,
        Self::DiscardZeroChanges,
        Self::DiscardLeastChanges,
        Self::DiscardLocal,
        Self::DiscardRemote,
        Self::Consensus,
        Self::DiscardSecondary,
        Self::CallPriLostAfterSb,
        Self::ViolentlyAs0p,
    ];

    pub fn number(self) -> u32 {
        (0..)
            .zip(Self::ALL)
            .find(|(_, policy)| *policy == self)
            .map(|(number, _)| number)
            .expect("every policy is in the list")
    }

    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?;
        Self::ALL.get(index).copied()
    }

    /// What the peer must say for both to mean the same.
    #[must_use]
    pub fn seen_from_the_peer(self) -> Self {
        match self {
            Self::DiscardLocal => Self::DiscardRemote,
            Self::DiscardRemote => Self::DiscardLocal,
            same => same,
        }
    }
}

/// What to do when a running Primary would have to become target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RoleConflict {
    Disconnect,
    CallPriLost,
    Violently,
}

/// What the two will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    InSync,
    Resync(Source, Extent),
}

/// Why two nodes do not come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Conflict {
    #[error("unrelated data: the two disks never were one device")]
    Unrelated,
    #[error("split brain detected: both nodes changed their data while they were apart")]
    SplitBrain,
    #[error("the peer is too old to say which of the crashed nodes has the newer data")]
    CannotTell,
    #[error("this node should become the source of a resync, but its disk is inconsistent")]
    SourceInconsistent,
    #[error("this node is Primary and would have to take the peer's data")]
    PrimaryWouldLose,
}

/// The decision with the rule that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub comparison: Comparison,
    pub result: Result<Decision, Conflict>,
    /// The numbers said split brain, whether or not a policy resolved it.
    pub split_brain: bool,
}

/// Compares, then weighs: disks first, then policies, then the administrator's word.
pub fn decide(own: &Side, peer: &Side, meeting: Meeting, policies: Policies) -> Outcome {
    let comparison = compare(own, peer, meeting);
    let split_brain = matches!(comparison.relation, Relation::SplitBrain { .. });
    Outcome {
        comparison,
        result: weigh(comparison.relation, own, peer, meeting, policies)
            .and_then(|decision| admissible(decision, own, policies)),
        split_brain,
    }
}

fn weigh(
    relation: Relation,
    own: &Side,
    peer: &Side,
    meeting: Meeting,
    policies: Policies,
) -> Result<Decision, Conflict> {
    match relation {
        Relation::Unrelated => return Err(Conflict::Unrelated),
        Relation::CannotTell => return Err(Conflict::CannotTell),
        _ => {}
    }
    if let Some(source) = better_disk(own.disk, peer.disk) {
        let everything = matches!(
            relation,
            Relation::SplitBrain { ancestor: false } | Relation::Behind(_, Extent::Everything)
        );
        return Ok(Decision::Resync(source, extent(everything)));
    }
    match relation {
        Relation::Behind(source, extent) => Ok(Decision::Resync(source, extent)),
        Relation::SplitBrain { ancestor } => mend(ancestor, own, peer, meeting, policies),
        _ => Ok(Decision::InSync),
    }
}

fn extent(everything: bool) -> Extent {
    if everything {
        Extent::Everything
    } else {
        Extent::Marked
    }
}

/// An inconsistent disk never wins over one that is not.
fn better_disk(own: Disk, peer: Disk) -> Option<Source> {
    if own == Disk::Inconsistent && peer > Disk::Inconsistent {
        Some(Source::Peer)
    } else if peer == Disk::Inconsistent && own > Disk::Inconsistent {
        Some(Source::Own)
    } else {
        None
    }
}

fn mend(
    ancestor: bool,
    own: &Side,
    peer: &Side,
    meeting: Meeting,
    policies: Policies,
) -> Result<Decision, Conflict> {
    if (ancestor || policies.always)
        && let Some(source) = by_policy(own, peer, meeting, policies)
    {
        return Ok(Decision::Resync(source, extent(!ancestor)));
    }
    match (own.discard_my_data, peer.discard_my_data) {
        (true, false) => Ok(Decision::Resync(Source::Peer, Extent::Marked)),
        (false, true) => Ok(Decision::Resync(Source::Own, Extent::Marked)),
        _ => Err(Conflict::SplitBrain),
    }
}

fn by_policy(own: &Side, peer: &Side, meeting: Meeting, policies: Policies) -> Option<Source> {
    let primaries =
        usize::from(own.role == Role::Primary) + usize::from(peer.role == Role::Primary);
    let without_roles = || by_changes(own, peer, meeting, policies.no_primary);
    match primaries {
        0 => without_roles(),
        1 => match policies.one_primary {
            AfterSplitBrain::Consensus => {
                without_roles().filter(|source| *source == primary_side(own))
            }
            AfterSplitBrain::DiscardSecondary => Some(primary_side(own)),
            AfterSplitBrain::ViolentlyAs0p => without_roles(),
            AfterSplitBrain::CallPriLostAfterSb => {
                // A Primary that would lose is told so by a handler, and stays unresolved.
                without_roles().filter(|source| *source == primary_side(own))
            }
            _ => None,
        },
        _ => match policies.two_primaries {
            AfterSplitBrain::ViolentlyAs0p => without_roles(),
            _ => None,
        },
    }
}

fn primary_side(own: &Side) -> Source {
    if own.role == Role::Primary {
        Source::Own
    } else {
        Source::Peer
    }
}

/// The policies that look at who changed what since the common ancestor.
fn by_changes(
    own: &Side,
    peer: &Side,
    meeting: Meeting,
    policy: AfterSplitBrain,
) -> Option<Source> {
    let was_primary = [own, peer].map(|side| side.generations.bitmap.primary());
    match policy {
        AfterSplitBrain::DiscardYoungerPrimary => match was_primary {
            [false, true] => Some(Source::Peer),
            [true, false] => Some(Source::Own),
            _ => by_zero_changes(own, peer, meeting)
                .or_else(|| Some(by_least_changes(own, peer, meeting))),
        },
        AfterSplitBrain::DiscardOlderPrimary => match was_primary {
            [false, true] => Some(Source::Own),
            [true, false] => Some(Source::Peer),
            _ => by_zero_changes(own, peer, meeting)
                .or_else(|| Some(by_least_changes(own, peer, meeting))),
        },
        AfterSplitBrain::DiscardZeroChanges => by_zero_changes(own, peer, meeting),
        AfterSplitBrain::DiscardLeastChanges => Some(by_least_changes(own, peer, meeting)),
        AfterSplitBrain::DiscardLocal => Some(Source::Peer),
        AfterSplitBrain::DiscardRemote => Some(Source::Own),
        _ => None,
    }
}

fn by_zero_changes(own: &Side, peer: &Side, meeting: Meeting) -> Option<Source> {
    match (own.bits_set, peer.bits_set) {
        (0, 0) => Some(tie(meeting)),
        (_, 0) => Some(Source::Own),
        (0, _) => Some(Source::Peer),
        _ => None,
    }
}

fn by_least_changes(own: &Side, peer: &Side, meeting: Meeting) -> Source {
    match own.bits_set.cmp(&peer.bits_set) {
        std::cmp::Ordering::Less => Source::Peer,
        std::cmp::Ordering::Greater => Source::Own,
        std::cmp::Ordering::Equal => tie(meeting),
    }
}

/// Refuses what would destroy data: a bad source, or a Primary as target.
fn admissible(decision: Decision, own: &Side, policies: Policies) -> Result<Decision, Conflict> {
    match decision {
        Decision::Resync(Source::Own, _) if own.disk <= Disk::Inconsistent => {
            Err(Conflict::SourceInconsistent)
        }
        Decision::Resync(Source::Peer, _)
            if own.role == Role::Primary
                && !own.attaching
                && own.disk >= Disk::Consistent
                && policies.role_conflict != RoleConflict::Violently =>
        {
            Err(Conflict::PrimaryWouldLose)
        }
        admitted => Ok(admitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generations(numbers: [u64; 4]) -> Generations {
        let [current, bitmap, younger, older] = numbers.map(Generation);
        Generations {
            current,
            bitmap,
            history: [younger, older],
        }
    }

    fn side(numbers: [u64; 4]) -> Side {
        Side {
            generations: generations(numbers),
            role: Role::Secondary,
            disk: Disk::Consistent,
            attaching: false,
            bits_set: 0,
            crashed_primary: false,
            discard_my_data: false,
        }
    }

    const MEETING: Meeting = Meeting {
        resolves_conflicts: false,
        crashed_meets_primary: true,
    };

    const STEP: u64 = SYNC_STEP;
    const OWN: Source = Source::Own;
    const PEER: Source = Source::Peer;

    #[test]
    fn every_rule_of_the_table() {
        use Extent::{Everything, Marked};
        let table: &[(u8, [u64; 4], [u64; 4], Relation)] = &[
            (10, [4, 0, 0, 0], [4, 0, 0, 0], Relation::Same),
            (
                20,
                [4, 0, 0, 0],
                [0x10, 0, 0, 0],
                Relation::Behind(PEER, Everything),
            ),
            (
                30,
                [0x10, 0, 0, 0],
                [4, 0, 0, 0],
                Relation::Behind(OWN, Everything),
            ),
            (
                34,
                [0x10, 0x20, 0x30, 0],
                [0x10, 0, 0x20, 0x30],
                Relation::Behind(OWN, Marked),
            ),
            (
                36,
                [0x10, 0x20, 0, 0],
                [0x10, 0, 0x40, 0],
                Relation::Behind(OWN, Marked),
            ),
            (
                35,
                [0x10, 0, 0x20, 0x30],
                [0x10, 0x20, 0x30, 0],
                Relation::Behind(PEER, Marked),
            ),
            (
                37,
                [0x10, 0, 0x40, 0],
                [0x10, 0x20, 0, 0],
                Relation::Behind(PEER, Marked),
            ),
            (40, [0x10, 0, 0, 0], [0x11, 0, 0, 0], Relation::Same),
            (
                50,
                [0x10, 0, 0, 0],
                [0x20, 0x10, 0, 0],
                Relation::Behind(PEER, Marked),
            ),
            (
                51,
                [0x10, 0, 0, 0],
                [0x20, 0x10 + STEP, 0x10, 0],
                Relation::Behind(PEER, Marked),
            ),
            (
                60,
                [0x10, 0, 0, 0],
                [0x20, 0x30, 0, 0x10],
                Relation::Behind(PEER, Everything),
            ),
            (
                70,
                [0x20, 0x10, 0, 0],
                [0x10, 0, 0, 0],
                Relation::Behind(OWN, Marked),
            ),
            (
                71,
                [0x20, 0x10 + STEP, 0x10, 0],
                [0x10, 0, 0, 0],
                Relation::Behind(OWN, Marked),
            ),
            (
                80,
                [0x20, 0x30, 0, 0x10],
                [0x10, 0, 0, 0],
                Relation::Behind(OWN, Everything),
            ),
            (
                90,
                [0x20, 0x10, 0, 0],
                [0x30, 0x10, 0, 0],
                Relation::SplitBrain { ancestor: true },
            ),
            (
                100,
                [0x20, 0, 0x50, 0x60],
                [0x30, 0, 0x60, 0x70],
                Relation::SplitBrain { ancestor: false },
            ),
            (
                100,
                [0x20, 0, 0, 0],
                [0x30, 0, 0, 0],
                Relation::SplitBrain { ancestor: false },
            ),
            (
                0,
                [0x20, 0, 0x50, 0x60],
                [0x30, 0, 0x70, 0x80],
                Relation::Unrelated,
            ),
        ];
        for (rule, own, peer, relation) in table {
            let found = compare(&side(*own), &side(*peer), MEETING);
            assert_eq!(
                (found.rule, found.relation),
                (*rule, *relation),
                "{own:x?} {peer:x?}"
            );
        }
    }

    #[test]
    fn a_missed_end_of_a_resync_is_made_good() {
        let found = compare(
            &side([0x10, 0x20, 0x30, 0]),
            &side([0x10, 0, 0x20, 0x30]),
            MEETING,
        );
        let corrected = generations([0x10, 0, 0x20, 0x30]);
        assert_eq!(found.correction, Some(Correction::Own(corrected)));
        let found = compare(
            &side([0x20, 0x10 + STEP, 0x10, 0x8]),
            &side([0x10, 0, 0, 0]),
            MEETING,
        );
        let corrected = generations([0x20, 0x10, 0x8, 0x8]);
        assert_eq!(found.correction, Some(Correction::Own(corrected)));
    }

    #[test]
    fn a_crashed_primary_wins_unless_a_primary_runs() {
        let same = side([0x10, 0, 0, 0]);
        let crashed = Side {
            crashed_primary: true,
            ..same
        };
        let running = Side {
            role: Role::Primary,
            ..same
        };
        let relation = |own: &Side, peer: &Side| {
            let found = compare(own, peer, MEETING);
            (found.rule, found.relation)
        };
        let marked = |source| Relation::Behind(source, Extent::Marked);
        assert_eq!(relation(&crashed, &same), (40, marked(OWN)));
        assert_eq!(relation(&same, &crashed), (40, marked(PEER)));
        assert_eq!(relation(&crashed, &crashed), (40, marked(OWN)));
        assert_eq!(relation(&running, &crashed), (41, marked(OWN)));
        assert_eq!(relation(&crashed, &running), (41, marked(PEER)));
        let old = Meeting {
            crashed_meets_primary: false,
            ..MEETING
        };
        assert_eq!(
            compare(&crashed, &running, old).relation,
            Relation::CannotTell
        );
    }

    fn split() -> (Side, Side) {
        let own = Side {
            bits_set: 5,
            ..side([0x21, 0x11, 0, 0])
        };
        let peer = Side {
            bits_set: 9,
            ..side([0x31, 0x10, 0, 0])
        };
        (own, peer)
    }

    #[test]
    fn a_split_brain_is_not_resolved_unless_somebody_says_so() {
        let (own, peer) = split();
        let outcome = decide(&own, &peer, MEETING, Policies::default());
        assert_eq!(outcome.result, Err(Conflict::SplitBrain));
        assert!(outcome.split_brain);
        let gives_up = Side {
            discard_my_data: true,
            ..own
        };
        let outcome = decide(&gives_up, &peer, MEETING, Policies::default());
        assert_eq!(outcome.result, Ok(Decision::Resync(PEER, Extent::Marked)));
        let both = Side {
            discard_my_data: true,
            ..peer
        };
        let outcome = decide(&gives_up, &both, MEETING, Policies::default());
        assert_eq!(outcome.result, Err(Conflict::SplitBrain));
    }

    #[test]
    fn policies_for_two_secondaries() {
        let (own, peer) = split();
        let with = |no_primary| {
            let policies = Policies {
                no_primary,
                ..Policies::default()
            };
            decide(&own, &peer, MEETING, policies).result
        };
        let marked = |source| Ok(Decision::Resync(source, Extent::Marked));
        assert_eq!(with(AfterSplitBrain::DiscardYoungerPrimary), marked(OWN));
        assert_eq!(with(AfterSplitBrain::DiscardOlderPrimary), marked(PEER));
        assert_eq!(
            with(AfterSplitBrain::DiscardZeroChanges),
            Err(Conflict::SplitBrain)
        );
        assert_eq!(with(AfterSplitBrain::DiscardLeastChanges), marked(PEER));
        assert_eq!(with(AfterSplitBrain::DiscardLocal), marked(PEER));
        assert_eq!(with(AfterSplitBrain::DiscardRemote), marked(OWN));
    }

    #[test]
    fn policies_for_one_primary() {
        let (own, peer) = split();
        let own = Side {
            role: Role::Primary,
            ..own
        };
        let with = |one_primary| {
            let policies = Policies {
                no_primary: AfterSplitBrain::DiscardLeastChanges,
                one_primary,
                ..Policies::default()
            };
            decide(&own, &peer, MEETING, policies).result
        };
        // Fewer changes here, but here is the Primary: no consensus.
        assert_eq!(with(AfterSplitBrain::Consensus), Err(Conflict::SplitBrain));
        let own_wins = Ok(Decision::Resync(OWN, Extent::Marked));
        assert_eq!(with(AfterSplitBrain::DiscardSecondary), own_wins);
        assert_eq!(
            with(AfterSplitBrain::ViolentlyAs0p),
            Err(Conflict::PrimaryWouldLose)
        );
    }

    #[test]
    fn an_inconsistent_disk_never_wins() {
        let own = Side {
            disk: Disk::Inconsistent,
            ..side([0x20, 0x10, 0, 0])
        };
        let peer = Side {
            disk: Disk::UpToDate,
            ..side([0x10, 0, 0, 0])
        };
        let outcome = decide(&own, &peer, MEETING, Policies::default());
        assert_eq!(outcome.result, Ok(Decision::Resync(PEER, Extent::Marked)));
        let both = Side {
            disk: Disk::Inconsistent,
            ..peer
        };
        let outcome = decide(&own, &both, MEETING, Policies::default());
        assert_eq!(outcome.result, Err(Conflict::SourceInconsistent));
    }

    #[test]
    fn a_resync_leaves_both_with_the_sources_generations() {
        let mut source = generations([0xc1, 0xb0, 0x71, 0x81]);
        let mut target = generations([0xb0, 0, 0, 0]);
        let announced = source;
        let resync = source.start_resync_source(99);
        assert_eq!(source, generations([0xc1, 0xb0 + STEP, 0xb0, 0x71]));
        target.start_resync_target(resync, Role::Secondary);
        assert_eq!(target, generations([0xb0 + STEP, 0, 0, 0]));
        target.finish_resync_target(announced, Role::Secondary);
        source.finish_resync_source();
        assert_eq!(source, generations([0xc1, 0, 0xb0 + STEP, 0xb0]));
        assert_eq!(target, generations([0xc0, 0, 0xb0 + STEP, 0xb0]));
    }

    /// What may happen to a pair.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Writes on this node (0 or 1) without the other.
        Diverge(usize),
        /// An administrator declares this node's inconsistent data good.
        Force(usize),
        /// They meet and do what they decide, as far as this; where both changed their data,
        /// node 0 gives up its own.
        Meet(Reached),
    }

    const STEPS: [Step; 8] = [
        Step::Diverge(0),
        Step::Diverge(1),
        Step::Force(0),
        Step::Force(1),
        Step::Meet(Reached::SourceStarted),
        Step::Meet(Reached::TargetStarted),
        Step::Meet(Reached::TargetFinished),
        Step::Meet(Reached::BothFinished),
    ];

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Reached {
        SourceStarted,
        TargetStarted,
        TargetFinished,
        BothFinished,
    }

    /// A pair with the same data, or as create-md leaves it.
    fn pair(created: bool) -> [Side; 2] {
        let one = if created {
            Side {
                disk: Disk::Inconsistent,
                ..side([4, 0, 0, 0])
            }
        } else {
            side([0x10, 0, 0, 0])
        };
        [one; 2]
    }

    fn happened(created: bool, steps: &[Step]) -> [Side; 2] {
        let mut pair = pair(created);
        for (random, step) in (1u64..).zip(steps) {
            happen(&mut pair, random << 8, *step);
        }
        pair
    }

    fn happen(pair: &mut [Side; 2], random: u64, step: Step) {
        match step {
            Step::Diverge(node)
                if pair[node].generations.bitmap.is_none()
                    && pair[node].disk != Disk::Inconsistent =>
            {
                pair[node].generations.start(random, Role::Secondary);
            }
            Step::Force(node) if pair[node].disk == Disk::Inconsistent => {
                pair[node].generations.start(random, Role::Secondary);
                pair[node].disk = Disk::Consistent;
            }
            Step::Diverge(_) | Step::Force(_) => {}
            Step::Meet(reached) => meet(pair, random, reached),
        }
    }

    /// The resync goes where both decided: with directions of its own choosing a history
    /// would lead the kernel's table, too, into contradictions.
    fn meet(pair: &mut [Side; 2], random: u64, reached: Reached) {
        let gives_up = Side {
            discard_my_data: true,
            ..pair[0]
        };
        let outcome = decide(&gives_up, &pair[1], MEETING, Policies::default());
        let Ok(Decision::Resync(source, _)) = outcome.result else {
            return;
        };
        match outcome.comparison.correction {
            Some(Correction::Own(corrected)) => pair[0].generations = corrected,
            Some(Correction::Peer(corrected)) => pair[1].generations = corrected,
            None => {}
        }
        let from = usize::from(source == PEER);
        let announced = pair[from].generations;
        let resync = pair[from].generations.start_resync_source(random);
        let target = &mut pair[1 - from];
        if reached >= Reached::TargetStarted {
            target
                .generations
                .start_resync_target(resync, Role::Secondary);
            target.disk = Disk::Inconsistent;
        }
        if reached >= Reached::TargetFinished {
            target
                .generations
                .finish_resync_target(announced, Role::Secondary);
            target.disk = Disk::Consistent;
        }
        if reached >= Reached::BothFinished {
            pair[from].generations.finish_resync_source();
        }
    }

    /// Both decide alone: whenever both go on, they go on with each other.
    fn assert_mirrored(pair: [Side; 2], meeting: Meeting, policies: Policies, how: &str) {
        let other = Meeting {
            resolves_conflicts: !meeting.resolves_conflicts,
            ..meeting
        };
        let there = Policies {
            no_primary: policies.no_primary.seen_from_the_peer(),
            ..policies
        };
        let first = decide(&pair[0], &pair[1], meeting, policies);
        let second = decide(&pair[1], &pair[0], other, there);
        let mirrored = match (first.result, second.result) {
            // How much may differ: each side marks at least what it knows of.
            (Ok(Decision::Resync(one, _)), Ok(Decision::Resync(other, _))) => one == other.other(),
            (Ok(found), Ok(other)) => found == other,
            _ => true,
        };
        assert!(mirrored, "{how}: {first:?} against {second:?}");
    }

    /// Nothing is left to chance up to here: each step of each history, whoever crashed,
    /// whoever is Primary.
    #[test]
    fn all_short_histories_are_decided_alike() {
        const LONGEST: u32 = 4;
        for created in [false, true] {
            for number in 0..8usize.pow(LONGEST) {
                let steps: Vec<Step> = (0..LONGEST)
                    .map(|at| STEPS[number / 8usize.pow(at) % 8])
                    .collect();
                let after = happened(created, &steps);
                for variant in 0..24 {
                    let crashed = [variant & 1 == 1, variant & 2 == 2];
                    let sides = [0, 1].map(|node| Side {
                        role: if variant / 8 == node + 1 {
                            Role::Primary
                        } else {
                            Role::Secondary
                        },
                        crashed_primary: crashed[node],
                        ..after[node]
                    });
                    let meeting = Meeting {
                        resolves_conflicts: variant & 4 == 4,
                        ..MEETING
                    };
                    let how = format!("created {created}, {steps:?}, {variant}");
                    assert_mirrored(sides, meeting, Policies::default(), &how);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn long_histories_are_decided_alike(
            created: bool,
            steps in proptest::collection::vec(proptest::sample::select(&STEPS[..]), 0..12),
            bits in [0u64..3, 0u64..3],
            crashed: [bool; 2],
            primary in 0usize..3,
            resolves: bool,
            policy in 0usize..7,
        ) {
            let pair = happened(created, &steps);
            let sides = [0, 1].map(|node| Side {
                role: if primary == node { Role::Primary } else { Role::Secondary },
                bits_set: bits[node],
                crashed_primary: crashed[node],
                ..pair[node]
            });
            let policies = Policies {
                no_primary: AfterSplitBrain::ALL[policy],
                ..Policies::default()
            };
            let meeting = Meeting { resolves_conflicts: resolves, ..MEETING };
            assert_mirrored(sides, meeting, policies, "");
        }
    }
}
