//! Registers [3.1].

use bitfield_struct::bitfield;
use dfly_hal::reg_value;
use dfly_hal::regs::{ReadOnly, ReadWrite, Reg, WriteOnly};

/// Controller capabilities [3.1.1].
pub const CAP: Reg<Cap, ReadOnly> = Reg::at(0x00);
/// Version [3.1.2].
pub const VS: Reg<u32, ReadOnly> = Reg::at(0x08);
/// Interrupt mask set [3.1.3]. Not to be touched with MSI-X.
pub const INTMS: Reg<u32, ReadWrite> = Reg::at(0x0c);
/// Interrupt mask clear [3.1.4]. Not to be touched with MSI-X.
pub const INTMC: Reg<u32, ReadWrite> = Reg::at(0x10);
/// Controller configuration [3.1.5].
pub const CC: Reg<Cc, ReadWrite> = Reg::at(0x14);
/// Controller status [3.1.6].
pub const CSTS: Reg<Csts, ReadOnly> = Reg::at(0x1c);
/// Admin queue attributes [3.1.8].
pub const AQA: Reg<Aqa, ReadWrite> = Reg::at(0x24);
/// Admin submission queue base address [3.1.9].
pub const ASQ: Reg<u64, ReadWrite> = Reg::at(0x28);
/// Admin completion queue base address [3.1.10].
pub const ACQ: Reg<u64, ReadWrite> = Reg::at(0x30);
/// The first doorbell [3.1.24]: submission queue 0, tail. See [`sq_doorbell`].
pub const DOORBELLS: Reg<u32, WriteOnly> = Reg::at(0x1000);

/// The tail doorbell of submission queue `qid`; `dstrd` is [`Cap::dstrd`].
pub const fn sq_doorbell(qid: u16, dstrd: u8) -> Reg<u32, WriteOnly> {
    DOORBELLS.plus((2 * qid as usize) << (2 + (dstrd & 15)))
}

/// The head doorbell of completion queue `qid`.
pub const fn cq_doorbell(qid: u16, dstrd: u8) -> Reg<u32, WriteOnly> {
    DOORBELLS.plus((2 * qid as usize + 1) << (2 + (dstrd & 15)))
}

/// Controller capabilities [3.1.1].
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// The most entries of a queue, minus one.
    pub mqes_z: u16,
    /// Queues must be contiguous.
    pub cqr: bool,
    /// Arbitration mechanisms.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    _0: u8,
    /// The longest time to become ready or not ready, in units of 500 ms.
    pub to: u8,
    /// Doorbell stride: 4 << DSTRD bytes.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM subsystem reset is there.
    pub nssrs: bool,
    /// Command sets: bit 0 NVM, bit 6 all, bit 7 admin only.
    pub css: u8,
    /// Boot partitions.
    pub bps: bool,
    #[bits(2)]
    _1: u8,
    /// The smallest page: 2^(12 + MPSMIN) bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// The largest page: 2^(12 + MPSMAX) bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// Persistent memory region.
    pub pmrs: bool,
    /// Controller memory buffer.
    pub cmbs: bool,
    #[bits(6)]
    _2: u8,
}

/// Controller configuration [3.1.5].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cc {
    /// Enable.
    pub en: bool,
    #[bits(3)]
    _0: u8,
    /// Command set: 0 NVM.
    #[bits(3)]
    pub css: u8,
    /// Page: 2^(12 + MPS) bytes.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration.
    #[bits(3)]
    pub ams: u8,
    /// Shutdown: 1 normal, 2 abrupt.
    #[bits(2)]
    pub shn: u8,
    /// Submission entries of 2^IOSQES bytes.
    #[bits(4)]
    pub iosqes: u8,
    /// Completion entries of 2^IOCQES bytes.
    #[bits(4)]
    pub iocqes: u8,
    #[bits(8)]
    _1: u8,
}

/// Controller status [3.1.6].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Csts {
    /// Ready.
    pub rdy: bool,
    /// Fatal status.
    pub cfs: bool,
    /// Shutdown: 1 under way, 2 complete.
    #[bits(2)]
    pub shst: u8,
    /// A subsystem reset occurred.
    pub nssro: bool,
    /// Processing paused.
    pub pp: bool,
    #[bits(26)]
    _0: u32,
}

impl Csts {
    /// Nobody answers: the controller was removed.
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// Admin queue attributes [3.1.8].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Aqa {
    /// Entries of the admin submission queue, minus one.
    #[bits(12)]
    pub asqs_z: u16,
    #[bits(4)]
    _0: u8,
    /// Entries of the admin completion queue, minus one.
    #[bits(12)]
    pub acqs_z: u16,
    #[bits(4)]
    _1: u8,
}

reg_value!(Cap: u64, Cc: u32, Csts: u32, Aqa: u32);
