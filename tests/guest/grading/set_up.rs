//! The exercises set up right, each in three ways: as the text has it typed, by halab's own
//! programs, and by what the text names besides or its manuals allow.

use crate::support::Lab;

pub(crate) const ONE: &str = "saisp-vm-1";
pub(crate) const TWO: &str = "saisp-vm-2";
pub(crate) const THREE: &str = "saisp-vm-3";
/// Both nodes at once, as in two terminals: each may wait for the other.
pub(crate) const BOTH: &str = "both nodes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The distribution's packages, the text's commands.
    Text,
    /// `halab run` with the agent in their places.
    Agent,
    /// Packages too, but otherwise than the text does it.
    Other,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Text, Self::Agent, Self::Other];
}

pub(crate) const EXERCISES: [&str; 6] = [
    "01-lvs-dr",
    "02-lvs-tun",
    "03-linux-ha",
    "04-drbd",
    "05-ha-drbd",
    "06-online-verify",
];

/// Runs a script on a machine, or on `BOTH`.
#[track_caller]
pub(crate) fn on(lab: &Lab, machine: &str, script: &str) {
    if machine != BOTH {
        lab.ssh(machine, script).success();
        return;
    }
    let said = std::thread::scope(|scope| {
        [TWO, THREE]
            .map(|node| scope.spawn(move || lab.ssh(node, script)))
            .map(|each| each.join().expect("a command that ends"))
    });
    for each in said {
        each.success();
    }
}

/// Sets an exercise up in a clean lab.
pub(crate) fn set_up(lab: &Lab, exercise: &str, way: Way) {
    if way == Way::Agent {
        let words = ["run", exercise, "-e", "tools=agent", "--tags", "setup"];
        lab.halab(words).success();
        return;
    }
    match exercise {
        "01-lvs-dr" => director(lab, "-g", way),
        "02-lvs-tun" => director(lab, "-i", way),
        "03-linux-ha" => cluster(lab, way),
        "04-drbd" => replication(lab, way),
        "05-ha-drbd" => both(lab, way),
        "06-online-verify" => {
            both(lab, way);
            verify(lab, way);
        }
        other => panic!("nobody knows how to set {other} up"),
    }
}

fn director(lab: &Lab, flag: &str, way: Way) {
    let scheduler = if way == Way::Text { "" } else { "-s rr" };
    let script = format!(
        "ip address add 10.0.0.1/24 dev eth0 label eth0:1; ipvsadm -A -t 10.0.0.1:80 {scheduler}; \
         ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.20:80 {flag}; ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:80 {flag}"
    );
    on(lab, ONE, &script);
    let no_arp = "sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
    let script = match (flag, way) {
        ("-g", Way::Text) => "iptables -t nat -A PREROUTING -d 10.0.0.1 -j REDIRECT".to_owned(),
        ("-g", _) => format!("{no_arp}; ip address add 10.0.0.1/32 dev lo"),
        (_, Way::Text) => {
            "ip tunnel add tun0 mode ipip local $(hostname -I | tr ' ' '\\n' | grep '^10\\.0\\.0\\.[23]0$') \
             && ip address add 10.0.0.1/24 dev tun0 && ip link set tun0 up"
                .to_owned()
        }
        // The interface that the module brings along, for whomever it comes from.
        _ => format!(
            "modprobe ipip && {no_arp} && ip address add 10.0.0.1/32 dev tunl0 && ip link set tunl0 up \
             && sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0"
        ),
    };
    on(lab, BOTH, &script);
}

/// Timers that a loaded machine bears and a test has the patience for.
const HA_CF: &str = "keepalive 1\nwarntime 4\ndeadtime 8\ninitdead 16\nauto_failback on\nautojoin none\nnode saisp-vm-2 saisp-vm-3\n";
pub(crate) const OWNS: &str = owns_within!(150);

fn preferred(way: Way) -> &'static str {
    if way == Way::Text { TWO } else { THREE }
}

