//! The device behind a port: an ATA disk, or an ATAPI reader of discs; what it does with a command.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use dfly_bio::{Access, Failure};
use dfly_hal::dma::DevAddr;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Counts, DeviceMemory, Medium};
use crate::spec::{
    AtaError, AtaStatus, Capacity, Cdb, Command, D2h, Feature, Identify, QueuedError, RangeEntry, Registers,
    Sense, SenseKey, Signature, Taskfile,
};

/// Bytes that go between a medium and memory at once.
const BUFFER: usize = 64 << 10;
/// Blocks of a disc.
const DISC_SHIFT: u8 = 11;

/// Whether a disk takes queued commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// It does not.
    None,
    /// So many, 1 to 32.
    Depth(u8),
}

/// A device. What no real one has is allowed: a driver must cope with it.
pub struct Drive {
    /// Its bytes; a last partial block is out of reach.
    pub medium: Box<dyn Medium>,
    /// Serial number, padded with blanks.
    pub serial: [u8; 20],
    /// A block has 2^this bytes.
    pub block_shift: u8,
    /// A physical block has 2^this blocks.
    pub physical_shift: u8,
    /// Queued commands.
    pub queueing: Queueing,
    /// 48-bit commands.
    pub lba48: bool,
    /// WRITE DMA FUA EXT.
    pub fua: bool,
    /// TRIM.
    pub trim: bool,
    /// READ LOG EXT.
    pub logs: bool,
    /// The write cache is on.
    pub write_cache: bool,
    /// It may lower the link's power by itself.
    pub device_initiated_power: bool,
    /// It is a reader of discs.
    is_packet: bool,
    /// Words of IDENTIFY that are wrong.
    pub(super) lies: Vec<(u8, u16)>,
    /// Why the packet before failed.
    sense: Sense,
    /// What READ LOG EXT of page 10h says; while it is there, nothing else is done.
    pub(super) queue_error: Option<QueuedError>,
    buffer: Box<[u8]>,
}

/// A command as it arrived.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) registers: Registers,
    pub(super) cdb: [u8; 16],
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) status: u8,
    pub(super) error: u8,
    pub(super) lba: u64,
    pub(super) count: u16,
    pub(super) moved: u32,
}

/// A command's memory.
pub(super) struct Transfer<'a, M: DeviceMemory> {
    pub(super) memory: &'a M,
    /// What is left of it: address and length.
    pub(super) runs: &'a [(u64, usize)],
    /// Bytes of the first run that are used up.
    pub(super) used: usize,
    pub(super) moved: u64,
    /// A byte is to be wrong.
    pub(super) corrupt: bool,
}

/// Why data did not get through.
pub(super) enum NoData {
    /// The memory is not there.
    Bus,
    /// It is not enough.
    Short,
}

impl<M: DeviceMemory> Transfer<'_, M> {
    fn each(
        &mut self,
        len: usize,
        mut f: impl FnMut(&M, DevAddr, Range<usize>) -> bool,
    ) -> Result<(), NoData> {
        let mut done = 0;
        while done < len {
            let Some(&(start, run)) = self.runs.first() else { return Err(NoData::Short) };
            let now = (run - self.used).min(len - done);
            if !f(self.memory, DevAddr(start.wrapping_add(self.used as u64)), done..done + now) {
                return Err(NoData::Bus);
            }
            (done, self.used, self.moved) = (done + now, self.used + now, self.moved + now as u64);
            if self.used == run {
                (self.runs, self.used) = (self.runs.get(1..).unwrap_or_default(), 0);
            }
        }
        Ok(())
    }

    fn give(&mut self, bytes: &mut [u8]) -> Result<(), NoData> {
        if core::mem::take(&mut self.corrupt)
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
        self.each(bytes.len(), |memory, at, range| memory.write(at, bytes.get(range).unwrap_or_default()))
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), NoData> {
        let taken = self
            .each(bytes.len(), |memory, at, range| memory.read(at, bytes.get_mut(range).unwrap_or_default()));
        if core::mem::take(&mut self.corrupt)
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
        taken
    }
}

