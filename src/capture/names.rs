//! Who is who: stations and addresses to names. The topology says most of it; ARP says the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::frame::{Arp, Mac};

/// Names by station and by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    stations: BTreeMap<Mac, String>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Names {
    pub fn add_station(&mut self, mac: Mac, name: &str) {
        self.stations.insert(mac, name.to_owned());
    }

    pub fn add_address(&mut self, address: IpAddr, name: &str) {
        self.addresses.insert(address, name.to_owned());
    }

    /// Reads `{name: {addresses: […], macs: […]}}`; says what it could not read.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let expected = "expected each host's name with its `addresses` and `macs`";
        let mut names = Self::default();
        for (name, host) in value.as_object().ok_or(expected)? {
            let host = host.as_object().ok_or(expected)?;
            let texts = |key: &str| -> Vec<&str> {
                match host.get(key) {
                    Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
                    Some(Value::String(text)) => vec![text],
                    _ => Vec::new(),
                }
            };
            for text in texts("addresses") {
                let address = text
                    .parse()
                    .map_err(|_| format!("{name}: `{text}` is no address"))?;
                names.add_address(address, name);
            }
            for text in texts("macs") {
                let mac = Mac::parse(text)
                    .ok_or_else(|| format!("{name}: `{text}` is no hardware address"))?;
                names.add_station(mac, name);
            }
        }
        Ok(names)
    }

    /// Takes over what another knows and this one does not.
    pub fn complete_with(&mut self, other: Self) {
        for (mac, name) in other.stations {
            self.stations.entry(mac).or_insert(name);
        }
        for (address, name) in other.addresses {
            self.addresses.entry(address).or_insert(name);
        }
    }

    /// Learns a station from what it says of itself: an address that has a name. Nothing is learnt
    /// of an address without one, as a virtual one is: it may move to another station.
    pub fn learn(&mut self, arp: &Arp) {
        if let Some(name) = self.addresses.get(&IpAddr::V4(arp.sender_address)) {
            let name = name.clone();
            self.stations.entry(arp.sender).or_insert(name);
        }
    }

    /// Returns a station's name, or its address where it has none.
    pub fn station(&self, mac: Mac) -> String {
        match self.stations.get(&mac) {
            Some(name) => name.clone(),
            None if mac == Mac::BROADCAST => "everybody".to_owned(),
            None => mac.to_string(),
        }
    }

    pub fn host(&self, address: IpAddr) -> Option<&str> {
        self.addresses.get(&address).map(String::as_str)
    }

    pub fn stations(&self) -> impl Iterator<Item = (Mac, &str)> {
        self.stations
            .iter()
            .map(|(mac, name)| (*mac, name.as_str()))
    }

    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.addresses
            .iter()
            .map(|(address, name)| (*address, name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::net::Ipv4Addr;

    #[test]
    fn a_station_is_learnt_by_its_own_address_only() {
        let own = Ipv4Addr::new(10, 0, 0, 20);
        let mut names = Names::default();
        names.add_address(own.into(), "vm-2");
        let mut arp = Arp {
            asks: true,
            sender: Mac([2; 6]),
            sender_address: Ipv4Addr::new(10, 0, 0, 1),
            target: Mac([0; 6]),
            target_address: own,
        };
        names.learn(&arp);
        assert_eq!(names.station(Mac([2; 6])), "02:02:02:02:02:02");
        arp.sender_address = own;
        names.learn(&arp);
        assert_eq!(names.station(Mac([2; 6])), "vm-2");
    }

    #[test]
    fn names_are_read_or_refused_in_words() {
        let names = Names::from_value(
            &json!({"vm-1": {"addresses": ["10.0.0.10"], "macs": "52:54:00:00:01:00"}}),
        )
        .expect("valid");
        assert_eq!(names.station(Mac([0x52, 0x54, 0, 0, 1, 0])), "vm-1");
        let error = Names::from_value(&json!({"vm-1": {"addresses": ["10.0.0"]}}));
        assert_eq!(error, Err("vm-1: `10.0.0` is no address".to_owned()));
    }
}
