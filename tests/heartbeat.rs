//! The heartbeat daemon as a process, in network namespaces of its own: what it says to bad files,
//! and what a flood of bad packets does to it (nothing).
//!
//! Both need root, or user namespaces; without them they say so and pass over.

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use halab::agent::packet::PacketSocket;
use halab::heartbeat::random::Random;
use programs::program;
use serde_json::Value;

/// Far more than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Set in the copy of this test that runs inside the namespaces.
const INSIDE: &str = "HALAB_TEST_INSIDE";

/// Seconds of the attack; a minute on request.
const ATTACK_SECONDS: &str = "HALAB_TEST_ATTACK_SECONDS";
const ATTACK_SECONDS_DEFAULT: u64 = 5;

const PACKETS_PER_SECOND: u64 = 50_000;

/// Made before the attack, so that it is as fast as the wire: two seconds of it, sent again and again.
const PREPARED: usize = 100_000;

/// What an attack made at random is made from; another one each time unless given.
const SEED: &str = "HALAB_TEST_SEED";

const KEYS: &str = "auth 1\n1 sha1 42ade27dad9045964fab10a395ffe4e0f726a80b\n";

/// Runs this very test again inside namespaces of its own, where it is root and alone.
/// Returns whether the caller is that copy.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("a test has a file");
    let unshare = [
        "--net",
        "--mount",
        "--mount-proc",
        "--pid",
        "--fork",
        "--kill-child",
    ];
    let user = ["--user", "--map-root-user"];
    let is_root = nix::unistd::geteuid().is_root();
    let options = unshare
        .iter()
        .chain(if is_root { &[][..] } else { &user[..] });
    let output = Command::new("unshare")
        .args(options)
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is there");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        skipped(test, &said);
        return false;
    }
    assert!(output.status.success(), "{said}");
    skipped("(inside)", &said);
    false
}

#[expect(clippy::print_stderr, reason = "for the reader of the run")]
fn skipped(test: &str, why: &str) {
    eprintln!("{test}: {why}");
}

fn run(words: &[&str]) {
    let ended = Command::new(words[0]).args(&words[1..]).output();
    let output = ended.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// One node's files, below a folder that is its root.
struct Root {
    folder: tempfile::TempDir,
    /// Enters the namespace that the node lives in.
    enter: Vec<String>,
}

impl Root {
    fn new(name: &str, ha_cf: &str, haresources: &str) -> Self {
        let root = Self {
            folder: tempfile::tempdir().expect("a folder"),
            enter: Vec::new(),
        };
        for folder in ["etc/ha.d/resource.d", "var/lib/heartbeat", "run"] {
            fs::create_dir_all(root.path(folder)).expect("made");
        }
        root.write("etc/ha.d/nodeinfo", name, 0o644);
        root.write("etc/ha.d/ha.cf", ha_cf, 0o644);
        root.write("etc/ha.d/authkeys", KEYS, 0o600);
        root.write("etc/ha.d/haresources", haresources, 0o644);
        // A resource that is a file.
        let script = "#!/bin/sh\nf=$(dirname $0)/$1.runs\ncase $2 in\n start) touch $f;;\n stop) rm -f $f;;\n status) [ -e $f ] && echo running || echo stopped;;\nesac\n";
        root.write("etc/ha.d/resource.d/Fake", script, 0o755);
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    }

    fn command(&self, words: &[&str]) -> Command {
        let agent = program("halab-agent");
        let mut command = match self.enter.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(agent);
                command
            }
            None => Command::new(agent),
        };
        command.args(words).arg("--root").arg(self.folder.path());
        command
    }

    /// Starts in the foreground and returns what it says when it does not stay.
    fn refusal(&self) -> String {
        let output = self
            .command(&["heartbeat", "-f"])
            .output()
            .expect("the agent starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{said}");
        said
    }

    fn start(&self) -> Daemon {
        let journal = self.path("journal");
        let child = self
            .command(&["heartbeat", "-f"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&journal).expect("a file"))
            .spawn()
            .expect("the agent starts");
        Daemon { child, journal }
    }

    fn status(&self) -> Value {
        let output = self
            .command(&["heartbeat", "status", "--json"])
            .output()
            .expect("the agent starts");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }
}

/// A daemon, killed when dropped.
struct Daemon {
    child: Child,
    journal: PathBuf,
}

