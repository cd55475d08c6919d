//! What IDENTIFY DEVICE and IDENTIFY PACKET DEVICE say [ACS-3, 7.12, 7.13].

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The 256 words.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Identify {
    /// As they come.
    pub words: [U16; 256],
}

/// The size of logical sectors [word 106, 117, 118, 209].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalSector {
    /// Bytes of a logical sector.
    pub bytes: u64,
    /// A physical one has 2^this of them.
    pub per_physical_shift: u8,
}

/// What makes no sense in what a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// The checksum is there and wrong [word 255].
    #[error("the checksum is wrong")]
    Checksum,
    /// It cannot do LBA [word 49].
    #[error("it has no LBA")]
    NoLba,
    /// It cannot do DMA [word 49].
    #[error("it has no DMA")]
    NoDma,
    /// It has no sectors.
    #[error("it has no sectors")]
    Empty,
    /// Its sectors are not of 512 to 65536 bytes, a power of two.
    #[error("sectors of {bytes} bytes are not supported")]
    SectorSize {
        /// What it says.
        bytes: u64,
    },
    /// It claims more bytes than can be counted.
    #[error("{sectors} sectors are more than can be")]
    Size {
        /// What it says.
        sectors: u64,
    },
}

impl Identify {
    /// Word `index`; zero beyond the end.
    pub fn word(&self, index: usize) -> u16 {
        self.words.get(index).map_or(0, |word| word.get())
    }

    fn bit(&self, index: usize, bit: u16) -> bool {
        self.word(index) >> bit & 1 != 0
    }

    fn number<const N: usize>(&self, first: usize) -> u64 {
        (0..N).rev().fold(0, |sum, i| sum << 16 | u64::from(self.word(first + i)))
    }

    /// Whether words like 83 and 84 mean anything: their top bits are 01.
    fn is_valid(&self, index: usize) -> bool {
        self.word(index) >> 14 == 1
    }

    fn supports(&self, index: usize, bit: u16) -> bool {
        self.is_valid(index) && self.bit(index, bit)
    }

    /// The text in words `first` on: two characters a word, the first in the high byte.
    pub fn text<const BYTES: usize>(&self, first: usize) -> [u8; BYTES] {
        core::array::from_fn(|i| {
            let [high, low] = self.word(first + i / 2).to_be_bytes();
            if i % 2 == 0 { high } else { low }
        })
    }

    /// Serial number [words 10 to 19].
    pub fn serial(&self) -> [u8; 20] {
        self.text(10)
    }

    /// Firmware revision [words 23 to 26].
    pub fn firmware(&self) -> [u8; 8] {
        self.text(23)
    }

    /// Model [words 27 to 46].
    pub fn model(&self) -> [u8; 40] {
        self.text(27)
    }

    /// World wide name [words 108 to 111], if it has one.
    pub fn wwn(&self) -> Option<u64> {
        self.supports(84, 8).then(|| (108..112).fold(0, |sum, i| sum << 16 | u64::from(self.word(i))))
    }

    /// Whether 48-bit commands are there [word 83].
    pub fn has_lba48(&self) -> bool {
        self.supports(83, 10)
    }

    /// Whether FLUSH CACHE EXT is there [word 83].
    pub fn has_flush_ext(&self) -> bool {
        self.supports(83, 13)
    }

    /// Whether FLUSH CACHE is there [word 83].
    pub fn has_flush(&self) -> bool {
        self.supports(83, 12)
    }

    /// Whether the write cache is on [word 85].
    pub fn write_cache_is_on(&self) -> bool {
        self.bit(85, 5)
    }

    /// Whether WRITE DMA FUA EXT is there [word 84].
    pub fn has_fua(&self) -> bool {
        self.supports(84, 6)
    }

    /// Whether logs can be read [word 84].
    pub fn has_logs(&self) -> bool {
        self.supports(84, 5)
    }

    /// Whether SMART is there and on [words 82, 85].
    pub fn has_smart(&self) -> bool {
        self.bit(82, 0) && self.bit(85, 0)
    }

    /// The most queued commands, if there is queueing [words 75, 76].
    pub fn queue_depth(&self) -> Option<u8> {
        let sata = self.word(76);
        (sata != 0 && sata != u16::MAX && sata >> 8 & 1 != 0).then(|| (self.word(75) & 0x1f) as u8 + 1)
    }

    /// Whether the device can lower the link's power by itself [word 78].
    pub fn has_device_initiated_power(&self) -> bool {
        let sata = self.word(76);
        sata != 0 && sata != u16::MAX && self.bit(78, 3)
    }

