//! Bytes of a message, signed and checked.
//!
//! On the network heartbeat 3 sends the netstring form, whatever `msgfmt` says, and takes
//! both; one datagram is one message.
//!
//! | netstring form | | string form | |
//! |---|---|---|---|
//! | `###` LF | start | `>>>` LF | start |
//! | `17:(0)st=active…,` | length of what stands between colon and comma, type digit, name, value | `st=active` LF | name, value; `(1)name=` and base64 for bytes |
//! | `%%%` LF | end | `<<<` LF | end, a NUL may follow |
//! | `42:1 9f…,` | signature of all before | field `auth` | signature of the lines, `auth` aside |
//!
//! `msgfmt classic` (the default) adds an `auth` field, signed over the string form's
//! lines, to the netstring form too; nobody checks it there.
//!
//! The signature is checked before a field's content is looked at, and nothing is
//! copied before the whole packet's shape is known to be right.

use super::config::AuthKeys;
use super::config::ha_cf::MessageFormat;
use super::message::{Message, Value};
use super::signature::{Key, Method};

/// Largest message: one UDP datagram. Real ones have about 300 bytes.
pub const MESSAGE_BYTES_MAX: usize = 65_507;

/// Most fields in a message; real ones have up to 16.
const FIELDS_MAX: usize = 64;

const NETSTRING_START: &[u8] = b"###\n";
const NETSTRING_END: &[u8] = b"%%%\n";
const STRING_START: &[u8] = b">>>\n";
const STRING_END: &[u8] = b"<<<\n";

/// Stands for a line feed inside a text of the string form.
const LINE_FEED_MARK: char = '\x13';

/// Why a packet is not a message of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a packet of {0} bytes")]
    TooLong(usize),
    #[error("neither form of a message begins so")]
    NoMessage,
    #[error("malformed at byte {at}: expected {expected}")]
    Malformed { at: usize, expected: &'static str },
    #[error("more than {FIELDS_MAX} fields")]
    TooManyFields,
    #[error("the field `{0}` stands twice")]
    FieldTwice(String),
    #[error("no signature")]
    Unsigned,
    #[error("signed with key {0}, which authkeys does not have")]
    UnknownKey(u8),
    #[error("signed with key {0}, which needs no secret")]
    WeakKey(u8),
    #[error("the signature is wrong")]
    BadSignature,
}

/// Returns the packet for a message, signed.
pub fn encode(message: &Message, key: &Key, format: MessageFormat) -> Vec<u8> {
    let mut packet = NETSTRING_START.to_vec();
    for (name, value) in message.fields() {
        push_netstring_field(&mut packet, name, value);
    }
    if format == MessageFormat::Classic {
        let auth = key.sign(&string_lines(message));
        push_netstring_field(&mut packet, "auth", &Value::Text(auth));
    }
    packet.extend_from_slice(NETSTRING_END);
    let signature = key.sign(&packet);
    packet.extend_from_slice(format!("{}:{signature},", signature.len()).as_bytes());
    packet
}

/// Returns the string form, signed: what a FIFO or another tool would send.
pub fn encode_string(message: &Message, key: &Key) -> Vec<u8> {
    let lines = string_lines(message);
    let mut packet = STRING_START.to_vec();
    packet.extend_from_slice(&lines);
    packet.extend_from_slice(format!("auth={}\n", key.sign(&lines)).as_bytes());
    packet.extend_from_slice(STRING_END);
    packet.push(0);
    packet
}

/// Checks and reads a packet.
pub fn decode(packet: &[u8], keys: &AuthKeys) -> Result<Message, DecodeError> {
    if packet.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong(packet.len()));
    }
    if packet.starts_with(NETSTRING_START) {
        decode_netstring(packet, keys)
    } else if packet.starts_with(STRING_START) {
        decode_string(packet, keys)
    } else {
        Err(DecodeError::NoMessage)
    }
}

/// Reads a packet for an onlooker who has no key: what it says, not whether it is true.
pub fn peek(packet: &[u8]) -> Option<Message> {
    let mut cursor = Cursor {
        packet,
        at: NETSTRING_START.len(),
    };
    if packet.len() > MESSAGE_BYTES_MAX || !packet.starts_with(NETSTRING_START) {
        return None;
    }
    let mut message = Builder::default();
    for _ in 0..FIELDS_MAX {
        if cursor.rest().starts_with(NETSTRING_END) {
            return Some(message.message);
        }
        let at = cursor.at;
        let field = cursor.netstring().ok()?;
        message.push_netstring(at, field).ok()?;
    }
    None
}

