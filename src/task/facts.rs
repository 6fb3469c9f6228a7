//! `setup`: what the kernel and the system's files say → Ansible's facts.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value, json};

use super::link::{Address, Link};
use super::time::Moment;
use super::wildcard::matches_anything;

/// Everything that was read, as it was read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub os_release: String,
    pub meminfo: String,
    pub cpuinfo: String,
    pub mounts: String,
    pub routes: String,
    pub cmdline: String,
    pub hosts: String,
    pub hostname: String,
    pub kernel: String,
    pub kernel_version: String,
    pub architecture: String,
    pub machine_id: String,
    /// `/proc/uptime`.
    pub uptime: String,
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    pub environment: Vec<(String, String)>,
    pub has_systemd: bool,
}

/// Returns all facts, under their names without `ansible_`.
pub fn facts(sources: &Sources, now: Moment, now_unix: u64) -> Map<String, Value> {
    let mut facts = Map::new();
    let parts = [
        identity(sources),
        distribution(&sources.os_release),
        memory(&sources.meminfo),
        processors(&sources.cpuinfo),
        network(sources),
        json!({
            "date_time": date_time(now, now_unix),
            "mounts": mounts(&sources.mounts),
            "cmdline": command_line(&sources.cmdline),
            "env": environment(&sources.environment),
            "uptime_seconds": sources.uptime.split('.').next().and_then(|whole| whole.parse::<u64>().ok()),
            "service_mgr": if sources.has_systemd { "systemd" } else { "sysvinit" },
            "pkg_mgr": "apt",
            "gather_subset": ["all"],
            "module_setup": true,
        }),
    ];
    for part in parts {
        if let Value::Object(part) = part {
            facts.extend(part);
        }
    }
    facts
}

/// Adds the prefix and keeps what one of the patterns names; no pattern keeps all.
pub fn named(facts: Map<String, Value>, patterns: &[&str]) -> Map<String, Value> {
    let named = facts
        .into_iter()
        .map(|(name, value)| (format!("ansible_{name}"), value));
    let is_wanted = |name: &str| {
        let bare = name.trim_start_matches("ansible_");
        let fits =
            |pattern: &&str| matches_anything(pattern, name) || matches_anything(pattern, bare);
        patterns.is_empty() || patterns.iter().any(fits)
    };
    named.filter(|(name, _)| is_wanted(name)).collect()
}

fn identity(sources: &Sources) -> Value {
    let nodename = sources.hostname.as_str();
    let hostname = nodename.split('.').next().unwrap_or(nodename);
    let fqdn = full_name(&sources.hosts, hostname).unwrap_or(nodename);
    json!({
        "system": "Linux",
        "hostname": hostname,
        "nodename": nodename,
        "fqdn": fqdn,
        "domain": fqdn.split_once('.').map_or("", |(_, domain)| domain),
        "kernel": sources.kernel,
        "kernel_version": sources.kernel_version,
        "architecture": sources.architecture,
        "machine": sources.architecture,
        "userspace_architecture": sources.architecture,
        "userspace_bits": if sources.architecture.ends_with("64") { "64" } else { "32" },
        "machine_id": sources.machine_id,
    })
}

/// Finds a host's long name in the table of hosts.
fn full_name<'a>(hosts: &'a str, hostname: &str) -> Option<&'a str> {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    let mut named = lines.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let canonical = words.next()?;
        let is_it = canonical == hostname || words.any(|word| word == hostname);
        is_it.then_some(canonical)
    });
    named.next()
}

fn distribution(os_release: &str) -> Value {
    let field = |name: &str| {
        let mut pairs = os_release.lines().filter_map(|line| line.split_once('='));
        let found = pairs.find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value.trim_matches('"'))
    };
    let id = field("ID");
    let name = match id {
        "debian" => "Debian",
        "ubuntu" => "Ubuntu",
        other => other,
    };
    let is_debian_like = matches!(id, "debian" | "ubuntu") || field("ID_LIKE").contains("debian");
    let version = field("VERSION_ID");
    json!({
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": version.split('.').next(),
        "distribution_release": field("VERSION_CODENAME"),
        "os_family": if is_debian_like { "Debian" } else { name },
    })
}

fn memory(meminfo: &str) -> Value {
    let mib = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    json!({
        "memtotal_mb": mib("MemTotal"),
        "memfree_mb": mib("MemFree"),
        "swaptotal_mb": mib("SwapTotal"),
        "swapfree_mb": mib("SwapFree"),
    })
}