/// Why a command failed: status and error, or the memory.
enum Refusal {
    Error(u8),
    Data(NoData),
}

impl From<NoData> for Refusal {
    fn from(no_data: NoData) -> Self {
        Self::Data(no_data)
    }
}

impl Request {
    /// The blocks that it reads or writes, if it does.
    pub(super) fn blocks(&self) -> Option<Range<u64>> {
        let Registers { features, lba, count, device } = self.registers;
        let full = |count: u16, full: u64| if count == 0 { full } else { u64::from(count) };
        let (lba, blocks) = match self.command {
            Command::READ_FPDMA_QUEUED | Command::WRITE_FPDMA_QUEUED => (lba, full(features, 65536)),
            Command::READ_DMA_EXT | Command::WRITE_DMA_EXT | Command::WRITE_DMA_FUA_EXT => {
                (lba, full(count, 65536))
            }
            Command::READ_DMA | Command::WRITE_DMA => {
                (lba & 0xff_ffff | u64::from(device & 0xf) << 24, full(count & 0xff, 256))
            }
            Command::PACKET if self.cdb[0] == Cdb::READ => {
                let [_, _, l0, l1, l2, l3, _, b0, b1, ..] = self.cdb;
                (u32::from_be_bytes([l0, l1, l2, l3]).into(), u16::from_be_bytes([b0, b1]).into())
            }
            _ => return None,
        };
        Some(lba..lba.checked_add(blocks)?)
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.command, Command::READ_FPDMA_QUEUED | Command::WRITE_FPDMA_QUEUED)
    }

    fn is_write(&self) -> bool {
        matches!(
            self.command,
            Command::WRITE_FPDMA_QUEUED
                | Command::WRITE_DMA_EXT
                | Command::WRITE_DMA_FUA_EXT
                | Command::WRITE_DMA
        )
    }

    fn is_fua(&self) -> bool {
        match self.command {
            Command::WRITE_FPDMA_QUEUED => self.registers.device & 0x80 != 0,
            command => command == Command::WRITE_DMA_FUA_EXT,
        }
    }
}

impl Drive {
    /// A disk with blocks of `block_bytes`, a power of two, over `medium`: queueing to depth 32, 48 bits, a write cache,
    /// everything else that the driver can use.
    pub fn disk(block_bytes: u32, medium: impl Medium + 'static) -> Self {
        Self {
            medium: Box::new(medium),
            serial: *b"MODEL-1             ",
            block_shift: block_bytes.trailing_zeros() as u8,
            physical_shift: 0,
            queueing: Queueing::Depth(32),
            lba48: true,
            fua: true,
            trim: true,
            logs: true,
            write_cache: true,
            device_initiated_power: true,
            is_packet: false,
            lies: Vec::new(),
            sense: Sense::default(),
            queue_error: None,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        }
    }

    /// A reader with a disc in it: `medium` in blocks of 2048 bytes.
    pub fn reader(medium: impl Medium + 'static) -> Self {
        // What was inserted is told of once.
        let sense = Sense { response: 0x70, key: SenseKey::UNIT_ATTENTION.0, asc: 0x28, ..Sense::default() };
        Self {
            block_shift: DISC_SHIFT,
            queueing: Queueing::None,
            is_packet: true,
            sense,
            ..Self::disk(512, medium)
        }
    }

    pub(super) fn signature(&self) -> Signature {
        if self.is_packet { Signature::ATAPI } else { Signature::ATA }
    }

    /// Whole blocks of it.
    fn blocks(&self) -> u64 {
        self.medium.size_bytes().checked_shr(self.block_shift.into()).unwrap_or(0)
    }

    /// What a reset makes it forget.
    pub(super) fn reset(&mut self) {
        self.queue_error = None;
        if self.is_packet {
            self.sense =
                Sense { response: 0x70, key: SenseKey::UNIT_ATTENTION.0, asc: 0x29, ..Sense::default() };
        }
    }

    /// The first FIS after a reset: the signature.
    pub(super) fn greeting(&self) -> D2h {
        let [count, l0, l1, l2] = self.signature().0.to_le_bytes();
        D2h {
            kind: crate::spec::FisType::D2H.0,
            status: AtaStatus::GOOD,
            error: 1,
            lba_low: [l0, l1, l2],
            count: [count, 0],
            ..D2h::default()
        }
    }

