//! The little of D-Bus that reads properties from systemd: calls of `Get`, and their answers.
//!
//! `systemctl show` costs an emulated guest a third of a second of loading and of properties that
//! nobody asked for; a `Get` on systemd's own socket costs a few milliseconds. A message, in
//! host order as its first byte says:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `l` or `B`, kind (1 call, 2 answer, 3 error), flags, version 1 |
//! | 4 | length of the body |
//! | 4 | serial number |
//! | 4 | length of the fields |
//! | … | fields: kind, a signature, a value; each begins at a multiple of 8 |
//! | … | the body, from the next multiple of 8 |
//!
//! Reading takes any bytes: what is too short, too long or of another kind is an error.

use std::fmt::Write as _;

/// More than any answer here: names and states.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const HEADER_LEN: usize = 16;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;

const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ANSWERED: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DbusError {
    #[error("a D-Bus message of {0} bytes, at most {MESSAGE_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("a D-Bus message that ends before it is complete")]
    Short,
    #[error("a D-Bus message in another form than was asked for")]
    Form,
}

/// One message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The serial number of the call that it answers; 0: none.
    pub answers: u32,
    /// The property as `systemctl show` prints it, or `None` where the call was refused.
    pub value: Option<String>,
    /// How many bytes it had.
    pub length: usize,
}