fn processors(cpuinfo: &str) -> Value {
    let fields = |name: &'static str| {
        cpuinfo.lines().filter_map(move |line| {
            let (known, value) = line.split_once(':')?;
            (known.trim() == name).then(|| value.trim())
        })
    };
    let threads = fields("processor").count().max(1);
    let mut packages: Vec<&str> = fields("physical id").collect();
    packages.sort_unstable();
    packages.dedup();
    let cores = fields("cpu cores")
        .next()
        .and_then(|cores| cores.parse::<usize>().ok());
    json!({
        "processor": fields("model name").collect::<Vec<_>>(),
        "processor_count": packages.len().max(1),
        "processor_cores": cores.unwrap_or(1),
        "processor_vcpus": threads,
        "processor_nproc": threads,
    })
}

fn network(sources: &Sources) -> Value {
    let mut facts = Map::new();
    let names: Vec<&str> = sources
        .links
        .iter()
        .map(|link| link.name.as_str())
        .collect();
    facts.insert("interfaces".to_owned(), names.into());
    let all = |wants_v4: bool| -> Vec<String> {
        let ips = sources.addresses.iter().map(|address| address.network.ip);
        ips.filter(|ip| ip.is_ipv4() == wants_v4 && !ip.is_loopback())
            .map(|ip| ip.to_string())
            .collect()
    };
    facts.insert("all_ipv4_addresses".to_owned(), all(true).into());
    facts.insert("all_ipv6_addresses".to_owned(), all(false).into());
    for link in &sources.links {
        // Names with dashes and colons become words, as variables have to be.
        let name = link.name.replace(['-', ':', '.'], "_");
        facts.insert(name, interface(link, &sources.addresses));
    }
    facts.insert("default_ipv4".to_owned(), default_route(sources));
    Value::Object(facts)
}

fn interface(link: &Link, addresses: &[Address]) -> Value {
    let mut fact = json!({
        "device": link.name,
        "active": link.is_up,
        "mtu": link.mtu,
        "type": if link.name == "lo" { "loopback" } else { "ether" },
    });
    if !link.station.is_empty() && link.name != "lo" {
        fact["macaddress"] = link.station.as_str().into();
    }
    let own = addresses
        .iter()
        .filter(|address| address.link == link.index);
    let mut v4: Vec<Value> = Vec::new();
    let mut v6: Vec<Value> = Vec::new();
    for address in own {
        let prefix = address.network.prefix;
        match address.network.ip {
            IpAddr::V4(ip) => v4.push(ipv4(ip, prefix, address.broadcast)),
            IpAddr::V6(ip) => {
                v6.push(json!({"address": ip.to_string(), "prefix": prefix.to_string()}));
            }
        }
    }
    let mut v4 = v4.into_iter();
    if let Some(first) = v4.next() {
        fact["ipv4"] = first;
    }
    let secondaries: Vec<Value> = v4.collect();
    if !secondaries.is_empty() {
        fact["ipv4_secondaries"] = secondaries.into();
    }
    if !v6.is_empty() {
        fact["ipv6"] = v6.into();
    }
    fact
}

fn ipv4(ip: Ipv4Addr, prefix: u8, broadcast: Option<Ipv4Addr>) -> Value {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or(0);
    json!({
        "address": ip.to_string(),
        "netmask": Ipv4Addr::from(mask).to_string(),
        "network": Ipv4Addr::from(u32::from(ip) & mask).to_string(),
        "prefix": prefix.to_string(),
        "broadcast": broadcast.map_or(String::new(), |broadcast| broadcast.to_string()),
    })
}

/// Reads the kernel's table of routes: numbers in hexadecimal, in the host's byte order.
fn default_route(sources: &Sources) -> Value {
    let route = sources.routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        let gateway = u32::from_str_radix(fields.get(2)?, 16).ok()?;
        is_default.then(|| (fields[0], Ipv4Addr::from(gateway.to_le_bytes())))
    });
    let Some((name, gateway)) = route else {
        return json!({});
    };
    let Some(link) = sources.links.iter().find(|link| link.name == name) else {
        return json!({});
    };
    let of_link = interface(link, &sources.addresses);
    let mut fact = of_link.get("ipv4").cloned().unwrap_or_else(|| json!({}));
    fact["interface"] = name.into();
    fact["alias"] = name.into();
    fact["gateway"] = gateway.to_string().into();
    fact["mtu"] = link.mtu.into();
    fact["macaddress"] = link.station.as_str().into();
    fact
}

