//! Registers [3]: of the host adapter [3.1], and of a port [3.3].

use bitfield_struct::bitfield;
use dfly_hal::reg_value;
use dfly_hal::regs::{ReadOnly, ReadWrite, Reg};

/// Host capabilities [3.1.1].
pub const CAP: Reg<Cap, ReadOnly> = Reg::at(0x00);
/// Global control [3.1.2].
pub const GHC: Reg<Ghc, ReadWrite> = Reg::at(0x04);
/// Interrupt status, a bit for each port; writing ones clears [3.1.3].
pub const IS: Reg<u32, ReadWrite> = Reg::at(0x08);
/// Ports implemented, a bit for each [3.1.4].
pub const PI: Reg<u32, ReadOnly> = Reg::at(0x0c);
/// Version: major in the high half, minor in the low one, binary-coded [3.1.5].
pub const VS: Reg<u32, ReadOnly> = Reg::at(0x10);
/// Extended capabilities [3.1.10].
pub const CAP2: Reg<Cap2, ReadOnly> = Reg::at(0x24);
/// BIOS hand-off [3.1.11].
pub const BOHC: Reg<Bohc, ReadWrite> = Reg::at(0x28);
/// The first port's registers [3.3].
pub const PORTS: usize = 0x100;
/// Bytes of a port's registers.
pub const PORT_BYTES: usize = 0x80;

/// The registers of port `number` [3.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u8);

macro_rules! port_registers {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $offset:literal;)+) => {$(
        $(#[$doc])*
        pub const fn $name(self) -> Reg<$kind, ReadWrite> {
            const FIRST: Reg<$kind, ReadWrite> = Reg::at(PORTS + $offset);
            FIRST.plus(self.0 as usize * PORT_BYTES)
        }
    )+};
}

impl Port {
    port_registers! {
        /// Command list base [3.3.1].
        clb: u32 = 0x00;
        /// Command list base, upper half [3.3.2].
        clbu: u32 = 0x04;
        /// Received FIS base [3.3.3].
        fb: u32 = 0x08;
        /// Received FIS base, upper half [3.3.4].
        fbu: u32 = 0x0c;
        /// Interrupt status; writing ones clears [3.3.5].
        is: PortInterrupts = 0x10;
        /// Interrupt enable [3.3.6].
        ie: PortInterrupts = 0x14;
        /// Command and status [3.3.7].
        cmd: PortCommand = 0x18;
        /// Task file data [3.3.8]. Only read.
        tfd: TaskFileData = 0x20;
        /// Signature [3.3.9]. Only read.
        sig: u32 = 0x24;
        /// SATA status [3.3.10]. Only read.
        ssts: SataStatus = 0x28;
        /// SATA control [3.3.11].
        sctl: SataControl = 0x2c;
        /// SATA error; writing ones clears [3.3.12].
        serr: SataError = 0x30;
        /// Queued commands outstanding; writing ones sets [3.3.13].
        sact: u32 = 0x34;
        /// Commands issued; writing ones sets [3.3.14].
        ci: u32 = 0x38;
    }
}

/// Host capabilities [3.1.1].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// Number of ports, minus one.
    #[bits(5)]
    pub np_z: u8,
    /// External SATA.
    pub sxs: bool,
    /// Enclosure management.
    pub ems: bool,
    /// Command completion coalescing.
    pub cccs: bool,
    /// Command slots, minus one.
    #[bits(5)]
    pub ncs_z: u8,
    /// Partial state.
    pub psc: bool,
    /// Slumber state.
    pub ssc: bool,
    /// Multiple DRQ blocks of PIO.
    pub pmd: bool,
    /// FIS-based switching.
    pub fbss: bool,
    /// Port multipliers.
    pub spm: bool,
    /// AHCI only: no legacy interface.
    pub sam: bool,
    _0: bool,
    /// The fastest interface: 1, 2, 3 for 1.5, 3, 6 Gb/s.
    #[bits(4)]
    pub iss: u8,
    /// Command list override.
    pub sclo: bool,
    /// Activity LED.
    pub sal: bool,
    /// Aggressive link power management.
    pub salp: bool,
    /// Staggered spin-up.
    pub sss: bool,
    /// Mechanical presence switch.
    pub smps: bool,
    /// SNotification register.
    pub ssntf: bool,
    /// Native command queueing.
    pub sncq: bool,
    /// 64-bit addresses.
    pub s64a: bool,
}

