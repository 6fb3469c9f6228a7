//! halab killed at random moments of what it does to a lab, and a QEMU killed: afterwards
//! `status` tells the truth and the next `up` works; `down` leaves nothing.
//!
//! The moments follow from a seed that is printed; `HALAB_TEST_SEED` and `HALAB_TEST_KILLS`
//! choose others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::Lab;
use crate::topology::{MACHINES, state_of, status, wait_until};
use crate::trial;

/// Kills of halab, as many as the project promises to have seen.
const KILLS: u64 = 10;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_kill_at_any_moment_leaves_nothing_unknown", kills),
        trial(
            "a_save_cut_short_does_not_stop_the_machines_later",
            cut_save,
        ),
        trial("a_launcher_ends_with_its_command", orphan),
        trial("a_wait_inside_the_lab_ends_with_its_command", waiting),
        trial("a_crashed_machine_is_shown_and_up_mends_it", crash),
    ]
}

fn of_variable(name: &str, otherwise: u64) -> u64 {
    let chosen = std::env::var(name).ok().and_then(|text| text.parse().ok());
    chosen.unwrap_or(otherwise)
}

/// Numbers between 0 and 1 that follow from a seed (splitmix64).
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let upper = u32::try_from((word ^ (word >> 31)) >> 32).expect("half of it");
        f64::from(upper) / f64::from(u32::MAX)
    }
}

const UP: &[&str] = &["up"];
const RESET: &[&str] = &["reset"];
const RUN: &[&str] = &["run", "01-lvs-dr", "--tags", "setup"];

#[expect(clippy::print_stderr, reason = "a failure is repeated by its seed")]
fn kills() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let chance = now.expect("after 1970").subsec_nanos();
    let seed = of_variable("HALAB_TEST_SEED", u64::from(chance));
    eprintln!("kills: HALAB_TEST_SEED={seed}");
    let mut moments = Moments(seed);
    let lab = Lab::new("kills");
    // How it ends matters later; a very busy host may fail the run for a deadline of its own.
    let took = |words: &[&str]| {
        let begun = Instant::now();
        lab.halab(words);
        begun.elapsed()
    };
    // The first `up` of a lab does more than all later ones: it is killed too, unmeasured.
    let first = moments.next();
    kill_in_the_middle(&lab, UP, Duration::from_secs(4).mul_f64(first));
    lab.halab(["up"]).success();
    let (run, reset) = (took(RUN), took(RESET));
    lab.halab(["down"]).success();
    let up = took(UP);
    for round in 1..of_variable("HALAB_TEST_KILLS", KILLS) {
        let (words, usual) = match round % 3 {
            0 => (UP, up),
            1 => (RESET, reset),
            _ => (RUN, run),
        };
        if words == UP {
            lab.halab(["down"]).success();
            assert_eq!(left_of(&lab), BTreeSet::new(), "round {round}");
        }
        let moment = usual.mul_f64(moments.next());
        let shown = format!("round {round}: {words:?} killed after {moment:?}");
        kill_in_the_middle(&lab, words, moment);
        let shown_by_status = wait_for_truth(&lab, &shown);
        let mended = lab.halab(["up"]);
        assert_eq!(mended.code, 0, "{shown}, {shown_by_status}\n{mended}");
        for machine in MACHINES {
            let answer = lab.ssh(machine, "true");
            assert_eq!(
                answer.code, 0,
                "{shown}, {shown_by_status}\n{mended}\n{answer}"
            );
        }
        assert_eq!(status(&lab)["state"], "up", "{shown}");
    }
    let holder = status(&lab)["holder_pid"].as_i64().expect("the lab is up");
    let network = network_of(holder).expect("the holder has a network");
    // Held open: the number of one that is gone is another lab's next.
    let held = fs::File::open(format!("/proc/{holder}/ns/net")).expect("the holder's network");
    lab.halab(["down"]).success();
    assert_eq!(left_of(&lab), BTreeSet::new());
    assert_eq!(processes_in(&network), BTreeSet::new());
    drop(held);
    let told = status(&lab);
    assert_eq!(told["state"], "down");
    assert!(
        told["in_use"].is_null() && told["holder_pid"].is_null(),
        "{told}"
    );
}

