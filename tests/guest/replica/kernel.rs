//! Ours beside the kernel's: each in each role, from the first sync to a split brain, and the
//! metadata handed from one to the other.

use libtest_mimic::Trial;

use super::Software::{Kernel, Ours};
use super::{Pair, Software};
use crate::trial;

/// Runs the same with the kernel's as Primary, too: minutes that an ordinary run does without.
const BOTH_WAYS: &str = "HALAB_TEST_REPLICA";

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "replica_ours_is_primary_and_the_kernels_second",
        || everything("repl-ours", [Ours, Kernel], [0, 1]),
    )];
    if std::env::var_os(BOTH_WAYS).is_some() {
        trials.push(trial(
            "replica_the_kernels_is_primary_and_ours_second",
            || everything("repl-kernel", [Kernel, Ours], [0, 1]),
        ));
    }
    trials
}

const A: usize = 0;
const B: usize = 1;

fn everything(lab: &str, software: [Software; 2], order: [usize; 2]) {
    let pair = Pair::new(lab);
    for (node, software) in software.into_iter().enumerate() {
        pair.prepare(node, software);
        pair.on(
            node,
            "noise of=/dev/sdb1 bs=1M count=48 oflag=direct; adm create-md --force r0",
        );
    }
    first_sync(&pair, order);
    resync_of_what_changed(&pair);
    roles_change(&pair);
    verify_finds_damage(&pair);
    // The other one comes first this time.
    pair.on_both("insist secondary r0; adm down r0");
    pair.on(order[1], "adm up r0");
    pair.on(order[0], "adm up r0");
    pair.come_together();
    for victim in [B, A] {
        split_brain(&pair, victim);
    }
    metadata_is_handed_over(&pair, software);
}

fn first_sync(pair: &Pair, order: [usize; 2]) {
    for node in order {
        pair.on(node, "adm up r0");
    }
    pair.on_both("becomes 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent'");
    // Written to while the sync runs.
    pair.on(
        A,
        "adm -- --overwrite-data-of-peer primary r0
         becomes 'cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent'
         mkfs.ext4 -q -F /dev/drbd0; mount /dev/drbd0 /mnt/replica
         noise of=/mnt/replica/first bs=64k count=64 conv=fsync
         sha256sum < /mnt/replica/first > /root/first
         umount /mnt/replica",
    );
    pair.come_together();
    pair.assert_same("after the first sync");
    assert_eq!(
        pair.on(A, "cat /root/first"),
        pair.on(
            A,
            "mount /dev/drbd0 /mnt/replica; sha256sum < /mnt/replica/first; umount /mnt/replica"
        )
    );
}