/// Global control [3.1.2].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ghc {
    /// HBA reset: the adapter clears it when it is done.
    pub hr: bool,
    /// Interrupts enabled.
    pub ie: bool,
    /// The adapter has fallen back to a single message.
    pub mrsm: bool,
    #[bits(28)]
    _0: u32,
    /// AHCI enabled.
    pub ae: bool,
}

impl Ghc {
    /// Nobody answers: the adapter was removed.
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// Extended capabilities [3.1.10].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cap2 {
    /// BIOS hand-off.
    pub boh: bool,
    /// NVMHCI.
    pub nvmp: bool,
    /// Automatic partial to slumber.
    pub apst: bool,
    /// Device sleep.
    pub sds: bool,
    /// Aggressive device sleep.
    pub sadm: bool,
    /// Device sleep from slumber only.
    pub deso: bool,
    #[bits(26)]
    _0: u32,
}

/// BIOS hand-off control and status [3.1.11].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Bohc {
    /// The BIOS owns the adapter.
    pub bos: bool,
    /// The operating system owns it, or wants to.
    pub oos: bool,
    /// An SMI when ownership changes.
    pub sooe: bool,
    /// Ownership changed; writing one clears.
    pub ooc: bool,
    /// The BIOS is busy cleaning up.
    pub bb: bool,
    #[bits(27)]
    _0: u32,
}

/// Interrupt status and enable of a port [3.3.5, 3.3.6].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PortInterrupts {
    /// A D2H Register FIS arrived.
    pub dhrs: bool,
    /// A PIO Setup FIS arrived.
    pub pss: bool,
    /// A DMA Setup FIS arrived.
    pub dss: bool,
    /// A Set Device Bits FIS arrived.
    pub sdbs: bool,
    /// An unknown FIS arrived: cleared through PxSERR.DIAG.F.
    pub ufs: bool,
    /// A descriptor with its interrupt bit was processed.
    pub dps: bool,
    /// Something was connected or removed: cleared through PxSERR.DIAG.X.
    pub pcs: bool,
    /// The mechanical switch moved.
    pub dmps: bool,
    #[bits(14)]
    _0: u16,
    /// PhyRdy changed: cleared through PxSERR.DIAG.N.
    pub prcs: bool,
    /// A FIS of a wrong port multiplier port.
    pub ipms: bool,
    /// More bytes than descriptors.
    pub ofs: bool,
    _1: bool,
    /// An interface error that did not stop the port.
    pub infs: bool,
    /// An interface error that did.
    pub ifs: bool,
    /// Host bus: data.
    pub hbds: bool,
    /// Host bus: fatal.
    pub hbfs: bool,
    /// The task file says that there was an error.
    pub tfes: bool,
    /// Cold presence changed.
    pub cpds: bool,
}

impl PortInterrupts {
    /// Those that say that something completed.
    pub const COMPLETIONS: Self = Self::new().with_dhrs(true).with_pss(true).with_sdbs(true);
    /// Errors of the interface or the host's bus: what is under way is lost.
    pub const BROKEN: Self =
        Self::new().with_hbfs(true).with_hbds(true).with_ifs(true).with_ofs(true).with_ufs(true);
    /// The link: something came or went.
    pub const LINK: Self = Self::new().with_pcs(true).with_prcs(true).with_cpds(true);

    /// Whether any of the bits of `mask` is set.
    pub const fn any(self, mask: Self) -> bool {
        self.into_bits() & mask.into_bits() != 0
    }

    /// The bits of both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self::from_bits(self.into_bits() | other.into_bits())
    }

    /// The bits that `other` does not have.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self::from_bits(self.into_bits() & !other.into_bits())
    }
}