    pub(super) fn execute<M: DeviceMemory>(
        &mut self,
        request: &Request,
        transfer: &mut Transfer<'_, M>,
        counts: &mut Counts,
    ) -> Result<Outcome, NoData> {
        counts.commands += 1;
        counts.queued += u64::from(request.is_queued());
        counts.last_addr = transfer.runs.first().map_or(counts.last_addr, |&(at, _)| at);
        let mut outcome = Outcome { status: AtaStatus::GOOD, count: 0, ..Outcome::default() };
        let refused = match self.serve(request, transfer, counts, &mut outcome) {
            Ok(()) => None,
            Err(Refusal::Error(error)) => Some(error),
            Err(Refusal::Data(no_data)) => return Err(no_data),
        };
        outcome.moved = transfer.moved as u32;
        if let Some(error) = refused {
            (outcome.status, outcome.error) = (AtaStatus::GOOD | AtaStatus::ERR, error);
            outcome.lba = request.blocks().map_or(0, |blocks| blocks.start);
        }
        Ok(outcome)
    }

    fn serve<M: DeviceMemory>(
        &mut self,
        request: &Request,
        transfer: &mut Transfer<'_, M>,
        counts: &mut Counts,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let Request { command, registers, .. } = *request;
        let aborted = Err(Refusal::Error(AtaError::ABRT));
        let is_log = command == Command::READ_LOG_EXT && registers.lba & 0xff == 0x10;
        // After a queued command has failed, a device wants to be asked about it.
        if self.queue_error.is_some() && !(is_log && self.logs) {
            counts.misuse += u64::from(self.logs);
            self.queue_error = None;
            return aborted;
        }
        if self.is_packet {
            return match command {
                Command::IDENTIFY_PACKET_DEVICE => Ok(transfer.give(self.identify().as_mut_bytes())?),
                Command::PACKET => self.packet(request, transfer, outcome),
                _ => aborted,
            };
        }
        match command {
            Command::IDENTIFY_DEVICE => Ok(transfer.give(self.identify().as_mut_bytes())?),
            Command::FLUSH_CACHE | Command::FLUSH_CACHE_EXT => {
                counts.flushes += 1;
                self.medium.flush().map_err(|_| Refusal::Error(AtaError::ABRT))
            }
            Command::READ_LOG_EXT if self.logs => {
                let mut page = match self.queue_error.take() {
                    Some(page) if is_log => page,
                    _ => QueuedError::new_zeroed(),
                };
                Ok(transfer.give(page.as_mut_bytes())?)
            }
            Command::DATA_SET_MANAGEMENT if self.trim && registers.features == Feature::TRIM.0 => {
                self.trim(registers.count, transfer, counts)
            }
            Command::SMART if registers.lba & 0xff_ff00 == Taskfile::SMART_LBA & 0xff_ff00 => {
                self.smart(Feature(registers.features & 0xff), transfer, outcome)
            }
            Command::SET_FEATURES => match registers.features & 0xff {
                0x02 | 0x82 => {
                    self.write_cache = registers.features == 0x02;
                    Ok(())
                }
                0x10 | 0x90 if self.device_initiated_power => Ok(()),
                _ => aborted,
            },
            Command::CHECK_POWER_MODE => {
                outcome.count = 0xff;
                Ok(())
            }
            Command::STANDBY_IMMEDIATE => Ok(()),
            Command::READ_FPDMA_QUEUED | Command::WRITE_FPDMA_QUEUED if self.queueing == Queueing::None => {
                aborted
            }
            Command::WRITE_DMA_FUA_EXT if !self.fua => aborted,
            Command::READ_DMA_EXT | Command::WRITE_DMA_EXT | Command::WRITE_DMA_FUA_EXT if !self.lba48 => {
                aborted
            }
            _ => match request.blocks() {
                Some(blocks) => {
                    counts.fua += u64::from(request.is_fua());
                    self.data(request, blocks, transfer)
                }
                None => aborted,
            },
        }
    }

