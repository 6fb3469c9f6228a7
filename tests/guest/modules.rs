//! The modules `vm` and `fault` from a playbook, lost packets, a console that is typed at, and a
//! lab of another topology that is booted for real.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::exercises::recap;
use crate::support::Lab;
use crate::topology::{state_of, status, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_playbook_breaks_machines_and_cables_and_mends_them",
            modules,
        ),
        trial("a_loss_loses_its_share", loss),
        trial("what_is_typed_at_the_console_is_done", console),
        trial("another_topology_boots_cold_with_a_disk_of_the_users", cold),
    ]
}

/// Every step is seen from the outside, by the client's requests and by `assert`. At the end the
/// machine boots from its disk.
const PLAYBOOK: &str = "- hosts: client
  gather_facts: false
  tasks:
  - {name: Unplug, fault: {kind: link, vm: saisp-vm-2, nic: eth0, state: down}, register: unplugged}
  - {name: Again, fault: {kind: link, vm: saisp-vm-2, nic: eth0, state: down}, register: again}
  - assert: {that: [unplugged is changed, again is not changed]}
  - {name: Silent, command: 'curl -s --max-time 2 http://10.0.0.20/', register: page, failed_when: page.rc == 0, changed_when: false}
  - {name: Plug in, fault: {kind: link, vm: saisp-vm-2, nic: eth0, state: up}}
  - {name: Back, command: 'curl -s --max-time 20 http://10.0.0.20/', changed_when: false}
  - {name: Freeze, vm: {name: saisp-vm-2, state: paused}}
  - {name: Frozen, command: 'curl -s --max-time 2 http://10.0.0.20/', register: page, failed_when: page.rc == 0, changed_when: false}
  - {name: Let go on, fault: {kind: resume, vm: saisp-vm-2}}
  - {name: Running, vm: {name: saisp-vm-2, state: running}, register: running}
  - assert: {that: running is not changed}
  - {name: Goes on, command: 'curl -s --max-time 20 http://10.0.0.20/', changed_when: false}
  - {name: Lose all, fault: {kind: loss, vm: saisp-vm-2, nic: eth0, percent: 100}}
  - {name: Lost, command: 'curl -s --max-time 2 http://10.0.0.20/', register: page, failed_when: page.rc == 0, changed_when: false}
  - {name: Lose none, fault: {kind: loss, vm: saisp-vm-2, nic: eth0, percent: 0}}
  - {name: Found, command: 'curl -s --max-time 20 http://10.0.0.20/', changed_when: false}
  - {name: Cut the power, fault: {kind: kill, vm: saisp-vm-2}}
  - {name: Without power, command: 'curl -s --max-time 2 http://10.0.0.20/', register: page, failed_when: page.rc == 0, changed_when: false}
  - {name: Would start, vm: {name: saisp-vm-2, state: running}, check_mode: true, register: would}
  - assert: {that: would is changed}
  - {name: Start, vm: {name: saisp-vm-2, state: running}}
- hosts: saisp-vm-2
  gather_facts: false
  tasks:
  - {name: Kept, command: cat /root/kept, changed_when: false}
";

fn modules() {
    let lab = Lab::new("modules");
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-2", "echo kept > /root/kept; sync")
        .success();
    let folder = tempfile::tempdir().expect("a folder");
    let run = |text: &str| {
        let path = folder.path().join("site.yml");
        fs::write(&path, text).expect("written");
        lab.halab(["run", path.to_str().expect("a plain path")])
    };
    let output = run(PLAYBOOK).success();
    assert_eq!(recap(&output)["client"]["failed"], 0, "{output}");
    assert_eq!(state_of(&lab, "saisp-vm-2"), "running");
    assert_eq!(status(&lab)["broken"], serde_json::json!([]));
    let refused = run(
        "- hosts: client\n  gather_facts: false\n  tasks:\n  - {name: No such, vm: {name: saisp-vm-9, state: paused}}\n",
    );
    let said = refused.failure(1);
    assert!(said.contains("saisp-vm-9"), "{said}");
}

