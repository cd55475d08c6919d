//! What an adapter does with a PRDT: follows it.

use dfly_hal::dma::DevAddr;

use crate::spec::Prd;

/// A table that an adapter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPrdt {
    /// An entry could not be read.
    #[error("entry {0} cannot be read")]
    Entry(u16),
    /// An entry has an odd address or an odd length.
    #[error("entry {0} has an odd address or length")]
    Odd(u16),
}

/// Calls `each` with the pieces of a transfer of at most `len` bytes, in order, and returns how many bytes there were. `fetch`
/// reads an entry of the table. Work is bounded by `entries`.
pub fn walk(
    entries: u16,
    len: u64,
    mut fetch: impl FnMut(u16) -> Option<Prd>,
    mut each: impl FnMut(DevAddr, usize),
) -> Result<u64, BadPrdt> {
    let mut left = len;
    for index in 0..entries {
        if left == 0 {
            break;
        }
        let entry = fetch(index).ok_or(BadPrdt::Entry(index))?;
        if entry.addr() % 2 != 0 || entry.len() % 2 != 0 {
            return Err(BadPrdt::Odd(index));
        }
        let now = left.min(entry.len().into());
        each(DevAddr(entry.addr()), now as usize);
        left -= now;
    }
    Ok(len - left)
}
