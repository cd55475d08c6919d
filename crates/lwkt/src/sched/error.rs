//! What can be wrong with a request to the scheduler.

use dfly_hal::CpuId;

use crate::sched::stack_size::StackSize;

/// A scheduler cannot be made of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The platform says that it has no CPU.
    #[error("the platform has no CPU")]
    NoCpu,
    /// The size of stacks is out of range.
    #[error("the default stack: {0}")]
    Stack(SpawnError),
    /// The IPI queues cannot be made.
    #[error("the IPI queues: {0}")]
    Ipis(#[from] crate::ipi::SetupError),
}

/// A thread was not started. What it was to run has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such CPU.
    #[error("{0} does not exist")]
    NoSuchCpu(CpuId),
    /// So few bytes are no stack.
    #[error("a stack of {0} bytes is too small: at least {min}", min = StackSize::MIN_BYTES)]
    StackTooSmall(usize),
    /// Nobody needs so many.
    #[error("a stack of {0} bytes is too large: at most {max}", max = StackSize::MAX_BYTES)]
    StackTooLarge(usize),
    /// There is no memory for a stack of so many bytes.
    #[error("no memory for a stack of {0} bytes")]
    NoMemory(usize),
    /// The scheduler was stopped.
    #[error("the scheduler was stopped")]
    Stopped,
}

/// This CPU does not run threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The caller is not on one of the platform's CPUs.
    #[error("the caller is not on a CPU of the platform ({0})")]
    NotACpu(CpuId),
    /// This CPU runs threads already.
    #[error("{0} runs threads already")]
    Running(CpuId),
    /// The scheduler was stopped, which is for good.
    #[error("the scheduler was stopped")]
    Stopped,
}

/// A thread did not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It panicked.
    #[error("the thread panicked")]
    Panicked,
    /// The scheduler was stopped before the thread ended.
    #[error("the scheduler was stopped before the thread ended")]
    Stopped,
}

/// A thread did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// There is no such CPU.
    #[error("{0} does not exist")]
    NoSuchCpu(CpuId),
    /// Threads run on the OS thread that is their CPU, and may have lent its thread-locals. See
    /// [`Config::threads_may_move`](crate::Config::threads_may_move).
    #[error(
        "threads of this machine share thread-locals with their CPU, and nobody has promised that they do not lend them"
    )]
    ThreadLocals,
    /// The CPU runs no threads any more.
    #[error("{0} runs no threads any more")]
    Left(CpuId),
    /// A panic unwinds the thread: who counts that does so for each OS thread.
    #[error("a thread that unwinds stays where it is")]
    Unwinding,
}
