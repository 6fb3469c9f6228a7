//! Random tables and edits: set by both, shown by both, saved by one and restored by the
//! other. The seed is printed; `HALAB_TEST_SEED` and `HALAB_TEST_COUNT` choose others.

use std::fmt::Write as _;

use super::{BLOCK, Block, FOLDER, OURS, THEIRS, blocks, run_inside};
use crate::support::guest::Guest;

const SEED: u64 = 20_191_224;
/// Sequences of an ordinary run, to leave CI time for the rest. What the project promises to
/// have seen is 500: `HALAB_TEST_COUNT=500`.
const SEQUENCES: u64 = 150;
/// Sequences of one script: its output stays within a few megabytes.
const PER_SCRIPT: usize = 50;
/// Every so many sequences one is also shown under traffic.
const WITH_TRAFFIC: usize = 10;
/// The UDP timeout of a script's first sequence: a number that marks where it begins.
const MARK: usize = 10_001;
/// Nothing set up, whatever was before.
const CLEAN: &str = "-C\n--stop-daemon master\n--stop-daemon backup\n--set 900 120 300";
/// `restore PROGRAM FILE` gives the lines to `-R`, a new run after each start of a sync daemon: the
/// kernel gives no answer when it stops one whose thread never ran, and the real ipvsadm, which
/// reads the next line at once, waits for it for ever. The pause lets the thread run; should it
/// not, the run ends instead of the wait.
const RESTORE: &str = r#"
restore() {
  local code=0 part
  [[ $(<"$2") == *--start-daemon* ]] || { timeout 300 "$1" -R < "$2"; return; }
  rm -f /opt/halab-test/part.*
  awk -v part=/opt/halab-test/part. '{ print > (part (1000 + n)) } /--start-daemon/ { close(part (1000 + n)); n++ }' "$2"
  for part in /opt/halab-test/part.*; do
    timeout 300 "$1" -R < "$part" || code=$?
    sleep 0.1
  done
  return $code
}
"#;
/// A block of what was said on standard error, without the hints only ours gives.
const SAID: &str = r#"
said() { while read -r line; do [[ $line == hint:* ]] || echo "$line"; done < /opt/halab-test/said; }
mv /opt/halab-test/stderr /opt/halab-test/said
block said said
"#;

/// Listings that stand still.
const STEADY: [&str; 10] = [
    "-L",
    "-L -n",
    "-L -n --thresholds",
    "-L -n --persistent-conn",
    "-L -n --tun-info",
    "-L -n --nosort",
    "-L --timeout",
    "-L --daemon",
    "-S",
    "-S -n",
];

/// Listings that time changes: ours must be as theirs was before or after it.
const MOVING: [&str; 4] = [
    "-L -n -c",
    "-L -n --stats",
    "-L --stats --exact",
    "-L -n --rate",
];

pub(super) fn tables(guest: &Guest) {
    for seeds in seeds().chunks(PER_SCRIPT) {
        let found = blocks(&run_inside(guest, &script_of_tables(seeds)));
        check_tables(seeds, &found);
    }
}

pub(super) fn saved_and_restored(guest: &Guest) {
    for seeds in seeds().chunks(PER_SCRIPT) {
        let mut script = format!("{RESTORE}{BLOCK}t={THEIRS}; o={OURS}\n");
        for seed in seeds {
            push_lines(&mut script, *seed);
            push_restoring(&mut script);
        }
        let found = blocks(&run_inside(guest, &script));
        assert_eq!(found.len(), seeds.len() * RESTORING_BLOCKS);
        for (seed, found) in seeds.iter().zip(found.chunks(RESTORING_BLOCKS)) {
            check_restoring(&context(*seed), found);
        }
    }
}

pub(super) fn traffic(guest: &Guest) {
    for seed in seeds().iter().step_by(WITH_TRAFFIC) {
        let mut script = format!("{RESTORE}{BLOCK}t={THEIRS}; o={OURS}\n");
        push_lines(&mut script, *seed);
        push_traffic(&mut script);
        check_traffic(&context(*seed), &blocks(&run_inside(guest, &script)));
    }
}

fn seeds() -> Vec<u64> {
    let of_variable = |name| {
        let text = std::env::var(name).ok()?;
        text.parse().ok()
    };
    let first = of_variable("HALAB_TEST_SEED").unwrap_or(SEED);
    let count = of_variable("HALAB_TEST_COUNT").unwrap_or(SEQUENCES);
    (first..first + count).collect()
}

