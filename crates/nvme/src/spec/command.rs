//! Queue entries [4.2, 4.6].

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! open_enum {
    ($(#[$outer:meta])* $name:ident: $int:ty { $($(#[$inner:meta])* $variant:ident = $value:expr),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub $int);
        impl $name {
            $($(#[$inner])* pub const $variant: Self = Self($value);)+
        }
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$variant => f.write_str(stringify!($variant)),)+
                    Self(other) => write!(f, concat!(stringify!($name), "({:#x})"), other),
                }
            }
        }
    };
}
pub(super) use open_enum;

/// Opcodes: those of admin commands (section 5) and of the NVM command set (section 6) overlap; the queue tells which is
/// meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode;

#[expect(missing_docs, reason = "the names are the specification's")]
impl Opcode {
    pub const ADMIN_DELETE_SQ: u8 = 0x00;
    pub const ADMIN_CREATE_SQ: u8 = 0x01;
    pub const ADMIN_DELETE_CQ: u8 = 0x04;
    pub const ADMIN_CREATE_CQ: u8 = 0x05;
    pub const ADMIN_IDENTIFY: u8 = 0x06;
    pub const ADMIN_SET_FEATURES: u8 = 0x09;
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;

    /// What an admin command is called on a console.
    pub const fn admin_name(opcode: u8) -> &'static str {
        match opcode {
            Self::ADMIN_DELETE_SQ => "Delete I/O Submission Queue",
            Self::ADMIN_CREATE_SQ => "Create I/O Submission Queue",
            Self::ADMIN_DELETE_CQ => "Delete I/O Completion Queue",
            Self::ADMIN_CREATE_CQ => "Create I/O Completion Queue",
            Self::ADMIN_IDENTIFY => "Identify",
            Self::ADMIN_SET_FEATURES => "Set Features",
            _ => "an admin command",
        }
    }
}

open_enum! {
    /// Feature identifiers [5.21.1].
    Feature: u8 {
        /// Number of queues.
        NUMBER_OF_QUEUES = 0x07,
    }
}

open_enum! {
    /// What Identify returns: CNS [5.15.1].
    IdentifyWhat: u8 {
        /// A namespace.
        NAMESPACE = 0,
        /// The controller.
        CONTROLLER = 1,
        /// The identifiers of active namespaces above the given one.
        ACTIVE_NAMESPACES = 2,
    }
}

/// A submission queue entry [4.2].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// What to do: see [`Opcode`].
    pub opcode: u8,
    /// Fused operation, and PRP (0) or SGL.
    pub flags: u8,
    /// Command identifier, unique in the queue.
    pub cid: U16,
    /// Namespace.
    pub nsid: U32,
    /// Command specific.
    pub cdw2: U32,
    /// Command specific.
    pub cdw3: U32,
    /// Metadata.
    pub mptr: U64,
    /// The first page.
    pub prp1: U64,
    /// The second page, or a list of pages.
    pub prp2: U64,
    /// Command specific.
    pub cdw10: U32,
    /// Command specific.
    pub cdw11: U32,
    /// Command specific.
    pub cdw12: U32,
    /// Command specific.
    pub cdw13: U32,
    /// Command specific.
    pub cdw14: U32,
    /// Command specific.
    pub cdw15: U32,
}

/// Force unit access, in [`Command::cdw12`] of a write [6.15].
const FUA: u32 = 1 << 30;

impl Command {
    fn admin(opcode: u8) -> Self {
        Self { opcode, ..Self::default() }
    }

    /// Identify [5.15] into the page at `prp1`.
    pub fn identify(what: IdentifyWhat, nsid: u32, prp1: u64) -> Self {
        Self {
            nsid: nsid.into(),
            prp1: prp1.into(),
            cdw10: u32::from(what.0).into(),
            ..Self::admin(Opcode::ADMIN_IDENTIFY)
        }
    }

    /// Set Features [5.21]: asks for so many I/O queues of each kind, at least one.
    pub fn number_of_queues(submission: u16, completion: u16) -> Self {
        let count_z = |n: u16| u32::from(n.saturating_sub(1));
        Self {
            cdw10: u32::from(Feature::NUMBER_OF_QUEUES.0).into(),
            cdw11: (count_z(completion) << 16 | count_z(submission)).into(),
            ..Self::admin(Opcode::ADMIN_SET_FEATURES)
        }
    }

    /// Create I/O Completion Queue [5.3], contiguous at `base`; `vector` is `None` for no interrupts.
    pub fn create_cq(qid: u16, size_z: u16, base: u64, vector: Option<u16>) -> Self {
        let interrupts = vector.map_or(0, |vector| u32::from(vector) << 16 | 1 << 1);
        Self {
            prp1: base.into(),
            cdw10: (u32::from(size_z) << 16 | u32::from(qid)).into(),
            cdw11: (interrupts | 1).into(),
            ..Self::admin(Opcode::ADMIN_CREATE_CQ)
        }
    }

    /// Create I/O Submission Queue [5.4], contiguous at `base`, that completes to queue `cqid`.
    pub fn create_sq(qid: u16, size_z: u16, base: u64, cqid: u16) -> Self {
        Self {
            prp1: base.into(),
            cdw10: (u32::from(size_z) << 16 | u32::from(qid)).into(),
            cdw11: (u32::from(cqid) << 16 | 1).into(),
            ..Self::admin(Opcode::ADMIN_CREATE_SQ)
        }
    }

    /// Read or Write [6.9, 6.15] of `blocks_z` + 1 blocks from `lba` on; the data pointer is still to be set.
    pub fn transfer(opcode: u8, nsid: u32, lba: u64, blocks_z: u16) -> Self {
        Self {
            opcode,
            nsid: nsid.into(),
            cdw10: (lba as u32).into(),
            cdw11: ((lba >> 32) as u32).into(),
            cdw12: u32::from(blocks_z).into(),
            ..Self::default()
        }
    }

    /// A write that is durable when it completes.
    #[must_use]
    pub fn with_fua(self) -> Self {
        Self { cdw12: (self.cdw12.get() | FUA).into(), ..self }
    }

    /// Whether it asks for force unit access.
    pub fn is_fua(&self) -> bool {
        self.cdw12.get() & FUA != 0
    }

    /// Flush [6.8].
    pub fn flush(nsid: u32) -> Self {
        Self { opcode: Opcode::FLUSH, nsid: nsid.into(), ..Self::default() }
    }

    /// The first block of a transfer.
    pub fn lba(&self) -> u64 {
        u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get())
    }

    /// Blocks of a transfer, minus one.
    pub fn blocks_z(&self) -> u16 {
        self.cdw12.get() as u16
    }
}

/// A completion queue entry [4.6].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// Command specific.
    pub result: U32,
    /// Reserved.
    pub reserved: U32,
    /// How far the controller has read the submission queue.
    pub sqhd: U16,
    /// The submission queue.
    pub sqid: U16,
    /// Which command.
    pub cid: U16,
    /// Phase and status: a [`StatusField`].
    pub status: U16,
}

impl Completion {
    /// Phase and status.
    pub fn status(&self) -> StatusField {
        StatusField::from_bits(self.status.get())
    }
}

/// The status field with the phase tag below it [4.6.1].
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct StatusField {
    /// The phase tag: flips each time the controller passes the end of the queue.
    pub phase: bool,
    /// Status code.
    pub sc: u8,
    /// Status code type.
    #[bits(3)]
    pub sct: u8,
    /// Which retry delay.
    #[bits(2)]
    pub crd: u8,
    /// More is in the error log.
    pub more: bool,
    /// Do not retry.
    pub dnr: bool,
}