/// Command and status of a port [3.3.7].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PortCommand {
    /// Start: process the command list.
    pub st: bool,
    /// Spin up.
    pub sud: bool,
    /// Power on.
    pub pod: bool,
    /// Command list override.
    pub clo: bool,
    /// Receive FISes.
    pub fre: bool,
    #[bits(3)]
    _0: u8,
    /// The slot that is being issued.
    #[bits(5)]
    pub ccs: u8,
    /// The mechanical switch is open.
    pub mpss: bool,
    /// FISes are received.
    pub fr: bool,
    /// The command list runs.
    pub cr: bool,
    /// Something is there, by cold presence.
    pub cps: bool,
    /// A port multiplier is attached.
    pub pma: bool,
    /// Hot-plug capable.
    pub hpcp: bool,
    /// There is a mechanical switch.
    pub mpsp: bool,
    /// There is cold presence detection.
    pub cpd: bool,
    /// External port.
    pub esp: bool,
    /// FIS-based switching is possible here.
    pub fbscp: bool,
    /// Automatic partial to slumber.
    pub apste: bool,
    /// The device is ATAPI: its activity lights the LED otherwise.
    pub atapi: bool,
    /// The LED for ATAPI, too.
    pub dlae: bool,
    /// Aggressive link power management.
    pub alpe: bool,
    /// To slumber rather than to partial.
    pub asp: bool,
    /// The link's state: 0 idle, 1 active, 2 partial, 6 slumber, 8 device sleep.
    #[bits(4)]
    pub icc: u8,
}

impl PortCommand {
    /// Nobody answers. Reserved bits read as zero, so no adapter says this.
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// Task file data [3.3.8].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TaskFileData {
    /// Status: see [`AtaStatus`](super::AtaStatus).
    pub status: u8,
    /// Error: see [`AtaError`](super::AtaError).
    pub error: u8,
    _0: u16,
}

impl TaskFileData {
    /// Whether the device is busy or wants to transfer data.
    pub const fn is_busy(self) -> bool {
        self.status() & 0x88 != 0
    }
}

/// SATA status [3.3.10].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SataStatus {
    /// 0 nobody, 1 somebody without a link, 3 a link, 4 off line.
    #[bits(4)]
    pub det: u8,
    /// Speed: 1, 2, 3 for 1.5, 3, 6 Gb/s.
    #[bits(4)]
    pub spd: u8,
    /// The link's state: 1 active, 2 partial, 6 slumber, 8 device sleep.
    #[bits(4)]
    pub ipm: u8,
    #[bits(20)]
    _0: u32,
}

impl SataStatus {
    /// Whether there is a link. All ones are none.
    pub const fn is_up(self) -> bool {
        self.det() == 3
    }
}

/// SATA control [3.3.11].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SataControl {
    /// 0 nothing, 1 COMRESET, 4 off line.
    #[bits(4)]
    pub det: u8,
    /// The fastest speed that is allowed; 0: any.
    #[bits(4)]
    pub spd: u8,
    /// What is forbidden: 1 partial, 2 slumber, 4 device sleep.
    #[bits(4)]
    pub ipm: u8,
    #[bits(20)]
    _0: u32,
}

/// SATA error [3.3.12].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SataError {
    /// ERR: what happened.
    pub err: u16,
    /// DIAG.N: PhyRdy changed.
    pub n: bool,
    /// DIAG.I: an internal error of the PHY.
    pub i: bool,
    /// DIAG.W: COMWAKE was seen.
    pub w: bool,
    /// DIAG.B: 10b to 8b decoding.
    pub b: bool,
    /// DIAG.D: disparity.
    pub d: bool,
    /// DIAG.C: a checksum.
    pub c: bool,
    /// DIAG.H: handshake.
    pub h: bool,
    /// DIAG.S: link sequence.
    pub s: bool,
    /// DIAG.T: transport state.
    pub t: bool,
    /// DIAG.F: an unknown FIS.
    pub f: bool,
    /// DIAG.X: something was connected or removed.
    pub x: bool,
    #[bits(5)]
    _0: u8,
}

impl SataError {
    /// Writing this clears everything.
    pub const ALL: Self = Self::from_bits(u32::MAX);
}

/// What a device's first FIS says that it is [3.3.9; Serial ATA].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Signature(pub u32);

impl Signature {
    /// A disk.
    pub const ATA: Self = Self(0x0000_0101);
    /// A packet device: CD, DVD, tape.
    pub const ATAPI: Self = Self(0xeb14_0101);
    /// A port multiplier.
    pub const MULTIPLIER: Self = Self(0x9669_0101);
    /// An enclosure.
    pub const ENCLOSURE: Self = Self(0xc33c_0101);
}

reg_value!(
    Cap: u32, Ghc: u32, Cap2: u32, Bohc: u32, PortInterrupts: u32, PortCommand: u32, TaskFileData: u32, SataStatus: u32,
    SataControl: u32, SataError: u32,
);
