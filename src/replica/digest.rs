//! Digests by the names the kernel has for them: of data, and keyed for the authentication.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Digest as _;

/// A digest the peer's kernel knows, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Crc32c,
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    const NAMES: [(&'static str, Self); 5] = [
        ("crc32c", Self::Crc32c),
        ("md5", Self::Md5),
        ("sha1", Self::Sha1),
        ("sha256", Self::Sha256),
        ("sha512", Self::Sha512),
    ];

    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, algorithm)| *algorithm)
    }

    /// Names that are known, for messages.
    pub fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    /// Bytes of a digest.
    pub fn bytes(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    pub fn of(self, data: &[u8]) -> Vec<u8> {
        match self {
            // The kernel stores this one in the order of the machine it grew up on.
            Self::Crc32c => crc32c::crc32c(data).to_le_bytes().to_vec(),
            Self::Md5 => md5::Md5::digest(data).to_vec(),
            Self::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(data).to_vec(),
        }
    }

    /// The keyed digest; none for an algorithm that has no keyed form.
    pub fn keyed(self, key: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("any key length will do");
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Self::Crc32c => None,
            Self::Md5 => Some(mac::<Hmac<md5::Md5>>(key, message)),
            Self::Sha1 => Some(mac::<Hmac<sha1::Sha1>>(key, message)),
            Self::Sha256 => Some(mac::<Hmac<sha2::Sha256>>(key, message)),
            Self::Sha512 => Some(mac::<Hmac<sha2::Sha512>>(key, message)),
        }
    }
}

/// Compares without telling by its duration where the difference is.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_the_length_they_are_said_to_have() {
        for (name, algorithm) in Algorithm::NAMES {
            assert_eq!(algorithm.of(b"abc").len(), algorithm.bytes(), "{name}");
        }
    }

    fn number(bytes: &[u8]) -> u128 {
        u128::from_be_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn the_check_values_of_the_standards() {
        assert_eq!(
            Algorithm::Crc32c.of(b"123456789"),
            0xe306_9283_u32.to_le_bytes()
        );
        assert_eq!(
            number(&Algorithm::Sha1.of(b"abc")[..16]),
            0xa999_3e36_4706_816a_ba3e_2571_7850_c26c
        );
        // RFC 2202, test case 2.
        let keyed = Algorithm::Sha1.keyed(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(
            number(&keyed.unwrap()[..16]),
            0xeffc_df6a_e5eb_2fa2_d274_16d5_f184_df9c
        );
    }
}