fn kill_in_the_middle(lab: &Lab, words: &[&str], moment: Duration) {
    let mut child = lab
        .command(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    thread::sleep(moment);
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

/// Looks until `status` names just the QEMUs that are there: one may end or begin between two
/// looks. Returns what it said.
fn wait_for_truth(lab: &Lab, when: &str) -> String {
    let mut told = String::new();
    wait_until(&format!("{when}: status names every QEMU"), || {
        let before = qemus_of(lab);
        let answer = status(lab);
        let machines = answer["machines"].as_array().expect("a list");
        let named: BTreeSet<i64> = machines
            .iter()
            .filter_map(|machine| machine["pid"].as_i64())
            .collect();
        told = answer.to_string();
        named == before && before == qemus_of(lab)
    });
    told
}

/// A save asks QEMU and waits. When it is killed meanwhile, QEMU goes on saving, and at the end
/// of a save the machine is stopped.
fn cut_save() {
    let lab = Lab::new("cut");
    lab.halab(["up"]).success();
    let machine = MACHINES[1];
    let file = lab.state_dir().join("slow.ram");
    // What `snapshot save` does until its kill, but slowly.
    lab.qmp(
        machine,
        &[
            r#"{"execute": "stop"}"#,
            r#"{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 4000000}}"#,
            &format!(
                r#"{{"execute": "migrate", "arguments": {{"uri": "file:{}"}}}}"#,
                file.display()
            ),
        ],
    );
    wait_until("the save has begun", || {
        fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    assert_eq!(state_of(&lab, machine), "paused");
    let said = lab.halab(["up"]).success();
    assert!(said.contains("goes on"), "{said}");
    let migration = lab.qmp(machine, &[r#"{"execute": "query-migrate"}"#]);
    assert!(migration.contains("cancelled"), "{migration}");
    assert_eq!(state_of(&lab, machine), "running");
    lab.ssh(machine, "true").success();
}

/// A launcher that starts its machine after its command has ended would be in the way of the
/// next command's.
fn orphan() {
    let lab = Lab::new("orphan");
    lab.halab(["up"]).success();
    let mark = lab.state_dir().join("mark");
    let log = lab.state_dir().join("orphan.log");
    let launch = |parent: &str| {
        lab.halab([
            "internal-hold",
            "launch",
            parent,
            log.to_str().expect("a plain path"),
            "--",
            "touch",
            mark.to_str().expect("a plain path"),
        ])
    };
    // Process 1 is nobody's halab.
    let said = launch("1").failure(2);
    assert!(said.contains("has ended"), "{said}");
    assert!(!mark.exists());
    launch(&std::process::id().to_string()).success();
    wait_until("its command's launcher does it", || mark.exists());
}

/// A wait for a machine that is frozen lasts; the command it works for is killed.
fn waiting() {
    let lab = Lab::new("waiting");
    lab.halab(["up"]).success();
    lab.halab(["fault", "pause", "saisp-vm-2"]).success();
    let holder = status(&lab)["holder_pid"].as_i64().expect("the lab is up");
    let network = network_of(holder).expect("the holder has a network");
    let halab = lab.command([""; 0]);
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "\"$0\" internal-hold greet $$ 3000 10.0.0.20; true"])
        .arg(halab.get_program())
        .stdout(Stdio::null());
    for (name, value) in halab.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut shell = shell.spawn().expect("a shell");
    let waits = || {
        let found = processes_in(&network);
        found.iter().any(|words| words.contains("greet"))
    };
    wait_until("it waits inside the lab", waits);
    shell.kill().expect("it runs");
    shell.wait().expect("it was started");
    wait_until("its wait is over", || !waits());
    lab.halab(["fault", "resume", "saisp-vm-2"]).success();
}

fn crash() {
    let lab = Lab::new("crash");
    lab.halab(["up"]).success();
    let victim = status(&lab)["machines"][1]["pid"].as_i64().expect("a pid");
    let killed = std::process::Command::new("kill")
        .args(["-9", &victim.to_string()])
        .status()
        .expect("kill runs");
    assert!(killed.success());
    // At once: a QEMU on its way out does not run.
    assert_eq!(state_of(&lab, "saisp-vm-2"), "crashed");
    let said = lab.halab(["up"]);
    assert!(said.stderr.contains("saisp-vm-2 is crashed"), "{said}");
    said.success();
    assert_eq!(state_of(&lab, "saisp-vm-2"), "running");
    lab.ssh("saisp-vm-2", "true").success();
}

/// Finds a lab's QEMUs without halab: by the folder they work in.
pub(crate) fn qemus_of(lab: &Lab) -> BTreeSet<i64> {
    let state = lab.state_dir();
    let is_one = |pid: i64| {
        let works_here = fs::read_link(format!("/proc/{pid}/cwd"));
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        works_here.is_ok_and(|cwd| cwd == state)
            && program.is_ok_and(|exe| exe.to_string_lossy().contains("qemu-system"))
    };
    processes().filter(|pid| is_one(*pid)).collect()
}

/// Waits until nothing works in the lab's folder or with its files, as long as a killed
/// process may take to end; returns what is left.
fn left_of(lab: &Lab) -> BTreeSet<String> {
    let state = lab.state_dir();
    let folder = state.display().to_string();
    let found = || -> BTreeSet<String> {
        processes()
            .filter_map(|pid| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                let works_here = fs::read_link(format!("/proc/{pid}/cwd"));
                let is_left =
                    words.contains(&folder) || works_here.is_ok_and(|cwd| cwd.starts_with(&state));
                is_left.then_some(format!("{pid}: {words}"))
            })
            .collect()
    };
    let end = Instant::now() + Duration::from_secs(3);
    let mut left = found();
    while !left.is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
        left = found();
    }
    left
}

fn network_of(pid: i64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// Their numbers and words.
fn processes_in(network: &PathBuf) -> BTreeSet<String> {
    let words = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    processes()
        .filter(|pid| network_of(*pid).as_ref() == Some(network))
        .map(|pid| format!("{pid} {}", String::from_utf8_lossy(&words(pid))))
        .collect()
}

fn processes() -> impl Iterator<Item = i64> {
    fs::read_dir("/proc")
        .expect("there is /proc")
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
