//! Command lines that are wrong in some way, each given to both.

use std::fmt::Write as _;

use super::{BLOCK, Block, OURS, THEIRS, blocks, run_inside};
use crate::support::guest::Guest;

/// Each line is a command line as a shell reads it.
const LINES: &str = include_str!("cases.txt");

/// The tables both begin with.
const STATE: &str = "-C
--stop-daemon master
--stop-daemon backup
--set 900 120 300
-A -t 10.0.0.1:80 -s rr
-a -t 10.0.0.1:80 -r 10.0.0.20 -m
-A -u 10.0.0.1:53 -p 60
-A -f 7";

pub(super) fn wrong_command_lines(guest: &Guest) {
    let mut script = BLOCK.to_owned();
    for program in [THEIRS, OURS] {
        let _ = writeln!(script, "PATH={}:$PATH", folder(program));
        let _ = writeln!(script, "ipvsadm -R >/dev/null 2>&1 <<'END'\n{STATE}\nEND");
        for (index, line) in lines().enumerate() {
            let _ = writeln!(script, "block {index} ipvsadm {line} < /dev/null");
        }
        let _ = writeln!(script, "block state ipvsadm -S -n");
    }
    let found = blocks(&run_inside(guest, &script));
    let (theirs, ours) = found.split_at(found.len() / 2);
    let mut wrong = String::new();
    for ((theirs, ours), line) in theirs.iter().zip(ours).zip(lines().chain(["-S -n"])) {
        if let Some(difference) = difference(theirs, ours, line) {
            wrong.push_str(&difference);
        }
    }
    assert_eq!(found.len() / 2, lines().count() + 1);
    assert!(wrong.is_empty(), "{wrong}");
}

fn folder(program: &str) -> &str {
    program
        .rsplit_once('/')
        .map_or(program, |(folder, _)| folder)
}

fn lines() -> impl Iterator<Item = &'static str> {
    LINES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Help and version are our own words; everything else is alike.
fn difference(theirs: &Block, ours: &Block, line: &str) -> Option<String> {
    let own_words = ["-h", "-v", "--help", "--version"];
    let mut expected = theirs.clone();
    if own_words.iter().any(|word| line.starts_with(word)) {
        expected.stdout.clone_from(&ours.stdout);
    }
    (expected != *ours)
        .then(|| format!("ipvsadm {line}\n  theirs: {expected:?}\n  ours:   {ours:?}\n"))
}

/// Neither the module nor the right to use it.
pub(super) fn no_module_no_rights(guest: &Guest) {
    let run = |line: &str| {
        let mut script = BLOCK.to_owned();
        for program in [THEIRS, OURS] {
            let _ = writeln!(script, "block one {line} {program} -Ln");
        }
        script
    };
    let unprivileged = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let found = blocks(&run_inside(guest, &run(unprivileged)));
    assert_eq!(found[0].code, "2");
    assert_eq!(found[0], found[1]);
    let hidden = format!(
        "{THEIRS} -C
         ip netns del lvs-test
         unload() {{ rmmod $(awk '/^ip_vs_/ {{print $1}}' /proc/modules) 2>/dev/null; rmmod ip_vs; }}
         for attempt in 1 2 3 4 5 6 7 8 9 10; do unload && break; sleep 1; done
         echo 'install ip_vs /bin/false' > /etc/modprobe.d/halab-test.conf
         {}
         rm /etc/modprobe.d/halab-test.conf",
        run("")
    );
    let shown = guest.run(&hidden);
    let found = blocks(&shown.stdout);
    assert_eq!(found[0].code, "2", "{shown}");
    assert_eq!(found[0], found[1]);
}

/// The kernel gives no answer when it stops a sync daemon whose thread never ran: no reason to wait
/// or to fail. (The real ipvsadm waits for ever.)
pub(super) fn stopped_before_it_ran(guest: &Guest) {
    const PAIRS: usize = 100;
    let pair = "--start-daemon master --mcast-interface d0\n--stop-daemon master\n";
    let lines = pair.repeat(PAIRS);
    let script = format!(
        "{BLOCK}cat > /opt/halab-test/lines <<'END'\n{lines}-L --daemon\nEND\n\
         block pairs timeout 300 {OURS} -R < /opt/halab-test/lines"
    );
    let found = blocks(&run_inside(guest, &script));
    assert_eq!(
        (
            found[0].stdout.as_str(),
            found[0].code.as_str(),
            found[0].message.as_str()
        ),
        ("", "0", ""),
    );
}

/// An open connection goes on while its service and server are edited by both.
pub(super) fn connections_survive(guest: &Guest) {
    let script = format!(
        r#"
t={THEIRS}; o={OURS}
$t -C
$o -A -t 10.0.0.1:7000 -s rr
$o -a -t 10.0.0.1:7000 -r 10.0.0.2:7000 -m
python3 - <<'END' &
import socket
server = socket.create_server(("10.0.0.2", 7000))
peer, _ = server.accept()
while True:
    data = peer.recv(100)
    if not data: break
    peer.sendall(b"again " + data)
END
for attempt in $(seq 100); do exec 3<>/dev/tcp/10.0.0.1/7000 && break; sleep 0.1; done 2>/dev/null
say() {{ echo "$1" >&3; read -r -t 10 answer <&3; echo "$answer"; }}
say one
$o -E -t 10.0.0.1:7000 -s wrr
$o -e -t 10.0.0.1:7000 -r 10.0.0.2:7000 -m -w 5 -x 9
say two
$t -Ln -t 10.0.0.1:7000
exec 3>&-
wait
"#
    );
    let shown = run_inside(guest, &script);
    assert!(shown.contains("again one\nagain two\n"), "{shown}");
    assert!(shown.contains("TCP  10.0.0.1:7000 wrr\n"), "{shown}");
    assert!(
        shown.contains("10.0.0.2:7000                Masq    5      1  "),
        "{shown}"
    );
}