fn resync_of_what_changed(pair: &Pair) {
    for cutting in [A, B] {
        let before = counter(pair, B, "nr");
        pair.on(cutting, "adm disconnect r0; becomes 'cs:StandAlone'");
        pair.on(
            A,
            "becomes 'cs:(StandAlone|WFConnection) ro:Primary/Unknown'
             noise of=/dev/drbd0 bs=64k seek=300 count=32 oflag=direct conv=notrunc
             [ \"$(marked)\" -ge 2048 ]; [ \"$(marked)\" -lt 16384 ]",
        );
        pair.on(cutting, "adm connect r0");
        pair.come_together();
        pair.assert_same("after a bitmap resync");
        // The kernel begins to count again after a disconnect of its own.
        let after = counter(pair, B, "nr");
        let moved = after.checked_sub(before).unwrap_or(after);
        assert!(
            (2048..16_384).contains(&moved),
            "{moved} KiB were copied where 2048 had changed"
        );
    }
}

fn counter(pair: &Pair, node: usize, name: &str) -> u64 {
    let said = pair.on(node, &format!("counter {name}"));
    said.trim().parse().expect("a number")
}

fn roles_change(pair: &Pair) {
    pair.on(A, "insist secondary r0");
    pair.on(
        B,
        "insist primary r0; becomes 'ro:Primary/Secondary'
         fsck.ext4 -fn /dev/drbd0 > /dev/null
         mount /dev/drbd0 /mnt/replica; echo there > /mnt/replica/there; umount /mnt/replica
         insist secondary r0",
    );
    pair.on(
        A,
        "insist primary r0
         mount /dev/drbd0 /mnt/replica; grep -q there /mnt/replica/there; umount /mnt/replica",
    );
    pair.come_together();
    pair.assert_same("after the roles changed");
}

fn verify_finds_damage(pair: &Pair) {
    let verify = |node: usize| {
        pair.on(
            node,
            "insist verify r0; becomes 'cs:(VerifyS|Connected)'; becomes 'cs:Connected'",
        );
        pair.on(1 - node, "becomes 'cs:Connected'");
    };
    verify(A);
    pair.on_both("[ \"$(marked)\" = 0 ]");
    for verifying in [A, B] {
        pair.on(
            B,
            "noise of=/dev/sdb1 bs=4096 seek=4000 count=1 oflag=direct conv=notrunc",
        );
        verify(verifying);
        pair.on_both("[ \"$(marked)\" = 4 ]");
        // As the text repairs it.
        pair.on(
            A,
            "adm disconnect r0; becomes 'cs:StandAlone'; adm connect r0",
        );
        pair.come_together();
        pair.assert_same("after what a verify found was repaired");
    }
}

/// Both write alone; the victim gives up what it wrote.
fn split_brain(pair: &Pair, victim: usize) {
    pair.on(A, "insist disconnect r0; becomes 'cs:StandAlone'");
    pair.on(B, "insist disconnect r0; becomes 'cs:StandAlone'");
    for node in 0..2 {
        pair.on(
            node,
            &format!(
                "insist primary r0
                 noise of=/dev/drbd0 bs=4096 seek={} count=3 oflag=direct conv=notrunc
                 insist secondary r0",
                2000 + node * 100
            ),
        );
    }
    let survivors = pair.on(1 - victim, "digest");
    let seen = ["words | grep -ci 'split.brain' || true"; 2];
    let before = [0, 1].map(|node| pair.on(node, seen[node]));
    pair.on(A, "adm connect r0");
    pair.on(B, "adm connect r0");
    for node in 0..2 {
        pair.on(node, "becomes 'cs:(StandAlone|WFConnection)'");
    }
    pair.on(
        victim,
        "for turn in $(seq 300); do text | grep -q cs:StandAlone && break; sleep 0.2; done
         insist disconnect r0 || true; becomes 'cs:StandAlone'",
    );
    pair.on(
        1 - victim,
        "adm disconnect r0 || true; becomes 'cs:StandAlone'",
    );
    // Whoever comes to it first hangs up; the other may only see that.
    let after = [0, 1].map(|node| pair.on(node, seen[node]));
    assert_ne!(after, before, "nobody says anything of the split brain");
    pair.on(victim, "adm -- --discard-my-data connect r0");
    pair.on(1 - victim, "adm connect r0");
    pair.come_together();
    pair.assert_same("after the split brain was mended");
    assert_eq!(
        survivors,
        pair.on(victim, "digest"),
        "the survivor's data is what is left"
    );
}

/// What one wrote the other reads, and goes on with.
fn metadata_is_handed_over(pair: &Pair, software: [Software; 2]) {
    let ours = usize::from(software[1] == Ours);
    pair.on_both("insist secondary r0; adm down r0");
    pair.on(
        ours,
        "theirs() { drbdmeta --force 0 v08 /dev/sdb1 internal \"$@\" 2>&1; }
         plain() { sed -e '/^# 20/d' -e '/^# .*> /d'; }
         for word in dump-md get-gi show-gi; do
           # One after the other: each opens the device for itself alone.
           theirs $word | plain > /root/theirs; adm $word r0 2>&1 | plain > /root/ours
           diff -u /root/theirs /root/ours
         done",
    );
    for (node, software) in software.into_iter().enumerate() {
        let other = match software {
            Ours => Kernel,
            Kernel => Ours,
        };
        pair.prepare(node, other);
        pair.on(node, "adm up r0");
    }
    pair.come_together();
    // Nothing was copied: each found the other's generations and bitmap.
    pair.on_both("[ \"$(counter nr)\" = 0 ]; [ \"$(counter ns)\" = 0 ]");
    pair.on(
        B,
        "insist primary r0; fsck.ext4 -fn /dev/drbd0 > /dev/null
         noise of=/dev/drbd0 bs=4096 seek=5000 count=8 oflag=direct conv=notrunc
         insist secondary r0",
    );
    pair.come_together();
    pair.assert_same("after both changed their software");
    pair.on_both("adm down r0");
}
