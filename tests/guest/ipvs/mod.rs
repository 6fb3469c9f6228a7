//! Our ipvsadm beside the real one, in one guest, on one kernel.
//!
//! Everything happens in a network namespace of its own. The namespace has names of its own
//! in `/etc/hosts`; its other addresses are named by whatever else the guest's
//! `/etc/nsswitch.conf` names, on a lab's machines `myhostname`. What both print is compared to
//! the byte; of messages on standard error the first line is, for ours adds a hint.

mod cases;
mod declared;
mod random;
mod speed;

use std::sync::{Arc, OnceLock};

use libtest_mimic::Trial;

use crate::support::guest::Guest;
use crate::trial;

/// Whoever runs a program in here needs no rights.
const FOLDER: &str = "/opt/halab-test";
/// Where ours is put; the name it is called by makes it ipvsadm.
const OURS: &str = "/opt/halab-test/ipvsadm";
const THEIRS: &str = "/usr/sbin/ipvsadm";

/// All of them share one guest: the director of a lab, or the one that `HALAB_TEST_GUEST`
/// names.
pub(crate) fn trials() -> Vec<Trial> {
    let shared = Arc::new(Shared::default());
    let with_guest = |name: &str, run: fn(&Guest)| {
        let shared = Arc::clone(&shared);
        trial(name, move || run(shared.prepared()))
    };
    vec![
        with_guest(
            "every_wrong_command_line_ends_alike",
            cases::wrong_command_lines,
        ),
        with_guest(
            "running_connections_survive_an_edit",
            cases::connections_survive,
        ),
        with_guest(
            "a_sync_daemon_that_never_ran_is_stopped",
            cases::stopped_before_it_ran,
        ),
        with_guest("random_tables_are_set_and_shown_alike", random::tables),
        with_guest(
            "a_table_saved_by_one_is_restored_by_the_other",
            random::saved_and_restored,
        ),
        with_guest("traffic_is_shown_alike", random::traffic),
        with_guest(
            "every_setting_can_be_declared_and_is_then_as_it_is",
            declared::every_setting,
        ),
        with_guest(
            "ten_thousand_servers_are_set_up_alike_and_timed",
            speed::ten_thousand_servers,
        ),
        with_guest(
            "ipvsadm_without_a_kernel_module_or_rights_ends_alike",
            cases::no_module_no_rights,
        ),
    ]
}

/// The guest, from the first test that wants it to the last.
#[derive(Default)]
struct Shared(OnceLock<Guest>);

impl Shared {
    /// The guest with ours in it, and a fresh namespace.
    fn prepared(&self) -> &Guest {
        let guest = self.0.get_or_init(|| {
            let guest = Guest::new("ipvs");
            guest.run(&format!("mkdir -p {FOLDER}")).success();
            guest.put_agent(OURS);
            guest
                .run(&format!("ln -sf {OURS} {FOLDER}/halab-agent"))
                .success();
            guest
        });
        guest.run(PREPARE).success();
        guest
    }
}

/// A namespace with an interface for every address that the tests use, and names for some.
const PREPARE: &str = r"
set -e
ip netns del lvs-test 2>/dev/null || true
mkdir -p /etc/netns/lvs-test
cat > /etc/netns/lvs-test/hosts <<'END'
127.0.0.1 localhost
::1 localhost ip6-localhost
10.0.0.1 director.lab.example director
10.0.0.20 saisp-vm-2
10.0.0.30 a-name-that-is-longer-than-the-column.lab.example
2001:db8::1 director6
END
: > /etc/netns/lvs-test/resolv.conf
ip netns add lvs-test
ip -n lvs-test link set lo up
ip -n lvs-test link add d0 type dummy
ip -n lvs-test addr add 10.0.0.1/24 dev d0
ip -n lvs-test addr add 10.0.0.2/24 dev d0
ip -n lvs-test addr add 200.1.2.3/24 dev d0
ip -n lvs-test -6 addr add 2001:db8::1/64 dev d0 nodad
ip -n lvs-test link set d0 up
";

/// Runs a script inside the namespace.
fn run_inside(guest: &Guest, script: &str) -> String {
    let delimiter = "END-OF-THE-SCRIPT";
    guest
        .run(&format!(
            "cat > /opt/halab-test/script <<'{delimiter}'\n{script}\n{delimiter}\n\
             exec ip netns exec lvs-test bash /opt/halab-test/script"
        ))
        .success()
}

/// Shell functions: `block NAME COMMAND…` prints what the command printed between marks,
/// then its exit code and the first line of its standard error that is its own: the real
/// ipvsadm lets modprobe speak first.
const BLOCK: &str = r#"
block() {
  local name=$1 code first=
  shift
  echo "@begin $name"
  "$@" 2>/opt/halab-test/stderr
  code=$?
  read -r first < <(grep -v '^modprobe: ' /opt/halab-test/stderr)
  echo
  echo "@end $code $first"
}
"#;

/// What `block` printed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    name: String,
    stdout: String,
    code: String,
    message: String,
}

fn blocks(transcript: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for piece in transcript.split("@begin ").skip(1) {
        let (name, rest) = piece.split_once('\n').expect("a name ends with its line");
        let (stdout, end) = rest
            .rsplit_once("\n@end ")
            .unwrap_or_else(|| panic!("no end in {piece}"));
        let end = end.lines().next().unwrap_or_default();
        let (code, message) = end.split_once(' ').unwrap_or((end, ""));
        blocks.push(Block {
            name: name.to_owned(),
            stdout: stdout.to_owned(),
            code: code.to_owned(),
            message: message.to_owned(),
        });
    }
    blocks
}
