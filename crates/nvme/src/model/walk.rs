//! What a controller does with data pointers: follows them.

use dfly_hal::dma::DevAddr;

/// A data pointer that a controller refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPrp {
    /// An address with an offset that is not allowed there.
    #[error("offset of {0:#x}")]
    Offset(u64),
    /// The list could not be read.
    #[error("no list at {0:#x}")]
    List(u64),
}

/// Calls `each` with the pieces of a transfer of `len` bytes, in order: each within a page. `fetch` reads an entry of a
/// list. Work and memory are bounded by `len`.
pub fn walk(
    (prp1, prp2): (u64, u64),
    len: u64,
    page: u64,
    mut fetch: impl FnMut(DevAddr) -> Option<u64>,
    mut each: impl FnMut(DevAddr, usize),
) -> Result<(), BadPrp> {
    let page = page.max(16);
    if prp1 % 4 != 0 {
        return Err(BadPrp::Offset(prp1));
    }
    let first = len.min(page - prp1 % page);
    each(DevAddr(prp1), first as usize);
    let mut left = len - first;
    if left == 0 {
        return Ok(());
    }
    if left <= page {
        return if prp2 % page == 0 {
            each(DevAddr(prp2), left as usize);
            Ok(())
        } else {
            Err(BadPrp::Offset(prp2))
        };
    }
    let mut at = prp2;
    if at % 8 != 0 {
        return Err(BadPrp::Offset(at));
    }
    while left > 0 {
        let mut entry = fetch(DevAddr(at)).ok_or(BadPrp::List(at))?;
        if at % page == page - 8 && left > page {
            // The last entry of a page of the list, and it does not suffice: it leads to another.
            if entry % page != 0 {
                return Err(BadPrp::Offset(entry));
            }
            at = entry;
            entry = fetch(DevAddr(at)).ok_or(BadPrp::List(at))?;
        }
        if entry % page != 0 {
            return Err(BadPrp::Offset(entry));
        }
        let now = left.min(page);
        each(DevAddr(entry), now as usize);
        left -= now;
        at = at.wrapping_add(8);
    }
    Ok(())
}
