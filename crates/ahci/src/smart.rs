//! SMART [ATA8-ACS, 7.52]: what a disk says of its health.
//!
//! The layout of attributes was never standardised; all disks use the one here.

use core::time::Duration;

use dfly_hal::Wait;
use dfly_hal::regs::Window;

use crate::spec::{Feature, Taskfile, Transport};
use crate::{Ahci, AhciHal, PassError, PassThrough};

/// A disk answers in this long, unless it spins up.
const LIMIT: Duration = Duration::from_secs(15);
/// Bytes of a page.
const PAGE: usize = 512;
/// Bytes of an attribute, and how many there is room for.
const ENTRY: usize = 12;
const ENTRIES: usize = 30;
/// What RETURN STATUS says in the LBA's middle bytes.
const GOOD: u64 = 0xc24f;
const FAILING: u64 = 0x2cf4;

/// What a disk thinks of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// No threshold was passed.
    Good,
    /// A threshold was passed: it will fail soon.
    Failing,
    /// It does not say.
    Unknown,
}

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Which: 9 power-on hours, 194 temperature, ...
    pub id: u8,
    /// Bit 0: the disk fails soon if the threshold is passed.
    pub flags: u16,
    /// From 253 down to 1: smaller is worse.
    pub value: u8,
    /// The worst value so far.
    pub worst: u8,
    /// The disk's own count.
    pub raw: u64,
    /// The value is too small from here on; 0: it never is.
    pub threshold: u8,
}

/// Health and attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smart {
    /// What it thinks of itself.
    pub health: Health,
    data: [u8; PAGE],
    thresholds: [u8; PAGE],
}

impl Smart {
    /// From the pages of SMART READ DATA and SMART READ THRESHOLDS; one with a wrong checksum counts as empty.
    pub fn new(health: Health, data: &[u8; PAGE], thresholds: &[u8; PAGE]) -> Self {
        let whole = |page: &[u8; PAGE]| {
            let sum = page.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
            if sum == 0 { *page } else { [0; PAGE] }
        };
        Self { health, data: whole(data), thresholds: whole(thresholds) }
    }

    /// The attributes, in the disk's order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute> {
        let entries = |page: &'_ [u8; PAGE]| {
            let page = *page;
            (0..ENTRIES).filter_map(move |index| {
                let at = 2 + index * ENTRY;
                page.get(at..at + ENTRY).and_then(|entry| <[u8; ENTRY]>::try_from(entry).ok())
            })
        };
        let thresholds = self.thresholds;
        entries(&self.data).filter(|entry| entry[0] != 0).map(move |entry| {
            let [id, f0, f1, value, worst, r0, r1, r2, r3, r4, r5, _] = entry;
            let threshold = entries(&thresholds).find(|limit| limit[0] == id).map_or(0, |limit| limit[1]);
            Attribute {
                id,
                flags: u16::from_le_bytes([f0, f1]),
                value,
                worst,
                raw: u64::from_le_bytes([r0, r1, r2, r3, r4, r5, 0, 0]),
                threshold,
            }
        })
    }
}

impl<H: AhciHal + Clone, W: Window> Ahci<H, W> {
    /// What the disk at port `number` says of its health. May block, for some seconds; allocates.
    ///
    /// # Errors
    /// See [`PassError`]; a disk without SMART refuses.
    pub fn smart(&self, number: u8, w: &mut dyn Wait) -> Result<Smart, PassError> {
        let command = |what, transport| PassThrough {
            taskfile: Taskfile::smart(what, u16::from(transport == Transport::In)),
            cdb: None,
            transport,
            timeout: LIMIT,
        };
        let status = command(Feature::SMART_RETURN_STATUS, Transport::None);
        let health = match self.pass_through(number, status, &mut [], w)?.lba >> 8 & 0xffff {
            GOOD => Health::Good,
            FAILING => Health::Failing,
            _ => Health::Unknown,
        };
        let (mut data, mut thresholds) = ([0; PAGE], [0; PAGE]);
        self.pass_through(number, command(Feature::SMART_READ_DATA, Transport::In), &mut data, w)?;
        let limits = command(Feature::SMART_READ_THRESHOLDS, Transport::In);
        match self.pass_through(number, limits, &mut thresholds, w) {
            // It is obsolete, and some do not know it.
            Ok(_) | Err(PassError::Failed(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(Smart::new(health, &data, &thresholds))
    }
}
