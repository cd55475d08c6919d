//! What threads sleep on.

use core::fmt;

use super::BUCKET_BITS;

/// What threads sleep on: a number that sleepers and wakers agree on, usually the address of what they wait for. It is
/// never dereferenced, so a wake-up for what is long gone finds nobody, or wakes for no reason whoever waits for what is
/// there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ident(pub usize);

impl Ident {
    /// The address of `target`. Values without size may share theirs.
    pub fn of<T: ?Sized>(target: &T) -> Self {
        Self(core::ptr::from_ref(target).addr())
    }

    /// This number in a domain of its own, where it meets no other user of the same address.
    pub const fn in_domain(self, domain: Domain) -> Channel {
        Channel { ident: self, domain }
    }
}

/// Keeps users apart who sleep on the same addresses for different reasons (DragonFly's `PDOMAIN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Domain(pub u16);

impl Domain {
    /// Where an [`Ident`] is that nobody has put elsewhere.
    pub const KERNEL: Self = Self(0);
    /// Of addresses in user memory.
    pub const UMTX: Self = Self(1);
    /// Of locks of a file system's own.
    pub const XLOCK: Self = Self(2);
}

/// An [`Ident`] in its [`Domain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel {
    /// What is slept on.
    pub ident: Ident,
    /// For which reason.
    pub domain: Domain,
}

impl Channel {
    /// The number of its bucket.
    #[inline]
    pub(super) fn bucket(self) -> usize {
        // Addresses differ in the middle: a multiplication moves that to the top (Fibonacci hashing).
        let key = self.ident.0 as u64 ^ u64::from(self.domain.0) << 48;
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKET_BITS)) as usize
    }
}

impl From<Ident> for Channel {
    fn from(ident: Ident) -> Self {
        ident.in_domain(Domain::KERNEL)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ident: Ident(ident), domain: Domain(domain) } = self;
        match domain {
            0 => write!(f, "{ident:#x}"),
            _ => write!(f, "{ident:#x} in domain {domain}"),
        }
    }
}
