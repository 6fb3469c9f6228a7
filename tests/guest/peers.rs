//! The same playbook by ansible-core and by halab, each on clean machines: the same counts for
//! each host, the same files with the same modes and owners.
//!
//! ansible-core needs minutes for it and is not part of a fresh machine: `HALAB_TEST_PEERS=1`
//! with `ansible-playbook` on `PATH`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::exercises::recap;
use crate::support::{Finished, Lab};
use crate::topology::MACHINES;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    if std::env::var_os("HALAB_TEST_PEERS").is_none() {
        return Vec::new();
    }
    vec![trial(
        "ansible_core_counts_and_leaves_the_same",
        side_by_side,
    )]
}

/// Counts that both print. ansible-core shows the others only where they are not zero.
const COUNTS: [&str; 7] = [
    "ok",
    "changed",
    "unreachable",
    "failed",
    "skipped",
    "rescued",
    "ignored",
];

/// Everything the playbook touches, as text.
const LEFT: &str = "cd /srv/peers && find . -printf '%p %y %m %u %g %l\\n' | sed 's/[.][0-9]*[.]2[0-9-]*@.*~/.BACKUP/' | sort; \
    sha256sum $(find . -type f | sort); getent passwd peer | cut -d: -f1,3,6,7; systemctl is-active apache2 ssh";

fn playbook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/peers/site.yml")
}

fn side_by_side() {
    let lab = Lab::new("peers");
    lab.halab(["up"]).success();
    let inventory = lab.state_dir().join("peers.ini");
    std::fs::write(&inventory, inventory_text(&lab)).expect("a file in the lab's folder");
    let by_ansible = || {
        let mut command = lab.command(["shell", "--", "ansible-playbook", "-i"]);
        command.arg(&inventory).arg(playbook());
        command.env("ANSIBLE_PIPELINING", "1");
        command.env("ANSIBLE_NOCOLOR", "1");
        crate::support::finish(command)
    };
    let by_halab = || {
        let mut command = lab.command(["run"]);
        command.arg(playbook());
        crate::support::finish(command)
    };
    let theirs = twice(&lab, &by_ansible);
    lab.halab(["reset"]).success();
    let ours = twice(&lab, &by_halab);
    assert_eq!(ours, theirs);
}

/// Counts by host, and what was left on each machine.
type Outcome = (BTreeMap<String, Vec<u64>>, Vec<String>);

/// What each of two runs counted for each host, and what was left after it.
fn twice(lab: &Lab, run: &dyn Fn() -> Finished) -> Vec<Outcome> {
    (0..2)
        .map(|_| {
            // One machine's last task fails, in both.
            let said = run();
            assert!([1, 2].contains(&said.code), "{said}");
            let left = MACHINES
                .map(|machine| lab.ssh(machine, LEFT).stdout)
                .to_vec();
            (counts(&said.stdout), left)
        })
        .collect()
}

fn counts(said: &str) -> BTreeMap<String, Vec<u64>> {
    let recap = recap(said);
    assert_eq!(recap.len(), MACHINES.len(), "{said}");
    recap
        .into_iter()
        .map(|(host, found)| {
            let counts = COUNTS.map(|name| found.get(name).copied().unwrap_or(0));
            (host, counts.to_vec())
        })
        .collect()
}

/// The lab's machines and groups in ansible-core's words.
fn inventory_text(lab: &Lab) -> String {
    let key = lab.state_dir().join("id_ed25519");
    let mut text = String::new();
    for (group, numbers) in [("director", &[1][..]), ("realservers", &[2, 3])] {
        let _ = writeln!(text, "[{group}]");
        for number in numbers {
            let _ = writeln!(
                text,
                "saisp-vm-{number} ansible_host=10.0.0.{number}0 ansible_user=root \
                 ansible_ssh_private_key_file={} ansible_ssh_common_args='-o StrictHostKeyChecking=no \
                 -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'",
                key.display()
            );
        }
    }
    // The group that halab's machines are in as well.
    text.push_str("[cluster:children]\nrealservers\n");
    text
}
