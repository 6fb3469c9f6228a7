//! heartbeat in real guests: the exercise, the text by hand, and pairs with heartbeat 3.0.6.

mod calm;
mod exercise;
mod interop;
mod text;
mod wire;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

pub(crate) use text::typed as typed_for_03;

use crate::support::{Finished, Lab};

/// Longer campaigns: pairs of the real thing beside, everything both ways.
const LONG: &str = "HALAB_TEST_HEARTBEAT";

const NODES: [&str; 2] = ["saisp-vm-2", "saisp-vm-3"];

/// Slow machines take their time: what does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(300);

/// A pair whose owner stayed the same for so long has nothing more under way.
const SETTLED: Duration = Duration::from_secs(15);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = exercise::trials();
    trials.extend(text::trials());
    trials.extend(interop::trials());
    trials.extend(wire::trials());
    trials.extend(calm::trials());
    trials
}

fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Whose heartbeat a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Software {
    Agent,
    Package,
}

impl Software {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Package => "package",
        }
    }
}

/// Two nodes of a lab.
struct Pair {
    lab: Lab,
    software: [Software; 2],
}

impl Pair {
    /// Starts both at the same time, in a lab of its own.
    fn start(lab: &str, software: [Software; 2]) -> Self {
        let lab = Lab::new(lab);
        lab.halab(["up"]).success();
        let pair = Self { lab, software };
        pair.play("pair.yml", &pair.software_var());
        pair
    }

    fn software_var(&self) -> String {
        let [first, second] = self.software.map(Software::name);
        format!(
            "{{\"software\": {{\"{}\": \"{first}\", \"{}\": \"{second}\"}}}}",
            NODES[0], NODES[1]
        )
    }

    fn play(&self, playbook: &str, extra: &str) {
        let path = folder().join(playbook);
        let finished = self
            .lab
            .halab(["run", &path.to_string_lossy(), "-e", extra]);
        assert!(finished.code == 0, "{finished}\n{}", self.journals());
    }

    /// Runs a script on a node. A guest whose turn does not come answers late: a connection that
    /// did not come about is tried again, for then nothing has run.
    fn on(&self, node: &str, script: &str) -> Finished {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.lab.ssh(node, script);
            let nobody_answered = said.code == 255
                && ["timed out", "Connection refused", "No route to host"]
                    .iter()
                    .any(|reason| said.stderr.contains(reason));
            if !nobody_answered || Instant::now() >= end {
                return said;
            }
        }
    }

    /// The place of a tool that the package does not put into PATH.
    fn tool(&self, node: &str, name: &str) -> String {
        let index = usize::from(node == NODES[1]);
        match self.software[index] {
            Software::Agent => name.to_owned(),
            Software::Package => format!("/usr/share/heartbeat/{name}"),
        }
    }

    /// Waits until both nodes call both active.
    #[track_caller]
    fn both_see_both_active(&self) {
        let script = "for n in saisp-vm-2 saisp-vm-3; do cl_status nodestatus $n; done";
        for node in NODES {
            self.eventually(&format!("{node} sees both active"), || {
                let said = self.on(node, script);
                let seen: Vec<&str> = said.stdout.split_whitespace().collect();
                (seen == ["active", "active"], said.to_string())
            });
        }
    }

    /// Waits until one node alone has the service's address, and still has it a moment later.
    #[track_caller]
    fn owner_is(&self, owner: &str, nodes: &[&str]) {
        let mut before = false;
        self.eventually(&format!("{owner} alone has the address"), || {
            let mut seen = String::new();
            let mut is_right = true;
            for node in nodes {
                let said = self.on(node, "ip -4 -o addr show dev eth0");
                let has = said.stdout.contains(" 10.0.0.50/");
                is_right &= said.code == 0 && has == (*node == owner);
                seen.push_str(&said.to_string());
            }
            let holds = is_right && before;
            before = is_right;
            (holds, seen)
        });
    }

    /// Waits until neither node has anything under way.
    #[track_caller]
    fn both_are_settled(&self) {
        for node in NODES {
            self.eventually(&format!("{node} is settled"), || {
                let said = self.on(node, "cl_status rscstatus");
                let is_settled = said.code == 0 && said.stdout.trim() != "transition";
                (is_settled, said.to_string())
            });
        }
    }

    /// Waits until one node alone has had the service's address for longer than a takeover or a
    /// failback takes; returns which.
    #[track_caller]
    fn one_owner(&self) -> &'static str {
        let mut owner = "";
        let mut since = Instant::now();
        self.eventually("one node keeps the address", || {
            let mut owners = NODES.into_iter().filter(|node| {
                let said = self.on(node, "ip -4 -o addr show dev eth0");
                said.stdout.contains(" 10.0.0.50/")
            });
            let now = match (owners.next(), owners.next()) {
                (Some(one), None) => one,
                _ => "",
            };
            if now != owner || now.is_empty() {
                (owner, since) = (now, Instant::now());
            }
            (since.elapsed() > SETTLED, format!("the owner is {owner:?}"))
        });
        owner
    }

    /// Waits until heartbeat runs on both nodes. The package's may have shut itself down after a
    /// healed cut; whoever runs such a pair starts it again.
    #[track_caller]
    fn both_run_again(&self) {
        // Each hears the other first, and gives up then.
        for node in NODES {
            self.eventually(&format!("{node} has noticed the cut"), || {
                let said = self.on(
                    node,
                    "journalctl --no-pager | grep -c 'returning after partition'",
                );
                (said.code == 0, said.to_string())
            });
        }
        let packages = NODES.iter().zip(self.software);
        for (node, _) in packages.filter(|(_, software)| *software == Software::Package) {
            let script = "systemctl is-active --quiet heartbeat || systemctl start heartbeat; \
                journalctl --no-pager | sed '1,/returning after partition/d' | grep 'Heartbeat generation:'";
            self.eventually(&format!("{node} has begun anew"), || {
                let said = self.on(node, script);
                (said.code == 0, said.to_string())
            });
            // One that began anew may still end itself seconds later, when what it was about to do is done.
            let mut since = Instant::now();
            self.eventually(&format!("{node} stays"), || {
                let script = "systemctl is-active heartbeat || systemctl start heartbeat";
                let said = self.on(node, script);
                if said.stdout.trim() != "active" {
                    since = Instant::now();
                }
                (since.elapsed() > SETTLED, said.to_string())
            });
        }
    }

    fn generation(&self, node: &str) -> u64 {
        let text = self
            .on(node, "cat /var/lib/heartbeat/hb_generation")
            .success();
        text.trim().parse().expect("a generation is a number")
    }

    /// Looks until it is as it should be; says what it was instead, with both nodes' journals.
    #[track_caller]
    fn eventually(&self, what: &str, mut look: impl FnMut() -> (bool, String)) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (is_so, seen) = look();
            if is_so {
                return;
            }
            assert!(
                Instant::now() < end,
                "waited {PATIENCE:?} until {what}:\n{seen}\n{}",
                self.journals()
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn journals(&self) -> String {
        let script =
            "journalctl -o short-precise --no-pager | grep -i -e heartbeat -e resource | tail -60";
        NODES
            .map(|node| self.on(node, script).to_string())
            .join("\n")
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/heartbeat")
}