/// All sequences in one run of each program: `-R` does every line as a command of its own,
/// listings included. Each sequence begins from nothing and with a mark.
fn script_of_tables(seeds: &[u64]) -> String {
    let mut script = format!("{RESTORE}{BLOCK}cat > {FOLDER}/lines <<'END'\n");
    for (index, seed) in seeds.iter().enumerate() {
        let _ = writeln!(
            script,
            "{CLEAN}\n--set 900 120 {}\n-L --timeout",
            MARK + index
        );
        for line in lines(*seed)
            .iter()
            .map(String::as_str)
            .chain(STEADY)
            .chain(MOVING)
        {
            script.push_str(line);
            script.push('\n');
        }
    }
    script.push_str("END\n");
    for program in [THEIRS, OURS] {
        let _ = writeln!(
            script,
            "{THEIRS} -R > /dev/null 2>&1 <<'END'\n{CLEAN}\nEND\n\
             block tables restore {program} {FOLDER}/lines\n{SAID}"
        );
    }
    script
}

fn check_tables(seeds: &[u64], found: &[Block]) {
    let [theirs, theirs_said, ours, ours_said] = found else {
        panic!("four blocks: {found:?}");
    };
    assert_eq!(
        theirs.code, ours.code,
        "exit codes, seeds {seeds:?}: {}",
        ours.message
    );
    let mark = |index: usize| format!("Timeout (tcp tcpfin udp): 900 120 {}\n", MARK + index);
    let part = |block: &Block, index: usize| {
        let (_, from) = block.stdout.split_once(&mark(index)).unwrap_or_else(|| {
            panic!(
                "the run ended before sequence {index}: {}",
                theirs_said.stdout
            )
        });
        from.split_once(&mark(index + 1))
            .map_or(from, |(part, _)| part)
            .to_owned()
    };
    for (index, seed) in seeds.iter().enumerate() {
        let (theirs, ours) = (part(theirs, index), part(ours, index));
        assert!(
            theirs.contains("LocalAddress:Port"),
            "nothing was listed: {theirs}"
        );
        assert_eq!(theirs, ours, "{}", context(*seed));
    }
    let mut said = theirs_said
        .stdout
        .lines()
        .zip(ours_said.stdout.lines())
        .enumerate();
    let different = said.find(|(_, (theirs, ours))| theirs != ours);
    assert_eq!(different, None, "messages, seeds {seeds:?}");
    assert_eq!(
        theirs_said.stdout.len(),
        ours_said.stdout.len(),
        "messages, seeds {seeds:?}"
    );
}

fn context(seed: u64) -> String {
    format!("seed {seed}:\n{}", lines(seed).join("\n"))
}

/// The sequence's table, made by theirs.
fn push_lines(script: &mut String, seed: u64) {
    let _ = writeln!(
        script,
        "cat > {FOLDER}/lines <<'END'\n{CLEAN}\n{}\nEND\n\
         restore $t {FOLDER}/lines > /dev/null 2>&1",
        lines(seed).join("\n")
    );
}

/// The table shown by both while connections come and go.
fn push_traffic(script: &mut String) {
    let moving = MOVING.join("\n");
    let _ = writeln!(script, "cat > {FOLDER}/moving <<'END'\n{moving}\nEND");
    script.push_str(TRAFFIC);
    for program in ["$t", "$o", "$t"] {
        let _ = writeln!(script, "block moving {program} -R < {FOLDER}/moving");
    }
}

/// What was saved by theirs and what it was restored to by ours, then the other way.
const RESTORING_BLOCKS: usize = 4;

/// The table saved by each and restored by the other.
fn push_restoring(script: &mut String) {
    for (by, other) in [("$t", "$o"), ("$o", "$t")] {
        let _ = writeln!(
            script,
            "{{ echo -C; {by} -S -n; echo -S -n; }} > {FOLDER}/saved\n\
             block saved cat {FOLDER}/saved\n\
             block restored restore {other} {FOLDER}/saved"
        );
    }
}

/// Packets to what may be services, so that there is something to count. A connection is
/// given up at once; its entry stays.
const TRAFFIC: &str = r"
for place in 10.0.0.1/53 10.0.0.1/5060 200.1.2.3/53; do
  (echo x > /dev/udp/$place) 2>/dev/null
done
for place in 10.0.0.1/80 10.0.0.1/443 2001:db8::1/80; do
  (exec 3<>/dev/tcp/$place) 2>/dev/null & given_up=$!