fn cluster(lab: &Lab, way: Way) {
    for (node, peer, address) in [(TWO, THREE, "10.0.0.30"), (THREE, TWO, "10.0.0.20")] {
        let (medium, key) = if way == Way::Text {
            let key = "sha1 42ade27dad9045964fab10a395ffe4e0f726a80b";
            (format!("ucast eth0 {address}"), key)
        } else {
            ("bcast eth0".to_owned(), "md5 as secret as the other")
        };
        let resources = if way == Way::Text {
            "saisp-vm-2 10.0.0.50 apache2"
        } else {
            "saisp-vm-3 IPaddr::10.0.0.50/24/eth0 apache2"
        };
        let script = format!(
            "set -e; echo '{address} {peer}' >> /etc/hosts; printf '{HA_CF}{medium}\\n' > /etc/ha.d/ha.cf; \
             printf 'auth 1\\n1 {key}\\n' > /etc/ha.d/authkeys; chmod 600 /etc/ha.d/authkeys; echo '{resources}' > /etc/ha.d/haresources",
            HA_CF = HA_CF.replace('\n', "\\n"),
        );
        on(lab, node, &script);
    }
    on(lab, BOTH, "systemctl restart heartbeat");
    on(lab, preferred(way), OWNS);
    // Who waits does so with the web server running, as the text says of both.
    on(lab, BOTH, "systemctl start apache2");
}

const R0: &str = "resource r0 {
  on saisp-vm-2 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.2:7788; meta-disk internal; }
  on saisp-vm-3 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.3:7788; meta-disk internal; }
}
";
const R0_SHORT: &str = "resource \"r0\" {
  protocol C;
  device /dev/drbd0;
  disk /dev/sdb1;
  meta-disk internal;
  on saisp-vm-2 { address 10.0.23.2:7789; }
  on saisp-vm-3 { address 10.0.23.3:7789; }
}
";

fn replication(lab: &Lab, way: Way) {
    for (node, address) in [(TWO, "10.0.23.2"), (THREE, "10.0.23.3")] {
        let script = format!("ip address add {address}/24 dev eth1; ip link set eth1 up");
        on(lab, node, &script);
    }
    let (described, first, primary) = if way == Way::Text {
        let text = "drbdadm -- --overwrite-data-of-peer primary r0";
        (R0, "drbdadm create-md --force r0 && drbdadm up r0", text)
    } else {
        let adjusted = "drbdadm create-md --force r0 && modprobe drbd && drbdadm adjust r0";
        (R0_SHORT, adjusted, "drbdadm primary --force r0")
    };
    on(
        lab,
        BOTH,
        &format!("cat > /etc/drbd.d/r0.res <<'END'\n{described}END\n{first}"),
    );
    let script = format!(
        "{primary} && mkfs.ext4 -q -F /dev/drbd0 && for n in $(seq 300); do drbdadm dstate r0 | grep -q UpToDate/UpToDate && exit 0; sleep 1; done; cat /proc/drbd; dmesg | grep -i drbd | tail -30; exit 1"
    );
    // DRBD was seen to go on with 250 KiB/s, its usual c-min-rate: 15 minutes.
    on(
        lab,
        BOTH,
        "drbdadm disk-options --c-min-rate=0 --resync-rate=10M r0",
    );
    on(lab, preferred(way), &script);
    on(lab, BOTH, "drbdadm adjust r0");
}

fn both(lab: &Lab, way: Way) {
    replication(lab, way);
    on(lab, BOTH, "drbdadm secondary r0");
    cluster(lab, way);
    let line = if way == Way::Text {
        "saisp-vm-2 drbddisk::r0 Filesystem::/dev/drbd0::/var/www::ext4 10.0.0.50 apache2"
    } else {
        "saisp-vm-3 drbddisk::r0 Filesystem::/dev/drbd0::/var/www::ext4::noatime IPaddr::10.0.0.50/24/eth0 apache2"
    };
    on(lab, BOTH, "systemctl stop heartbeat");
    on(
        lab,
        BOTH,
        &format!("echo {line} > /etc/ha.d/haresources; systemctl start heartbeat"),
    );
    on(lab, preferred(way), OWNS);
    on(
        lab,
        preferred(way),
        "findmnt /var/www && mkdir -p /var/www/html && echo 'DRBD Storage' > /var/www/html/index.html && sync -f /var/www",
    );
}

fn verify(lab: &Lab, way: Way) {
    let script = if way == Way::Text {
        "sed -i 's/^resource r0 {/&\\n  net { verify-alg sha1; }/' /etc/drbd.d/r0.res"
    } else {
        "printf 'global { usage-count no; }\\ncommon { net { verify-alg md5; } }\\n' > /etc/drbd.d/global_common.conf"
    };
    on(lab, BOTH, script);
    on(
        lab,
        BOTH,
        "drbdadm adjust r0; for n in $(seq 120); do drbdadm cstate r0 | grep -q '^Connected' && exit 0; sleep 1; done; cat /proc/drbd; dmesg | grep -i drbd | tail -30; exit 1",
    );
}
