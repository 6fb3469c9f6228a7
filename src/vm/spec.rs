//! The lab's machines and networks, checked: what [`topology`](super::topology) makes of the
//! file, and what everything that starts, reaches or breaks machines works from.
//!
//! A [`Topology`] holds together by construction: names and addresses are unique, every NIC's
//! network exists, NICs are `eth0`, `eth1`, … and disks `sda`, `sdb`, … in order, and each
//! machine has an address on a network where the client has one too.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::units::ByteSize;

/// Everything that runs side by side in one lab.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topology {
    pub networks: Vec<Network>,
    /// In the order of the file; never empty.
    pub machines: Vec<Machine>,
    pub client: Client,
}

impl Topology {
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == name)
    }

    pub fn machine_names(&self) -> impl Iterator<Item = &str> {
        self.machines.iter().map(|machine| machine.name.as_str())
    }

    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// Returns an address of the client that machines reach.
    pub fn client_address(&self) -> Option<Ipv4Addr> {
        let client = self.networks.iter().find_map(|network| network.client)?;
        Some(client.address)
    }

    /// Returns the address under which the client reaches a machine.
    pub fn address_for_client(&self, machine: &Machine) -> Ipv4Addr {
        self.nic_for_client(machine)
            .and_then(|nic| nic.address)
            .map(|cidr| cidr.address)
            .expect("a checked topology gives each machine an address on the client's network")
    }

    /// The card on the client's network.
    pub fn nic_for_client<'a>(&self, machine: &'a Machine) -> Option<&'a Nic> {
        machine.nics.iter().find(|nic| {
            self.network(&nic.network)
                .is_some_and(|network| network.client.is_some())
        })
    }
}

/// A switch (a bridge with the client on it) or a cable (one without).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Also the name of the bridge in the lab's namespace.
    pub name: String,
    /// The client's address; without one the client is not on this network.
    pub client: Option<Cidr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Its host name, and its name in inventories.
    pub name: String,
    pub groups: Vec<String>,
    pub memory: ByteSize,
    pub nics: Vec<Nic>,
    /// The first is the root disk.
    pub disks: Vec<Disk>,
}

impl Machine {
    pub fn nic(&self, name: &str) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.name == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nic {
    /// `eth0`, `eth1`, … as the guest calls it.
    pub name: String,
    pub network: String,
    /// Given by the lab at boot; without one the card stays down until somebody configures it.
    pub address: Option<Cidr>,
    pub mac: MacAddress,
    /// The interface in the lab's namespace that is the other end of the cable.
    pub tap: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// `sda`, `sdb`, … as the guest calls it.
    pub name: String,
    pub content: DiskContent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DiskContent {
    /// An overlay on the guest image.
    Root,
    /// An empty disk with so many partitions of equal size.
    Blank {
        /// The file's name in the lab's folder of disks.
        file: String,
        size: ByteSize,
        partitions: u8,
    },
    /// An overlay on a qcow2 image of the user's.
    Image { path: PathBuf },
}

/// The machine the lab is used from: the lab's network namespace on this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub name: String,
    pub groups: Vec<String>,
}

/// An IPv4 address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub address: Ipv4Addr,
    /// 1 to 30: a network has room for two hosts.
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{typed}` is no address: {reason}")]
pub struct CidrError {
    typed: String,
    reason: &'static str,
}

impl Cidr {
    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(self.address) ^ u32::from(address)) & self.mask() == 0
    }

    /// Returns the network itself: the address with no bit set behind the prefix.
    #[must_use]
    pub fn network(self) -> Self {
        Self {
            address: Ipv4Addr::from(u32::from(self.address) & self.mask()),
            prefix: self.prefix,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(typed: &str) -> Result<Self, CidrError> {
        let error = |reason| CidrError {
            typed: typed.to_owned(),
            reason,
        };
        let (address, prefix) = typed.split_once('/').ok_or_else(|| {
            error("expected an address and a prefix length, such as 10.0.0.10/24")
        })?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| error("expected four numbers from 0 to 255 before the slash"))?;
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=30).contains(prefix))
            .ok_or_else(|| error("the prefix length is a number from 1 to 30"))?;
        let cidr = Self { address, prefix };
        let host = u32::from(address) & !cidr.mask();
        if host == 0 || host == !cidr.mask() {
            return Err(error(
                "it names the network itself or its broadcast address, not a host",
            ));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Returns the address of a machine's card, the same on every host and in every lab:
    /// QEMU's prefix, then the machine's and the card's place in the topology, from 1 and 0.
    pub fn of_nic(machine_index: u8, nic_index: u8) -> Self {
        Self([0x52, 0x54, 0x00, 0x00, machine_index + 1, nic_index])
    }

    /// Returns the address of a network's bridge, which is the client's; no machine's card has it.
    pub fn of_bridge(network_index: usize) -> Self {
        let [_, .., high, low] = network_index.to_be_bytes();
        Self([0x52, 0x54, 0x00, 0x01, high, low])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        formatter.write_str(&bytes.join(":"))
    }
}

/// How a guest's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// How the machines of a running lab are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabAccess {
    /// Every machine is an alias in this file (`ssh -F`), keys and proxy included.
    pub ssh_config: PathBuf,
    /// Put before a command's words, runs it as the client machine, inside the lab's network.
    pub enter: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_prefix() {
        let cidr: Cidr = "10.0.0.10/24".parse().expect("an address");
        assert_eq!(cidr.to_string(), "10.0.0.10/24");
        assert_eq!(cidr.network().to_string(), "10.0.0.0/24");
        assert!(cidr.contains(Ipv4Addr::new(10, 0, 0, 254)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 0, 1, 10)));
    }

    #[test]
    fn what_names_no_host_is_no_address() {
        for typed in [
            "10.0.0.10",
            "10.0.0/24",
            "10.0.0.256/24",
            "10.0.0.1/31",
            "10.0.0.1/0",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "",
        ] {
            assert!(typed.parse::<Cidr>().is_err(), "{typed}");
        }
    }

    #[test]
    fn a_card_has_the_same_address_everywhere() {
        assert_eq!(MacAddress::of_nic(1, 0).to_string(), "52:54:00:00:02:00");
        assert_eq!(MacAddress::of_bridge(1).to_string(), "52:54:00:01:00:01");
    }
}
