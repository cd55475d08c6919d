//! The key of a directory entry: a hash of its name, and room to count collisions.

use core::ops::RangeInclusive;

use crate::crc;
use crate::ondisk::record::{CAP_HASH_ALG0, CAP_HASH_ALG1, CAP_HASH_MASK};

/// How a directory hashes names. A directory keeps the algorithm that it was born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameHash {
    /// Before version 6: one checksum in the upper half, collisions counted in the lower.
    Alg0,
    /// From version 6 on: checksums of the name's words summed up, so that similar names lie close together.
    Alg1,
}

impl NameHash {
    /// The algorithm that a directory's `cap_flags` name, if it is known.
    pub fn from_cap_flags(cap_flags: u8) -> Option<Self> {
        match cap_flags & CAP_HASH_MASK {
            CAP_HASH_ALG0 => Some(Self::Alg0),
            CAP_HASH_ALG1 => Some(Self::Alg1),
            _ => None,
        }
    }

    /// The smallest key under which an entry for `name` can stand. Never negative.
    pub fn key(self, name: &[u8]) -> i64 {
        const FIRST: i64 = 1 << 32;
        let (high, low) = match self {
            Self::Alg0 => (crc::iso(name), 0),
            Self::Alg1 => {
                let words = name.split(|b| b".-_~".contains(b)).filter(|word| !word.is_empty());
                let whole = crc::iso(name);
                (
                    words.fold(0, |sum: u32, word| sum.wrapping_add(crc::iso(word))),
                    (whole ^ (whole << 16)) & 0xffff_0000,
                )
            }
        };
        let key = (i64::from(high & 0x7fff_ffff) << 32) | i64::from(low);
        if key < FIRST { key | FIRST } else { key }
    }

    /// All keys under which an entry for `name` can stand: names whose hashes collide take the next free one.
    pub fn keys(self, name: &[u8]) -> RangeInclusive<i64> {
        let max_iterations = match self {
            Self::Alg0 => 0xffff_ffff,
            Self::Alg1 => 0x00ff_ffff,
        };
        let key = self.key(name);
        key..=key.saturating_add(max_iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fact sheet 9.4.
    #[test]
    fn hashes_of_the_fact_sheet() {
        for (name, key) in [("foo", 0x0C73652100000000), ("foo.txt", 0x3451A5E800000000)] {
            assert_eq!(NameHash::Alg0.key(name.as_bytes()), key, "{name}");
        }
        for (name, key) in [
            ("a", 0x68b7be4356f40000),
            ("foo", 0x0c736521e9520000),
            ("foo.txt", 0x28aac46691b90000),
            ("foo.c", 0x132d449008540000),
            ("foo.c.tmp", 0x401cc1d8ba250000),
            ("a-b_c~d", 0x7a0dd877fbaf0000),
            ("...", 0x00000001ac580000),
            ("README.md", 0x5322e3c961450000),
            ("Makefile", 0x6441a1acc5ed0000),
            ("a b", 0x006c5cd3dcbf0000),
            ("123456789", 0x4bf43926f2d20000),
            // 15.4: three names and one key.
            ("a.b.c.d.h.g.e.f", 0x73faa10eaa920000),
            ("b.c.a.g.h.f.e.d", 0x73faa10eaa920000),
            ("b.h.c.g.f.e.a.d", 0x73faa10eaa920000),
            ("b.f.d.e.c.a", 0x60bb7eb1fd4a0000),
        ] {
            assert_eq!(NameHash::Alg1.key(name.as_bytes()), key, "{name}");
        }
    }

    #[test]
    fn keys_are_positive_and_leave_the_cookies_of_dot_and_dotdot_alone() {
        for name in [&b""[..], b".", b"....", &[0xff; 255]] {
            for hash in [NameHash::Alg0, NameHash::Alg1] {
                assert!(*hash.keys(name).start() >= 1 << 32);
                assert!(hash.keys(name).end() >= hash.keys(name).start());
            }
        }
    }
}
