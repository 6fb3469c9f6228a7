//! Mistakes in exercises 01 and 02.

use super::{Mistake, ONE, THREE, TWO};

const DR: &str = "01-lvs-dr";
const TUN: &str = "02-lvs-tun";

/// What a service that is not there costs besides itself.
const NO_SERVICE_DR: &[(&str, f64)] = &[
    ("service", 2.0),
    ("servers", 4.0),
    ("method", 2.0),
    ("answers", 1.0),
    ("both", 2.0),
];
const NO_SERVICE_TUN: &[(&str, f64)] = &[
    ("service", 2.0),
    ("servers", 4.0),
    ("method", 2.0),
    ("answers", 2.0),
    ("both", 3.0),
];

pub(super) const MISTAKES: &[Mistake] = &[
    Mistake {
        exercise: DR,
        name: "no rule on one real server",
        done: &[(THREE, "iptables -t nat -F")],
        lost: &[("takes", 2.0), ("both", 2.0)],
        diagnosis: "REDIRECT is missing on saisp-vm-3",
    },
    Mistake {
        exercise: DR,
        name: "masquerading to one server",
        done: &[(ONE, "ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.20:80 -m")],
        lost: &[("method", 1.0), ("both", 2.0)],
        diagnosis: "10.0.0.20 is reached by masquerading",
    },
    Mistake {
        exercise: DR,
        name: "the virtual address on the loopback of the director",
        done: &[(
            ONE,
            "ip address del 10.0.0.1/24 dev eth0; ip address add 10.0.0.1/32 dev lo",
        )],
        lost: &[("vip", 2.0)],
        diagnosis: "on the wrong interface: lo",
    },
    Mistake {
        exercise: DR,
        name: "no virtual address at all",
        done: &[(ONE, "ip address del 10.0.0.1/24 dev eth0")],
        lost: &[
            ("vip", 2.0),
            ("announce", 1.0),
            ("arp", 2.0),
            ("answers", 1.0),
            ("both", 2.0),
        ],
        diagnosis: "has 10.0.0.1, so it does not answer",
    },
    Mistake {
        exercise: DR,
        name: "another port",
        done: &[(
            ONE,
            "ipvsadm -C; ipvsadm -A -t 10.0.0.1:8080; ipvsadm -a -t 10.0.0.1:8080 -r 10.0.0.20:80 -g; ipvsadm -a -t 10.0.0.1:8080 -r 10.0.0.30:80 -g",
        )],
        lost: NO_SERVICE_DR,
        diagnosis: "port is not 80",
    },
    Mistake {
        exercise: DR,
        name: "a service for UDP",
        done: &[(
            ONE,
            "ipvsadm -C; ipvsadm -A -u 10.0.0.1:80; ipvsadm -a -u 10.0.0.1:80 -r 10.0.0.20:80 -g",
        )],
        lost: NO_SERVICE_DR,
        diagnosis: "The service is for UDP",
    },
    Mistake {
        exercise: DR,
        name: "a service for the director's own address",
        done: &[(
            ONE,
            "ipvsadm -C; ipvsadm -A -t 10.0.0.10:80; ipvsadm -a -t 10.0.0.10:80 -r 10.0.0.20:80 -g",
        )],
        lost: NO_SERVICE_DR,
        diagnosis: "for another address than 10.0.0.1",
    },
    Mistake {
        exercise: DR,
        name: "one server only",
        done: &[(ONE, "ipvsadm -d -t 10.0.0.1:80 -r 10.0.0.30:80")],
        lost: &[("servers", 2.0), ("both", 2.0)],
        diagnosis: "saisp-vm-3 (10.0.0.30) was never added",
    },
    Mistake {
        exercise: DR,
        name: "a server that is none",
        done: &[(
            ONE,
            "ipvsadm -d -t 10.0.0.1:80 -r 10.0.0.30:80; ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.31:80 -g",
        )],
        lost: &[("servers", 2.0), ("both", 2.0)],
        diagnosis: "has an address that is no real server's",
    },
    Mistake {
        exercise: DR,
        // With -g the kernel goes by the service's port, whatever is typed: that is no mistake.
        name: "a server with another port",
        done: &[(
            ONE,
            "ipvsadm -d -t 10.0.0.1:80 -r 10.0.0.30:80; ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:8080 -m",
        )],
        lost: &[("servers", 2.0), ("both", 2.0)],
        diagnosis: "with another port than 80",
    },
    Mistake {
        exercise: DR,
        name: "a server without weight",
        done: &[(ONE, "ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.30:80 -g -w 0")],
        lost: &[("both", 2.0)],
        diagnosis: "has the weight 0",
    },
    Mistake {
        exercise: DR,
        name: "a persistent service",
        done: &[(ONE, "ipvsadm -E -t 10.0.0.1:80 -s wlc -p 300")],
        lost: &[("both", 2.0)],
        diagnosis: "persistent",
    },
    Mistake {
        exercise: DR,
        name: "a scheduler that goes by address",
        done: &[(ONE, "ipvsadm -E -t 10.0.0.1:80 -s sh")],
        lost: &[("both", 2.0)],
        diagnosis: "chooses by address",
    },
    Mistake {
        exercise: DR,
        name: "no web server",
        done: &[(TWO, "systemctl stop apache2")],
        lost: &[("takes", 2.0), ("both", 2.0)],
        diagnosis: "Nothing listens on port 80 of saisp-vm-2",
    },
    Mistake {
        exercise: DR,
        name: "the rule in another chain",
        done: &[(
            THREE,
            "iptables -t nat -F; iptables -t nat -A OUTPUT -d 10.0.0.1 -j REDIRECT",
        )],
        lost: &[("takes", 2.0), ("both", 2.0)],
        diagnosis: "in the wrong chain",
    },
    Mistake {
        exercise: DR,
        name: "the rule for another address",
        done: &[(
            THREE,
            "iptables -t nat -F; iptables -t nat -A PREROUTING -d 10.0.0.11 -j REDIRECT",
        )],
        lost: &[("takes", 2.0), ("both", 2.0)],
        diagnosis: "is for other packets",
    },
    Mistake {
        exercise: DR,
        name: "a packet filter that drops",
        done: &[(THREE, "iptables -A INPUT -p tcp --dport 80 -j DROP")],
        lost: &[("takes", 2.0), ("both", 2.0)],
        diagnosis: "packet filter of saisp-vm-3",
    },
    Mistake {
        exercise: DR,
        name: "the loopback without its ARP settings",
        done: &[(TWO, "iptables -t nat -F; ip address add 10.0.0.1/32 dev lo")],
        lost: &[("arp", 2.0)],
        diagnosis: "answers ARP for every address it has",
    },
    Mistake {
        exercise: DR,
        name: "the virtual address on a real server's card",
        done: &[(
            THREE,
            "iptables -t nat -F; ip address add 10.0.0.1/24 dev eth0",
        )],
        lost: &[("arp", 2.0)],
        diagnosis: "saisp-vm-3 has 10.0.0.1 on its eth0",
    },
    Mistake {
        exercise: TUN,
        name: "a tunnel that is down",
        done: &[(TWO, "ip link set tun0 down")],
        lost: &[("tunnel", 2.0), ("both", 3.0)],
        diagnosis: "tunnel of saisp-vm-2 was made, but it is down",
    },
    Mistake {
        exercise: TUN,
        name: "direct routing to one server",
        done: &[(ONE, "ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.30:80 -g")],
        lost: &[("method", 1.0)],
        diagnosis: "10.0.0.30 is reached by direct routing",
    },
    Mistake {
        exercise: TUN,
        name: "no tunnel on one real server",
        done: &[(THREE, "ip tunnel del tun0")],
        lost: &[("tunnel", 2.0), ("both", 3.0)],
        diagnosis: "saisp-vm-3 has no ipip tunnel",
    },
    Mistake {
        exercise: TUN,
        name: "a tunnel without the address",
        done: &[(THREE, "ip address del 10.0.0.1/24 dev tun0")],
        lost: &[("tunnel", 2.0), ("both", 3.0)],
        diagnosis: "has no address 10.0.0.1",
    },
    Mistake {
        exercise: TUN,
        name: "a tunnel of another kind",
        done: &[(
            TWO,
            "ip tunnel del tun0; ip tunnel add tun0 mode gre local 10.0.0.20; ip address add 10.0.0.1/24 dev tun0; ip link set tun0 up",
        )],
        lost: &[("tunnel", 2.0), ("both", 3.0)],
        diagnosis: "of another kind than ipip",
    },
    Mistake {
        exercise: TUN,
        name: "another port",
        done: &[(
            ONE,
            "ipvsadm -C; ipvsadm -A -t 10.0.0.1:8080; ipvsadm -a -t 10.0.0.1:8080 -r 10.0.0.20:80 -i",
        )],
        lost: NO_SERVICE_TUN,
        diagnosis: "port is not 80",
    },
    Mistake {
        exercise: TUN,
        name: "one server only",
        done: &[(ONE, "ipvsadm -d -t 10.0.0.1:80 -r 10.0.0.20:80")],
        lost: &[("servers", 2.0), ("both", 3.0)],
        diagnosis: "saisp-vm-2 (10.0.0.20) was never added",
    },
    Mistake {
        exercise: TUN,
        name: "no web server",
        done: &[(THREE, "systemctl stop apache2")],
        lost: &[("both", 3.0)],
        diagnosis: "Nothing listens on port 80 of saisp-vm-3",
    },
];
