//! The name of one directory entry, checked once.

use core::fmt;

/// The longest name of a directory entry, in bytes. Source: `NAME_MAX` of DragonFly's `<sys/syslimits.h>`.
pub const NAME_MAX: usize = 255;

/// The longest path, in bytes, its ending NUL included, as C counts it: a path here has at most `PATH_MAX - 1`.
/// Source: `PATH_MAX` of DragonFly's `<sys/syslimits.h>`.
pub const PATH_MAX: usize = 1024;

/// Why bytes are not the name of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No bytes at all.
    #[error("empty name")]
    Empty,
    /// `.` or `..`: they name a place, not an entry. A path walk understands them.
    #[error("not the name of an entry: `.` or `..`")]
    Dots,
    /// More than [`NAME_MAX`] bytes.
    #[error("a name of {0} bytes is too long")]
    TooLong(usize),
    /// A NUL or a `/`, at this byte.
    #[error("a NUL or a slash in a name at byte {0}")]
    BadByte(usize),
}

impl From<NameError> for crate::Error {
    fn from(e: NameError) -> Self {
        use crate::{Errno, Error};
        match e {
            NameError::Empty => Error::new(Errno::ENOENT).because("empty name"),
            NameError::Dots => Error::new(Errno::EINVAL).because("`.` or `..` as the name of an entry"),
            NameError::TooLong(_) => Error::new(Errno::ENAMETOOLONG),
            NameError::BadByte(at) => {
                Error::new(Errno::EINVAL).because("a NUL or a slash in a name").at(at as u64)
            }
        }
    }
}

/// The name of a directory entry: 1 to 255 bytes, no NUL, no `/`, neither `.` nor `..`.
///
/// The bytes have no further meaning here, nor an encoding. A file system gives meaning to some (`@@0x...` in HAMMER).
/// Names read from a disk are bytes until this type took them: it is what keeps a hostile directory from naming
/// something outside itself.
///
/// ```
/// use dfly_vfs::{Name, NameError};
///
/// assert_eq!(Name::new("notes")?.as_bytes(), b"notes");
/// assert_eq!(Name::new(".."), Err(NameError::Dots));
/// assert_eq!(Name::new("a/b"), Err(NameError::BadByte(1)));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks `bytes`. Callable from every context; never blocks.
    pub fn new<B: AsRef<[u8]> + ?Sized>(bytes: &'a B) -> Result<Self, NameError> {
        let bytes = bytes.as_ref();
        match bytes {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > NAME_MAX => Err(NameError::TooLong(bytes.len())),
            _ => match bytes.iter().position(|&b| b == 0 || b == b'/') {
                Some(at) => Err(NameError::BadByte(at)),
                None => Ok(Self(bytes)),
            },
        }
    }

    /// The bytes of the name.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl AsRef<[u8]> for Name<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Display for Name<'_> {
    /// The name as text; bytes that are not printable ASCII or UTF-8 as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A [`Name`] that owns its bytes, inline and without allocation, so that it can be stored and travel (256 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameBuf {
    len: u8,
    // Bytes from `len` on are zero, so that derived equality and hash are those of the name.
    bytes: [u8; NAME_MAX],
}

impl NameBuf {
    /// The name as it is lent to calls.
    pub fn as_name(&self) -> Name<'_> {
        Name(self.bytes.get(..usize::from(self.len)).unwrap_or_default())
    }
}

impl From<Name<'_>> for NameBuf {
    fn from(name: Name<'_>) -> Self {
        let mut bytes = [0; NAME_MAX];
        // A `Name` never has more than NAME_MAX bytes, so the cut below cuts nothing.
        let len = name.0.len().min(NAME_MAX);
        bytes[..len].copy_from_slice(&name.0[..len]);
        Self { len: len as u8, bytes }
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_name(), f)
    }
}