/// 400 datagrams towards the guest, of which it counts those that come. The bounds are five
/// standard deviations from the share. It is asked for its count by the same cable, so only while
/// the cable is whole.
fn loss() {
    let lab = Lab::new("loss");
    lab.halab(["up"]).success();
    let arrived_while = |lossy: bool| -> u32 {
        const COUNT: &str = "cut -d' ' -f2- /proc/net/snmp | grep -A1 ^Udp: ; \
            awk '/^Udp:/ {n++; if (n==2) print $3}' /proc/net/snmp";
        let count = || -> u32 {
            // Nobody listens on the port, so every datagram counts as one for nobody.
            let text = lab.ssh("saisp-vm-2", COUNT).success();
            let last = text.lines().last().unwrap_or_default();
            last.trim().parse().unwrap_or_else(|_| panic!("{text}"))
        };
        let lose = |percent: &str| {
            lab.halab(["fault", "loss", "saisp-vm-2", "eth0", percent])
                .success();
        };
        let before = count();
        if lossy {
            lose("50");
            let broken = status(&lab)["broken"].to_string();
            assert!(broken.contains("saisp-vm-2 eth0 loses 50 %"), "{broken}");
        }
        lab.client(
            "exec 3>/dev/null; for i in $(seq 400); do printf x; done | \
             python3 -c 'import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
             [s.sendto(b, (\"10.0.0.20\", 9999)) for b in [b\"x\"] * 400]'",
        )
        .success();
        if lossy {
            lose("0");
        }
        count() - before
    };
    assert_eq!(arrived_while(false), 400);
    let half = arrived_while(true);
    assert!((150..=250).contains(&half), "{half} of 400 came");
    assert_eq!(arrived_while(false), 400);
}

fn console() {
    let lab = Lab::new("console");
    lab.halab(["up"]).success();
    let mut console = lab
        .command(["console", "saisp-vm-1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut keys = console.stdin.take().expect("asked for");
    keys.write_all(b"\necho typed > /root/typed\n")
        .expect("typed");
    wait_until("what was typed is done", || {
        lab.ssh("saisp-vm-1", "grep -qx typed /root/typed").code == 0
    });
    // Ctrl-] leaves; what comes after it is not the machine's.
    keys.write_all(b"\x1decho more > /root/typed\n")
        .expect("typed");
    let output = console.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("echo typed"), "the console echoes: {shown}");
    lab.ssh("saisp-vm-1", "grep -qx typed /root/typed")
        .success();
}

/// One machine, so that a real boot takes no longer than it must.
const SMALL: &str = "networks:
  lan: {client: 192.168.7.1/24}
machines:
  lonely:
    groups: [alone]
    memory: 384 MiB
    nics:
      eth0: {network: lan, address: 192.168.7.2/24}
    disks:
      sda: {root: true}
      sdb: {image: mine.qcow2}
client: {name: client, groups: [client]}
";

fn cold() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("lab");
    let lab = Lab::new("cold");
    let at_text = at.to_str().expect("a plain path");
    lab.halab(["init", at_text]).success();
    fs::write(at.join("vm/topology.yml"), SMALL).expect("written");
    image_with(&at.join("vm/mine.qcow2"), "MINE");
    let halab = |args: &[&str]| lab.halab([&["--dir", at_text], args].concat());
    let said = halab(&["up", "--cold"]).success();
    assert!(said.contains("booted and saved"), "{said}");
    let read = ["ssh", "lonely", "--", "head -c 4 /dev/sdb; hostname"];
    assert_eq!(halab(&read).success(), "MINElonely\n");
    // The agent is there before anybody ran a task.
    let agent = fs::metadata(crate::support::programs::program("halab-agent"));
    let size = format!("{}\n", agent.expect("the agent").len());
    let here = "stat -Lc %s /usr/local/lib/halab/halab-agent";
    assert_eq!(halab(&["ssh", "lonely", "--", here]).success(), size);
    halab(&[
        "ssh",
        "lonely",
        "--",
        "printf YOUR | dd of=/dev/sdb conv=notrunc status=none; sync",
    ])
    .success();
    assert_eq!(halab(&read).success(), "YOURlonely\n");
    halab(&["reset"]).success();
    assert_eq!(halab(&read).success(), "MINElonely\n");
    let image = fs::read(at.join("vm/mine.qcow2")).expect("the image");
    assert!(
        !image.windows(4).any(|bytes| bytes == b"YOUR"),
        "the user's image is never written"
    );
    halab(&["down", "--purge"]).success();
}

fn image_with(path: &Path, begin: &str) {
    let raw = path.with_extension("raw");
    let mut bytes = vec![0; 1 << 20];
    bytes[..begin.len()].copy_from_slice(begin.as_bytes());
    fs::write(&raw, bytes).expect("written");
    let done = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, path])
        .status();
    assert!(done.expect("qemu-img runs").success());
}
