//! A host's connection variables as the text of an `ssh_config` file (pure).
//!
//! The openssh crate passes few options on, but any file; so what Ansible's inventory
//! says (`ansible_host`, `ansible_port`, `ansible_ssh_common_args`, …) becomes one, which
//! then includes the user's own.

use std::fmt::Write as _;
use std::path::PathBuf;

/// How one host is reached over SSH, in Ansible's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshDestination {
    /// The name in the inventory; the alias in the file.
    pub alias: String,
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub key_file: Option<PathBuf>,
    /// `ansible_ssh_common_args` and `ansible_ssh_extra_args`: `-o Key=Value`, `-J HOST`, ….
    pub extra_args: Vec<String>,
    pub check_host_key: HostKeyCheck,
}

/// What to do about a host key that is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeyCheck {
    /// Only known keys (the lab's are pinned).
    Strict,
    /// Remember a new one, refuse a changed one.
    #[default]
    AcceptNew,
    /// Any key.
    Off,
}

/// Writes the file. Keywords said first win in `ssh_config`, so the inventory's stand first.
pub fn text(destination: &SshDestination) -> Result<String, String> {
    let mut lines = format!("Host {}\n", quoted(&destination.alias));
    let mut put = |keyword: &str, value: &str| {
        let _ = writeln!(lines, "  {keyword} {}", quoted(value));
    };
    if let Some(address) = &destination.address {
        put("HostName", address);
    }
    if let Some(port) = destination.port {
        put("Port", &port.to_string());
    }
    if let Some(user) = &destination.user {
        put("User", user);
    }
    if let Some(key_file) = &destination.key_file {
        put("IdentityFile", &key_file.display().to_string());
        put("IdentitiesOnly", "yes");
    }
    for (keyword, value) in options(&destination.extra_args)? {
        let _ = writeln!(lines, "  {keyword} {value}");
    }
    lines.push_str("Host *\n  Include ~/.ssh/config\n  Include /etc/ssh/ssh_config\n");
    Ok(lines)
}

/// Host key checking as the extra arguments wish it; the openssh crate says it on the
/// command line, where it would beat the file.
pub fn host_key_check(extra_args: &[String]) -> HostKeyCheck {
    let options = options(extra_args).unwrap_or_default();
    let wish = options
        .iter()
        .find(|(keyword, _)| keyword.eq_ignore_ascii_case("StrictHostKeyChecking"));
    match wish.map(|(_, value)| value.as_str()) {
        Some("no" | "off") => HostKeyCheck::Off,
        Some("yes" | "ask") => HostKeyCheck::Strict,
        _ => HostKeyCheck::AcceptNew,
    }
}

/// Translates `ssh`'s command-line options into keywords and values.
fn options(args: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let Some(letter) = arg.strip_prefix('-').filter(|letter| !letter.is_empty()) else {
            return Err(format!("`{arg}` is no option of ssh"));
        };
        let (letter, attached) = letter.split_at(1);
        let flag = match letter {
            "C" => Some(("Compression", "yes")),
            "4" => Some(("AddressFamily", "inet")),
            "6" => Some(("AddressFamily", "inet6")),
            "q" => Some(("LogLevel", "QUIET")),
            "A" => Some(("ForwardAgent", "yes")),
            _ => None,
        };
        if let Some((keyword, value)) = flag {
            found.push((keyword.to_owned(), value.to_owned()));
            continue;
        }
        let value = match attached {
            "" => rest
                .next()
                .cloned()
                .ok_or_else(|| format!("`{arg}` lacks its value"))?,
            attached => attached.to_owned(),
        };
        found.push(match letter {
            "o" => split_option(&value)?,
            "J" => ("ProxyJump".to_owned(), value),
            "p" => ("Port".to_owned(), value),
            "l" => ("User".to_owned(), value),
            "i" => ("IdentityFile".to_owned(), value),
            "c" => ("Ciphers".to_owned(), value),
            "F" => ("Include".to_owned(), value),
            _ => {
                return Err(format!(
                    "ssh's option `{arg}` is not taken; write it as `-o Keyword=value`"
                ));
            }
        });
    }
    Ok(found)
}

fn split_option(option: &str) -> Result<(String, String), String> {
    let (keyword, value) = option
        .split_once(['=', ' '])
        .ok_or_else(|| format!("`-o {option}` lacks its value: `-o Keyword=value`"))?;
    Ok((keyword.trim().to_owned(), value.trim().to_owned()))
}

fn quoted(value: &str) -> String {
    if value.contains([' ', '\t', '#']) {
        format!("\"{value}\"")
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_inventory_host_becomes_a_file() {
        let destination = SshDestination {
            alias: "web1".to_owned(),
            address: Some("10.0.0.1".to_owned()),
            port: Some(2222),
            user: Some("root".to_owned()),
            key_file: Some(PathBuf::from("/home/a b/key")),
            extra_args: words("-o UserKnownHostsFile=/dev/null -J gate -C"),
            check_host_key: HostKeyCheck::AcceptNew,
        };
        let expected = "Host web1\n  HostName 10.0.0.1\n  Port 2222\n  User root\n  \
                        IdentityFile \"/home/a b/key\"\n  IdentitiesOnly yes\n  \
                        UserKnownHostsFile /dev/null\n  ProxyJump gate\n  Compression yes\n\
                        Host *\n  Include ~/.ssh/config\n  Include /etc/ssh/ssh_config\n";
        assert_eq!(text(&destination).as_deref(), Ok(expected));
    }

    #[test]
    fn host_key_checking_follows_the_arguments() {
        assert_eq!(
            host_key_check(&words("-o StrictHostKeyChecking=no")),
            HostKeyCheck::Off
        );
        assert_eq!(host_key_check(&[]), HostKeyCheck::AcceptNew);
    }

    #[test]
    fn an_option_that_cannot_be_passed_on_is_named() {
        let error = options(&words("-D 1080")).expect_err("refused");
        assert!(error.contains("`-D`"), "{error}");
    }
}
