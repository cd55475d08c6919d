//! What a scheduler tells of its threads and CPUs.

use core::fmt;
use core::time::Duration;

use dfly_hal::CpuId;

use crate::sleep::Channel;
use crate::spec::{Name, Priority};

/// The number of a thread, from 1. Not used again while the scheduler lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub(crate) u64);

impl ThreadId {
    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum ThreadState {
    /// It was spawned, and its CPU has not looked yet.
    New = 1,
    /// It waits for its turn.
    Ready,
    /// It runs.
    Running,
    /// It waits to be woken.
    Blocked,
    /// It ends.
    Exiting,
    /// It was running, and goes on when a more important thread has waited, yielded or ended.
    Preempted,
    /// It is on its way to another CPU, or was [given away](crate::Cx::give_away).
    Moving,
}

impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Exiting => "exiting",
            Self::Preempted => "preempted",
            Self::Moving => "moving",
        })
    }
}

/// A thread, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// Its number.
    pub id: ThreadId,
    /// Its name.
    pub name: Name,
    /// The CPU that it belongs to.
    pub cpu: CpuId,
    /// How important it is.
    pub priority: Priority,
    /// What it does.
    pub state: ThreadState,
    /// What it [sleeps](crate::sleep) on, if it does; what it waits for otherwise has no name.
    pub sleeps_on: Option<Channel>,
    /// How often a CPU has switched to it.
    pub switches: u64,
    /// How often it was woken while it was blocked.
    pub wakes: u64,
    /// How long it has run, up to its last switch; 0 if that is not [measured](crate::RunTime).
    pub run_time: Duration,
    /// How large its stack is.
    pub stack_bytes: usize,
    /// How much of the stack it has used at the most, as far as the paint in it tells. `None` where its stack is not
    /// ours to look at: where a parked OS thread stands in for it.
    pub stack_used_bytes: Option<usize>,
    /// Whether an overflow of the stack faults, before it has written to anything. Else it is found at the next switch.
    pub stack_is_guarded: bool,
}

/// What a CPU has done since it began to run threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuStats {
    /// Threads that were spawned here.
    pub spawned: u64,
    /// Threads that have ended here.
    pub exited: u64,
    /// Switches from one context to another: threads, and the idle context.
    pub switches: u64,
    /// How often a thread of it preempted another.
    pub preemptions: u64,
    /// How often one, an IPI message or a tick had to wait for the end of a critical section or a short lock.
    pub preemptions_put_off: u64,
    /// Blocked threads woken from this CPU: by its threads and interrupts.
    pub wakes_local: u64,
    /// Blocked threads woken from elsewhere: by other CPUs, and by host threads that are none.
    pub wakes_remote: u64,
    /// IPIs that were raised to end this CPU's halt for a wake or a new thread.
    pub ipis: u64,
    /// How often it halted.
    pub halts: u64,
    /// Threads that came from other CPUs.
    pub moved_here: u64,
    /// How often one of its threads gave way because a token was not to be had.
    pub token_collisions: u64,
    /// How long it has halted, up to the end of the last halt.
    pub idle_time: Duration,
}
