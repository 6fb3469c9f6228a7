//! The lab's network as words for `ip` and `tc`: bridges, taps, the client's addresses.
//!
//! Everything lives in the lab's own namespace, which has no way out. A bridge stands for a
//! switch or, between two cards, for a cable; it forwards at once and floods multicast, as a
//! plain switch does.

use super::spec::Topology;

/// Returns the lines of an `ip -batch` that builds the network in an empty namespace.
pub fn ip_batch(topology: &Topology) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    for network in &topology.networks {
        let name = &network.name;
        lines.push(format!(
            "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ));
        if let Some(client) = network.client {
            lines.push(format!("address add {client} broadcast + dev {name}"));
        }
        lines.push(format!("link set {name} up"));
    }
    for nic in topology.machines.iter().flat_map(|machine| &machine.nics) {
        lines.push(format!("tuntap add dev {} mode tap", nic.tap));
        lines.push(format!("link set {} master {} up", nic.tap, nic.network));
    }
    lines.push(format!("{IP_BATCH_END}\n"));
    lines.join("\n")
}

/// Ends a batch (`ip` takes it for a comment). A batch without it was cut short with the
/// command that wrote it, and half a network must not be taken for the lab's.
pub const IP_BATCH_END: &str = "# end";

/// Kernel settings of the namespace, before the first interface: no IPv6 chatter on the wire.
pub const SYSCTLS: &[(&str, &str)] = &[
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Returns the words for `tc` that lose a share of the packets towards a guest, or none.
pub fn loss_command(tap: &str, percent: u8) -> Vec<String> {
    let words: Vec<String> = if percent == 0 {
        ["qdisc", "del", "dev", tap, "root"]
            .map(String::from)
            .into()
    } else {
        let share = format!("{percent}%");
        [
            "qdisc", "replace", "dev", tap, "root", "netem", "loss", &share,
        ]
        .map(String::from)
        .into()
    };
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::topology::{Files, read};
    use std::path::Path;

    struct Shipped;

    impl Files for Shipped {
        fn text(&self, _: &Path) -> Result<String, String> {
            Ok(include_str!("../../vm/topology.yml").into())
        }

        fn head(&self, _: &Path, _: usize) -> Result<Vec<u8>, String> {
            Err("the shipped topology has no images".into())
        }
    }

    #[test]
    fn the_labs_network_is_built_in_order() {
        let topology = read(Path::new("vm/topology.yml"), &Shipped).expect("sound");
        let batch = ip_batch(&topology);
        let lines: Vec<&str> = batch.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "link set lo up",
                "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                "address add 10.0.0.254/24 broadcast + dev br0",
                "link set br0 up",
            ]
        );
        assert!(lines.contains(&"link set saisp-vm-3-eth1 master direct up"));
        assert_eq!(lines.last(), Some(&IP_BATCH_END));
    }

    #[test]
    fn no_loss_takes_the_rule_away() {
        assert_eq!(loss_command("t0", 0), ["qdisc", "del", "dev", "t0", "root"]);
        assert_eq!(loss_command("t0", 30)[7], "30%");
    }
}
