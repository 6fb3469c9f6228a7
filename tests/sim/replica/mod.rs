//! Two nodes that replicate a device, in a world that cuts, delays, tears and loses power.
//!
//! A run is rounds of work with things going wrong, each followed by rest: everything is
//! started and connected again, and must come together by itself. At rest both disks are
//! the same, nothing is marked, and every sector holds what an application was promised.
//!
//! `HALAB_SIM_RUNS=100000 HALAB_SIM_SEED=1 cargo test --release --test sim replica`

mod disk;
mod oracle;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use halab::replica::engine::Breakage;
use halab::replica::state::{Connection, Disk, Role};

use world::{Disks, Tool, World};

/// Runs in the ordinary test run; some seconds of a debug build.
const RUNS_DEFAULT: u64 = 40;
/// How long two nodes may take, by their own clock, to come together again.
const REST_WITHIN: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// One run; panics when a promise is broken.
fn run(world: &mut World, disks: Disks) {
    rest(world);
    let rounds = 1 + world.below(4);
    for _ in 0..rounds {
        if disks == Disks::Failing {
            world.set_failing(true);
        }
        round(world);
        rest(world);
        settle(world);
    }
}

/// Work, and things that go wrong.
fn round(world: &mut World) {
    if world.primary().is_none() {
        let node = usize::from(world.one_in(2));
        promote(world, node);
    }
    world.write(true);
    let misfortunes = world.below(5);
    for _ in 0..misfortunes {
        let time = Duration::from_micros(200 + world.below(30_000));
        world.run_for(time);
        misfortune(world);
    }
    let time = Duration::from_micros(world.below(20_000));
    world.run_for(time);
    world.write(false);
}

/// A cluster manager would promote only who has the data, and never two.
fn promote(world: &mut World, node: usize) {
    let other = world.primary().is_some() || world.promoting(1 - node);
    if world.running(node) && !other && world.oracle.good(node) {
        world.tool(Tool::Primary(node));
    }
}

fn misfortune(world: &mut World) {
    let node = usize::from(world.one_in(2));
    match world.below(17) {
        0..=2 => {
            if !world.running(node) {
                world.start(node);
            } else if world.may_lose(node) {
                world.crash(node);
            }
        }
        3 => {
            for node in 0..2 {
                if world.running(node) && world.may_lose(node) {
                    world.crash(node);
                }
            }
        }
        4..=6 | 8 if !world.may_part() => {}
        4 | 5 => world.cut(usize::MAX),
        6 => world.set_partition(true),
        7 => world.set_partition(false),
        8 => world.tool(Tool::Disconnect(node)),
        9 => world.tool(Tool::Connect(node)),
        10 => {
            if let Some(primary) = world.primary() {
                world.tool(Tool::Secondary(primary));
                world.run_for(Duration::from_millis(20));
            }
            promote(world, node);
        }
        11 => {
            // A Primary without a disk that loses its peer, too, refuses the peer's data if it
            // missed the word of its new generation, as the kernel's does: not for a machine
            // to mend.
            let other_writes = world.primary() == Some(1 - node);
            if other_writes && world.oracle.good(1 - node) {
                world.tool(Tool::Detach(node));
            }
        }
        12 => world.tool(Tool::Attach(node)),
        13 => world.tool(Tool::Verify(node)),
        14 => {
            if world.oracle.good(1 - node) && world.state(node).role == Role::Secondary {
                world.tool(Tool::Invalidate(node));
            }
        }
        15 => {
            world.tool(Tool::Pause(node));
        }
        _ => promote(world, node),
    }
}

/// Everything is mended from outside that can be, and the two must find together.
fn rest(world: &mut World) {
    world.set_failing(false);
    world.set_partition(false);
    for node in 0..2 {
        if !world.running(node) {
            world.start(node);
        } else if !world.attached(node) {
            world.tool(Tool::Attach(node));
        }
        world.tool(Tool::Resume(node));
    }
    let until = world.now() + REST_WITHIN;
    loop {
        if world.in_sync() && world.quiet() {
            // Whatever is still on its way, such as the last word of a resync, or a command
            // that a cable held back.
            world.run_for(Duration::from_millis(300));
            if world.in_sync() && world.quiet() {
                return;
            }
        }
        assert!(
            world.now() < until,
            "the two do not come together: {} and {}",
            world.state(0),
            world.state(1)
        );
        for node in 0..2 {
            if world.state(node).connection == Connection::StandAlone {
                world.tool(Tool::Connect(node));
            }
            if !world.attached(node) {
                world.tool(Tool::Attach(node));
            }
            replace_bad_blocks(world, node);
        }
        let next = world.now() + Duration::from_millis(500);
        world.run_until(next, |world| world.in_sync() && world.quiet());
    }
}