    /// Moves blocks between the medium and memory.
    fn data<M: DeviceMemory>(
        &mut self,
        request: &Request,
        blocks: Range<u64>,
        transfer: &mut Transfer<'_, M>,
    ) -> Result<(), Refusal> {
        if blocks.end > self.blocks() {
            return Err(Refusal::Error(AtaError::IDNF));
        }
        if request.is_write() && self.medium.access() == Access::ReadOnly {
            return Err(Refusal::Error(AtaError::ABRT));
        }
        let (mut at, end) = (blocks.start << self.block_shift, blocks.end << self.block_shift);
        let Self { medium, buffer, .. } = self;
        while at < end {
            let now = (end - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..now).unwrap_or_default();
            if request.is_write() {
                transfer.take(piece)?;
                medium.write(at, piece).map_err(|failure| Refusal::Error(error_of(failure)))?;
            } else {
                medium.read(at, piece).map_err(|failure| Refusal::Error(error_of(failure)))?;
                transfer.give(piece)?;
            }
            at += now as u64;
        }
        if request.is_fua() {
            medium.flush().map_err(|failure| Refusal::Error(error_of(failure)))?;
        }
        Ok(())
    }

    fn trim<M: DeviceMemory>(
        &mut self,
        blocks: u16,
        transfer: &mut Transfer<'_, M>,
        counts: &mut Counts,
    ) -> Result<(), Refusal> {
        for _ in 0..blocks {
            let mut bytes = [0; 512];
            transfer.take(&mut bytes)?;
            for entry in bytes.chunks_exact(8).filter_map(|entry| RangeEntry::read_from_bytes(entry).ok()) {
                let end = entry.lba() + u64::from(entry.blocks());
                if end > self.blocks() {
                    return Err(Refusal::Error(AtaError::IDNF));
                }
                counts.trimmed += u64::from(entry.blocks());
                // What is no longer needed reads as zero here.
                for block in entry.lba()..end {
                    let zeroes = self.buffer.get_mut(..1 << self.block_shift).unwrap_or_default();
                    zeroes.fill(0);
                    let written = self.medium.write(block << self.block_shift, zeroes);
                    written.map_err(|failure| Refusal::Error(error_of(failure)))?;
                }
            }
        }
        Ok(())
    }

