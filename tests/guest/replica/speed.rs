//! Ours and the kernel's DRBD on the same machines and disks, one after the other: what each
//! does in a second. Figures are printed side by side; a shared machine gives no verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use libtest_mimic::Trial;

use super::Pair;
use super::Software::{Kernel, Ours};
use crate::trial;

/// How often each is measured, in turns.
const ROUNDS: &str = "HALAB_TEST_REPLICA_SPEED";

pub(super) fn trials() -> Vec<Trial> {
    let rounds = std::env::var(ROUNDS)
        .ok()
        .and_then(|text| text.parse().ok());
    rounds
        .map(|rounds| trial("replica_speed_beside_the_kernels", move || speed(rounds)))
        .into_iter()
        .collect()
}

/// One line a figure: its name, and a number where more is better unless the name says `cost`.
const MEASURE: &str = r#"
now() { date +%s%N; }
# What took how long: name, amount, command.
rate() {
  name=$1 amount=$2; shift 2
  began=$(now); "$@" 2> /dev/null; ended=$(now)
  awk -v n="$name" -v a="$amount" -v t=$((ended - began)) 'BEGIN { printf "%s %.1f\n", n, a * 1e9 / t }'
}
deep() {
  fio --name=x --filename=/dev/drbd0 --bs=4k --size=40M --direct=1 --ioengine=libaio --iodepth=16 --runtime=8 --time_based \
    --rw="$1" --minimal | cut -d';' -f"$2"
}
rate 'write of 1 MiB, direct: MiB/s' 40 dd if=/root/noise of=/dev/drbd0 bs=1M count=40 oflag=direct conv=notrunc
rate 'write of 4 KiB, stable: 1/s' 200 dd if=/root/noise of=/dev/drbd0 bs=4k count=200 oflag=direct,dsync conv=notrunc
rate 'read of 1 MiB, direct: MiB/s' 40 dd if=/dev/drbd0 of=/dev/null bs=1M count=40 iflag=direct
echo "write of 4 KiB, random, 16 deep: 1/s $(deep randwrite 49)"
echo "read of 4 KiB, random, 16 deep: 1/s $(deep randread 8)"
"#;

/// What a machine was busy with since it booted, in its kernel's ticks of ten milliseconds.
const BUSY: &str = "awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat";
/// The most that the daemon took; a module's memory cannot be told from the kernel's.
const DAEMON: &str = "pid=$(systemctl show -p MainPID --value halab-replica-r0 2> /dev/null); \
    awk '/^VmHWM:/ { print $2 }' /proc/${pid:-0}/status 2> /dev/null || echo 0";

fn number(pair: &Pair, node: usize, script: &str) -> f64 {
    let said = pair.on(node, script);
    said.trim().parse().unwrap_or(f64::NAN)
}

fn speed(rounds: usize) {
    let pair = Pair::new("repl-speed");
    let mut figures: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
    for _ in 0..rounds {
        for (column, software) in [Ours, Kernel].into_iter().enumerate() {
            let mut before = [0.0; 2];
            for (node, before) in before.iter_mut().enumerate() {
                pair.prepare(node, software);
                *before = number(&pair, node, BUSY);
                pair.on(
                    node,
                    "noise of=/root/noise bs=1M count=40
                     sed -i 's/disk { size 48M; }/disk { size 48M; c-plan-ahead 0; resync-rate 400M; }/' /etc/drbd.d/r0.res
                     dd if=/dev/zero of=/dev/sdb1 bs=1M count=50 oflag=direct 2> /dev/null
                     noise of=/dev/sdb1 bs=1M count=48 oflag=direct
                     adm create-md --force r0; adm up r0",
                );
            }
            pair.on(0, "becomes cs:Connected");
            let full = pair.on(
                0,
                "began=$(date +%s%N); adm -- --overwrite-data-of-peer primary r0
                 becomes 'cs:Connected .*ds:UpToDate/UpToDate'
                 awk -v t=$(($(date +%s%N) - began)) 'BEGIN { printf \"full resync: MiB/s %.1f\\n\", 48e9 / t }'",
            );
            let work = pair.on(0, MEASURE);
            let verify = pair.on(
                0,
                "began=$(date +%s%N); insist verify r0; becomes 'cs:(VerifyS|Connected)'; becomes cs:Connected
                 awk -v t=$(($(date +%s%N) - began)) 'BEGIN { printf \"verify: MiB/s %.1f\\n\", 48e9 / t }'",
            );
            let again = pair.on(
                0,
                "insist disconnect r0; dd if=/root/noise of=/dev/drbd0 bs=1M count=16 oflag=direct conv=notrunc 2> /dev/null
                 began=$(date +%s%N); adm connect r0; becomes 'cs:Connected .*ds:UpToDate/UpToDate'
                 awk -v t=$(($(date +%s%N) - began)) 'BEGIN { printf \"resync of 16 MiB that changed: MiB/s %.1f\\n\", 16.777e9 / t }'",
            );
            pair.come_together();
            let mut cost = String::new();
            for (node, busy) in before.into_iter().enumerate() {
                let name = ["Primary", "Secondary"][node];
                let busy = (number(&pair, node, BUSY) - busy) / 100.0;
                let daemon = number(&pair, node, DAEMON) / 1024.0;
                let _ = writeln!(cost, "cost, CPU of the {name}: s {busy:.1}");
                let _ = writeln!(cost, "cost, the {name}'s daemon: MiB {daemon:.1}");
            }
            pair.assert_same("after the load");
            for line in [full, work, verify, again, cost]
                .iter()
                .flat_map(|text| text.lines())
            {
                let (name, value) = line.rsplit_once(' ').expect("a name and a number");
                let value = value.parse().unwrap_or(f64::NAN);
                figures.entry(name.to_owned()).or_default()[column].push(value);
            }
            pair.on_both("insist secondary r0; adm down r0");
        }
    }
    let mut table = String::from("replica: medians, ours beside the kernel's\n");
    for (name, [mut ours, mut theirs]) in figures {
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        let _ = writeln!(
            table,
            "  {name:<38} {ours:>8.1} {theirs:>8.1}  {:.2}",
            ours / theirs
        );
    }
    #[expect(clippy::print_stdout, reason = "the figures are what the run is for")]
    {
        println!("{table}");
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
