//! The text from 01 to 06, typed as it stands there, with the agent in the packages' places: one
//! lab, in the text's order, and what each step lets the reader see.
//!
//! `HALAB_TEST_TRANSCRIPT=FILE` keeps everything that was typed and what came back.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::heartbeat::typed_for_03;
use crate::support::{Finished, Lab};
use crate::topology::{state_of, wait_until};
use crate::trial;

/// Slow machines take their time: what does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(240);
const TRANSCRIPT: &str = "HALAB_TEST_TRANSCRIPT";

const DIRECTOR: &str = "saisp-vm-1";
const NODES: [&str; 2] = ["saisp-vm-2", "saisp-vm-3"];
const CLIENT: &str = "the physical machine";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "the_text_works_to_the_letter_from_01_to_06",
        from_01_to_06,
    )]
}

/// Somebody with the text and a terminal on each machine.
struct Reader {
    lab: Lab,
    transcript: Mutex<String>,
}

impl Reader {
    /// Types something and looks at what comes back.
    fn look(&self, machine: &str, command: &str) -> Finished {
        let said = if machine == CLIENT {
            self.lab.client(command)
        } else {
            self.lab.ssh(machine, command)
        };
        let mut transcript = self.transcript.lock().expect("nobody panics with it");
        let _ = writeln!(
            transcript,
            "{machine}# {command}\n{}{}",
            said.stdout, said.stderr
        );
        said
    }

    #[track_caller]
    fn types(&self, machine: &str, command: &str) -> String {
        self.look(machine, command).success()
    }

    #[track_caller]
    fn both(&self, command: &str) {
        for node in NODES {
            self.types(node, command);
        }
    }

    /// As in two terminals: a node waits half a minute for one that is not there.
    fn both_at_once(&self, commands: [&str; 2]) {
        std::thread::scope(|scope| {
            for (node, command) in NODES.into_iter().zip(commands) {
                scope.spawn(move || self.types(node, command));
            }
        });
    }