impl Daemon {
    fn journal(&self) -> String {
        fs::read_to_string(&self.journal).unwrap_or_default()
    }

    fn resident_kib(&self) -> u64 {
        // The agent itself: `nsenter` becomes it.
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process has memory");
        let kib = line.split_whitespace().next().expect("a number");
        kib.parse().expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn eventually(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(()) => return,
            Err(seen) if Instant::now() >= end => panic!("waited until {what}: {seen}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

const HA_CF: &str = "bcast lo\nnode one two\nauto_failback on\n";

#[test]
fn each_bad_file_is_told_apart_in_words_that_help() {
    if !inside("each_bad_file_is_told_apart_in_words_that_help") {
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    let check = |root: &Root, words: &[&str]| {
        let said = root.refusal();
        for word in words {
            assert!(said.contains(word), "expected `{word}` in:\n{said}");
        }
        assert!(!said.contains("42ade27"), "a secret is shown:\n{said}");
    };
    let good = "one Fake::a\n";

    let root = Root::new("one", HA_CF, good);
    root.write("etc/ha.d/authkeys", KEYS, 0o644);
    check(
        &root,
        &["bad permissions on keyfile", "chmod 600 ", "authkeys"],
    );

    let root = Root::new("three", HA_CF, good);
    check(&root, &["this host is `three`", "ha.cf:2:6", "uname -n"]);

    let root = Root::new("one", HA_CF, "one Fake::a\ntwo Fake::a\n");
    check(&root, &["haresources:2:5", "Fake::a"]);

    let root = Root::new("one", HA_CF, "one Fakke::a\n");
    check(
        &root,
        &[
            "there is no script for the resource `Fakke`",
            "haresources:1:5",
            "did you mean `Fake`?",
        ],
    );

    let taken = UdpSocket::bind("0.0.0.0:694").expect("a free port");
    let root = Root::new("one", HA_CF, good);
    check(
        &root,
        &["someone is already listening on port 694", "ha.cf:1:7"],
    );
    drop(taken);

    let root = Root::new("one", "bcast eth7\nnode one two\n", good);
    check(
        &root,
        &[
            "there is no interface `eth7`",
            "ha.cf:1:7",
            "this host has lo",
        ],
    );
}

/// A namespace of another node, joined to this one by a cable.
fn second_namespace() -> (Child, Vec<String>) {
    let holder = Command::new("unshare")
        .args(["--net", "sleep", "3600"])
        .spawn()
        .expect("unshare is there");
    let pid = holder.id().to_string();
    let enter = ["nsenter", "-t", &pid, "-n"].map(str::to_owned).to_vec();
    eventually("the other namespace is there", || {
        let own = fs::read_link("/proc/self/ns/net").ok();
        let its = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        (its.is_some() && own != its)
            .then_some(())
            .ok_or_else(|| format!("{own:?} {its:?}"))
    });
    run(&[
        "ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &pid,
    ]);
    run(&["ip", "addr", "add", "10.99.0.2/24", "dev", "near"]);
    run(&["ip", "link", "set", "near", "up"]);
    let far = |words: &[&str]| {
        let mut all: Vec<&str> = enter.iter().map(String::as_str).collect();
        all.extend(words);
        run(&all);
    };
    far(&["ip", "addr", "add", "10.99.0.1/24", "dev", "far"]);
    far(&["ip", "link", "set", "far", "up"]);
    (holder, enter)
}

/// Node `one` far away, node `two` here.
fn pair(resources: [&str; 2]) -> (Child, [Root; 2]) {
    let (holder, enter) = second_namespace();
    let ha_cf = |medium: &str| {
        format!(
            "keepalive 250ms\ndeadtime 5\ninitdead 10\n{medium}\nauto_failback on\nnode one two\n"
        )
    };
    let mut far = Root::new("one", &ha_cf("ucast far 10.99.0.2"), resources[0]);
    far.enter = enter;
    let near = Root::new("two", &ha_cf("ucast near 10.99.0.1"), resources[1]);
    (holder, [far, near])
}

/// Waits until a node sees both active and is settled.
#[track_caller]
fn settled(root: &Root, daemon: &Daemon) -> Value {
    let mut settled = Value::Null;
    eventually("both nodes are active", || {
        let status = root.status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let active = nodes.len() == 2 && nodes.iter().all(|node| node["status"] == "active");
        let is_settled = active && status["resources"] == "local";
        settled = status;
        is_settled
            .then_some(())
            .ok_or_else(|| format!("{settled}\n{}", daemon.journal()))
    });
    settled
}

#[test]
fn two_different_haresources_are_told() {
    if !inside("two_different_haresources_are_told") {
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    let (mut holder, [far, near]) = pair(["one Fake::a\n", "one Fake::b\n"]);
    let (first, second) = (far.start(), near.start());
    for (daemon, other, line) in [
        (&first, "two", "one Fake::a"),
        (&second, "one", "one Fake::b"),
    ] {
        eventually("the difference is told", || {
            let said = daemon.journal();
            let expected =
                format!("haresources differs between the nodes: {other} has no such line as");
            (said.contains(&expected) && said.contains(line) && said.contains("haresources:1:1"))
                .then_some(())
                .ok_or(said)
        });
    }
    drop((first, second));
    let _ = holder.kill();
    let _ = holder.wait();
}

/// A node that gives its address up right after it got it has announcements left to send; each
/// would call the neighbours back from the node that has the address now.
#[test]
fn an_address_that_was_given_up_is_announced_no_more() {
    const ADDRESS: [u8; 4] = [10, 99, 0, 50];
    if !inside("an_address_that_was_given_up_is_announced_no_more") {
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    let (mut holder, [far, near]) = pair(["one 10.99.0.50\n", "one 10.99.0.50\n"]);
    let watcher = PacketSocket::open_all("near").expect("a packet socket");
    let (first, second) = (far.start(), near.start());
    settled(&far, &first);
    settled(&near, &second);
    let pid = i32::try_from(first.child.id()).expect("a process");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("it runs");

    // Whose station each announcement names, in order, until the last that either would send.
    let shown = Command::new("ip")
        .args(["-o", "link", "show", "near"])
        .output();
    let shown = String::from_utf8(shown.expect("ip is there").stdout).expect("text");
    let mut buffer = [0; 2048];
    let mut announced: Vec<bool> = Vec::new();
    let end = Instant::now() + Duration::from_secs(6);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Ok(Some(frame)) = watcher.receive(&mut buffer, left) else {
            continue;
        };
        let is_arp = frame.get(12..14) == Some(&[0x08, 0x06]);
        if is_arp && frame.get(28..32) == Some(&ADDRESS) {
            let station: Vec<String> = frame[22..28]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            announced.push(shown.contains(&format!("link/ether {}", station.join(":"))));
        }
    }
    let taken = announced.iter().position(|is_near| *is_near);
    let taken =
        taken.unwrap_or_else(|| panic!("nobody took the address over: {}", second.journal()));
    let late = announced[taken..]
        .iter()
        .filter(|is_near| !**is_near)
        .count();
    assert_eq!(
        late, 0,
        "announced by the node that gave it up: {announced:?}"
    );
    drop((first, second));
    let _ = holder.kill();
    let _ = holder.wait();
}

/// Everything an attacker without the key can send, and what they recorded before.
struct Attacker {
    random: Random,
    recorded: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Attacker {
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from(self.random.below(bound)).expect("small")
    }

    fn next(&mut self) -> &[u8] {
        let at = self.below(self.recorded.len());
        let kind = self.below(1000);
        self.buffer.clone_from(&self.recorded[at]);
        let length = self.buffer.len();
        match kind {
            // Replayed, and so out of order.
            0..400 => {}
            // Forged: a byte of the text or of the signature is another.
            400..650 => {
                let place = self.below(length);
                self.buffer[place] ^= 1 << self.below(8);
            }
            // Truncated.
            650..800 => {
                let length = self.below(length);
                self.buffer.truncate(length);
            }
            // Oversized, as far as a datagram goes; few, for each fills the wire for dozens.
            800 => self.buffer.resize(65_000, b'x'),
            // A little too long.
            801..900 => self.buffer.extend_from_slice(b"7:(0)a=b,"),
            // Random, some of it behind a right beginning.
            _ => {
                let length = 1 + self.below(600);
                self.buffer.resize(length, 0);
                let from = if kind.is_multiple_of(2) {
                    0
                } else {
                    4.min(length)
                };
                for place in from..length {
                    self.buffer[place] = u8::try_from(self.random.below(256)).expect("a byte");
                }
            }
        }
        &self.buffer
    }
}

#[test]
fn a_flood_of_bad_packets_changes_nothing() {
    if !inside("a_flood_of_bad_packets_changes_nothing") {
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    let (mut holder, [far, near]) = pair(["one Fake::a\n", "one Fake::a\n"]);
    // What is recorded is of the other node's present generation, and of one before it.
    let recorder = PacketSocket::open_all("near").expect("a packet socket");
    let target = far.start();
    let mut recorded = Vec::new();
    for _ in 0..2 {
        let peer = near.start();
        settled(&far, &target);
        record(&recorder, &mut recorded);
        drop(peer);
    }
    let peer = near.start();
    settled(&far, &target);
    record(&recorder, &mut recorded);
    assert!(recorded.len() > 20, "{} packets", recorded.len());
    let before = settled(&far, &target);
    let resident = target.resident_kib();

    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = given(SEED).unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        now.subsec_nanos().into()
    });
    let seconds = given(ATTACK_SECONDS).unwrap_or(ATTACK_SECONDS_DEFAULT);
    let mut attacker = Attacker {
        random: Random::new(seed),
        recorded,
        buffer: Vec::new(),
    };
    let prepared: Vec<Vec<u8>> = (0..PREPARED).map(|_| attacker.next().to_vec()).collect();
    let socket = UdpSocket::bind("10.99.0.2:0").expect("a socket");
    socket.connect("10.99.0.1:694").expect("an address");
    let began = Instant::now();
    let mut sent: u64 = 0;
    let mut packets = prepared.iter().cycle();
    while began.elapsed() < Duration::from_secs(seconds) {
        // In pace: as many as are due by now.
        let due =
            u64::try_from(began.elapsed().as_millis()).expect("short") * PACKETS_PER_SECOND / 1000;
        for packet in packets
            .by_ref()
            .take(usize::try_from(due.saturating_sub(sent)).expect("few"))
        {
            // A full queue is as good as an arrival: it is full of what was sent before.
            let _ = socket.send(packet);
        }
        sent = sent.max(due);
        thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();

    let after = far.status();
    let journal = target.journal();
    let report = format!(
        "seed {seed}, {sent} packets in {took:?}, memory {resident} → {} KiB, counters {}",
        target.resident_kib(),
        after["counters"]
    );
    for what in ["phase", "resources", "groups"] {
        assert_eq!(after[what], before[what], "{report}\n{journal}");
    }
    let generation = |status: &Value| status["nodes"][1]["generation"].clone();
    assert_eq!(generation(&after), generation(&before), "{report}");
    assert!(!journal.contains("is dead"), "{report}\n{journal}");
    assert!(
        !journal.contains("returning after partition"),
        "{report}\n{journal}"
    );
    assert!(target.resident_kib() < resident + 2048, "{report}");
    // Ten kinds of complaint at most, each at ever longer intervals.
    assert!(journal.lines().count() < 300, "{report}\n{journal}");
    let heard = after["nodes"][1]["last_heard_ms"].as_u64();
    assert!(heard.is_some_and(|heard| heard < 5000), "{report}");
    let refused = after["counters"]["refused"].as_u64().unwrap_or(0);
    assert!(refused > 1000, "the flood did not arrive: {report}");
    skipped("a_flood_of_bad_packets_changes_nothing", &report);
    drop((target, peer));
    let _ = holder.kill();
    let _ = holder.wait();
}

/// Keeps what the near node sends, for a while.
fn record(socket: &PacketSocket, recorded: &mut Vec<Vec<u8>>) {
    const ETHERNET_IP_UDP: usize = 14 + 20 + 8;
    const FROM_NEAR: [u8; 4] = [10, 99, 0, 2];
    let mut buffer = [0; 2048];
    let end = Instant::now() + Duration::from_secs(2);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Ok(Some(frame)) = socket.receive(&mut buffer, left) else {
            continue;
        };
        let is_message = frame.get(26..30) == Some(&FROM_NEAR)
            && frame.get(ETHERNET_IP_UDP..ETHERNET_IP_UDP + 4) == Some(b"###\n");
        if is_message {
            recorded.push(frame[ETHERNET_IP_UDP..].to_vec());
        }
    }
}

/// A folder that is not there is told as such, not as a wrong file.
#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(program("halab-agent"))
        .args(["heartbeat", "check", "--root"])
        .arg(folder.path())
        .output()
        .expect("the agent starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(
        said.contains("cannot open") && said.contains("ha.cf"),
        "{said}"
    );
    assert!(Path::new(folder.path()).is_dir());
}
