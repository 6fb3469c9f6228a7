//! Asks systemd for a unit's properties on its own socket, where that can be: as root, on a
//! machine that systemd runs. Who gets no answer asks `systemctl`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::task::dbus::{MESSAGE_BYTES_MAX, push_get, read, unit_path};

/// Speaks D-Bus with root alone, without a bus in between.
const SOCKET: &str = "/run/systemd/private";

/// systemd answers at once, unless it is about to load hundreds of units again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Lines and messages of all answers together.
const ANSWERS_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// Returns `Name=value` lines as `systemctl show` prints them, or `None` where systemd does not
/// answer or the name is one that `systemctl` would first translate.
pub fn properties(unit: &str, wanted: &[(&str, &str)]) -> Option<String> {
    let path = unit_path(&full_name(unit)?);
    // The name of root, in hexadecimal of its digits; systemd looks at the socket itself.
    let mut question = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n".to_vec();
    for (serial, (interface, property)) in (1..).zip(wanted) {
        let interface = format!("org.freedesktop.systemd1.{interface}");
        push_get(&mut question, serial, &path, &interface, property);
    }
    let mut stream = UnixStream::connect(SOCKET).ok()?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
    stream.write_all(&question).ok()?;
    let values = answers(&mut stream, wanted.len())?;
    let lines = wanted.iter().zip(values).filter_map(|((_, name), value)| {
        let value = value?;
        Some(format!("{name}={value}\n"))
    });
    Some(lines.collect())
}

/// A unit's whole name: of a service the ending may be missing. Paths and patterns are for
/// `systemctl`.
fn full_name(unit: &str) -> Option<String> {
    const KINDS: &[&str] = &[
        "service",
        "socket",
        "target",
        "timer",
        "mount",
        "automount",
        "path",
        "slice",
        "scope",
        "swap",
        "device",
    ];
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.@".contains(&byte);
    if unit.is_empty() || !unit.bytes().all(is_plain) {
        return None;
    }
    match unit.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => Some(unit.to_owned()),
        _ => Some(format!("{unit}.service")),
    }
}

/// Reads until every call is answered; one that was refused has no value.
fn answers(stream: &mut UnixStream, count: usize) -> Option<Vec<Option<String>>> {
    let mut values: Vec<Option<String>> = vec![None; count];
    let mut missing = count;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    // The greeting is one line, `OK` and a number.
    let mut taken = None;
    while missing > 0 {
        let read_now = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
        received.extend_from_slice(&buffer[..read_now]);
        if received.len() > ANSWERS_BYTES_MAX {
            return None;
        }
        if taken.is_none() {
            let Some(end) = received.windows(2).position(|two| two == b"\r\n") else {
                continue;
            };
            if !received.starts_with(b"OK ") {
                return None;
            }
            taken = Some(end + 2);
        }
        let at = taken.as_mut()?;
        while let Some(found) = read(&received[*at..]).ok()? {
            *at += found.length;
            let index = usize::try_from(found.answers).ok()?.checked_sub(1);
            if let Some(value) = index.and_then(|index| values.get_mut(index)) {
                *value = found.value;
                missing = missing.checked_sub(1)?;
            }
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_systemctl_would_translate_are_left_to_it() {
        let name = |unit| full_name(unit);
        assert_eq!(name("ssh").as_deref(), Some("ssh.service"));
        assert_eq!(name("php8.2-fpm").as_deref(), Some("php8.2-fpm.service"));
        assert_eq!(
            name("getty@tty1.service").as_deref(),
            Some("getty@tty1.service")
        );
        assert_eq!(name("ssh.socket").as_deref(), Some("ssh.socket"));
        for other in ["", "/dev/sda", "ssh*", "a b"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn answers_are_collected_in_any_pieces() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let message = |serial: u8, text: &str| {
            let mut bytes = vec![b'l', 2, 1, 1];
            let body = [
                &[1, b's', 0, 0][..],
                &[u8::try_from(text.len()).unwrap(), 0, 0, 0],
                text.as_bytes(),
                &[0],
            ]
            .concat();
            bytes.extend([
                u8::try_from(body.len()).unwrap(),
                0,
                0,
                0,
                9,
                0,
                0,
                0,
                8,
                0,
                0,
                0,
            ]);
            bytes.extend([5, 1, b'u', 0, serial, 0, 0, 0]);
            bytes.extend(body);
            bytes
        };
        let sent = [
            b"OK 0123\r\n".to_vec(),
            message(2, "two"),
            message(1, "one"),
        ]
        .concat();
        for piece in sent.chunks(7) {
            theirs.write_all(piece).expect("written");
        }
        let values = answers(&mut ours, 2).expect("answered");
        assert_eq!(values, [Some("one".to_owned()), Some("two".to_owned())]);
        theirs.write_all(b"REJECTED EXTERNAL\r\n").expect("written");
        assert_eq!(answers(&mut ours, 1), None);
    }
}