fn mounts(mounts: &str) -> Vec<Value> {
    let on_devices = mounts.lines().filter(|line| line.starts_with('/'));
    on_devices
        .filter_map(|line| {
            let [device, mount, fstype, options] = line.split(' ').take(4).collect::<Vec<_>>()[..]
            else {
                return None;
            };
            Some(json!({"device": device, "mount": mount, "fstype": fstype, "options": options}))
        })
        .collect()
}

fn command_line(cmdline: &str) -> Map<String, Value> {
    let words = cmdline.split_whitespace();
    words
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.into()),
            None => (word.to_owned(), true.into()),
        })
        .collect()
}

fn environment(variables: &[(String, String)]) -> Map<String, Value> {
    let pairs = variables.iter().cloned();
    pairs.map(|(name, value)| (name, value.into())).collect()
}

fn date_time(now: Moment, now_unix: u64) -> Value {
    const WEEKDAYS: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    let weekday = usize::try_from(now.weekday).unwrap_or(0);
    let compact = format!(
        "{}T{}",
        now.date().replace('-', ""),
        now.time().replace(':', "")
    );
    json!({
        "date": now.date(),
        "time": now.time(),
        "year": format!("{:04}", now.year),
        "month": format!("{:02}", now.month),
        "day": format!("{:02}", now.day),
        "hour": format!("{:02}", now.hour),
        "minute": format!("{:02}", now.minute),
        "second": format!("{:02}", now.second),
        "weekday": WEEKDAYS[weekday % 7],
        "weekday_number": ((now.weekday + 1) % 7).to_string(),
        "epoch": now_unix.to_string(),
        "epoch_int": now_unix.to_string(),
        "iso8601": format!("{}T{}Z", now.date(), now.time()),
        "iso8601_micro": format!("{}T{}.{:06}Z", now.date(), now.time(), now.microsecond),
        "iso8601_basic": format!("{compact}{:06}", now.microsecond),
        "iso8601_basic_short": compact,
        "tz": "UTC",
        "tz_dst": "UTC",
        "tz_offset": "+0000",
    })
}

#[cfg(test)]
mod tests {
    use super::super::link::{Network, Scope};
    use super::*;
    use std::time::Duration;

    fn example() -> Map<String, Value> {
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            is_up: true,
            mtu: 1500,
            station: "52:54:00:00:00:0a".to_owned(),
            ..Link::default()
        };
        let address = |text: &str| Address {
            link: 2,
            network: Network::parse(text).expect("valid"),
            label: None,
            broadcast: None,
            scope: Scope::GLOBAL,
        };
        let sources = Sources {
            os_release: "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n".to_owned(),
            meminfo: "MemTotal:         392192 kB\n".to_owned(),
            cpuinfo: "processor\t: 0\nmodel name\t: X\nprocessor\t: 1\nmodel name\t: X\n"
                .to_owned(),
            hosts: "127.0.1.1 vm-1.lab vm-1\n".to_owned(),
            hostname: "vm-1".to_owned(),
            routes: "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000000\tFE00000A\t0003\t0\t0\t0\t00000000\n"
                .to_owned(),
            links: vec![link],
            addresses: vec![address("10.0.0.10/24"), address("10.0.0.1/32")],
            ..Sources::default()
        };
        facts(
            &sources,
            Moment::from_unix(Duration::from_secs(86_400)),
            86_400,
        )
    }

    #[test]
    fn facts_have_ansibles_names_and_types() {
        let facts = example();
        assert_eq!(facts["fqdn"], "vm-1.lab");
        assert_eq!(facts["distribution"], "Debian");
        assert_eq!(facts["distribution_major_version"], "13");
        assert_eq!(facts["memtotal_mb"], 383);
        assert_eq!(facts["processor_vcpus"], 2);
        assert_eq!(facts["eth0"]["ipv4"]["network"], "10.0.0.0");
        assert_eq!(
            facts["eth0"]["ipv4_secondaries"][0]["netmask"],
            "255.255.255.255"
        );
        assert_eq!(facts["default_ipv4"]["gateway"], "10.0.0.254");
        assert_eq!(facts["date_time"]["weekday"], "Friday");
    }

    #[test]
    fn a_filter_names_facts_with_or_without_the_prefix() {
        let names = |patterns: &[&str]| -> Vec<String> {
            named(example(), patterns)
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        assert_eq!(names(&["ansible_fq*"]), ["ansible_fqdn"]);
        assert_eq!(names(&["fqdn"]), ["ansible_fqdn"]);
        assert!(names(&[]).len() > 30);
    }
}
