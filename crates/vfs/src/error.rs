//! What went wrong: an [`Errno`] that a program acts on, and an [`Error`] that also tells a person what and where.

use core::fmt;

macro_rules! errnos {
    ($($name:ident $bsd:literal $linux:literal $text:literal,)*) => {
        /// An error number by its POSIX or BSD name: what a caller of the file system can act on.
        ///
        /// The set holds what file systems and path walks answer. Numbers differ between systems, names do not, so
        /// the number is asked for by system: [`Errno::bsd`], [`Errno::linux`]. Source: errno(2) of DragonFly and of
        /// Linux.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Errno {
            $(#[doc = $text] $name,)*
        }

        impl Errno {
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on DragonFly and its BSD relatives.
            pub const fn bsd(self) -> i32 {
                match self { $(Self::$name => $bsd,)* }
            }

            /// The number on Linux. A name that Linux does not know gets its nearest one there.
            pub const fn linux(self) -> i32 {
                match self { $(Self::$name => $linux,)* }
            }

            /// The name as `<errno.h>` spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The sentence that strerror(3) gives.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

errnos! {
    EPERM 1 1 "Operation not permitted",
    ENOENT 2 2 "No such file or directory",
    EINTR 4 4 "Interrupted system call",
    EIO 5 5 "Input/output error",
    ENXIO 6 6 "Device not configured",
    E2BIG 7 7 "Argument list too long",
    EBADF 9 9 "Bad file descriptor",
    EDEADLK 11 35 "Resource deadlock avoided",
    ENOMEM 12 12 "Cannot allocate memory",
    EACCES 13 13 "Permission denied",
    EFAULT 14 14 "Bad address",
    ENOTBLK 15 15 "Block device required",
    EBUSY 16 16 "Device busy",
    EEXIST 17 17 "File exists",
    EXDEV 18 18 "Cross-device link",
    ENODEV 19 19 "Operation not supported by device",
    ENOTDIR 20 20 "Not a directory",
    EISDIR 21 21 "Is a directory",
    EINVAL 22 22 "Invalid argument",
    ENFILE 23 23 "Too many open files in system",
    EMFILE 24 24 "Too many open files",
    ENOTTY 25 25 "Inappropriate ioctl for device",
    ETXTBSY 26 26 "Text file busy",
    EFBIG 27 27 "File too large",
    ENOSPC 28 28 "No space left on device",
    ESPIPE 29 29 "Illegal seek",
    EROFS 30 30 "Read-only file system",
    EMLINK 31 31 "Too many links",
    EPIPE 32 32 "Broken pipe",
    ERANGE 34 34 "Result too large",
    EAGAIN 35 11 "Resource temporarily unavailable",
    EINPROGRESS 36 115 "Operation now in progress",
    EOPNOTSUPP 45 95 "Operation not supported",
    ETIMEDOUT 60 110 "Operation timed out",
    ELOOP 62 40 "Too many levels of symbolic links",
    ENAMETOOLONG 63 36 "File name too long",
    ENOTEMPTY 66 39 "Directory not empty",
    EDQUOT 69 122 "Disc quota exceeded",
    ESTALE 70 116 "Stale file handle",
    ENOLCK 77 37 "No locks available",
    ENOSYS 78 38 "Function not implemented",
    EFTYPE 79 22 "Inappropriate file type or format",
    EOVERFLOW 84 75 "Value too large to be stored in data type",
    ECANCELED 85 125 "Operation canceled",
    EILSEQ 86 84 "Illegal byte sequence",
    ENOATTR 87 61 "Attribute not found",
    EBADMSG 89 74 "Bad message",
    EPROTO 92 71 "Protocol error",
    ENOMEDIUM 93 123 "No medium found",
}

impl Errno {
    /// The name behind a number of DragonFly, `None` if it is not one of a file system's.
    pub fn from_bsd(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.bsd() == number)
    }

    /// The name behind a number of Linux, `None` if it is not one of a file system's.
    pub fn from_linux(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|e| e.linux() == number)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl core::error::Error for Errno {}

/// Why an operation failed: the [`Errno`] that decides what a program does next, and for a person the words `what`
/// and the place `at`, where the file system knows them.
///
/// A file system has richer errors of its own for mounting and checking. Across this interface goes what fits every
/// file system, by value and without allocation, so that it can travel in a message.
///
/// ```
/// use dfly_vfs::{Errno, Error};
///
/// let e = Error::new(Errno::EIO).because("bad CRC of a B-tree node").at(0x8000_0000_0010_0000);
/// assert_eq!(e.errno(), Errno::EIO);
/// assert_eq!(e.to_string(), "Input/output error: bad CRC of a B-tree node at 0x8000000000100000");
/// assert_eq!(Error::from(Errno::ENOENT).to_string(), "No such file or directory");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    what: &'static str,
    at: Option<u64>,
}

impl Error {
    /// An error that says no more than its number.
    pub const fn new(errno: Errno) -> Self {
        Self { errno, what: "", at: None }
    }

    /// The same error with words: what was wrong, in lower case and without a full stop.
    #[must_use]
    pub const fn because(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// The same error with a place: an offset, an address or an object number, in the units of its file system.
    #[must_use]
    pub const fn at(self, place: u64) -> Self {
        Self { at: Some(place), ..self }
    }

    /// What a program acts on.
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// What was wrong, empty where the number says it all.
    pub const fn what(&self) -> &'static str {
        self.what
    }

    /// Where it was wrong.
    pub const fn place(&self) -> Option<u64> {
        self.at
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(errno)
    }
}

impl PartialEq<Errno> for Error {
    /// Whether this error has that number, whatever its words.
    fn eq(&self, other: &Errno) -> bool {
        self.errno == *other
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.errno.text())?;
        if !self.what.is_empty() {
            write!(f, ": {}", self.what)?;
        }
        match self.at {
            Some(at) => write!(f, " at {at:#x}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_where_the_systems_do() {
        assert_eq!((Errno::EAGAIN.bsd(), Errno::EAGAIN.linux()), (35, 11));
        assert_eq!((Errno::EDEADLK.bsd(), Errno::EDEADLK.linux()), (11, 35));
        assert_eq!((Errno::ELOOP.bsd(), Errno::ELOOP.linux()), (62, 40));
        assert_eq!(Errno::ENOENT.name(), "ENOENT");
    }

    #[test]
    fn every_bsd_number_leads_back_to_its_name() {
        for &e in Errno::ALL {
            assert_eq!(Errno::from_bsd(e.bsd()), Some(e));
        }
        assert_eq!(Errno::from_bsd(0), None);
        assert_eq!(Errno::from_bsd(-1), None);
    }

    #[test]
    fn every_linux_number_leads_to_a_name_with_that_number() {
        for &e in Errno::ALL {
            assert_eq!(Errno::from_linux(e.linux()).map(Errno::linux), Some(e.linux()));
        }
        // EFTYPE does not exist on Linux; its stand-in reads back as itself.
        assert_eq!(Errno::from_linux(Errno::EFTYPE.linux()), Some(Errno::EINVAL));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_linux_column_is_the_one_of_this_machine() {
        // The standard library turns the platform's numbers into kinds: compare where both have a word for it.
        use std::io::{Error as Io, ErrorKind as K};
        for (e, kind) in [
            (Errno::ENOENT, K::NotFound),
            (Errno::EACCES, K::PermissionDenied),
            (Errno::EEXIST, K::AlreadyExists),
            (Errno::ENOTDIR, K::NotADirectory),
            (Errno::EISDIR, K::IsADirectory),
            (Errno::ENOTEMPTY, K::DirectoryNotEmpty),
            (Errno::EROFS, K::ReadOnlyFilesystem),
            (Errno::ENOSPC, K::StorageFull),
            (Errno::EXDEV, K::CrossesDevices),
            (Errno::ETXTBSY, K::ExecutableFileBusy),
            (Errno::ESTALE, K::StaleNetworkFileHandle),
            (Errno::EDEADLK, K::Deadlock),
            (Errno::EAGAIN, K::WouldBlock),
            (Errno::ETIMEDOUT, K::TimedOut),
            (Errno::EDQUOT, K::QuotaExceeded),
            (Errno::EFBIG, K::FileTooLarge),
        ] {
            assert_eq!(Io::from_raw_os_error(e.linux()).kind(), kind, "{}", e.name());
        }
    }
}