    /// Whether TRIM is there [word 169].
    pub fn has_trim(&self) -> bool {
        self.bit(169, 0)
    }

    /// The most 512-byte blocks of ranges of a TRIM [word 105]; 0 is said by devices that take one.
    pub fn trim_blocks(&self) -> u16 {
        self.word(105).max(1)
    }

    /// Whether it does not rotate [word 217].
    pub fn is_solid_state(&self) -> bool {
        self.word(217) == 1
    }

    /// Whether packets have 16 bytes and not 12 [word 0, packet devices].
    pub fn has_long_packets(&self) -> bool {
        self.word(0) & 3 == 1
    }

    /// How large sectors are [words 106, 117, 118].
    pub fn logical_sector(&self) -> LogicalSector {
        let valid = self.is_valid(106);
        let words = if valid && self.bit(106, 12) { self.number::<2>(117) } else { 256 };
        let shift = if valid && self.bit(106, 13) { self.word(106) & 0xf } else { 0 };
        LogicalSector { bytes: words * 2, per_physical_shift: shift as u8 }
    }

    /// How many sectors there are [words 60, 61, 100 to 103].
    pub fn sectors(&self) -> u64 {
        if self.has_lba48() {
            self.number::<4>(100) & 0xffff_ffff_ffff
        } else {
            self.number::<2>(60) & 0xfff_ffff
        }
    }

    /// The number of blocks and the logarithm of their size, if a disk can be made of it.
    ///
    /// # Errors
    /// See [`IdentifyError`].
    pub fn geometry(&self) -> Result<(u64, u8), IdentifyError> {
        self.check_sum()?;
        if !self.bit(49, 9) {
            return Err(IdentifyError::NoLba);
        }
        if !self.bit(49, 8) {
            return Err(IdentifyError::NoDma);
        }
        let bytes = self.logical_sector().bytes;
        if !bytes.is_power_of_two() || !(512..=65536).contains(&bytes) {
            return Err(IdentifyError::SectorSize { bytes });
        }
        let (sectors, shift) = (self.sectors(), bytes.trailing_zeros() as u8);
        if sectors == 0 {
            return Err(IdentifyError::Empty);
        }
        if sectors.checked_mul(bytes).is_none_or(|all| all > i64::MAX as u64) {
            return Err(IdentifyError::Size { sectors });
        }
        Ok((sectors, shift))
    }

    /// Whether the checksum is right, if there is one [word 255].
    ///
    /// # Errors
    /// [`IdentifyError::Checksum`].
    pub fn check_sum(&self) -> Result<(), IdentifyError> {
        let sum = self.words.as_bytes().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        if self.word(255) & 0xff == 0xa5 && sum != 0 { Err(IdentifyError::Checksum) } else { Ok(()) }
    }
}

/// `text` without the blanks and zeroes around it.
pub fn text_of(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn disk() -> Identify {
        let mut id = Identify::new_zeroed();
        id.words[49] = U16::new(0x300);
        id.words[60] = U16::new(1000);
        id
    }

    #[test]
    fn text_has_its_bytes_swapped_and_blanks_around_it() {
        let mut id = disk();
        id.words[10] = U16::from_bytes(*b" S");
        id.words[11] = U16::from_bytes(*b"1 ");
        assert_eq!(text_of(&id.serial()), b"S  1");
        assert_eq!(text_of(b"  \0"), b"");
    }

    #[test]
    fn sectors_of_512_512e_and_4096() {
        let mut id = disk();
        assert_eq!(id.geometry(), Ok((1000, 9)));
        id.words[106] = U16::new(0x6003);
        assert_eq!(id.logical_sector(), LogicalSector { bytes: 512, per_physical_shift: 3 });
        id.words[106] = U16::new(0x5000);
        id.words[117] = U16::new(2048);
        assert_eq!(id.geometry(), Ok((1000, 12)));
        id.words[117] = U16::new(2047);
        assert_eq!(id.geometry(), Err(IdentifyError::SectorSize { bytes: 4094 }));
        // The word says nothing unless its top bits are 01.
        id.words[106] = U16::new(0xd000);
        assert_eq!(id.geometry(), Ok((1000, 9)));
    }

    #[test]
    fn a_wrong_checksum_is_no_disk_and_none_is_one() {
        let mut id = disk();
        id.words[255] = U16::new(0x00a5);
        assert_eq!(id.geometry(), Err(IdentifyError::Checksum));
        let sum = id.words.as_bytes().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        id.words[255] = U16::new(u16::from(sum.wrapping_neg()) << 8 | 0xa5);
        assert_eq!(id.geometry(), Ok((1000, 9)));
    }
}
