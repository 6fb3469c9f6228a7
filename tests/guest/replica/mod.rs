//! Replication in real guests: ours and the kernel's DRBD 8.4.11 as each other's peer.

mod death;
mod kernel;
mod speed;

use libtest_mimic::Trial;

use crate::support::programs::program;
use crate::support::{Finished, Lab, finish_with};

/// How often a machine loses its power, in the longer campaign.
const DEATHS: &str = "HALAB_TEST_POWER_LOSS";

const NODES: [&str; 2] = ["saisp-vm-2", "saisp-vm-3"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = kernel::trials();
    trials.extend(death::trials());
    trials.extend(speed::trials());
    trials
}

/// Whose replication a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Software {
    Ours,
    Kernel,
}

impl Software {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kernel => "kernel",
        }
    }
}

/// Two nodes of a lab with one resource of 48 MiB between them.
struct Pair {
    lab: Lab,
}

impl Pair {
    /// Starts the lab; both disks hold noise, each another.
    fn new(lab: &str) -> Self {
        let lab = Lab::new(lab);
        lab.halab(["up"]).success();
        Self { lab }
    }

    /// Makes ready what a machine forgets when its power goes.
    fn prepare(&self, node: usize, software: Software) {
        self.put_agent(node);
        let script = PREPARE.replace("SOFTWARE", software.name());
        self.lab.ssh(NODES[node], &script).success();
    }

    fn put_agent(&self, node: usize) {
        let agent = program("halab-agent");
        let bytes =
            std::fs::read(&agent).unwrap_or_else(|error| panic!("{}: {error}", agent.display()));
        let command = "cat > /root/halab-agent.new && chmod 755 /root/halab-agent.new && mv /root/halab-agent.new /root/halab-agent";
        let command = self.lab.command(["ssh", NODES[node], "--", command]);
        finish_with(command, &bytes).success();
    }

    fn run(&self, node: usize, script: &str) -> Finished {
        let script = format!(". /root/replica.sh\nset -eu\n{script}");
        let command = self.lab.command(["ssh", NODES[node], "--", "bash -s"]);
        finish_with(command, script.as_bytes())
    }

    /// Runs a script to its good end.
    #[track_caller]
    fn on(&self, node: usize, script: &str) -> String {
        self.run(node, script).success()
    }

    #[track_caller]
    fn on_both(&self, script: &str) {
        for node in 0..2 {
            self.on(node, script);
        }
    }

    /// A machine's power goes and comes back; meanwhile the other runs its `/root/alone.sh`.
    #[track_caller]
    fn loses_power(&self, victim: usize) {
        let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/replica/death.yml");
        let machines = format!(
            r#"{{"victim": "{}", "survivor": "{}"}}"#,
            NODES[victim],
            NODES[1 - victim]
        );
        self.lab.halab(["run", playbook, "-e", &machines]).success();
    }

    /// Both show all data as good, and nothing as different.
    #[track_caller]
    fn come_together(&self) {
        self.on_both("becomes 'cs:Connected .*ds:UpToDate/UpToDate'; [ \"$(marked)\" = 0 ]");
    }

    /// The disks below hold the same, to the byte; nothing may write meanwhile.
    #[track_caller]
    fn assert_same(&self, when: &str) {
        let sums = [0, 1].map(|node| self.on(node, "digest"));
        assert_eq!(sums[0], sums[1], "{when}");
    }
}

/// What each script finds: the tools by one name, and waiting for a state.
const PREPARE: &str = r#"
set -eu
cat > /root/replica.sh <<'END'
if [ "$(cat /root/software)" = ours ]; then
  adm() { /root/halab-agent drbdadm "$@"; }
  text() { /root/halab-agent drbd proc; }
  words() { journalctl -u halab-replica-r0 --no-pager; }
else
  adm() { drbdadm "$@"; }
  text() { cat /proc/drbd; }
  words() { dmesg; }
fi
becomes() {
  for turn in $(seq 1200); do
    text | grep -Eq "$1" && return
    sleep 0.2
  done
  echo "it did not become $1:"; text; words | tail -20; return 1
}
# Asks again as long as the state passes.
insist() {
  for turn in $(seq 50); do
    adm "$@" > /root/said 2>&1 && return
    sleep 0.2
  done
  cat /root/said; text; words | tail -20; return 1
}
counter() { text | grep -o " $1:[0-9]*" | cut -d: -f2; }
marked() { counter oos; }
digest() { dd if=/dev/sdb1 bs=1M count=48 iflag=direct 2> /dev/null | sha256sum; }
lines() { echo $(($(stat -c %s /mnt/replica/lines 2> /dev/null || echo 0) / 9)); }
noise() { dd if=/dev/urandom "$@" 2> /dev/null; }
END
echo SOFTWARE > /root/software
case $(uname -n) in saisp-vm-2) own=10.0.23.2 ;; *) own=10.0.23.3 ;; esac
ip addr replace $own/24 dev eth1; ip link set eth1 up
# A machine that others starve answers late.
cat > /etc/drbd.d/r0.res <<END
resource r0 {
  protocol C;
  disk { size 48M; }
  net { cram-hmac-alg sha1; shared-secret "not this one"; verify-alg sha1; ping-int 3; ping-timeout 50; }
  on saisp-vm-2 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.2:7788; meta-disk internal; }
  on saisp-vm-3 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.3:7788; meta-disk internal; }
}
END
mkdir -p /mnt/replica
if [ SOFTWARE = kernel ]; then modprobe drbd; else rmmod drbd 2> /dev/null || true; fi
"#;