fn push_netstring_field(packet: &mut Vec<u8>, name: &str, value: &Value) {
    let (digit, bytes) = match value {
        Value::Text(text) => ('0', text.as_bytes()),
        Value::Binary(bytes) => ('1', bytes.as_slice()),
    };
    let length = "(0)=".len() + name.len() + bytes.len();
    packet.extend_from_slice(format!("{length}:({digit}){name}=").as_bytes());
    packet.extend_from_slice(bytes);
    packet.push(b',');
}

/// Every field but `auth` as the string form writes it.
fn string_lines(message: &Message) -> Vec<u8> {
    let mut lines = String::new();
    for (name, value) in message.fields().filter(|(name, _)| *name != "auth") {
        match value {
            Value::Text(text) => {
                let text = text.replace('\n', &LINE_FEED_MARK.to_string());
                lines.extend([name, "=", &text, "\n"]);
            }
            Value::Binary(bytes) => {
                lines.extend(["(1)", name, "=", &base64_encode(bytes), "\n"]);
            }
        }
    }
    lines.into_bytes()
}

fn decode_netstring(packet: &[u8], keys: &AuthKeys) -> Result<Message, DecodeError> {
    let mut cursor = Cursor {
        packet,
        at: NETSTRING_START.len(),
    };
    let mut raw_fields: Vec<(usize, &[u8])> = Vec::new();
    while !cursor.rest().starts_with(NETSTRING_END) {
        if raw_fields.len() == FIELDS_MAX {
            return Err(DecodeError::TooManyFields);
        }
        raw_fields.push((cursor.at, cursor.netstring()?));
    }
    cursor.at += NETSTRING_END.len();
    let signed = &packet[..cursor.at];
    if cursor.rest().is_empty() {
        return Err(DecodeError::Unsigned);
    }
    let signature = cursor.netstring()?;
    if !cursor.rest().is_empty() {
        return Err(cursor.expected("the end of the packet"));
    }
    check_signature(signed, signature, keys)?;
    let mut message = Builder::default();
    for (at, field) in raw_fields {
        message.push_netstring(at, field)?;
    }
    Ok(message.message)
}

/// Walks over a packet.
struct Cursor<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.packet[self.at..]
    }

    fn expected(&self, expected: &'static str) -> DecodeError {
        DecodeError::Malformed {
            at: self.at,
            expected,
        }
    }

    /// Takes `length:content,`.
    fn netstring(&mut self) -> Result<&'a [u8], DecodeError> {
        // The longest length that fits into a message has five digits.
        const DIGITS_MAX: usize = 5;
        let rest = self.rest();
        let digits = rest
            .iter()
            .take(DIGITS_MAX + 1)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 || digits > DIGITS_MAX || rest.get(digits) != Some(&b':') {
            return Err(self.expected("a length and a colon"));
        }
        let length = rest[..digits]
            .iter()
            .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
        let content = digits + 1;
        if rest.get(content + length) != Some(&b',') {
            return Err(self.expected("a comma where the length ends"));
        }
        self.at += content + length + 1;
        Ok(&rest[content..content + length])
    }
}

fn decode_string(packet: &[u8], keys: &AuthKeys) -> Result<Message, DecodeError> {
    let packet = packet.strip_suffix(&[0]).unwrap_or(packet);
    let Some(body) = packet.strip_suffix(STRING_END) else {
        return Err(DecodeError::Malformed {
            at: packet.len(),
            expected: "`<<<` at the end",
        });
    };
    let body = body.get(STRING_START.len()..).unwrap_or_default();
    let mut signed = Vec::with_capacity(body.len());
    let mut auth = None;
    let mut raw_fields = Vec::new();
    let mut at = STRING_START.len();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if raw_fields.len() == FIELDS_MAX {
            return Err(DecodeError::TooManyFields);
        }
        if let Some(value) = line.strip_prefix(b"auth=") {
            auth = Some(value.strip_suffix(b"\n").unwrap_or(value));
        } else {
            signed.extend_from_slice(line);
            raw_fields.push((at, line.strip_suffix(b"\n").unwrap_or(line)));
        }
        at += line.len();
    }
    check_signature(&signed, auth.ok_or(DecodeError::Unsigned)?, keys)?;
    let mut message = Builder::default();
    for (at, line) in raw_fields {
        message.push_line(at, line)?;
    }
    Ok(message.message)
}

/// Believes a signature of any key of the file, except one that needs no secret while
/// own messages are signed with one: it would open the door beside the lock.
fn check_signature(signed: &[u8], signature: &[u8], keys: &AuthKeys) -> Result<(), DecodeError> {
    let signature = std::str::from_utf8(signature).map_err(|_| DecodeError::BadSignature)?;
    let (index, digest) = signature
        .trim_end_matches('\0')
        .split_once(' ')
        .ok_or(DecodeError::BadSignature)?;
    let index: u8 = index.parse().map_err(|_| DecodeError::BadSignature)?;
    let key = keys.get(index).ok_or(DecodeError::UnknownKey(index))?;
    if key.method == Method::Crc && keys.signing.method != Method::Crc {
        return Err(DecodeError::WeakKey(index));
    }
    if key.verify(signed, digest) {
        Ok(())
    } else {
        Err(DecodeError::BadSignature)
    }
}