/// Returns the object of a unit: everything but letters and digits is escaped.
pub fn unit_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// Appends the call that asks an object for one property.
pub fn push_get(out: &mut Vec<u8>, serial: u32, path: &str, interface: &str, property: &str) {
    let mut fields = Vec::new();
    for (kind, signature, value) in [
        (FIELD_PATH, b'o', path),
        (FIELD_INTERFACE, b's', "org.freedesktop.DBus.Properties"),
        (FIELD_MEMBER, b's', "Get"),
        (FIELD_DESTINATION, b's', "org.freedesktop.systemd1"),
    ] {
        pad(&mut fields, 8);
        fields.extend([kind, 1, signature, 0]);
        push_text(&mut fields, value);
    }
    pad(&mut fields, 8);
    fields.extend([FIELD_SIGNATURE, 1, b'g', 0, 2, b's', b's', 0]);
    let mut body = Vec::new();
    push_text(&mut body, interface);
    pad(&mut body, 4);
    push_text(&mut body, property);
    let mut message = vec![
        if cfg!(target_endian = "little") {
            b'l'
        } else {
            b'B'
        },
        CALL,
        0,
        1,
    ];
    for number in [length(&body), serial, length(&fields)] {
        message.extend(number.to_ne_bytes());
    }
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    out.extend(message);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend(length(text.as_bytes()).to_ne_bytes());
    out.extend(text.as_bytes());
    out.push(0);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("what is asked for is short")
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Reads the first message of a stream; `None` while it is not complete.
pub fn read(stream: &[u8]) -> Result<Option<Incoming>, DbusError> {
    let Some(header) = stream.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let order = match header[0] {
        b'l' => u32::from_le_bytes,
        b'B' => u32::from_be_bytes,
        _ => return Err(DbusError::Form),
    };
    let number = |at: usize| order([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (body, fields) = (as_len(number(4)), as_len(number(12)));
    let body_start = HEADER_LEN.saturating_add(fields).next_multiple_of(8);
    let length = body_start.saturating_add(body);
    if fields > MESSAGE_BYTES_MAX || length > MESSAGE_BYTES_MAX {
        return Err(DbusError::TooLong(length));
    }
    if stream.len() < length {
        return Ok(None);
    }
    let whole = Reader {
        bytes: &stream[..length],
        at: HEADER_LEN,
        order,
    };
    let answers = answered(whole, HEADER_LEN + fields)?;
    let value = match header[1] {
        ANSWER => Some(
            Reader {
                at: body_start,
                ..whole
            }
            .variant()?,
        ),
        ERROR => None,
        // A signal, or a call; nobody asked.
        _ => {
            return Ok(Some(Incoming {
                answers: 0,
                value: None,
                length,
            }));
        }
    };
    Ok(Some(Incoming {
        answers,
        value,
        length,
    }))
}

fn as_len(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Finds the serial number of the answered call among the fields.
fn answered(mut fields: Reader<'_>, end: usize) -> Result<u32, DbusError> {
    let mut answers = 0;
    while fields.at < end {
        fields.align(8)?;
        let kind = fields.byte()?;
        match fields.signature()? {
            b"u" => {
                let number = fields.number()?;
                if kind == FIELD_ANSWERED {
                    answers = number;
                }
            }
            b"s" | b"o" => drop(fields.text()?),
            b"g" => drop(fields.signature()?),
            _ => return Err(DbusError::Form),
        }
    }
    Ok(answers)
}

/// Takes values one after the other; each is aligned from the message's beginning.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    order: fn([u8; 4]) -> u32,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DbusError> {
        let end = self.at.checked_add(count).ok_or(DbusError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(DbusError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), DbusError> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Result<u8, DbusError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, DbusError> {
        self.align(4)?;
        let bytes = self.take(4)?.first_chunk().ok_or(DbusError::Short)?;
        Ok((self.order)(*bytes))
    }

    fn text(&mut self) -> Result<String, DbusError> {
        let length = as_len(self.number()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<&'a [u8], DbusError> {
        let length = usize::from(self.byte()?);
        let signature = self.take(length)?;
        self.byte()?;
        Ok(signature)
    }

    /// A value with its signature in front, as `systemctl show` prints it.
    fn variant(&mut self) -> Result<String, DbusError> {
        match self.signature()? {
            b"s" | b"o" => self.text(),
            b"u" => Ok(self.number()?.to_string()),
            b"i" => Ok(self.number()?.cast_signed().to_string()),
            b"b" => Ok(if self.number()? == 0 { "no" } else { "yes" }.to_owned()),
            b"as" => {
                let length = as_len(self.number()?);
                let end = self.at.saturating_add(length);
                let mut texts = Vec::new();
                while self.at < end {
                    texts.push(self.text()?);
                }
                Ok(texts.join(" "))
            }
            _ => Err(DbusError::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer as systemd sends it, with this signature and body.
    fn answer(kind: u8, serial: u32, signature: &[u8], body: &[u8]) -> Vec<u8> {
        let mut value = vec![u8::try_from(signature.len()).unwrap()];
        value.extend(signature);
        value.push(0);
        pad(&mut value, 4);
        value.extend(body);
        let mut fields = vec![FIELD_ANSWERED, 1, b'u', 0];
        fields.extend(serial.to_le_bytes());
        fields.extend([FIELD_SIGNATURE, 1, b'g', 0, 1, b'v', 0]);
        let mut message = vec![b'l', kind, 1, 1];
        for number in [length(&value), 77, length(&fields)] {
            message.extend(number.to_le_bytes());
        }
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(value);
        message
    }

    fn read_value(signature: &[u8], body: &[u8]) -> Option<String> {
        let message = answer(ANSWER, 3, signature, body);
        let found = read(&message).unwrap().expect("whole");
        assert_eq!((found.answers, found.length), (3, message.len()));
        found.value
    }

    #[test]
    fn values_are_read_as_systemctl_prints_them() {
        let texts = b"\x12\0\0\0\x03\0\0\0one\0\x05\0\0\0three\0";
        for (signature, body, expected) in [
            (&b"s"[..], &b"\x06\0\0\0active\0"[..], "active"),
            (b"u", b"\x2a\0\0\0", "42"),
            (b"i", b"\xff\xff\xff\xff", "-1"),
            (b"b", b"\x01\0\0\0", "yes"),
            (b"as", texts, "one three"),
            (b"as", b"\0\0\0\0", ""),
        ] {
            assert_eq!(read_value(signature, body).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_refused_call_has_no_value_and_a_signal_answers_nothing() {
        let refused = answer(ERROR, 9, b"s", b"\x02\0\0\0no\0");
        let found = read(&refused).unwrap().expect("whole");
        assert_eq!((found.answers, found.value), (9, None));
        let signal = answer(4, 9, b"s", b"\x02\0\0\0no\0");
        assert_eq!(read(&signal).unwrap().expect("whole").answers, 0);
    }

    #[test]
    fn a_unit_has_its_path() {
        assert_eq!(
            unit_path("systemd-networkd.service"),
            "/org/freedesktop/systemd1/unit/systemd_2dnetworkd_2eservice"
        );
        assert_eq!(unit_path("1a"), "/org/freedesktop/systemd1/unit/_31a");
    }

    #[test]
    fn a_call_is_one_whole_message_for_a_reader_too() {
        let mut out = Vec::new();
        push_get(&mut out, 5, &unit_path("ssh.service"), "a.b", "LoadState");
        let first = out.len();
        push_get(&mut out, 6, "/x", "a", "b");
        let found = read(&out).unwrap().expect("whole");
        assert_eq!((found.answers, found.length), (0, first));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            begins_well in any::<bool>(),
        ) {
            if begins_well && bytes.len() >= HEADER_LEN {
                bytes[..4].copy_from_slice(b"l\x02\x01\x01");
                bytes[5..8].fill(0);
                bytes[13..16].fill(0);
            }
            let _ = read(&bytes);
        }

        #[test]
        fn an_answer_that_is_cut_is_waited_for(cut in 0_usize..60) {
            let message = answer(ANSWER, 3, b"s", b"\x06\0\0\0active\0");
            prop_assert_eq!(read(&message[..cut.min(message.len() - 1)]), Ok(None));
        }
    }
}