/// A disk that is Inconsistent by its errors is copied anew at the next connection.
fn replace_bad_blocks(world: &mut World, node: usize) {
    let state = world.state(node);
    if state.connection == Connection::Connected && state.disk == Disk::Inconsistent {
        if state.role == Role::Primary {
            world.tool(Tool::Secondary(node));
        }
        world.tool(Tool::Disconnect(node));
    }
}

fn settle(world: &mut World) {
    let marked = [0, 1].map(|node| world.out_of_sync(node));
    // A mark whose clearing failed with its disk's metadata stays, as it does with 8.4, and is
    // wrong: what is compared below has to be the same there too.
    if !world.metadata_failed() {
        assert_eq!(marked, [0, 0], "blocks are marked at rest");
    }
    let difference = world
        .contents(0)
        .iter()
        .zip(world.contents(1))
        .position(|(one, other)| one != other);
    assert_eq!(
        difference,
        None,
        "a sector differs and nobody knows of it: {:?}",
        difference.map(|at| (world.contents(0)[at], world.contents(1)[at]))
    );
    world.flush_disks();
    let contents = world.contents(0).to_vec();
    world.oracle.settle(&contents);
}

/// What a seed's run comes to; with a trace when it fails.
fn outcome(seed: u64, breakage: Option<Breakage>, disks: Disks) -> Result<u64, String> {
    let mut world = World::new(seed, breakage, disks, false);
    match catch_unwind(AssertUnwindSafe(|| run(&mut world, disks))) {
        Ok(()) => Ok(world.steps),
        Err(panic) => {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            Err(why)
        }
    }
}

/// The last lines of a run that failed.
fn trace_of(seed: u64, disks: Disks) -> String {
    let mut world = World::new(seed, None, disks, true);
    let _ = catch_unwind(AssertUnwindSafe(|| run(&mut world, disks)));
    let lines: Vec<&str> = world.trace().lines().collect();
    let shown = usize::try_from(number("HALAB_SIM_TRACE", 60)).unwrap_or(60);
    lines[lines.len().saturating_sub(shown)..].join("\n")
}

/// Runs that failed once. Disks that fail: a disk that was bad by the time the peer agreed to a
/// verify passed for good again (1953); a Primary lost its power before it had written down that
/// its disk had failed, and the test asked for more than what it had flushed (5652); the end of a
/// resync could not be written down (7241); a Primary stepped down between the word that the peer's
/// disk had missed a write and the word that it is gone, and what it had marked was never copied
/// (7282); a diskless Primary wrote on while its disk was attached again, and nobody marked that (18139).
/// Disks that do not: a verify asked for while a resync began ended the resync (27193); a node lost its
/// power while the other was told to replace its data by this one's, and the test asked for what
/// neither had flushed (45467).
const FAILED_ONCE: [(Disks, u64); 7] = [
    (Disks::Failing, 1953),
    (Disks::Failing, 5652),
    (Disks::Failing, 7241),
    (Disks::Failing, 7282),
    (Disks::Failing, 18139),
    (Disks::Sound, 27193),
    (Disks::Sound, 45467),
];

/// Packets that a node once did not survive: a size beyond all bounds (3755).
const GARBLED_ONCE: [u64; 1] = [3755];

#[test]
fn seeds_that_failed_once_pass() {
    for (disks, seed) in FAILED_ONCE {
        if let Err(why) = outcome(seed, None, disks) {
            panic!("seed {seed}: {why}\n{}", trace_of(seed, disks));
        }
    }
    for seed in GARBLED_ONCE {
        garbled(seed);
    }
}

