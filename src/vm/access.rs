//! How the lab's machines are reached by OpenSSH, as the texts of its files.

use std::fmt::Write as _;
use std::path::Path;

use super::spec::Topology;

/// What the files are made from.
#[derive(Debug)]
pub struct SshFiles<'lab> {
    pub topology: &'lab Topology,
    /// The command that hands ssh a socket inside the lab's network, up to address and port.
    pub connect: &'lab [String],
    pub identity: &'lab Path,
    pub known_hosts: &'lab Path,
}

/// Returns an `ssh_config` in which every machine is an alias.
///
/// The key exchange is pinned to the cheapest sound one: an emulated guest takes half a second
/// for OpenSSH's default. A session whose machine was reset ends after fifteen seconds.
pub fn ssh_config(files: &SshFiles<'_>) -> String {
    let mut text = String::new();
    for machine in &files.topology.machines {
        let _ = write!(
            text,
            "Host {}\n  HostName {}\n  HostKeyAlias {0}\n",
            machine.name,
            files.topology.address_for_client(machine)
        );
    }
    let connect: Vec<String> = files.connect.iter().map(|word| quoted(word)).collect();
    let _ = write!(
        text,
        "Host *
  User root
  Port 22
  IdentityFile {identity}
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  CheckHostIP no
  UpdateHostKeys no
  HostKeyAlgorithms ssh-ed25519
  KexAlgorithms curve25519-sha256
  Ciphers aes128-gcm@openssh.com,chacha20-poly1305@openssh.com
  ProxyCommand {connect} %h %p
  ProxyUseFdpass yes
  ServerAliveInterval 5
  ServerAliveCountMax 3
  ConnectTimeout 10
  LogLevel ERROR
",
        identity = config_quoted(files.identity),
        known_hosts = config_quoted(files.known_hosts),
        connect = connect.join(" "),
    );
    text
}

/// Returns `known_hosts` for machines and their public host keys (`ssh-ed25519 AAAA…`).
pub fn known_hosts<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let lines: Vec<String> = keys
        .into_iter()
        .map(|(machine, key)| format!("{machine} {}\n", key.trim()))
        .collect();
    lines.concat()
}

/// Quotes a word for the shell that runs a `ProxyCommand`, with `%` doubled for ssh.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let plain = |each: char| each.is_ascii_alphanumeric() || "-_./=:@%+,".contains(each);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Quotes a path for `ssh_config`, which expands `%` and takes double quotes.
fn config_quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteSize;
    use crate::vm::spec::{Client, MacAddress, Machine, Network, Nic};

    #[test]
    fn every_machine_is_an_alias_with_its_key_pinned() {
        let topology = Topology {
            networks: vec![Network {
                name: "br0".into(),
                client: Some("10.0.0.254/24".parse().expect("an address")),
            }],
            machines: vec![Machine {
                name: "one".into(),
                groups: vec![],
                memory: ByteSize::from_mib(384),
                nics: vec![Nic {
                    name: "eth0".into(),
                    network: "br0".into(),
                    address: Some("10.0.0.10/24".parse().expect("an address")),
                    mac: MacAddress::of_nic(0, 0),
                    tap: "t".into(),
                }],
                disks: vec![],
            }],
            client: Client {
                name: "client".into(),
                groups: vec![],
            },
        };
        let connect = ["/opt/my tools/halab", "internal-connect"].map(String::from);
        let text = ssh_config(&SshFiles {
            topology: &topology,
            connect: &connect,
            identity: Path::new("/state/a b/id"),
            known_hosts: Path::new("/state/known_hosts"),
        });
        assert!(
            text.starts_with("Host one\n  HostName 10.0.0.10\n  HostKeyAlias one\nHost *\n"),
            "{text}"
        );
        assert!(
            text.contains("  IdentityFile \"/state/a b/id\"\n"),
            "{text}"
        );
        assert!(
            text.contains("  ProxyCommand '/opt/my tools/halab' internal-connect %h %p\n"),
            "{text}"
        );
        assert_eq!(
            known_hosts([("one", "ssh-ed25519 AAAA x\n")]),
            "one ssh-ed25519 AAAA x\n"
        );
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted("50%"), "50%%");
    }
}
