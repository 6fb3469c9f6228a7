//! What a guest is told: at boot by credentials, afterwards through its control port.
//!
//! The image is one and the same for all machines. At boot systemd reads the credentials
//! (SMBIOS type 11): host name, addresses, who may log in, the SSH host key. Afterwards there
//! is the *control port*: the image has a shell of root's on the second serial port, and the
//! other end is a socket that only the lab's owner can open. Through it a machine that was just put into a saved
//! state gets the time and, where the state came from the cache, this lab's keys; it needs
//! neither the guest's network nor its sshd, which a reader of the exercises may have broken.

use super::spec::Machine;

/// Said by the control port's shell when it begins to read. What is sent earlier is lost in
/// part, and half a command would make the shell wait for its other half.
pub const CONTROL_GREETING: &str = "halab-control";

/// Who may log in and how the machine proves who it is. Both are text files of OpenSSH.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestKeys {
    /// Public keys, one a line.
    pub authorized_keys: String,
    /// A private ed25519 key.
    pub host_key: String,
}

impl std::fmt::Debug for GuestKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GuestKeys(not shown)")
    }
}

/// Returns a machine's credentials: name and content.
pub fn credentials(machine: &Machine, keys: &GuestKeys) -> Vec<(String, Vec<u8>)> {
    let mut credentials = vec![
        ("system.hostname".to_owned(), machine.name.clone()),
        (
            "ssh.authorized_keys.root".to_owned(),
            keys.authorized_keys.clone(),
        ),
        ("halab.ssh_host_key".to_owned(), keys.host_key.clone()),
    ];
    for nic in &machine.nics {
        if let Some(address) = nic.address {
            let text = format!(
                "[Match]\nMACAddress={}\n[Network]\nAddress={address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
                nic.mac
            );
            credentials.push((format!("network.network.50-{}", nic.name), text));
        }
    }
    credentials
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect()
}

pub fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Waits until everything that starts at boot has started, and fails when sshd has not.
pub fn booted_script() -> String {
    "systemctl is-system-running --wait >/dev/null; systemctl is-active ssh.service sshd.service | grep -qx active"
        .to_owned()
}

/// Waits until the machine has been nearly idle for a second, then makes it small: trimmed
/// disk, written caches. What was read stays in memory, so that the first commands after a
/// load need no disk.
pub fn settle_script() -> String {
    // /proc/stat's fifth word is the time spent idle, in hundredths of a second.
    "busy=30
while [ $busy -gt 0 ]; do
  read -r _ _ _ _ before _ < /proc/stat; sleep 1; read -r _ _ _ _ after _ < /proc/stat
  [ $((after - before)) -ge 90 ] && break
  busy=$((busy - 1))
done
sync; fstrim / 2>/dev/null; sync"
        .to_owned()
}

/// Sets the clock, which stood still in the saved state.
pub fn clock_script(unix_ms: u64) -> String {
    format!(
        "date -s @{}.{:03} >/dev/null",
        unix_ms / 1000,
        unix_ms % 1000
    )
}

/// Gives the machine this lab's keys, and returns when sshd uses them: on SIGHUP it starts
/// over and writes its pid file once it listens again.
pub fn keys_script(keys: &GuestKeys) -> String {
    format!(
        "umask 077
mkdir -p /root/.ssh
printf %s {authorized} | base64 -d > /root/.ssh/authorized_keys
printf %s {host} | base64 -d > /etc/ssh/ssh_host_ed25519_key
rm -f /etc/ssh/ssh_host_*_key.pub
umask 022
if read -r pid < /run/sshd.pid; then
  rm -f /run/sshd.pid
  kill -HUP $pid
  tries=200
  until [ -s /run/sshd.pid ] || [ $tries = 0 ]; do sleep 0.05; tries=$((tries - 1)); done
fi
[ -s /run/sshd.pid ]",
        authorized = base64(keys.authorized_keys.as_bytes()),
        host = base64(keys.host_key.as_bytes()),
    )
}

/// Lets this lab in beside whoever the machine's disk lets in already. The host key needs no such
/// care: it is written at each boot.
pub fn admit_script(keys: &GuestKeys) -> String {
    format!(
        "umask 077
mkdir -p /root/.ssh
key=$(printf %s {authorized} | base64 -d)
grep -qxF \"$key\" /root/.ssh/authorized_keys || printf '%s\\n' \"$key\" >> /root/.ssh/authorized_keys
umask 022",
        authorized = base64(keys.authorized_keys.as_bytes()),
    )
}

