//! A daemon that is killed, and machines that lose their power, while an application writes: what
//! was answered is there.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use libtest_mimic::Trial;

use super::Software::{Kernel, Ours};
use super::{DEATHS, NODES, Pair};
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "replica_a_killed_daemon_comes_back_and_its_users_go_on",
        killed_daemon,
    )];
    let deaths = std::env::var(DEATHS)
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(deaths) = deaths {
        for (name, software) in [
            ("replica_power_loss_beside_the_kernels", [Ours, Kernel]),
            (
                "replica_power_loss_with_the_kernels_as_primary",
                [Kernel, Ours],
            ),
        ] {
            trials.push(trial(name, move || power_loss(software, deaths)));
        }
    }
    trials
}

/// Appends numbered lines; each is stable before the next, and before it is told of.
const WRITER: &str = r#"
cat > /root/writer.py <<'END'
import os
file = os.open("/mnt/replica/lines", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
number = os.fstat(file).st_size // 9
while not os.path.exists("/root/stop"):
    os.write(file, b"%08d\n" % number)
    os.fsync(file)
    print(number, flush=True)
    number += 1
END
rm -f /root/stop
BESIDE
exec python3 /root/writer.py
"#;

/// What else is written meanwhile, so that requests of all kinds are under way.
const LOAD: &str = r"
(
  while [ ! -e /root/stop ]; do
    dd if=/dev/urandom of=/mnt/replica/bulk bs=64k count=32 conv=notrunc,fsync || break
  done
) > /dev/null 2>&1 &
";

/// An application on a node; what it was answered is counted here, where no power goes.
struct Writer {
    child: Child,
    last: JoinHandle<Option<u64>>,
}

impl Writer {
    fn start(pair: &Pair, node: usize, beside: &str) -> Self {
        let script = WRITER.replace("BESIDE", beside);
        let mut command = pair.lab.command(["ssh", NODES[node], "--", &script]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let last = std::thread::spawn(move || {
            let numbers = lines.lines().map_while(Result::ok);
            numbers.filter_map(|line| line.parse().ok()).last()
        });
        Self { child, last }
    }

    /// The last line that was answered, once the writer or its machine is gone.
    fn end(mut self) -> Option<u64> {
        let _ = self.child.wait();
        self.last.join().expect("reading does not panic")
    }
}

/// Every line up to the last that was answered is there, in order.
const LINES: &str = r#"
count=$(wc -l < /mnt/replica/lines)
[ "$count" -gt LAST ] || { echo "$count lines, and line LAST was answered"; exit 1; }
seq -f %08.0f 0 $((count - 1)) | cmp - <(head -n "$count" /mnt/replica/lines)
"#;

fn start(lab: &str, software: [super::Software; 2]) -> Pair {
    let pair = Pair::new(lab);
    for (node, software) in software.into_iter().enumerate() {
        pair.prepare(node, software);
        pair.on(
            node,
            "dd if=/dev/zero of=/dev/sdb1 bs=1M count=48 oflag=direct 2> /dev/null
             adm create-md --force r0; adm up r0",
        );
    }
    pair.on(
        0,
        "becomes cs:Connected; adm -- --overwrite-data-of-peer primary r0
         mkfs.ext4 -q -F /dev/drbd0; mount /dev/drbd0 /mnt/replica",
    );
    pair
}

fn killed_daemon() {
    const KILLS: usize = 3;
    let pair = start("repl-kill", [Ours, Ours]);
    pair.come_together();
    for kill in 0..KILLS {
        let writer = Writer::start(&pair, 0, "");
        // Not only where everything rests: the second hits the resync after the first.
        pair.on(
            0,
            &format!(
                "size() {{ stat -c %s /mnt/replica/lines 2> /dev/null || echo 0; }}
                 before=$(size); for turn in $(seq 600); do [ \"$(size)\" -gt $((before + 90)) ] && break; sleep 0.1; done
                 for kill in 1 2; do
                   pid=$(systemctl show -p MainPID --value halab-replica-r0); kill -9 \"$pid\"
                   becomes 'ro:Primary/'
                   before=$(size); for turn in $(seq 600); do [ \"$(size)\" -gt \"$before\" ] && break; sleep 0.1; done
                   [ \"$(size)\" -gt \"$before\" ] || {{ echo \"no write after kill {kill}\"; text; words | tail -30; exit 1; }}
                 done
                 touch /root/stop"
            ),
        );
        let last = writer.end().expect("something was written");
        pair.on(0, &LINES.replace("LAST", &last.to_string()));
    }
    // The other side's daemon, too, has nothing to lose.
    pair.on(
        1,
        "kill -9 \"$(systemctl show -p MainPID --value halab-replica-r0)\"; becomes 'cs:Connected|cs:Sync'",
    );
    pair.come_together();
    pair.on(
        0,
        "umount /mnt/replica; fsck.ext4 -fn /dev/drbd0 > /dev/null",
    );
    pair.assert_same("after the daemons were killed");
    // A peer that took over while the daemon was away keeps the role; who used the device gets errors.
    pair.on(
        0,
        "mount /dev/drbd0 /mnt/replica
         kill -STOP \"$(systemctl show -p MainPID --value halab-replica-r0)\"",
    );
    pair.on(1, "becomes 'cs:WFConnection'; insist primary r0");
    pair.on(
        0,
        "kill -9 \"$(systemctl show -p MainPID --value halab-replica-r0)\"
         becomes 'ro:Secondary/Primary'
         ! dd if=/dev/urandom of=/mnt/replica/late bs=4096 count=1 conv=fsync 2> /dev/null
         umount /mnt/replica || umount -l /mnt/replica",
    );
    pair.come_together();
    pair.on(1, "insist secondary r0");
    pair.assert_same("after the peer took over");
    pair.on_both("adm down r0");
}

/// What a machine does while the other one has no power.
const TAKES_OVER: &str = r"
becomes cs:WFConnection; insist primary r0
code=0; fsck.ext4 -fp /dev/drbd0 > /root/said || code=$?
[ $code -le 1 ] || { cat /root/said; exit 1; }
mount /dev/drbd0 /mnt/replica
noise of=/mnt/replica/alone bs=64k count=32 conv=fsync
";
const GOES_ON: &str = r"
becomes cs:WFConnection
before=$(lines); for turn in $(seq 600); do [ $(lines) -gt $((before + 20)) ] && break; sleep 0.1; done
[ $(lines) -gt $((before + 20)) ] || { echo 'it writes no more'; exit 1; }
touch /root/stop
";

/// Power goes at random moments under load, on one machine and the other.
fn power_loss(software: [super::Software; 2], deaths: u64) {
    let pair = start("repl-power", software);
    pair.come_together();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let mut primary = 0;
    for death in 0..deaths {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Each of the two, half of the deaths.
        let victim = usize::try_from(death & 1).expect("a bit");
        let when = format!(
            "death {death} of {:?} as node {victim}, primary {primary}, random {random:#x}",
            software[victim]
        );
        tell(&when);
        let writer = Writer::start(&pair, primary, LOAD);
        pair.on(
            primary,
            &format!(
                "before=$(lines); for turn in $(seq 1200); do [ $(lines) -gt $((before + {})) ] && break; sleep 0.05; done",
                20 + random % 200
            ),
        );
        let survivor = 1 - victim;
        let alone = if victim == primary {
            TAKES_OVER
        } else {
            GOES_ON
        };
        pair.on(
            survivor,
            &format!("cat > /root/alone.sh <<'END'\n. /root/replica.sh\nset -eu\n{alone}\nEND"),
        );
        pair.loses_power(victim);
        let last = writer.end().expect("something was written");
        primary = survivor;
        pair.on(primary, &LINES.replace("LAST", &last.to_string()));
        pair.prepare(victim, software[victim]);
        pair.on(victim, "adm up r0");
        pair.come_together();
        pair.on(
            primary,
            "umount /mnt/replica; fsck.ext4 -fn /dev/drbd0 > /root/said || { cat /root/said; exit 1; }",
        );
        pair.assert_same(&when);
        // Every second death is a Primary's.
        if random >> 40 & 1 == 1 {
            pair.on(primary, "insist secondary r0");
            primary = victim;
            pair.on(primary, "insist primary r0");
        }
        pair.on(primary, "mount /dev/drbd0 /mnt/replica");
    }
}

/// A campaign takes an hour: which death it is at belongs to its output.
#[expect(clippy::print_stdout, reason = "the campaign is read while it runs")]
fn tell(what: &str) {
    println!("{what}");
}