fn all_seeds(disks: Disks) {
    let first = number("HALAB_SIM_SEED", 1);
    for seed in first..first + number("HALAB_SIM_RUNS", RUNS_DEFAULT) {
        if let Err(why) = outcome(seed, None, disks) {
            panic!("seed {seed}: {why}\n{}", trace_of(seed, disks));
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_whatever_happens() {
    all_seeds(Disks::Sound);
}

/// Reads, writes, flushes and metadata fail, under each policy for that; never those of both
/// disks at once.
#[test]
fn no_acknowledged_write_is_lost_where_disks_fail() {
    all_seeds(Disks::Failing);
}

/// Packets are changed, cut and lengthened on their way, in every phase of a connection: nodes
/// hang up, or believe it, and go on. What a device holds afterwards is the attacker's, where one
/// can take the peer's place: a shared secret keeps others out, digests what changes on the way.
#[test]
fn no_packet_brings_a_node_down() {
    let first = number("HALAB_SIM_SEED", 1);
    for seed in first..first + number("HALAB_SIM_RUNS", RUNS_DEFAULT) {
        garbled(seed);
    }
}

fn garbled(seed: u64) {
    let attacked = catch_unwind(|| {
        let mut world = World::new(seed, None, Disks::Sound, false);
        world.garble(seed);
        for _ in 0..3 {
            round(&mut world);
            for node in 0..2 {
                if !world.running(node) {
                    world.start(node);
                }
                world.tool(Tool::Connect(node));
                world.tool(Tool::Attach(node));
            }
            world.set_partition(false);
            world.run_for(Duration::from_secs(3));
        }
    });
    assert!(attacked.is_ok(), "seed {seed}");
}

/// The power of one node or of both goes after each step of an invalidate that nobody needs.
#[test]
fn an_invalidate_cut_short_anywhere_leaves_no_marks() {
    const STEPS: usize = 120;
    for dying in [&[0][..], &[1], &[0, 1]] {
        for steps in 0..STEPS {
            let mut world = World::new(3, None, Disks::Sound, false);
            rest(&mut world);
            world.tool(Tool::Invalidate(1));
            for _ in 0..steps {
                world.step();
            }
            for node in dying {
                world.crash(*node);
            }
            rest(&mut world);
            settle(&mut world);
            // What was marked for it is not marked again at the next start.
            for node in 0..2 {
                world.crash(node);
            }
            rest(&mut world);
            settle(&mut world);
        }
    }
}

/// During a verify, too, the peer says of a write that the block is the same on both now. What
/// was written there after the peer left is only here, whenever that word arrives.
#[test]
fn a_late_word_on_a_write_does_not_clear_what_was_written_after_it() {
    let mut world = World::new(3, None, Disks::Sound, false);
    rest(&mut world);
    world.tool(Tool::Primary(0));
    until(&mut world, |world| world.primary() == Some(0));
    world.tool(Tool::Verify(1));
    until(&mut world, |world| {
        world.state(0).connection == Connection::VerifyT
            && world.state(1).connection == Connection::VerifyS
    });
    let sector = world.last_sector() - 8;
    let at = usize::try_from(sector).expect("a small disk");
    world.silence(1, true);
    world.write_at(0, sector, 8);
    until(&mut world, |world| {
        (0..2).all(|node| world.contents(node)[at] != 0)
    });
    world.tool(Tool::Disconnect(1));
    until(&mut world, |world| {
        world.state(0).connection == Connection::TearDown
    });
    world.write_at(0, sector, 8);
    world.silence(1, false);
    until(&mut world, |world| {
        world.state(1).connection == Connection::StandAlone
    });
    rest(&mut world);
    settle(&mut world);
}

/// Whoever takes over from a dead Primary asks once: it is the asking that finds out that it is dead.
#[test]
fn a_primary_that_is_silent_stands_in_the_way_no_longer_than_a_ping() {
    let mut world = World::new(3, None, Disks::Sound, false);
    rest(&mut world);
    world.tool(Tool::Primary(0));
    until(&mut world, |world| world.state(1).peer == Role::Primary);
    // It lives, and is not to be passed over.
    world.tool(Tool::Primary(1));
    let soon = world.now() + Duration::from_millis(100);
    world.run_until(soon, |_| false);
    assert_eq!(world.state(1).role, Role::Secondary);
    assert_eq!(world.state(1).connection, Connection::Connected);
    world.set_partition(true);
    world.tool(Tool::Primary(1));
    let at_most = world.now() + Duration::from_secs(1);
    let took_over = world.run_until(at_most, |world| world.state(1).role == Role::Primary);
    assert!(took_over, "after a second it is {}", world.state(1));
}

fn until(world: &mut World, reached: impl Fn(&World) -> bool) {
    let at_most = world.now() + Duration::from_secs(30);
    assert!(
        world.run_until(at_most, reached),
        "it does not come to that: {} and {}",
        world.state(0),
        world.state(1)
    );
}

#[test]
fn a_seed_repeats_to_the_step() {
    for disks in [Disks::Sound, Disks::Failing] {
        assert_eq!(outcome(5, None, disks), outcome(5, None, disks));
    }
}

/// A rule that is broken on purpose is noticed within so many runs.
fn is_noticed(breakage: Breakage) {
    const RUNS: u64 = 400;
    let noticed = (1..=RUNS).find(|seed| outcome(*seed, Some(breakage), Disks::Sound).is_err());
    assert!(
        noticed.is_some(),
        "{breakage:?} went unnoticed in {RUNS} runs"
    );
}

#[test]
fn a_barrier_acknowledged_before_the_flush_is_noticed() {
    is_noticed(Breakage::AcknowledgeBeforeFlush);
}

#[test]
fn a_forgotten_bit_is_noticed() {
    is_noticed(Breakage::ForgetABit);
}

#[test]
fn a_write_before_its_log_entry_is_noticed() {
    is_noticed(Breakage::WriteBeforeLog);
}
