//! The physical region descriptor table [AHCI 1.3.1, 4.2.3.3]: a transfer's memory as the adapter wants it. Pure.
//!
//! An entry is an even address and an even length of up to 4 MiB; neighbours that touch share one.

use crate::spec::Prd;

/// Where a table's entries go.
pub trait Table {
    /// Entries that there is room for.
    fn capacity(&self) -> usize;
    /// Writes entry `index`.
    fn set(&mut self, index: usize, entry: Prd);
}

/// Why memory cannot be described by a PRDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrdtError {
    /// It begins or ends at an odd address.
    #[error("memory at {addr:#x} of {len} bytes begins or ends at an odd address")]
    Odd {
        /// Where it begins.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// No room in the table.
    #[error("more pieces than the table has room for")]
    Full,
    /// It reaches beyond the address space.
    #[error("memory at {0:#x} reaches beyond the address space")]
    Overflow(u64),
}

/// Builds the table of one transfer, segment by segment. Neither allocates nor blocks.
///
/// ```
/// use dfly_ahci::prdt::{Builder, Table};
/// use dfly_ahci::spec::Prd;
/// struct Entries(Vec<Prd>);
/// impl Table for Entries {
///     fn capacity(&self) -> usize { 8 }
///     fn set(&mut self, index: usize, entry: Prd) {
///         self.0.truncate(index);
///         self.0.push(entry);
///     }
/// }
/// let mut table = Entries(Vec::new());
/// let mut prdt = Builder::new(&mut table);
/// prdt.push(0x1800, 0x800)?;
/// prdt.push(0x2000, 0x1000)?;                  // goes on where the last one ends
/// prdt.push(0x5002, 510)?;
/// assert_eq!(prdt.finish(), 2);
/// assert_eq!(table.0, [Prd::new(0x1800, 0x1800), Prd::new(0x5002, 510)]);
/// # Ok::<(), dfly_ahci::prdt::PrdtError>(())
/// ```
pub struct Builder<'a, T: Table> {
    table: &'a mut T,
    used: usize,
    /// The entry that is not yet written: where, and how many bytes.
    open: Option<(u64, u32)>,
}

impl<'a, T: Table> Builder<'a, T> {
    /// Begins a table.
    pub fn new(table: &'a mut T) -> Self {
        Self { table, used: 0, open: None }
    }

    /// Adds `len` bytes at `addr`.
    ///
    /// # Errors
    /// [`PrdtError`]; the table is of no use then.
    pub fn push(&mut self, mut addr: u64, len: u64) -> Result<(), PrdtError> {
        if !addr.is_multiple_of(2) || !len.is_multiple_of(2) {
            return Err(PrdtError::Odd { addr, len });
        }
        if len != 0 && addr.checked_add(len - 1).is_none() {
            return Err(PrdtError::Overflow(addr));
        }
        let mut left = len;
        while left != 0 {
            let (start, used) = match self.open {
                Some((start, used)) if start.wrapping_add(used.into()) == addr && used < Prd::MAX_BYTES => {
                    (start, used)
                }
                _ => {
                    self.close()?;
                    (addr, 0)
                }
            };
            let now = left.min(u64::from(Prd::MAX_BYTES - used));
            // No more than an entry holds.
            self.open = Some((start, used + now as u32));
            left -= now;
            addr = addr.wrapping_add(now);
        }
        // There is room for what is open, or this is the moment to say so.
        if self.open.is_some() && self.used >= self.table.capacity() { Err(PrdtError::Full) } else { Ok(()) }
    }

    /// The number of entries; the table is complete.
    pub fn finish(mut self) -> u16 {
        // `push` has seen that there is room.
        let _ = self.close();
        u16::try_from(self.used).unwrap_or(u16::MAX)
    }

    fn close(&mut self) -> Result<(), PrdtError> {
        let Some((start, len)) = self.open.take() else { return Ok(()) };
        if self.used >= self.table.capacity() {
            return Err(PrdtError::Full);
        }
        self.table.set(self.used, Prd::new(start, len));
        self.used += 1;
        Ok(())
    }
}
