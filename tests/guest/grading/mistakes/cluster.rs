//! Mistakes in exercises 03 and 05: the cluster, and the data that follow it.

use super::super::set_up::OWNS;
use super::{BOTH, Mistake, THREE, TWO};

const HA: &str = "03-linux-ha";
const BOTH_OF_THEM: &str = "05-ha-drbd";

/// A service that refuses to start is a mistake too: how the command ends says nothing.
/// Where 3.0.6 is restarted while the other node still takes over, it leaves the service there.
const STOPPED: (&str, &str) = (BOTH, "systemctl stop heartbeat; true");
const STARTED: (&str, &str) = (BOTH, "systemctl start heartbeat; true");
const THREE_ANEW: (&str, &str) = (THREE, "systemctl restart heartbeat; true");
/// Until the service's address is there.
const TWO_OWNS: (&str, &str) = (TWO, OWNS);
const THREE_OWNS: (&str, &str) = (THREE, OWNS);
/// What a node that does not run heartbeat costs besides.
const ONE_RUNS: [(&str, f64); 2] = [("runs", 1.0), ("takeover", 4.0)];
const NO_OWNER: [(&str, f64); 4] = [
    ("owner", 2.0),
    ("preferred", 1.0),
    ("serves", 1.0),
    ("takeover", 4.0),
];

