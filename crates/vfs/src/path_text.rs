//! A path or a link's target, inline.

use core::fmt;
use core::ops::{Deref, Range};

use crate::{Errno, PATH_MAX};

/// The longest text: [`PATH_MAX`] without the NUL that C counts.
pub(crate) const TEXT_MAX: usize = PATH_MAX - 1;

/// A path or the target of a symbolic link: up to 1023 bytes, inline, without allocation.
#[derive(Clone, Copy)]
pub struct PathText {
    len: u16,
    bytes: [u8; TEXT_MAX],
}

impl PathText {
    /// No bytes.
    pub const fn new() -> Self {
        Self { len: 0, bytes: [0; TEXT_MAX] }
    }

    /// Adds `more` at the end. Errors: `ENAMETOOLONG`, and nothing was added.
    pub fn push(&mut self, more: &[u8]) -> Result<(), Errno> {
        self.replace(self.len()..self.len(), more, TEXT_MAX)
    }

    /// Puts `new` in the place of `range`. Errors: `ENAMETOOLONG` if more than `max` bytes would result, `EINVAL` if the
    /// range is outside the text; nothing was changed.
    pub(crate) fn replace(&mut self, range: Range<usize>, new: &[u8], max: usize) -> Result<(), Errno> {
        let old_len = usize::from(self.len);
        if range.start > range.end || range.end > old_len {
            return Err(Errno::EINVAL);
        }
        let new_len = old_len - (range.end - range.start) + new.len();
        if new_len > max.min(TEXT_MAX) {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes.copy_within(range.end..old_len, range.start + new.len());
        self.bytes[range.start..range.start + new.len()].copy_from_slice(new);
        self.len = new_len as u16;
        Ok(())
    }
}

impl Default for PathText {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for PathText {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl AsRef<[u8]> for PathText {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for PathText {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PathText {}

impl fmt::Debug for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}
