//! PRP entries [NVMe base 1.4, 4.3]: a transfer's memory as the controller wants it. Pure.
//!
//! ```text
//!   one page     PRP1 = its address, anywhere in the page
//!   two pages    PRP2 = the second page
//!   more         PRP2 = a list: | page 2 | page 3 | .. | page n |
//!                                at the last slot of a page of the list, while more follow: the address of its next page
//! ```

/// Where a list's entries go.
pub trait List {
    /// Entries that there is room for, those that link pages of the list included.
    fn capacity(&self) -> usize;
    /// Where the controller finds entry `index`.
    fn addr(&self, index: usize) -> u64;
    /// Writes entry `index`.
    fn set(&mut self, index: usize, entry: u64);
}

/// The two entries of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prps {
    /// The first page.
    pub prp1: u64,
    /// The second page, a list, or 0.
    pub prp2: u64,
}

/// Why memory cannot be described by PRP entries. It must be split there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrpError {
    /// The first byte is at no multiple of four.
    #[error("the first byte at {0:#x} is not aligned to four bytes")]
    Start(u64),
    /// Memory after the first segment starts inside a page.
    #[error("memory at {0:#x} starts inside a page")]
    Joint(u64),
    /// More memory follows a segment that ends inside a page.
    #[error("more memory follows the end at {0:#x} inside a page")]
    End(u64),
    /// No room in the list.
    #[error("more pages than the list has room for")]
    Full,
    /// A segment reaches beyond the address space.
    #[error("memory at {0:#x} reaches beyond the address space")]
    Overflow(u64),
}

/// Builds the entries of one transfer, segment by segment. Neither allocates nor blocks.
///
/// ```
/// use dfly_nvme::prp::{Builder, List, Prps};
/// struct At(u64, [u64; 32]);
/// impl List for At {
///     fn capacity(&self) -> usize { self.1.len() }
///     fn addr(&self, index: usize) -> u64 { self.0 + 8 * index as u64 }
///     fn set(&mut self, index: usize, entry: u64) { self.1[index] = entry; }
/// }
/// let mut list = At(0x8000, [0; 32]);
/// let mut prp = Builder::new(&mut list, 4096);
/// prp.push(0x1800, 0x800)?;                    // the end of a page,
/// prp.push(0x5000, 0x2000)?;                   // and two others
/// assert_eq!(prp.finish(), Prps { prp1: 0x1800, prp2: 0x8000 });
/// assert_eq!(list.1[..3], [0x5000, 0x6000, 0]);
/// # Ok::<(), dfly_nvme::prp::PrpError>(())
/// ```
pub struct Builder<'a, L: List> {
    list: &'a mut L,
    page: u64,
    prp1: Option<u64>,
    /// The latest page but the first: what it becomes depends on whether another follows.
    pending: Option<u64>,
    /// Entries of the list written so far.
    used: usize,
    /// Where the latest segment ended.
    end: u64,
}

impl<'a, L: List> Builder<'a, L> {
    /// For pages of `page_bytes`, a power of two.
    pub fn new(list: &'a mut L, page_bytes: u32) -> Self {
        Self { list, page: u64::from(page_bytes.max(8)), prp1: None, pending: None, used: 0, end: 0 }
    }

    /// Adds the next `len` bytes of the transfer. After an error the builder is of no more use.
    ///
    /// # Errors
    /// See [`PrpError`].
    pub fn push(&mut self, addr: u64, len: u64) -> Result<(), PrpError> {
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        let last = addr.checked_add(last).ok_or(PrpError::Overflow(addr))?;
        let inside = self.page - 1;
        let mut at = addr;
        match self.prp1 {
            None if addr & 3 != 0 => return Err(PrpError::Start(addr)),
            None => {
                self.prp1 = Some(addr);
                // The rest of the first page needs no entry.
                let Some(next) = (addr | inside).checked_add(1) else {
                    self.end = last.wrapping_add(1);
                    return Ok(());
                };
                at = next;
            }
            Some(_) if self.end & inside != 0 => return Err(PrpError::End(self.end)),
            Some(_) if addr & inside != 0 => return Err(PrpError::Joint(addr)),
            Some(_) => {}
        }
        while at <= last {
            self.entry(at)?;
            match at.checked_add(self.page) {
                Some(next) => at = next,
                None => break,
            }
        }
        self.end = last.wrapping_add(1);
        Ok(())
    }

    /// The entries of the command; the list is complete.
    pub fn finish(self) -> Prps {
        let prp1 = self.prp1.unwrap_or(0);
        let Some(pending) = self.pending else { return Prps { prp1, prp2: 0 } };
        if self.used == 0 {
            return Prps { prp1, prp2: pending };
        }
        self.list.set(self.used, pending);
        Prps { prp1, prp2: self.list.addr(0) }
    }

    fn entry(&mut self, page: u64) -> Result<(), PrpError> {
        if let Some(previous) = self.pending.replace(page) {
            // The pending entry will want a slot too, so there must be two.
            if self.used + 1 >= self.list.capacity() {
                return Err(PrpError::Full);
            }
            // The last slot of a page of the list leads to the next page.
            if self.ends_page(self.used) {
                let next = self.list.addr(self.used + 1);
                self.list.set(self.used, next);
                self.used += 1;
                if self.used + 1 >= self.list.capacity() {
                    return Err(PrpError::Full);
                }
            }
            self.list.set(self.used, previous);
            self.used += 1;
        }
        Ok(())
    }

    fn ends_page(&self, index: usize) -> bool {
        self.list.addr(index).wrapping_add(8) & (self.page - 1) == 0
    }
}