done
sleep 0.2
kill $given_up 2>/dev/null
for job in $(jobs -p); do kill $job 2>/dev/null; done
wait
";

fn check_traffic(context: &str, found: &[Block]) {
    let [before, ours, after] = found else {
        panic!("three listings: {found:?}");
    };
    let titles = |block: &Block| -> Vec<String> {
        let pieces = block.stdout.split("\nIP Virtual Server version");
        pieces.map(str::to_owned).collect()
    };
    let (before, ours, after) = (titles(before), titles(ours), titles(after));
    assert_eq!(ours.len(), MOVING.len(), "{context}");
    for ((before, ours), after) in before.iter().zip(&ours).zip(&after) {
        if ours.starts_with("IPVS connection entries") {
            assert_connections(before, ours, after, context);
        } else {
            let same = ours == before || ours == after;
            assert!(same, "{context}\n{before}\n{ours}\n{after}");
        }
    }
}

fn check_restoring(context: &str, found: &[Block]) {
    for pair in found.chunks(2) {
        let [saved, restored] = pair else {
            panic!("saved and restored: {pair:?}")
        };
        let table = saved
            .stdout
            .trim_start_matches("-C\n")
            .trim_end_matches("-S -n\n");
        assert_eq!(restored.stdout, table, "{context}");
        assert_eq!(
            (restored.code.as_str(), restored.message.as_str()),
            ("0", ""),
            "{context}"
        );
    }
}

/// The same rows, and times between those of the listings before and after.
fn assert_connections(before: &str, ours: &str, after: &str, context: &str) {
    let (first, (middle, last)) = (rows(before), (rows(ours), rows(after)));
    let texts = |rows: &[(String, u32)]| rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>();
    // An entry may end between two listings; then the later one decides.
    if texts(&first) == texts(&middle) {
        for ((text, seconds), (_, ours)) in first.iter().zip(&middle) {
            assert!(ours <= seconds, "{text}: {ours} after {seconds}, {context}");
        }
    } else {
        assert_eq!(texts(&middle), texts(&last), "{context}");
    }
}

/// Each row without its time, and the time in seconds.
fn rows(listing: &str) -> Vec<(String, u32)> {
    let of_row = |line: &str| {
        let time = line.get(4..10).unwrap_or_default().trim();
        let seconds = time.split_once(':').and_then(|(minutes, seconds)| {
            Some(minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?)
        });
        match seconds {
            Some(seconds) => (format!("{}{}", &line[..4], &line[10..]), seconds),
            None => (line.to_owned(), 0),
        }
    };
    listing.lines().map(of_row).collect()
}

/// A small generator of its own, so that a seed means the same for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Steele's SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        usize::try_from(value % u64::try_from(limit).expect("a small number"))
            .expect("less than the limit")
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The commands of one sequence: mostly additions, then edits and deletions of what is
/// likely there. Some are refused by the kernel; none makes ipvsadm stop reading.
fn lines(seed: u64) -> Vec<String> {
    let mut dice = Dice(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let count = 6 + dice.below(14);
    let mut lines: Vec<String> = (0..3 + dice.below(4))
        .map(|_| {
            let service = service(&mut dice);
            add_service(&mut dice, "-A", service)
        })
        .collect();
    lines.extend((0..count).map(|index| line(&mut dice, index * 100 / count)));
    lines
}

/// `progress` goes from 0 to 99: early lines add, later ones change.
fn line(dice: &mut Dice, progress: usize) -> String {
    let service = service(dice);
    let kind = dice.below(100);
    if kind < 4 {
        return daemon_or_timeouts(dice);
    }
    if kind < 60 - progress / 4 {
        return if dice.chance(35) {
            add_service(dice, "-A", service)
        } else {
            server(dice, "-a", service)
        };
    }
    match dice.below(8) {
        0 | 1 => add_service(dice, "-E", service),
        2..=4 => server(dice, "-e", service),
        5 | 6 => format!("-d {service} -r {}", server_address(dice, service)),
        _ if dice.chance(40) => format!("-D {service}"),
        _ => format!("-Z {service}"),
    }
}

/// Few enough that later lines meet what earlier ones made.
fn service(dice: &mut Dice) -> &'static str {
    dice.one(&[
        "-t 10.0.0.1:80",
        "-t 10.0.0.1:http",
        "-t 10.0.0.1:443",
        "-u 10.0.0.1:53",
        "-u 10.0.0.1:5060",
        "-u 200.1.2.3:53",
        "-t 200.1.2.3:8080",
        "--sctp-service 10.0.0.2:22",
        "-t [2001:db8::1]:80",
        "-u [2001:db8::1]:53",
        "-f 7",
        "-f 2147483647",
        "-f 9 -6",
    ])
}