/// Puts a message together, each name once.
#[derive(Default)]
struct Builder {
    message: Message,
}

impl Builder {
    /// Takes `(0)name=value`.
    fn push_netstring(&mut self, at: usize, field: &[u8]) -> Result<(), DecodeError> {
        let malformed = |expected| DecodeError::Malformed { at, expected };
        let [b'(', digit, b')', rest @ ..] = field else {
            return Err(malformed("a type in parentheses"));
        };
        let (name, value) = split_field(rest).ok_or_else(|| malformed("a name and `=`"))?;
        let value = match digit {
            b'0' => Value::Text(text(value).ok_or_else(|| malformed("text"))?),
            b'1' => Value::Binary(value.to_vec()),
            // Lists and structures are of the client API; no message between nodes has one.
            _ => return Err(malformed("text or bytes")),
        };
        self.push(name, value)
    }

    /// Takes `name=value` or `(1)name=base64`.
    fn push_line(&mut self, at: usize, line: &[u8]) -> Result<(), DecodeError> {
        let malformed = |expected| DecodeError::Malformed { at, expected };
        let (name, value) = split_field(line).ok_or_else(|| malformed("a name and `=`"))?;
        let value = text(value).ok_or_else(|| malformed("text"))?;
        if let Some(name) = name.strip_prefix("(1)") {
            let bytes = base64_decode(&value).ok_or_else(|| malformed("base64"))?;
            self.push(name, Value::Binary(bytes))
        } else {
            let value = value.replace(LINE_FEED_MARK, "\n");
            self.push(name, Value::Text(value))
        }
    }

    fn push(&mut self, name: &str, value: Value) -> Result<(), DecodeError> {
        if self.message.fields().any(|(known, _)| known == name) {
            return Err(DecodeError::FieldTwice(name.into()));
        }
        self.message.set(name, value);
        Ok(())
    }
}

