//! What goes wrong in the middle of a task on a lab: the agent is killed, the cable pulled, the
//! machine starts over, loses its power, hangs. Each is said with host and task, the others go
//! on, and once it is mended the same run converges.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::exercises::recap;
use crate::support::{Finished, Lab};
use crate::topology::{MACHINES, status};
use crate::trial;

const VICTIM: &str = MACHINES[1];
const SLOW_TASK: &str = "In the middle of this";
/// A machine that starts over on a busy host.
const BOOT_DEADLINE: Duration = Duration::from_secs(600);

/// The victim's second task takes until it is broken off; asked again it is short.
const PLAYBOOK: &str = "- hosts: director:realservers
  gather_facts: false
  vars: {slow: false}
  tasks:
  - name: Before
    copy: {content: before, dest: /root/before}
  - name: In the middle of this
    command:
      cmd: sh -c 'touch /run/begun; SLOW touch /root/middle'
      creates: /root/middle
  - name: After
    copy: {content: after, dest: /root/after}
";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "what_breaks_in_the_middle_of_a_task_is_said_and_mended_by_a_second_run",
            every_way,
        ),
        trial("a_measurement_that_is_ended_leaves_no_lab", ended_bench),
    ]
}

/// While its lab comes up, and between two figures.
fn ended_bench() {
    let lab = Lab::new("bench");
    for figures in [0, 2] {
        let mut bench = lab
            .command(["bench", "up", "--runs", "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let own = lab
            .state_dir()
            .with_file_name(format!("bench-{}", bench.id()));
        let mut said = BufReader::new(bench.stderr.take().expect("piped")).lines();
        let figure = format!("up, warm: {figures} of");
        let reached = if figures == 0 { "bringing" } else { &figure };
        let begun = said
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains(reached));
        assert!(begun, "it ended before `{reached}`");
        let end = Instant::now() + BOOT_DEADLINE;
        while !own.exists() {
            assert!(Instant::now() < end, "{} is there in time", own.display());
        }
        let told = std::process::Command::new("kill")
            .args(["-TERM", &bench.id().to_string()])
            .status();
        assert!(told.expect("kill runs").success());
        let rest: Vec<String> = said.map_while(Result::ok).collect();
        let code = bench.wait().expect("it ends").code();
        assert_eq!(code, Some(130), "{}", rest.join("\n"));
        assert!(
            !own.exists(),
            "{} is left: {}",
            own.display(),
            rest.join("\n")
        );
    }
}

fn every_way() {
    let lab = Lab::new("middle");
    lab.halab(["up"]).success();
    let folder = tempfile::tempdir().expect("a folder");
    let playbook = folder.path().join("site.yml");
    let wait = format!(
        "{{{{ 'sleep 600;' if slow | bool and inventory_hostname == '{VICTIM}' else '' }}}}"
    );
    fs::write(&playbook, PLAYBOOK.replace("SLOW", &wait)).expect("written");
    let middle = Middle {
        lab: &lab,
        playbook,
    };

    middle.breaks(
        "the agent is killed",
        || {
            // The brackets keep the shell that asks from being found.
            lab.ssh(VICTIM, "pkill -9 -f 'halab/[h]alab-agent'")
                .success();
        },
        || {},
    );
    let link = |up: bool| {
        let words =
            format!(r#"{{"execute": "set_link", "arguments": {{"name": "eth0", "up": {up}}}}}"#);
        lab.qmp(VICTIM, &[&words]);
    };
    middle.breaks("the cable is pulled", || link(false), || link(true));
    middle.breaks(
        "the machine hangs",
        || drop(lab.qmp(VICTIM, &[r#"{"execute": "stop"}"#])),
        || drop(lab.qmp(VICTIM, &[r#"{"execute": "cont"}"#])),
    );
    middle.breaks(
        "the machine starts over",
        || drop(lab.qmp(VICTIM, &[r#"{"execute": "system_reset"}"#])),
        || wait_for_ssh(&lab),
    );
    middle.breaks(
        "the machine loses its power",
        || {
            let pid = status(&lab)["machines"][1]["pid"].as_i64().expect("a pid");
            let killed = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
            assert!(killed.expect("kill runs").success());
        },
        // The next run brings the lab up again.
        || {},
    );
}

fn wait_for_ssh(lab: &Lab) {
    let end = Instant::now() + BOOT_DEADLINE;
    while lab.ssh(VICTIM, "true").code != 0 {
        assert!(Instant::now() < end, "{VICTIM} is back in time");
    }
}

struct Middle<'lab> {
    lab: &'lab Lab,
    playbook: PathBuf,
}

impl Middle<'_> {
    /// Breaks something while the victim is in the middle of a task; then mends it.
    fn breaks(&self, what: &str, break_it: impl FnOnce(), mend: impl FnOnce()) {
        let running = self.start();
        self.wait_until_begun(what);
        break_it();
        let broken = finish(running);
        assert_eq!(broken.code, 1, "{what}: {broken}");
        let counts = recap(&broken.stdout);
        assert_eq!(
            counts[VICTIM]["unreachable"] + counts[VICTIM]["failed"],
            1,
            "{what}: {broken}"
        );
        let told = broken
            .stdout
            .split("TASK [")
            .find(|task| task.starts_with(SLOW_TASK))
            .unwrap_or_else(|| panic!("{what}: the task is named\n{broken}"));
        assert!(
            told.contains(&format!("fatal: [{VICTIM}]")),
            "{what}: {broken}"
        );
        for other in [MACHINES[0], MACHINES[2]] {
            assert_eq!(counts[other]["ok"], 3, "{what}: {other} went on\n{broken}");
            assert_eq!(counts[other]["unreachable"], 0, "{what}: {broken}");
        }
        mend();
        let again = self.run();
        assert_eq!(again.code, 0, "{what}: {again}");
        let third = self.run().success();
        for (host, counts) in recap(&third) {
            assert_eq!(counts["changed"], 0, "{what}: {host}\n{third}");
        }
        for machine in MACHINES {
            self.lab
                .ssh(
                    machine,
                    "rm -f /root/before /root/middle /root/after /run/begun",
                )
                .success();
        }
    }

    fn path(&self) -> &str {
        Path::to_str(&self.playbook).expect("a plain path")
    }

    fn run(&self) -> Finished {
        self.lab.halab(["run", self.path()])
    }

    fn start(&self) -> Child {
        self.lab
            .command(["run", self.path(), "-e", "slow=true"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started")
    }

    fn wait_until_begun(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(600);
        while self.lab.ssh(VICTIM, "test -e /run/begun").code != 0 {
            assert!(Instant::now() < end, "{what}: the task begins in time");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn finish(child: Child) -> Finished {
    let output = child.wait_with_output().expect("it was started");
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let _ = write!(stderr, "({})", output.status);
    Finished {
        command: "halab run".into(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr,
    }
}