fn add_service(dice: &mut Dice, verb: &str, service: &str) -> String {
    let scheduler = dice.one(&[
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf",
        "none", "nonesuch",
    ]);
    let mut line = format!("{verb} {service}");
    if dice.chance(90) {
        let _ = write!(line, " -s {scheduler}");
        if dice.chance(30) {
            let flags = match scheduler {
                "sh" => dice.one(&["sh-port", "sh-fallback", "sh-fallback,sh-port", "flag-1"]),
                "mh" => dice.one(&["mh-port", "mh-fallback,mh-port", "flag-2"]),
                _ => dice.one(&["flag-1", "flag-2,flag-3", "flag-3"]),
            };
            let _ = write!(line, " -b {flags}");
        }
    }
    if dice.chance(40) {
        line.push_str(dice.one(&[" -p", " -p 60", " -p 2678400"]));
        if dice.chance(50) {
            let masks: &[&str] = if service.contains("2001") || service.contains("-6") {
                &["64", "128", "1"]
            } else {
                &["255.255.255.0", "255.255.255.255", "0.0.0.0", "255.0.255.0"]
            };
            let _ = write!(line, " -M {}", dice.one(masks));
        }
        if dice.chance(15) {
            line.push_str(" --pe sip");
        }
    }
    let takes_ops = service.starts_with("-u") || service.starts_with("-f");
    if takes_ops && dice.chance(15) {
        line.push_str(" -o");
    }
    line
}

/// A port's name must be one of the service's protocol; else it is a usage error.
fn server_address(dice: &mut Dice, service: &str) -> &'static str {
    let address = dice.one(&[
        "10.0.0.20",
        "10.0.0.20:8080",
        "10.0.0.30:80",
        "10.0.0.2:http",
        "64.0.0.1:80",
        "200.7.7.7:80",
        "10.0.0.255:80",
        "127.0.0.1:80",
        "[2001:db8::20]:80",
        "2001:db8::30",
        "[2001:db8::20]:8080",
    ]);
    if address.ends_with(":http") && !service.starts_with("-t") {
        "10.0.0.2:80"
    } else {
        address
    }
}

fn server(dice: &mut Dice, verb: &str, service: &str) -> String {
    let is_v6 = service.contains("2001") || service.contains("-6");
    let mut address = server_address(dice, service);
    let tunnel = dice.chance(25);
    if !tunnel {
        // Without a tunnel another family is a usage error, which would end the file.
        while address.contains("2001") != is_v6 {
            address = server_address(dice, service);
        }
    }
    let mut line = format!("{verb} {service} -r {address}");
    if tunnel {
        line.push_str(" -i");
        line.push_str(dice.one(&[
            "",
            " --tun-type ipip",
            " --tun-type gre",
            " --tun-type gre --tun-csum",
            " --tun-type gue --tun-port 6080",
            " --tun-type gue --tun-port 6080 --tun-csum",
            " --tun-type gue --tun-port 65535 --tun-remcsum",
        ]));
    } else {
        line.push_str(dice.one(&["", " -g", " -m", " -m"]));
    }
    if dice.chance(60) {
        let _ = write!(
            line,
            " -w {}",
            dice.one(&["0", "1", "3", "100", "65535", "2147483647"])
        );
    }
    if dice.chance(30) {
        line.push_str(dice.one(&[" -x 4", " -x 100 -y 50", " -x 0", " -y 5", " -x 2147483647"]));
    }
    line
}

fn daemon_or_timeouts(dice: &mut Dice) -> String {
    dice.one(&[
        "--set 1 2 3",
        "--set 0 60 0",
        "--set 2678400 2678400 2678400",
        "--start-daemon master --mcast-interface d0",
        "--start-daemon backup --mcast-interface d0 --syncid 7 --mcast-ttl 3",
        "--start-daemon master --mcast-interface d0 --mcast-group ff02::81 --mcast-port 9000",
        "--start-daemon backup --mcast-interface nonesuch",
        "--stop-daemon master",
    ])
    .to_owned()
}