fn split_field(field: &[u8]) -> Option<(&str, &[u8])> {
    let at = field.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(&field[..at]).ok()?;
    (!name.is_empty()).then_some((name, &field[at + 1..]))
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, at| {
            group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let letter = if place <= chunk.len() {
                BASE64[(group >> (18 - 6 * place) & 63) as usize]
            } else {
                b'='
            };
            text.push(char::from(letter));
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let letters = text.trim_end_matches('=');
    if text.len() - letters.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() * 3 / 4);
    let (mut group, mut bits) = (0u32, 0);
    for letter in letters.bytes() {
        let value = BASE64.iter().position(|known| *known == letter)?;
        group = (group << 6 | u32::try_from(value).ok()?) & 0xFFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits & 0xFF).to_le_bytes()[0]);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(index: u8) -> Key {
        let method = match index {
            1 => Method::Crc,
            2 => Method::Md5("secret".into()),
            _ => Method::Sha1("secret".into()),
        };
        Key { index, method }
    }

    fn keys(signing: u8) -> AuthKeys {
        AuthKeys {
            signing: key(signing),
            keys: vec![key(1), key(2), key(3)],
        }
    }

    /// The message of the reference's test vector.
    fn sample() -> Message {
        let uuid: Vec<u8> = (0..16).collect();
        Message::of_type("status")
            .with("st", "active")
            .with("dt", "1770")
            .with("protocol", "1")
            .with("src", "nodea")
            .with_binary("srcuuid", &uuid)
            .with("seq", "2a")
            .with("hg", "65000001")
            .with("ts", "65000123")
            .with("ld", "0.00 0.01 0.05 1/100 1234")
            .with("ttl", "3")
    }

    #[test]
    fn signatures_are_those_of_heartbeat() {
        let inner = [
            (1, "1 eb4951df"),
            (2, "2 a6c57b9a1416620c940e8f42ddb08372"),
            (3, "3 a9a49ff0996009d516842be02b407a8abe962dc6"),
        ];
        for (index, expected) in inner {
            assert_eq!(key(index).sign(&string_lines(&sample())), expected);
        }
        let trailers = [
            (1, MessageFormat::Classic, "1 fc22555d", 247),
            (1, MessageFormat::Netstring, "1 7efccc31", 225),
            (
                2,
                MessageFormat::Classic,
                "2 0a2ff31d57d1577360c26e71f8a7772e",
                295,
            ),
            (
                2,
                MessageFormat::Netstring,
                "2 722a170fd212bf9055185d48b0014d04",
                249,
            ),
            (
                3,
                MessageFormat::Classic,
                "3 8569feb693e6c6b467f51a33d6eee76b706d2260",
                311,
            ),
            (
                3,
                MessageFormat::Netstring,
                "3 2991c9b0a0cf914eb0f49e23270ac3384b28585b",
                257,
            ),
        ];
        for (index, format, trailer, length) in trailers {
            let packet = encode(&sample(), &key(index), format);
            let shown = String::from_utf8_lossy(&packet);
            assert!(shown.ends_with(&format!(":{trailer},")), "{shown}");
            assert_eq!(packet.len(), length);
        }
    }

    #[test]
    fn both_forms_are_read_back() {
        for index in 1..=3 {
            let packet = encode(&sample(), &key(index), MessageFormat::Netstring);
            assert_eq!(decode(&packet, &keys(index)), Ok(sample()));
            let packet = encode_string(&sample(), &key(index));
            assert_eq!(decode(&packet, &keys(index)), Ok(sample()));
            assert_eq!(
                decode(&packet[..packet.len() - 1], &keys(index)),
                Ok(sample())
            );
        }
    }

    #[test]
    fn a_signature_without_a_secret_does_not_open_a_cluster_with_one() {
        let packet = encode(&sample(), &key(1), MessageFormat::Netstring);
        assert_eq!(decode(&packet, &keys(3)), Err(DecodeError::WeakKey(1)));
    }

    #[test]
    fn a_key_of_another_index_is_believed_when_the_file_has_it() {
        let packet = encode(&sample(), &key(2), MessageFormat::Netstring);
        assert_eq!(decode(&packet, &keys(3)), Ok(sample()));
        let mut few = keys(3);
        few.keys.retain(|key| key.index == 3);
        assert_eq!(decode(&packet, &few), Err(DecodeError::UnknownKey(2)));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let packet = encode(&sample(), &key(3), MessageFormat::Classic);
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, &keys(3)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let packet = encode(&sample(), &key(3), MessageFormat::Classic);
        for length in 0..packet.len() {
            assert!(
                decode(&packet[..length], &keys(3)).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for fields in [
            "99999:(0)t=x,",
            "5:(0)t=xyz,",
            "-1:(0)t=x,",
            "000001:(0)t=x,",
            ":,",
        ] {
            let packet = format!("###\n{fields}%%%\n3:1 0,");
            assert!(
                matches!(
                    decode(packet.as_bytes(), &keys(1)),
                    Err(DecodeError::Malformed { .. })
                ),
                "{fields}"
            );
        }
    }

    #[test]
    fn a_thousand_fields_are_too_many() {
        let message = (0..1000).fold(Message::of_type("x"), |message, number| {
            message.with(&format!("f{number}"), "")
        });
        let packet = encode(&message, &key(1), MessageFormat::Netstring);
        assert_eq!(decode(&packet, &keys(1)), Err(DecodeError::TooManyFields));
    }

    #[test]
    fn text_with_a_line_feed_survives_the_string_form() {
        let message = Message::of_type("x").with("info", "two\nlines");
        let packet = encode_string(&message, &key(1));
        assert_eq!(decode(&packet, &keys(1)), Ok(message));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(decode(&bytes, &keys(3)).is_err());
        }

        #[test]
        fn arbitrary_bytes_after_a_right_start_do_no_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            start in prop_oneof![Just(NETSTRING_START), Just(STRING_START)],
        ) {
            let packet = [start, bytes.as_slice()].concat();
            prop_assert!(decode(&packet, &keys(3)).is_err());
        }

        /// A correct signature over nonsense: what a broken peer would send.
        #[test]
        fn signed_nonsense_does_no_harm(
            fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut packet = NETSTRING_START.to_vec();
            for field in fields {
                packet.extend_from_slice(format!("{}:", field.len()).as_bytes());
                packet.extend_from_slice(&field);
                packet.push(b',');
            }
            packet.extend_from_slice(NETSTRING_END);
            let signature = key(3).sign(&packet);
            packet.extend_from_slice(format!("{}:{signature},", signature.len()).as_bytes());
            if let Ok(message) = decode(&packet, &keys(3)) {
                prop_assert!(message.fields().count() <= FIELDS_MAX);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(
            texts in proptest::collection::btree_map("[a-z_]{1,8}", "[^\\x00\\x13]{0,30}", 0..12),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut message = Message::of_type("x").with_binary("srcuuid", &bytes);
            for (name, text) in texts.iter().filter(|(name, _)| *name != "auth" && *name != "srcuuid") {
                message = message.with(name, text.as_str());
            }
            let packet = encode(&message, &key(3), MessageFormat::Netstring);
            prop_assert_eq!(decode(&packet, &keys(3)), Ok(message.clone()));
            let packet = encode_string(&message, &key(3));
            prop_assert_eq!(decode(&packet, &keys(3)), Ok(message));
        }
    }
}
