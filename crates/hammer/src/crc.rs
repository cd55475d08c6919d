//! The two checksums of the disk: CRC-32 up to version 6, CRC-32C from version 7 on.
//!
//! Under `std` vectorised libraries do the work; on bare targets a table of 16 KiB (16 bytes a step). The hash of
//! file names is always the plain CRC-32, whatever the version.

use crate::ondisk::VERSION_CRC32C;

/// Which polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// CRC-32 of ISO-HDLC (IEEE 802.3), polynomial 0xEDB88320 reflected.
    Iso,
    /// CRC-32C of iSCSI (Castagnoli), polynomial 0x82F63B78 reflected.
    Iscsi,
}

impl Flavor {
    /// The checksum of `data`.
    pub fn of(self, data: &[u8]) -> u32 {
        match self {
            Self::Iso => iso(data),
            Self::Iscsi => iscsi(data),
        }
    }
}

/// CRC-32 (ISO-HDLC) of `data`.
pub fn iso(data: &[u8]) -> u32 {
    engine::iso(data)
}

/// CRC-32C (iSCSI) of `data`.
pub fn iscsi(data: &[u8]) -> u32 {
    engine::iscsi(data)
}

/// The checksums that a volume's version allows. A reader of version 7 takes either, for each structure, because an
/// upgraded file system holds both; before version 7 only CRC-32 is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    newest: Flavor,
}

impl Checksum {
    /// The rule of file-system version `version`.
    pub fn of_version(version: u32) -> Self {
        Self { newest: if version >= VERSION_CRC32C { Flavor::Iscsi } else { Flavor::Iso } }
    }

    /// What a writer of this version uses, and a reader tries first.
    pub fn newest(self) -> Flavor {
        self.newest
    }

    /// The flavor under which `sum` gives `stored`, if there is one.
    pub fn matching(self, stored: u32, mut sum: impl FnMut(Flavor) -> u32) -> Option<Flavor> {
        if sum(self.newest) == stored {
            return Some(self.newest);
        }
        (self.newest != Flavor::Iso && sum(Flavor::Iso) == stored).then_some(Flavor::Iso)
    }

    /// The flavor under which `data` sums to `stored`, if there is one.
    pub fn check(self, stored: u32, data: &[u8]) -> Option<Flavor> {
        self.matching(stored, |f| f.of(data))
    }
}

/// A checksum over bytes that do not lie in one piece.
pub struct Digest(engine::Digest);

impl Digest {
    /// Nothing summed yet.
    pub fn new(flavor: Flavor) -> Self {
        Self(engine::Digest::new(flavor))
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The checksum of all that was added.
    pub fn finish(self) -> u32 {
        self.0.finish()
    }
}

#[cfg(feature = "std")]
mod engine {
    use super::Flavor;
    use crc_fast::{CrcAlgorithm, crc32_iscsi};

    // Each polynomial by the library that is fastest at it.

    pub(super) fn iso(data: &[u8]) -> u32 {
        crc32fast::hash(data)
    }

    pub(super) fn iscsi(data: &[u8]) -> u32 {
        crc32_iscsi(data)
    }

    #[expect(clippy::large_enum_variant, reason = "lives on the stack, for one record")]
    pub(super) enum Digest {
        Iso(crc32fast::Hasher),
        Iscsi(crc_fast::Digest),
    }

    impl Digest {
        pub(super) fn new(flavor: Flavor) -> Self {
            match flavor {
                Flavor::Iso => Self::Iso(crc32fast::Hasher::new()),
                Flavor::Iscsi => Self::Iscsi(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            }
        }

        pub(super) fn update(&mut self, data: &[u8]) {
            match self {
                Self::Iso(d) => d.update(data),
                Self::Iscsi(d) => d.update(data),
            }
        }

        pub(super) fn finish(self) -> u32 {
            match self {
                Self::Iso(d) => d.finalize(),
                // A 32-bit algorithm answers in the low half.
                Self::Iscsi(d) => d.finalize() as u32,
            }
        }
    }
}

#[cfg(not(feature = "std"))]
mod engine {
    use super::Flavor;
    use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc, Table};

    static ISO: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
    static ISCSI: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

    pub(super) fn iso(data: &[u8]) -> u32 {
        ISO.checksum(data)
    }

    pub(super) fn iscsi(data: &[u8]) -> u32 {
        ISCSI.checksum(data)
    }

    pub(super) struct Digest(crc::Digest<'static, u32, Table<16>>);

    impl Digest {
        pub(super) fn new(flavor: Flavor) -> Self {
            Self(match flavor {
                Flavor::Iso => ISO.digest(),
                Flavor::Iscsi => ISCSI.digest(),
            })
        }

        pub(super) fn update(&mut self, data: &[u8]) {
            self.0.update(data);
        }

        pub(super) fn finish(self) -> u32 {
            self.0.finalize()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ondisk::freemap::{Layer1, Layer2};
    use zerocopy::IntoBytes;

    #[test]
    fn check_values_of_both_polynomials() {
        assert_eq!(iso(b"123456789"), 0xcbf4_3926);
        assert_eq!(iscsi(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_digest_in_pieces_equals_the_whole() {
        let data: [u8; 1000] = core::array::from_fn(|i| (i * 7) as u8);
        for flavor in [Flavor::Iso, Flavor::Iscsi] {
            let mut d = Digest::new(flavor);
            for piece in data.chunks(77) {
                d.update(piece);
            }
            assert_eq!(d.finish(), flavor.of(&data));
        }
    }

    /// Fact sheet 9.3: entries of real images.
    #[test]
    fn freemap_entries_of_real_images() {
        let vectors = [
            (4, 8388608, 0, 0xf2af524b, 0x6663e9c8),
            (3, 8388608, 0, 0x64fa7edb, 0x12fb0047),
            (0, 0, 8388608, 0xd0a34fa4, 0x40565e24),
            (15, 8388608, 0, 0x2f5ff96a, 0x17f14dc6),
            (8, 4096, 8384512, 0xbcdd37f4, 0x07643ab6),
            (9, 432, 8388176, 0x6fa1e9eb, 0x4a0d15ac),
        ];
        for (zone, append, free, v7, v6) in vectors {
            let entry = Layer2 {
                zone,
                reserved01: 0,
                reserved02: 0.into(),
                append_off: append.into(),
                bytes_free: free.into(),
                entry_crc: 0.into(),
            };
            let bytes = &entry.as_bytes()[..Layer2::CRC_LEN];
            assert_eq!((iscsi(bytes), iso(bytes)), (v7, v6), "zone {zone}");
        }
        let unavailable = Layer1 {
            blocks_free: 0.into(),
            phys_offset: u64::MAX.into(),
            reserved01: 0.into(),
            layer2_crc: 0.into(),
            layer1_crc: 0.into(),
        };
        let bytes = &unavailable.as_bytes()[..Layer1::CRC_LEN];
        assert_eq!((iscsi(bytes), iso(bytes)), (0x097c0bbd, 0x631ea731));
    }

    #[test]
    fn version_7_takes_either_flavor_and_version_6_only_the_old_one() {
        let (v6, v7) = (Checksum::of_version(6), Checksum::of_version(7));
        assert_eq!(v7.check(iscsi(b"x"), b"x"), Some(Flavor::Iscsi));
        assert_eq!(v7.check(iso(b"x"), b"x"), Some(Flavor::Iso));
        assert_eq!(v6.check(iso(b"x"), b"x"), Some(Flavor::Iso));
        assert_eq!(v6.check(iscsi(b"x"), b"x"), None);
    }
}
