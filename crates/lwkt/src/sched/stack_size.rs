//! How large a stack may be.

use crate::sched::error::SpawnError;

/// A stack's size: a power of two, so that there are few sizes and an ended thread's stack suits the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StackSize(u8);

impl StackSize {
    const MIN_LOG: u8 = 13;
    const MAX_LOG: u8 = 26;
    /// The least that may be asked for. A panic and its output fit into it on a host, if barely.
    pub(crate) const MIN_BYTES: usize = 8 << 10;
    pub(crate) const MAX_BYTES: usize = 64 << 20;
    pub(crate) const COUNT: usize = (Self::MAX_LOG - Self::MIN_LOG) as usize + 1;

    /// The smallest size that has `bytes`.
    pub(crate) fn for_bytes(bytes: usize) -> Result<Self, SpawnError> {
        match bytes {
            ..Self::MIN_BYTES => Err(SpawnError::StackTooSmall(bytes)),
            Self::MIN_BYTES..=Self::MAX_BYTES => Ok(Self(bytes.next_power_of_two().ilog2() as u8)),
            _ => Err(SpawnError::StackTooLarge(bytes)),
        }
    }

    pub(crate) fn bytes(self) -> usize {
        1 << self.0
    }

    /// 0 up to `COUNT`.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0 - Self::MIN_LOG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_within_bounds() {
        let bytes = |bytes| StackSize::for_bytes(bytes).map(StackSize::bytes);
        assert_eq!(bytes(0), Err(SpawnError::StackTooSmall(0)));
        assert_eq!(bytes(StackSize::MIN_BYTES - 1), Err(SpawnError::StackTooSmall(StackSize::MIN_BYTES - 1)));
        assert_eq!(bytes(StackSize::MIN_BYTES), Ok(StackSize::MIN_BYTES));
        assert_eq!(bytes(33 << 10), Ok(64 << 10));
        assert_eq!(bytes(StackSize::MAX_BYTES), Ok(StackSize::MAX_BYTES));
        assert_eq!(bytes(usize::MAX), Err(SpawnError::StackTooLarge(usize::MAX)));
        for size in [StackSize::MIN_BYTES, StackSize::MAX_BYTES] {
            assert!(StackSize::for_bytes(size).unwrap().index() < StackSize::COUNT);
        }
    }
}