    fn smart<M: DeviceMemory>(
        &mut self,
        what: Feature,
        transfer: &mut Transfer<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        let mut page = [0; 512];
        page[0] = 1;
        match what {
            Feature::SMART_RETURN_STATUS => {
                // No threshold was passed.
                outcome.lba = Taskfile::SMART_LBA;
                return Ok(());
            }
            // Power-on hours and temperature.
            Feature::SMART_READ_DATA => {
                page[2..14].copy_from_slice(&[9, 0x32, 0, 100, 100, 0x39, 0x30, 0, 0, 0, 0, 0]);
                page[14..26].copy_from_slice(&[194, 0x22, 0, 64, 50, 36, 0, 0, 0, 0, 0, 0]);
            }
            Feature::SMART_READ_THRESHOLDS => {
                page[2..4].copy_from_slice(&[9, 1]);
                page[14..16].copy_from_slice(&[194, 45]);
            }
            _ => return Err(Refusal::Error(AtaError::ABRT)),
        }
        page[511] = page.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)).wrapping_neg();
        Ok(transfer.give(&mut page)?)
    }

    fn packet<M: DeviceMemory>(
        &mut self,
        request: &Request,
        transfer: &mut Transfer<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<(), Refusal> {
        outcome.count = 3;
        let sense = self.sense;
        if request.cdb[0] == Cdb::REQUEST_SENSE {
            self.sense = Sense { response: 0x70, ..Sense::default() };
            return Ok(transfer.give(&mut { sense }.as_mut_bytes()[..])?);
        }
        if sense.key() == SenseKey::UNIT_ATTENTION {
            return Err(Refusal::Error(SenseKey::UNIT_ATTENTION.0 << 4));
        }
        match request.cdb[0] {
            Cdb::TEST_UNIT_READY => Ok(()),
            Cdb::READ_CAPACITY if self.blocks() == 0 => self.check(SenseKey::NOT_READY, Sense::NO_MEDIUM),
            Cdb::READ_CAPACITY => {
                let mut capacity = Capacity {
                    last_lba: (self.blocks() as u32 - 1).into(),
                    block_bytes: (1 << self.block_shift).into(),
                };
                Ok(transfer.give(capacity.as_mut_bytes())?)
            }
            Cdb::READ => match request.blocks() {
                Some(blocks) if blocks.end <= self.blocks() => match self.data(request, blocks, transfer) {
                    Err(Refusal::Error(_)) => self.check(SenseKey::MEDIUM, 0x11),
                    moved => moved,
                },
                _ => self.check(SenseKey::ILLEGAL_REQUEST, Sense::LBA_OUT_OF_RANGE),
            },
            _ => self.check(SenseKey::ILLEGAL_REQUEST, 0x20),
        }
    }

    fn check(&mut self, key: SenseKey, asc: u8) -> Result<(), Refusal> {
        self.sense = Sense { response: 0x70, key: key.0, additional_len: 12, asc, ..Sense::default() };
        Err(Refusal::Error(key.0 << 4))
    }

    fn identify(&self) -> Identify {
        let mut id = Identify::new_zeroed();
        let mut set = |word: usize, value: u16| id.words[word] = U16::new(value);
        let blocks = self.blocks();
        set(0, if self.is_packet { 0x8580 } else { 0x0040 });
        set(49, 0x0300);
        set(60, blocks.min(0x0fff_ffff) as u16);
        set(61, (blocks.min(0x0fff_ffff) >> 16) as u16);
        if let Queueing::Depth(depth) = self.queueing {
            set(75, u16::from(depth.clamp(1, 32)) - 1);
            set(76, 0x010e);
        }
        set(78, u16::from(self.device_initiated_power) << 3);
        set(80, 0x01f0);
        set(82, 0x4021);
        set(83, 0x7000 | u16::from(self.lba48) << 10);
        set(84, 0x4100 | u16::from(self.logs) << 5 | u16::from(self.fua) << 6);
        set(85, 0x4001 | u16::from(self.write_cache) << 5);
        set(86, 0x3000 | u16::from(self.lba48) << 10);
        set(87, 0x4100);
        for i in 0..4 {
            set(100 + i, (blocks >> (16 * i)) as u16);
            set(108 + i, 0x5000 + i as u16);
        }
        let long = self.block_shift != 9;
        set(
            106,
            0x4000
                | u16::from(long) << 12
                | u16::from(self.physical_shift != 0) << 13
                | u16::from(self.physical_shift & 0xf),
        );
        set(117, 1_u16.checked_shl(u32::from(self.block_shift).saturating_sub(1)).unwrap_or(0));
        set(169, u16::from(self.trim));
        set(217, 1);
        let text = |words: &mut [U16], text: &[u8]| {
            for (word, pair) in words.iter_mut().zip(text.chunks_exact(2)) {
                *word = U16::new(u16::from_be_bytes([pair[0], pair[1]]));
            }
        };
        text(&mut id.words[10..20], &self.serial);
        text(&mut id.words[23..27], b"1       ");
        text(&mut id.words[27..47], b"dfly AHCI model                         ");
        id.words[255] = U16::new(0x00a5);
        let sum = id.as_bytes().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        id.words[255] = U16::new(u16::from(sum.wrapping_neg()) << 8 | 0xa5);
        for &(word, value) in &self.lies {
            id.words[usize::from(word)] = U16::new(value);
        }
        id
    }
}

/// The error register that says how a medium failed.
fn error_of(failure: Failure) -> u8 {
    match failure {
        Failure::OutOfRange => AtaError::IDNF,
        Failure::WriteProtected | Failure::NoSpace => AtaError::ABRT,
        _ => AtaError::UNC,
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drive")
            .field("signature", &self.signature())
            .field("blocks", &self.blocks())
            .field("block_shift", &self.block_shift)
            .finish_non_exhaustive()
    }
}