    /// Looks again and again until it is there.
    #[track_caller]
    fn sees(&self, machine: &str, command: &str, what: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.look(machine, command);
            if said.stdout.contains(what) {
                return said.stdout;
            }
            assert!(
                Instant::now() < end,
                "`{what}` from `{command}` on {machine} within {PATIENCE:?}; now {said}"
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Refreshes the page until both servers have answered.
    #[track_caller]
    fn sees_both_pages(&self) {
        for node in NODES {
            self.sees(CLIENT, "curl -s -m 5 http://10.0.0.1/", node);
        }
    }

    fn section(&self, title: &str) {
        let mut transcript = self.transcript.lock().expect("nobody panics with it");
        let _ = writeln!(transcript, "\n=== {title}\n");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(file) = std::env::var_os(TRANSCRIPT) {
            let transcript = self.transcript.lock().map(|text| text.clone());
            let _ = std::fs::write(file, transcript.unwrap_or_default());
        }
    }
}

fn from_01_to_06() {
    let lab = Lab::new("text");
    lab.halab(["up"]).success();
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/text/stand-in.yml");
    lab.halab(["run", stand_in]).success();
    let reader = Reader {
        lab,
        transcript: Mutex::new(String::new()),
    };
    direct_routing(&reader);
    tunneling(&reader);
    linux_ha(&reader);
    drbd(&reader);
    drbd_with_linux_ha(&reader);
    online_verify(&reader);
}

fn direct_routing(reader: &Reader) {
    reader.section("01. LVS-DR (direct routing)");
    for command in [
        "ip addr add dev eth0 10.0.0.1/24 label eth0:1",
        "ipvsadm -A -t 10.0.0.1:80",
        "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.20:80 -g",
        "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:80 -g",
    ] {
        reader.types(DIRECTOR, command);
    }
    reader.both("iptables -t nat -A PREROUTING -d 10.0.0.1 -j REDIRECT");
    reader.sees_both_pages();
    let listed = reader.types(DIRECTOR, "ipvsadm -l");
    assert!(listed.contains("wlc"), "{listed}");
    assert_eq!(listed.matches("Route").count(), 2, "{listed}");
    let connections = reader.types(DIRECTOR, "ipvsadm -l -c");
    assert!(
        connections.contains("IPVS connection entries"),
        "{connections}"
    );
    assert!(connections.contains("TCP"), "{connections}");
    for command in [
        "ipvsadm -E -t 10.0.0.1:80 -s rr",
        "ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.20:80 -x 4",
        "ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.30:80 -x 4",
    ] {
        reader.types(DIRECTOR, command);
    }
    let listed = reader.types(DIRECTOR, "ipvsadm -l");
    assert!(listed.contains("rr"), "{listed}");
    // Connections that ended a moment ago count too: after eight at the latest nobody answers.
    let refreshed = reader.types(
        CLIENT,
        "for n in 1 2 3 4 5 6 7 8 9; do curl -s -m 2 http://10.0.0.1/ || echo nobody; done",
    );
    assert!(refreshed.contains("nobody"), "{refreshed}");
    reader.types(DIRECTOR, "ipvsadm -D -t 10.0.0.1:80");
    reader.both("iptables -t nat -F");
}

fn tunneling(reader: &Reader) {
    reader.section("02. LVS-TUN (tunneling)");
    for command in [
        "ipvsadm -A -t 10.0.0.1:80",
        "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.20:80 -i",
        "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:80 -i",
    ] {
        reader.types(DIRECTOR, command);
    }
    for (node, address) in NODES.into_iter().zip(["10.0.0.20", "10.0.0.30"]) {
        reader.types(
            node,
            &format!("ip tunnel add tun0 mode ipip local {address}"),
        );
        reader.types(node, "ip addr add 10.0.0.1/24 dev tun0");
        reader.types(node, "ip link set tun0 up");
    }
    // Three machines have the address and may answer for it: the page comes, from whomever.
    reader.sees(CLIENT, "curl -s -m 5 http://10.0.0.1/", "saisp-vm-");
    let listed = reader.types(DIRECTOR, "ipvsadm -l");
    assert_eq!(listed.matches("Tunnel").count(), 2, "{listed}");
    reader.types(DIRECTOR, "ipvsadm -D -t 10.0.0.1:80");
    reader.both("ip tunnel del tun0");
}

fn linux_ha(reader: &Reader) {
    reader.section("03. Linux-HA");
    let _ = reader.look(DIRECTOR, "poweroff");
    wait_until("the director is shut down", || {
        state_of(&reader.lab, DIRECTOR) == "shutdown"
    });
    let [first, second] = NODES;
    reader.both_at_once([
        &typed_for_03(first, second, "10.0.0.30"),
        &typed_for_03(second, first, "10.0.0.20"),
    ]);
    let address = "ip addr show dev eth0";
    reader.sees(first, address, "10.0.0.50/");
    let page = "curl -s -m 5 http://10.0.0.50/";
    reader.sees(CLIENT, page, first);
    reader.types(first, "/etc/init.d/heartbeat stop");
    reader.sees(second, address, "10.0.0.50/");
    reader.sees(CLIENT, page, second);
    reader.types(first, "/etc/init.d/heartbeat start");
    reader.sees(first, address, "10.0.0.50/");
}

const R0: &str = "cat > /etc/drbd.d/r0.res <<END
resource r0 {
  on saisp-vm-2 {
    device    /dev/drbd0;
    disk      /dev/sdb1;
    address   10.0.23.2:7788;
    meta-disk internal;
  }
  on saisp-vm-3 {
    device    /dev/drbd0;
    disk      /dev/sdb1;
    address   10.0.23.3:7788;
    meta-disk internal;
  }
}
END";

fn drbd(reader: &Reader) {
    reader.section("04. DRBD");
    for (node, address) in NODES.into_iter().zip(["10.0.23.2", "10.0.23.3"]) {
        reader.types(node, &format!("ip addr add {address}/24 dev eth1"));
        reader.types(node, "ip link set eth1 up");
    }
    reader.both(R0);
    let restart = "/etc/init.d/drbd restart";
    reader.both_at_once([restart, restart]);
    for node in NODES {
        let zeroed = reader.look(node, "dd if=/dev/zero of=/dev/sdb1 bs=64K");
        assert!(
            zeroed.stderr.contains("No space left on device"),
            "{zeroed}"
        );
    }
    reader.both("drbdadm create-md r0");
    reader.both("drbdadm attach r0");
    reader.sees(NODES[0], "cat /proc/drbd", "ds:Inconsistent/Inconsistent");
    reader.sees(NODES[0], "drbd-overview", "Secondary/Secondary");
    reader.types(NODES[0], "drbdadm -- --overwrite-data-of-peer primary r0");
    reader.sees(NODES[0], "drbd-overview", "Primary/Secondary");
    reader.types(NODES[0], "mkfs.ext4 /dev/drbd0");
}

fn drbd_with_linux_ha(reader: &Reader) {
    reader.section("05. DRBD with Linux-HA");
    let [first, second] = NODES;
    reader.both(
        "cat > /etc/ha.d/haresources <<END
saisp-vm-2 drbddisk::r0 Filesystem::/dev/drbd0::/var/www::ext4 10.0.0.50 apache2
END",
    );
    let restart = "/etc/init.d/heartbeat restart";
    reader.both_at_once([restart, restart]);
    reader.sees(first, "mount", "/dev/drbd0 on /var/www type ext4");
    reader.sees(first, "drbd-overview", "UpToDate/UpToDate");
    reader.types(first, "mkdir /var/www/html/");
    reader.types(first, "echo \"DRBD Storage\" > /var/www/html/index.html");
    let page = "curl -s -m 5 http://10.0.0.50/";
    reader.sees(CLIENT, page, "DRBD Storage");
    reader.types(first, "/etc/init.d/heartbeat stop");
    reader.sees(second, "mount", "/dev/drbd0 on /var/www type ext4");
    reader.sees(second, "ip addr show dev eth0", "10.0.0.50/");
    reader.sees(CLIENT, page, "DRBD Storage");
    reader.types(first, "/etc/init.d/heartbeat start");
    reader.sees(first, "mount", "/dev/drbd0 on /var/www type ext4");
    reader.sees(CLIENT, page, "DRBD Storage");
}

/// The text names two pages of the DRBD user's guide; the commands are theirs.
fn online_verify(reader: &Reader) {
    reader.section("06. Online verify for DRBD");
    let [first, second] = NODES;
    reader.both("sed -i 's/^resource r0 {/&\\n  net { verify-alg sha1; }/' /etc/drbd.d/r0.res");
    reader.both("drbdadm adjust r0");
    reader.types(first, "drbdadm verify r0");
    reader.sees(first, "cat /proc/drbd", "cs:Verify");
    let verified = reader.sees(first, "cat /proc/drbd", "cs:Connected");
    assert!(verified.contains("oos:0"), "{verified}");

    // A split brain: one is active and writes, the other believes itself alone and writes too.
    reader.types(second, "/etc/init.d/heartbeat stop");
    reader.types(first, "drbdadm disconnect r0");
    reader.types(second, "drbdadm disconnect r0");
    reader.types(first, "date > /var/www/html/first; sync -f /var/www");
    reader.types(
        second,
        "drbdadm primary r0; mount /dev/drbd0 /mnt; date > /mnt/html/second; umount /mnt",
    );
    // Whoever sees it first ends the connection: the other may be told that before it has answered.
    for node in NODES {
        let _ = reader.look(node, "drbdadm connect r0");
    }
    reader.sees(
        first,
        "drbdadm cstate r0; journalctl --no-pager | grep -i split.brain",
        "plit",
    );
    reader.sees(first, "drbdadm cstate r0", "StandAlone");

    let _ = reader.look(second, "drbdadm disconnect r0");
    reader.types(second, "drbdadm secondary r0");
    reader.types(second, "drbdadm connect --discard-my-data r0");
    reader.types(first, "drbdadm connect r0");
    reader.sees(first, "cat /proc/drbd", "ds:UpToDate/UpToDate");
    let files = reader.types(first, "ls /var/www/html");
    assert!(
        files.contains("first") && !files.contains("second"),
        "{files}"
    );
    reader.types(second, "/etc/init.d/heartbeat start");
    reader.sees(CLIENT, "curl -s -m 5 http://10.0.0.50/", "DRBD Storage");
}
