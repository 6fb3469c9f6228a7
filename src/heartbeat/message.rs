//! A message: named fields in order.
//!
//! | `t` | fields of its own | says |
//! |---|---|---|
//! | `status` | `st dt protocol` | I am here; every keepalive |
//! | `reqnodes`, `repnodes` | `dest`; `dest nodelist delnodelist` | which nodes do you know; these |
//! | `NS_ackmsg` | `dest ackseq` | I have all up to here |
//! | `NS_rexmit`, `NS_nak_rexmit` | `dest firstseq lastseq`; `firstseq dest info` | send again; cannot |
//! | `starting`, `resource` | –; `rsc_hold rtype isstable info` | I came up; I hold this |
//! | `ask_resources`, `hb_takeover` | `rsc_hold info`; `rsc_hold` | stand-by |
//! | `ip-request`, `ip-request-resp` | `ipaddr`; `dest ipaddr weown ok` | the legacy protocol |
//! | `shutdone` | `st` | I have given everything up |
//! | `stonith` | `node result` | what became of fencing |
//!
//! Every message also carries src, srcuuid, hg (generation), ts (unix seconds), ttl, and,
//! unless its type begins with `NS_`, seq and ld. Numbers are hexadecimal except ttl,
//! protocol, and those of `NS_rexmit`.

use std::fmt;

/// A field's value. Only these two types occur between nodes of a haresources cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Binary(Vec<u8>),
}

/// Fields in the order they are sent in. A name may stand once only; setting it again
/// replaces the value in place, as heartbeat does.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    fields: Vec<(String, Value)>,
}

impl Message {
    /// Begins a message of a type.
    pub fn of_type(kind: &str) -> Self {
        Self::default().with("t", kind)
    }

    #[must_use]
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.set(name, Value::Text(text.into()));
        self
    }

    #[must_use]
    pub fn with_hex(self, name: &str, number: u64) -> Self {
        self.with(name, format!("{number:x}"))
    }

    #[must_use]
    pub fn with_binary(mut self, name: &str, bytes: &[u8]) -> Self {
        self.set(name, Value::Binary(bytes.to_vec()));
        self
    }

    pub fn set(&mut self, name: &str, value: Value) {
        match self.fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the text of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields().find_map(|(known, value)| match value {
            Value::Text(text) if known == name => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn binary(&self, name: &str) -> Option<&[u8]> {
        self.fields().find_map(|(known, value)| match value {
            Value::Binary(bytes) if known == name => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub fn hex(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.get(name)?, 16).ok()
    }

    pub fn decimal(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Returns the type; empty when there is none.
    pub fn kind(&self) -> &str {
        self.get("t").unwrap_or("")
    }

    /// Whether the message stands outside the sequence: `NS_…`.
    pub fn is_unsequenced(&self) -> bool {
        self.kind().starts_with("NS_")
    }
}

/// One line: `resource src=nodea rsc_hold=local …`, without signatures and UUIDs.
impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())?;
        for (name, value) in self.fields() {
            if let (Value::Text(text), false) = (value, matches!(name, "t" | "auth")) {
                write!(formatter, " {name}={text}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_set_again_keeps_its_place() {
        let mut message = Message::of_type("status")
            .with("st", "up")
            .with_hex("dt", 6000);
        message.set("st", Value::Text("active".into()));
        assert_eq!(message.to_string(), "status st=active dt=1770");
    }

    #[test]
    fn numbers_are_read_in_their_base() {
        let message = Message::of_type("NS_rexmit").with("firstseq", "10");
        assert_eq!(message.decimal("firstseq"), Some(10));
        assert_eq!(message.hex("firstseq"), Some(16));
        assert_eq!(message.hex("t"), None);
        assert!(message.is_unsequenced());
    }
}
