//! What can be wrong with a disk, and where.

use core::fmt;

use dfly_bio::BioError;
use dfly_vfs::Errno;

use crate::ondisk::Offset;

/// The structure that an [`Error`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Structure {
    /// A volume's header.
    VolumeHeader,
    /// A layer-1 or layer-2 entry.
    Freemap,
    /// A record of the UNDO/REDO FIFO.
    Fifo,
    /// A B-tree node.
    Node,
    /// An inode.
    Inode,
    /// A directory entry.
    Dirent,
    /// File data.
    Data,
    /// The target of a symlink.
    Symlink,
    /// The description of a pseudo file system.
    Pfs,
    /// A snapshot.
    Snapshot,
    /// Configuration text.
    Config,
    /// A record of another type.
    Record,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VolumeHeader => "volume header",
            Self::Freemap => "freemap entry",
            Self::Fifo => "UNDO/REDO record",
            Self::Node => "B-tree node",
            Self::Inode => "inode",
            Self::Dirent => "directory entry",
            Self::Data => "file data",
            Self::Symlink => "symlink target",
            Self::Pfs => "pseudo file system",
            Self::Snapshot => "snapshot",
            Self::Config => "configuration",
            Self::Record => "record",
        })
    }
}

/// Why something on the disk could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device of a volume failed.
    #[error("volume {volume}: {error}")]
    Device {
        /// Number of the volume.
        volume: u8,
        /// What the device said.
        #[source]
        error: BioError,
    },
    /// The stored checksum matches none that the version allows.
    #[error("{structure} at {at}: bad checksum, stored {stored:08x}")]
    Checksum {
        /// What was read.
        structure: Structure,
        /// Where it lies.
        at: Offset,
        /// The checksum that it carries.
        stored: u32,
    },
    /// A field holds what it never can.
    #[error("{structure} at {at}: {what}")]
    Corrupt {
        /// What was read.
        structure: Structure,
        /// Where it lies.
        at: Offset,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An address leads out of the file system, or into a part that cannot hold the structure.
    #[error("{structure}: address {at} lies outside of the file system")]
    OutOfRange {
        /// What was looked for.
        structure: Structure,
        /// Where it was said to lie.
        at: Offset,
    },
    /// Every page of the cache is in use by other operations. Trying again helps; so does a larger cache.
    #[error("all pages of the cache are in use")]
    CacheBusy,
    /// Memory could not be allocated.
    #[error("out of memory")]
    NoMemory,
    /// No big-block is left that could hold what is to be written.
    #[error("no space left")]
    NoSpace,
    /// A commit failed: what it was to make durable may be on the disk in part, so nothing more is written. What was
    /// committed before is safe, and everything can be read.
    #[error("writing stopped after an error")]
    Halted,
}

impl Error {
    pub(crate) const fn corrupt(structure: Structure, at: Offset, what: &'static str) -> Self {
        Self::Corrupt { structure, at, what }
    }
}

impl From<Error> for dfly_vfs::Error {
    fn from(e: Error) -> Self {
        let io = Self::new(Errno::EIO);
        match e {
            Error::Device { volume, error } => match error.failure {
                dfly_bio::Failure::Timeout => Self::new(Errno::ETIMEDOUT).because("device timed out"),
                dfly_bio::Failure::Gone => Self::new(Errno::ENXIO).because("device gone"),
                _ => io.because("device error on the volume"),
            }
            .at(volume.into()),
            Error::Checksum { structure, at, .. } => io
                .because(match structure {
                    Structure::Node => "bad checksum of a B-tree node",
                    Structure::Data => "bad checksum of file data",
                    Structure::Inode => "bad checksum of an inode",
                    Structure::Dirent => "bad checksum of a directory entry",
                    _ => "bad checksum of a record",
                })
                .at(at.0),
            Error::Corrupt { at, what, .. } => io.because(what).at(at.0),
            Error::OutOfRange { at, .. } => io.because("address outside of the file system").at(at.0),
            Error::CacheBusy => Self::new(Errno::EAGAIN).because("all pages of the cache are in use"),
            Error::NoMemory => Self::new(Errno::ENOMEM),
            Error::NoSpace => Self::new(Errno::ENOSPC),
            Error::Halted => Self::new(Errno::EROFS).because("writing stopped after an error"),
        }
    }
}

/// Why a set of volumes could not be mounted. Volumes are counted from 0 in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// No volume was given, or more than 256.
    #[error("{given} volumes given, a file system has 1 to 256")]
    VolumeCount {
        /// How many were given.
        given: usize,
    },
    /// The device is smaller than a header, or than the header says.
    #[error("volume {index}: device has {bytes} bytes, {needed} are needed: truncated?")]
    TooSmall {
        /// Which volume.
        index: usize,
        /// Size of the device.
        bytes: u64,
        /// Size that is needed.
        needed: u64,
    },
    /// The device's blocks do not fit the layout of the volume.
    #[error("volume {index}: blocks of {block_bytes} bytes do not fit the volume's layout")]
    BlockSize {
        /// Which volume.
        index: usize,
        /// The device's block size.
        block_bytes: u32,
    },
    /// The device could not be read.
    #[error("volume {index}: {error}")]
    Device {
        /// Which volume.
        index: usize,
        /// What the device said.
        #[source]
        error: BioError,
    },
    /// The device does not begin with HAMMER's signature.
    #[error("volume {index}: not a HAMMER volume (signature {found:016x})")]
    NotHammer {
        /// Which volume.
        index: usize,
        /// What stands there instead.
        found: u64,
    },
    /// A machine of the other byte order wrote the volume.
    #[error("volume {index}: written in the other byte order")]
    ByteOrder {
        /// Which volume.
        index: usize,
    },
    /// A version that nobody knows yet (or never did).
    #[error("volume {index}: version {version} is not supported (1 to 7 are)")]
    Version {
        /// Which volume.
        index: usize,
        /// The version in its header.
        version: u32,
    },
    /// A field of the header cannot be.
    #[error("volume {index}: {what} is wrong in the header ({value:#x})")]
    Header {
        /// Which volume.
        index: usize,
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The volumes belong to different file systems.
    #[error("volume {index} belongs to another file system than volume 0 of the list")]
    OtherFileSystem {
        /// The first one that differs.
        index: usize,
    },
    /// Volumes are missing, or too many were given.
    #[error("the file system has {expected} volumes, {given} were given")]
    Missing {
        /// How many the header counts.
        expected: i32,
        /// How many were given.
        given: usize,
    },
    /// Two of the volumes have the same number.
    #[error("volume {index}: number {number} was given twice")]
    Duplicate {
        /// The second of them.
        index: usize,
        /// The number.
        number: u8,
    },
    /// The volume that holds the root of everything is not among those given.
    #[error("the root volume, number 0, is missing")]
    NoRootVolume,
    /// The file system can be read, but not written.
    #[error("cannot be mounted for writing: {why}")]
    NotWritable {
        /// What is in the way.
        why: &'static str,
    },
    /// The UNDO FIFO of a crashed file system could not be applied, or the root could not be read.
    #[error(transparent)]
    Read(#[from] Error),
}
