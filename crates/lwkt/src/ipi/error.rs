//! What can be wrong with a request to the IPI queues.

use dfly_hal::CpuId;

use super::mask::MAX_CPUS;

/// The queues cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The machine says that it has no CPU.
    #[error("the machine has no CPU")]
    NoCpu,
    /// The machine has more CPUs than a mask has room for.
    #[error("the machine has {0} CPUs, and at most {MAX_CPUS} are possible")]
    TooManyCpus(u32),
}

/// A message was not sent. What it captured has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The caller is not on one of the machine's CPUs.
    #[error("the caller is on no CPU")]
    NotACpu,
    /// There is no such CPU.
    #[error("{0} does not exist")]
    NoSuchCpu(CpuId),
    /// The queue is full, and its CPU does not take part: it has not started, or has stopped.
    #[error("the queue to {0} is full, and that CPU is offline")]
    Offline(CpuId),
    /// Callbacks that wait for room, or that send to their own CPU, are nested too deep.
    #[error("more than {limit} callbacks inside each other", limit = super::queues::NEST_MAX)]
    TooDeep,
    /// An interrupt handler has filled the queue over a half-done send of the code that it interrupted, so there is
    /// nothing to wait for.
    #[error("an interrupt handler has filled the queue to {0} over a half-done send")]
    Interrupted(CpuId),
}

/// Waiting for a message, or running a function on other CPUs, is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The caller is not on one of the machine's CPUs.
    #[error("the caller is on no CPU")]
    NotACpu,
    /// The caller is a callback: two callbacks that wait for each other's end would wait for ever.
    #[error("a callback cannot wait for other CPUs")]
    InCallback,
    /// This CPU runs a function on others already, or has the machine stopped.
    #[error("{0} runs a function on other CPUs already")]
    Busy(CpuId),
    /// The CPU to be waited for does not take part: it has not started, or has stopped.
    #[error("{0} is offline")]
    Offline(CpuId),
    /// A CPU could not be told.
    #[error(transparent)]
    Send(#[from] SendError),
}
