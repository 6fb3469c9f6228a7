//! Signatures of messages: crc, md5, sha1.
//!
//! On the wire a signature is the key's index, a blank, and the digest in lower-case
//! hexadecimal. `md5` and `sha1` are HMACs with the key's ASCII bytes; `crc` has no key,
//! finds damage only, and is written without leading zeros.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::{Digest as _, Sha1};

/// One line of authkeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub index: u8,
    pub method: Method,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Crc,
    Md5(Secret),
    Sha1(Secret),
}

impl Method {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crc => "crc",
            Self::Md5(_) => "md5",
            Self::Sha1(_) => "sha1",
        }
    }
}

/// A key's word; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

impl Key {
    /// Signs: `2 a6c57b9a…`.
    pub fn sign(&self, text: &[u8]) -> String {
        format!("{} {}", self.index, self.digest(text))
    }

    /// Whether a digest is this key's for a text. Takes the same time for every wrong
    /// digest of an HMAC.
    pub fn verify(&self, text: &[u8], digest: &str) -> bool {
        match &self.method {
            Method::Crc => u32::from_str_radix(digest, 16) == Ok(crc(text)),
            Method::Md5(secret) => from_hex(digest)
                .is_some_and(|digest| md5(secret, text).verify_slice(&digest).is_ok()),
            Method::Sha1(secret) => from_hex(digest)
                .is_some_and(|digest| sha1(secret, text).verify_slice(&digest).is_ok()),
        }
    }

    fn digest(&self, text: &[u8]) -> String {
        match &self.method {
            Method::Crc => format!("{:x}", crc(text)),
            Method::Md5(secret) => hex(&md5(secret, text).finalize().into_bytes()),
            Method::Sha1(secret) => hex(&sha1(secret, text).finalize().into_bytes()),
        }
    }
}

fn md5(secret: &Secret, text: &[u8]) -> Hmac<Md5> {
    let mut mac = Hmac::new_from_slice(secret.0.as_bytes()).expect("an HMAC's key has any length");
    mac.update(text);
    mac
}

fn sha1(secret: &Secret, text: &[u8]) -> Hmac<Sha1> {
    let mut mac = Hmac::new_from_slice(secret.0.as_bytes()).expect("an HMAC's key has any length");
    mac.update(text);
    mac
}

/// Returns a text's SHA-1 in hexadecimal, with no key.
pub fn digest_of(text: &[u8]) -> String {
    hex(&Sha1::digest(text))
}

/// CRC-32 with the usual polynomial, most significant bit first, from zero, inverted at
/// the end: POSIX `cksum` without the length.
fn crc(text: &[u8]) -> u32 {
    !text.iter().fold(0, |sum: u32, byte| {
        let [top, ..] = sum.to_be_bytes();
        (sum << 8) ^ CRC_OF_BYTE[usize::from(top ^ byte)]
    })
}

const CRC_OF_BYTE: [u32; 256] = crc_of_byte();

const fn crc_of_byte() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x04C1_1DB7;
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut sum = byte << 24;
        let mut bit = 0;
        while bit < 8 {
            let shifted = sum << 1;
            sum = if sum & 0x8000_0000 == 0 {
                shifted
            } else {
                shifted ^ POLYNOMIAL
            };
            bit += 1;
        }
        table[byte as usize] = sum;
        byte += 1;
    }
    table
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_heartbeats() {
        assert_eq!(crc(b"123456789"), 0x765e_7680);
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else() {
        for method in [
            Method::Crc,
            Method::Md5("secret".into()),
            Method::Sha1("secret".into()),
        ] {
            let key = Key { index: 2, method };
            let signed = key.sign(b"text");
            let digest = signed.strip_prefix("2 ").expect("the index comes first");
            assert!(key.verify(b"text", digest));
            assert!(!key.verify(b"texT", digest));
            assert!(!key.verify(b"text", &digest[1..]));
            assert!(!key.verify(b"text", ""));
            assert!(!key.verify(b"text", "é0"));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Method::Sha1("s3".into())), "Sha1((secret))");
    }
}