pub(super) const MISTAKES: &[Mistake] = &[
    Mistake {
        exercise: HA,
        name: "authkeys that all can read",
        done: &[
            (THREE, "chmod 644 /etc/ha.d/authkeys"),
            THREE_ANEW,
            TWO_OWNS,
        ],
        lost: &[("authkeys", 1.5), ONE_RUNS[0], ONE_RUNS[1]],
        diagnosis: "authkeys of saisp-vm-3 is readable by others (mode 644)",
    },
    Mistake {
        exercise: HA,
        name: "a key number that is not there",
        done: &[
            (THREE, "sed -i 's/^auth 1/auth 2/' /etc/ha.d/authkeys"),
            THREE_ANEW,
            TWO_OWNS,
        ],
        lost: &[("authkeys", 1.5), ONE_RUNS[0], ONE_RUNS[1]],
        diagnosis: "`auth` in authkeys of saisp-vm-3 names a key that is not there",
    },
    Mistake {
        exercise: HA,
        name: "no hosts entry on one node",
        done: &[(THREE, "sed -i '/ saisp-vm-2$/d' /etc/hosts")],
        lost: &[("names", 1.0)],
        diagnosis: "The hosts entry for saisp-vm-2 is missing on saisp-vm-3",
    },
    Mistake {
        exercise: HA,
        name: "a hosts entry with a wrong address",
        done: &[(
            TWO,
            "sed -i 's/.* saisp-vm-3$/10.0.0.31 saisp-vm-3/' /etc/hosts",
        )],
        lost: &[("names", 1.0)],
        diagnosis: "saisp-vm-2 has a wrong address for saisp-vm-3",
    },
    Mistake {
        exercise: HA,
        name: "keys that differ",
        done: &[
            (THREE, "sed -i 's/^1 sha1 ./1 sha1 f/' /etc/ha.d/authkeys"),
            STOPPED,
            STARTED,
            TWO_OWNS,
            THREE_OWNS,
        ],
        lost: &NO_OWNER,
        diagnosis: "The keys in authkeys differ",
    },
    Mistake {
        exercise: HA,
        name: "haresources that differ",
        done: &[(
            THREE,
            "echo saisp-vm-3 10.0.0.50 apache2 > /etc/ha.d/haresources",
        )],
        lost: &[("haresources", 3.0), ("preferred", 1.0)],
        diagnosis: "haresources differ between the nodes",
    },
    Mistake {
        exercise: HA,
        name: "no address in haresources",
        done: &[
            (BOTH, "echo saisp-vm-2 apache2 > /etc/ha.d/haresources"),
            (
                BOTH,
                "systemctl restart heartbeat; ip address del 10.0.0.50/24 dev eth0 2>/dev/null; true",
            ),
        ],
        lost: &[
            ("haresources", 3.0),
            NO_OWNER[0],
            NO_OWNER[1],
            NO_OWNER[2],
            NO_OWNER[3],
        ],
        diagnosis: "haresources does not name the service's address 10.0.0.50",
    },
    Mistake {
        exercise: HA,
        name: "a node that is not this machine's name",
        done: &[
            (
                THREE,
                "sed -i 's/^node .*/node saisp-vm-2 vm-3/' /etc/ha.d/ha.cf",
            ),
            THREE_ANEW,
            TWO_OWNS,
        ],
        lost: &[("configured", 1.0), ONE_RUNS[0], ONE_RUNS[1]],
        diagnosis: "The names under `node` on saisp-vm-3 are not the hostnames",
    },
    Mistake {
        exercise: HA,
        name: "ucast with the own address",
        done: &[
            (
                THREE,
                "sed -i 's/^ucast .*/ucast eth0 10.0.0.30/' /etc/ha.d/ha.cf",
            ),
            THREE_ANEW,
            TWO_OWNS,
        ],
        lost: &[("configured", 1.0)],
        diagnosis: "ucast on saisp-vm-3 names its own address",
    },
    Mistake {
        exercise: HA,
        name: "heartbeat over the cable that is not up",
        done: &[
            (
                TWO,
                "sed -i 's/^ucast .*/ucast eth1 10.0.23.3/' /etc/ha.d/ha.cf",
            ),
            (
                THREE,
                "sed -i 's/^ucast .*/ucast eth1 10.0.23.2/' /etc/ha.d/ha.cf",
            ),
            STOPPED,
            STARTED,
            TWO_OWNS,
            THREE_OWNS,
        ],
        lost: &NO_OWNER,
        diagnosis: "heartbeat talks over the wrong interface (eth1)",
    },
    Mistake {
        exercise: HA,
        name: "heartbeat started on one node only",
        done: &[(THREE, "systemctl stop heartbeat"), TWO_OWNS],
        lost: &ONE_RUNS,
        diagnosis: "heartbeat was not started on saisp-vm-3",
    },
    Mistake {
        exercise: HA,
        name: "a deadtime of two minutes",
        done: &[
            (
                BOTH,
                "sed -i 's/^deadtime .*/deadtime 120/; s/^initdead .*/initdead 240/' /etc/ha.d/ha.cf",
            ),
            STOPPED,
            STARTED,
            // As long as heartbeat may wait for the other node at its start.
            (TWO, owns_within!(280)),
        ],
        lost: &[("takeover", 4.0)],
        diagnosis: "deadtime on saisp-vm-3 is longer than a minute",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "haresources that differ",
        done: &[(
            THREE,
            "echo saisp-vm-2 10.0.0.50 apache2 > /etc/ha.d/haresources",
        )],
        lost: &[("haresources", 4.0), ("takeover", 4.0)],
        diagnosis: "haresources differ between the nodes",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "no drbddisk",
        done: &[(
            BOTH,
            "echo saisp-vm-2 Filesystem::/dev/drbd0::/var/www::ext4 10.0.0.50 apache2 > /etc/ha.d/haresources",
        )],
        lost: &[("haresources", 4.0), ("takeover", 4.0)],
        diagnosis: "drbddisk is missing",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "mounted by hand instead of by the cluster",
        done: &[(
            BOTH,
            "echo saisp-vm-2 drbddisk::r0 10.0.0.50 apache2 > /etc/ha.d/haresources",
        )],
        lost: &[("haresources", 4.0), ("takeover", 4.0)],
        diagnosis: "Filesystem is missing, so the cluster does not mount the data",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "mounted at boot too",
        done: &[(
            THREE,
            "echo /dev/drbd0 /var/www ext4 noauto 0 0 >> /etc/fstab",
        )],
        lost: &[("fstab", 0.5)],
        diagnosis: "/etc/fstab of saisp-vm-3 mounts the data beside the cluster",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "heartbeat stopped on the node that waits",
        done: &[(THREE, "systemctl stop heartbeat")],
        lost: &[("running", 1.0), ("takeover", 4.0)],
        diagnosis: "heartbeat was not started on saisp-vm-3",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "the nodes disconnected",
        done: &[(THREE, "drbdadm disconnect r0")],
        lost: &[("uptodate", 1.0), ("takeover", 4.0)],
        diagnosis: "The nodes are not connected",
    },
    Mistake {
        exercise: BOTH_OF_THEM,
        name: "a page below another folder",
        done: &[(
            TWO,
            "mv /var/www/html/index.html /var/www/index.html; sync -f /var/www",
        )],
        lost: &[("page", 2.0), ("takeover", 4.0)],
        diagnosis: "There is no html/index.html on the replicated disk",
    },
];