/// Wraps a script so that its end can be told from other text on the line: a line with the
/// word and the exit status. The script cannot read the control port.
pub fn framed(script: &str, word: &str) -> String {
    format!("\n{{ {script}\n}} </dev/null >/dev/null 2>&1; echo {word} $?\n")
}

/// Wraps a script whose output is wanted: it stands between a line that ends with the word and `begins`, and the
/// one with the word and the exit status.
pub fn framed_question(script: &str, word: &str) -> String {
    format!("\n{{ echo {word} begins\n{script}\n}} </dev/null 2>/dev/null; echo; echo {word} $?\n")
}

/// Finds what a framed question's script wrote in what came back so far, once it has ended.
pub fn framed_answer(received: &str, word: &str) -> Option<String> {
    framed_status(received, word)?;
    let (_, rest) = received.split_once(&format!("{word} begins"))?;
    let (_, rest) = rest.split_once('\n')?;
    let (answer, _) = rest.split_once(word)?;
    Some(answer.replace('\r', ""))
}

/// Finds a framed script's exit status in what came back so far. The shell may have put a
/// prompt before it.
pub fn framed_status(received: &str, word: &str) -> Option<u8> {
    let (complete, _) = received.rsplit_once('\n')?;
    complete
        .lines()
        .find_map(|line| line.split_once(word)?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::ByteSize;
    use crate::vm::spec::{MacAddress, Nic};

    fn keys() -> GuestKeys {
        GuestKeys {
            authorized_keys: "ssh-ed25519 AAAA halab\n".into(),
            host_key: "secret\n".into(),
        }
    }

    #[test]
    fn a_machine_learns_its_name_addresses_and_keys() {
        let nic = |name: &str, address: Option<&str>| Nic {
            name: name.into(),
            network: "br0".into(),
            address: address.map(|text| text.parse().expect("an address")),
            mac: MacAddress::of_nic(0, 0),
            tap: "t".into(),
        };
        let machine = Machine {
            name: "one".into(),
            groups: vec![],
            memory: ByteSize::from_mib(384),
            nics: vec![nic("eth0", Some("10.0.0.10/24")), nic("eth1", None)],
            disks: vec![],
        };
        let told = credentials(&machine, &keys());
        let text = |name: &str| {
            let (_, bytes) = told.iter().find(|(each, _)| each == name).expect("told");
            String::from_utf8(bytes.clone()).expect("text")
        };
        assert_eq!(text("system.hostname"), "one");
        assert!(text("network.network.50-eth0").contains("Address=10.0.0.10/24\n"));
        assert_eq!(text("halab.ssh_host_key"), "secret\n");
        assert!(!told.iter().any(|(name, _)| name.ends_with("eth1")));
    }

    #[test]
    fn the_status_is_found_only_in_a_whole_line() {
        assert_eq!(framed_status("noise\ndone-7 0\n", "done-7"), Some(0));
        assert_eq!(framed_status("\r\ndone-7 12\r\n", "done-7"), Some(12));
        assert_eq!(framed_status("# # done-7 3\n# ", "done-7"), Some(3));
        assert_eq!(framed_status("done-71 0\n", "done-7"), None);
        assert_eq!(framed_status("done-7 1", "done-7"), None);
        assert_eq!(framed_status("done-6 0\n", "done-7"), None);
    }

    #[test]
    fn an_answer_is_what_stands_between_its_marks() {
        let received = "# > > done-7 begins\r\none\r\ntwo\r\n\r\ndone-7 0\r\n";
        assert_eq!(
            framed_answer(received, "done-7").as_deref(),
            Some("one\ntwo\n\n")
        );
        assert_eq!(framed_answer("done-7 begins\none\n", "done-7"), None);
        // What an earlier question is answered late is not this one's.
        let late = "late\ndone-6 0\ndone-7 begins\n\ndone-7 1\n";
        assert_eq!(framed_answer(late, "done-7").as_deref(), Some("\n"));
    }

    #[test]
    fn keys_are_never_shown() {
        assert!(!format!("{:?}", keys()).contains("secret"));
        assert!(!keys_script(&keys()).contains("secret"));
        assert!(!admit_script(&keys()).contains("secret"));
    }

    #[test]
    fn the_clock_is_told_to_the_millisecond() {
        assert_eq!(
            clock_script(1_700_000_000_007),
            "date -s @1700000000.007 >/dev/null"
        );
    }
}
