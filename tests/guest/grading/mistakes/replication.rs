//! Mistakes in exercises 04 and 06: the replicated disk.

use super::{BOTH, Mistake, THREE, TWO};

const DRBD: &str = "04-drbd";
const VERIFY: &str = "06-online-verify";

const APART: [(&str, f64); 3] = [("connected", 2.0), ("synced", 3.0), ("replicated", 4.0)];
const NEVER_STARTS: [(&str, f64); 4] = [
    ("starts", 2.0),
    ("ends", 1.0),
    ("finds", 1.0),
    ("stays", 1.0),
];

pub(super) const MISTAKES: &[Mistake] = &[
    Mistake {
        exercise: DRBD,
        name: "split brain",
        done: &[
            (BOTH, "drbdadm disconnect r0"),
            (
                TWO,
                "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=50000 oflag=direct 2>/dev/null",
            ),
            (
                THREE,
                "drbdadm primary --force r0 && dd if=/dev/urandom of=/dev/drbd0 bs=4k count=1 seek=50001 oflag=direct 2>/dev/null; drbdadm secondary r0",
            ),
            (
                BOTH,
                "drbdadm connect r0; for n in $(seq 60); do dmesg | grep -qi split-brain && exit 0; sleep 0.5; done; dmesg | tail -20; cat /proc/drbd; exit 1",
            ),
        ],
        lost: &APART,
        diagnosis: "Split brain was detected",
    },
    Mistake {
        exercise: DRBD,
        name: "never promoted",
        done: &[(TWO, "drbdadm secondary r0")],
        lost: &[("primary", 2.0), ("filesystem", 2.0), ("replicated", 4.0)],
        diagnosis: "No node is primary",
    },
    Mistake {
        exercise: DRBD,
        name: "a node that stands alone",
        done: &[(THREE, "drbdadm disconnect r0")],
        lost: &APART,
        diagnosis: "A node stands alone and does not try to connect: saisp-vm-3",
    },
    Mistake {
        exercise: DRBD,
        name: "not brought up on one node",
        done: &[(THREE, "drbdadm down r0")],
        lost: &[("attached", 1.5), APART[0], APART[1], APART[2]],
        diagnosis: "The resource was never brought up on saisp-vm-3",
    },
    Mistake {
        exercise: DRBD,
        name: "a disk that is not attached",
        done: &[(THREE, "drbdadm detach r0")],
        lost: &[("attached", 1.5), APART[1], APART[2]],
        diagnosis: "The resource of saisp-vm-3 is up without its disk",
    },
    Mistake {
        exercise: DRBD,
        name: "another address on the cable",
        done: &[
            (BOTH, "drbdadm disconnect r0"),
            (
                THREE,
                "ip address del 10.0.23.3/24 dev eth1; ip address add 10.0.23.33/24 dev eth1",
            ),
            (BOTH, "drbdadm connect r0; true"),
        ],
        lost: &[("cable", 2.0), APART[0], APART[1], APART[2]],
        diagnosis: "eth1 of saisp-vm-3 has another address than 10.0.23.3",
    },
    Mistake {
        exercise: DRBD,
        name: "no file system",
        done: &[(
            TWO,
            "dd if=/dev/zero of=/dev/drbd0 bs=64k count=2 oflag=direct 2>/dev/null",
        )],
        lost: &[("filesystem", 2.0)],
        diagnosis: "/dev/drbd0 of saisp-vm-2 has no file system",
    },
    Mistake {
        exercise: DRBD,
        name: "another file system",
        done: &[(TWO, "mkfs.ext2 -q -F /dev/drbd0")],
        lost: &[("filesystem", 2.0)],
        diagnosis: "/dev/drbd0 of saisp-vm-2 has ext2 instead of ext4",
    },
    Mistake {
        exercise: DRBD,
        name: "another disk in r0.res",
        done: &[(THREE, "sed -i 's,/dev/sdb1,/dev/sdb,' /etc/drbd.d/r0.res")],
        lost: &[("described", 1.0)],
        diagnosis: "r0.res on saisp-vm-3 uses another disk than /dev/sdb1",
    },
    Mistake {
        exercise: DRBD,
        name: "a sync that is not finished",
        done: &[
            (BOTH, "drbdadm pause-sync r0"),
            (THREE, "drbdadm invalidate r0"),
        ],
        lost: &[APART[1], APART[2]],
        diagnosis: "The sync was paused",
    },
    Mistake {
        exercise: VERIFY,
        name: "an algorithm on one node only",
        done: &[(THREE, "sed -i '/verify-alg/d' /etc/drbd.d/r0.res")],
        // What runs has it on both still.
        lost: &[("algorithm", 1.0), ("known", 1.0), ("same", 1.0)],
        diagnosis: "saisp-vm-3 has no verify-alg in its configuration",
    },
    Mistake {
        exercise: VERIFY,
        name: "algorithms that differ",
        done: &[(
            THREE,
            "sed -i 's/verify-alg sha1/verify-alg md5/' /etc/drbd.d/r0.res",
        )],
        lost: &[("same", 1.0)],
        diagnosis: "saisp-vm-2 has sha1 and saisp-vm-3 has md5",
    },
    Mistake {
        exercise: VERIFY,
        name: "an algorithm that there is not",
        done: &[(
            BOTH,
            "sed -i 's/verify-alg sha1/verify-alg sha3000/' /etc/drbd.d/r0.res",
        )],
        lost: &[("known", 1.0)],
        diagnosis: "The kernel of saisp-vm-2 has no digest named sha3000",
    },
    Mistake {
        exercise: VERIFY,
        name: "written down and never applied",
        done: &[(
            BOTH,
            "cp /etc/drbd.d/r0.res /root/r0.res; sed -i '/verify-alg/d' /etc/drbd.d/r0.res; drbdadm adjust r0; cp /root/r0.res /etc/drbd.d/r0.res",
        )],
        lost: &NEVER_STARTS,
        diagnosis: "The running resource has no algorithm",
    },
    Mistake {
        exercise: VERIFY,
        name: "nodes that are not connected",
        done: &[(THREE, "drbdadm disconnect r0")],
        lost: &[
            ("ready", 1.0),
            NEVER_STARTS[0],
            NEVER_STARTS[1],
            NEVER_STARTS[2],
            NEVER_STARTS[3],
        ],
        diagnosis: "The nodes are not connected",
    },
];
