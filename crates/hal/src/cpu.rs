//! CPUs: which one am I on, how many are there, interrupt that one.

use core::fmt;

/// The number of a logical CPU: 0 up to [`Cpus::count`], without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

impl CpuId {
    /// No CPU: what [`Cpus::this`] says to a caller that runs on none of its CPUs, such as a foreign host thread. As
    /// an index it is out of every range.
    pub const NONE: Self = Self(u32::MAX);

    /// As an index into per-CPU tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

/// The machine's CPUs. Every method is callable from every context, interrupts included, and never blocks.
///
/// How an IPI is taken is the embedding kernel's own: its interrupt entry calls whoever wants to know (usually the
/// scheduler).
///
/// # Safety
/// Per-CPU data is touched on the strength of [`this`](Self::this).
///
/// # Implementation safety
/// - `this` tells the truth for the moment at which it is called. It stays true as long as the caller cannot be moved
///   (preemption disabled, or an interrupt); otherwise it is a hint. Two callers that cannot be moved and run at the
///   same time never get the same answer, [`CpuId::NONE`] excepted.
/// - `this` is below `count`, or it is [`CpuId::NONE`]. `count` never changes.
/// - After `raise_ipi`, the handler runs at least once on that CPU, and sees what the caller wrote before. Several IPIs
///   may arrive as one. An IPI to oneself is allowed; one to a CPU that does not exist does nothing.
pub unsafe trait Cpus: Send + Sync {
    /// The CPU that the caller runs on.
    fn this(&self) -> CpuId;

    /// How many CPUs there are, at least 1.
    fn count(&self) -> u32;

    /// Interrupts `to`.
    fn raise_ipi(&self, to: CpuId);
}

crate::forward! {
    unsafe impl Cpus for &T, Box<T>, Arc<T> {
        fn this(&self) -> CpuId;
        fn count(&self) -> u32;
        fn raise_ipi(&self, to: CpuId);
    }
}
