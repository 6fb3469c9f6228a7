//! The lab's network as words for `ip` and `tc`: bridges, taps, the client's addresses.
//!
//! Everything lives in the lab's own namespace, which has no way out. A bridge stands for a
//! switch or, between two cards, for a cable; it forwards at once and floods multicast, as a
//! plain switch does.

use super::spec::{MacAddress, Topology};

/// Returns the lines of an `ip -batch` that builds the network in an empty namespace.
pub fn ip_batch(topology: &Topology) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    for (index, network) in topology.networks.iter().enumerate() {
        let name = &network.name;
        // The same in every lab: a machine put into a saved state goes on answering the client it
        // knew, half a minute long, before it asks for a new one.
        let mac = MacAddress::of_bridge(index);
        lines.push(format!(
            "link add {name} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
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

/// Returns the `tc -batch` that loses a share of the packets towards a guest, or none.
///
/// The share is a filter of four instructions on the way out to the tap: it compares the kernel's
/// random number with the share and drops what is below. `netem` would do the same, but is a module
/// that small kernels and some distributions' images leave out.
pub fn loss_batch(tap: &str, percent: u8) -> String {
    if percent == 0 {
        return format!("qdisc del dev {tap} clsact\n");
    }
    format!(
        "qdisc replace dev {tap} clsact\n\
         filter replace dev {tap} egress pref 1 handle 1 bpf bytecode \"{}\" direct-action\n",
        loss_program(percent)
    )
}

/// The program as `tc` reads it: the count of instructions, then `code jt jf k` of each.
fn loss_program(percent: u8) -> String {
    /// `ret #2`, the action "shot".
    const DROP: &str = "6 0 0 2";
    /// `ret #0`, the action "ok".
    const PASS: &str = "6 0 0 0";
    /// `ld rand`: a word from the extensions, whose offset 56 is a random number.
    const RANDOM: &str = "32 0 0 4294963256";
    if percent >= 100 {
        return format!("1,{DROP}");
    }
    let bound = u64::from(percent) * (1 << 32) / 100;
    // `jge #bound`: what is not below goes on to the next instruction, the rest skips it.
    format!("4,{RANDOM},53 0 1 {bound},{PASS},{DROP}")
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
                "link add br0 address 52:54:00:01:00:00 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                "address add 10.0.0.254/24 broadcast + dev br0",
                "link set br0 up",
            ]
        );
        assert!(lines.contains(&"link set saisp-vm-3-eth1 master direct up"));
        assert_eq!(lines.last(), Some(&IP_BATCH_END));
    }

    #[test]
    fn a_loss_is_a_bound_for_a_random_word() {
        assert_eq!(loss_batch("t0", 0), "qdisc del dev t0 clsact\n");
        assert_eq!(
            loss_batch("t0", 25),
            "qdisc replace dev t0 clsact\n\
             filter replace dev t0 egress pref 1 handle 1 bpf bytecode \
             \"4,32 0 0 4294963256,53 0 1 1073741824,6 0 0 0,6 0 0 2\" direct-action\n"
        );
        assert_eq!(loss_program(100), "1,6 0 0 2");
    }
}
