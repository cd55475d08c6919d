//! What a thread is made of: its name, priority and stack.

use core::fmt;
use core::ops::Deref;

/// How important a thread is, 0 to 31, larger is more. The constants are DragonFly's (`TDPRI_*`).
///
/// A CPU runs the most important of its threads that are ready; equals take turns. Nothing ages, and nothing is
/// inherited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Work for CPUs that have nothing else to do.
    pub const IDLE_WORK: Self = Self(1);
    /// A CPU's helper for user-mode scheduling.
    pub const USER_SCHEDULER: Self = Self(2);
    /// User mode, idle class.
    pub const USER_IDLE: Self = Self(4);
    /// User mode, normal class.
    pub const USER_NORM: Self = Self(6);
    /// User mode, real-time class.
    pub const USER_REAL: Self = Self(8);
    /// A user's thread while it is in the kernel: shells, commands.
    pub const KERN_USER: Self = Self(10);
    /// Kernel daemons, and what nobody chose a priority for.
    pub const KERN_DAEMON: Self = Self(12);
    /// Soft interrupts.
    pub const SOFT_NORM: Self = Self(14);
    /// Soft timers.
    pub const SOFT_TIMER: Self = Self(16);
    /// Threads that interrupt threads depend on.
    pub const INT_SUPPORT: Self = Self(20);
    /// Interrupt threads, low.
    pub const INT_LOW: Self = Self(27);
    /// Interrupt threads: those that reap a device's completions.
    pub const INT_MED: Self = Self(28);
    /// Interrupt threads, high.
    pub const INT_HIGH: Self = Self(29);
    /// The most important.
    pub const MAX: Self = Self(31);

    /// The most important that does not preempt.
    pub(crate) const BELOW_INTERRUPT: Self = Self(Self::INT_SUPPORT.0 - 1);

    /// How many there are.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// The priority `value`, if there is one.
    pub const fn new(value: u8) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// As a number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether threads of this priority preempt less important ones of their CPU: from [`INT_SUPPORT`](Self::INT_SUPPORT) on.
    pub const fn is_interrupt(self) -> bool {
        self.0 >= Self::INT_SUPPORT.0
    }
}

impl Default for Priority {
    /// [`Priority::KERN_DAEMON`], as for every new thread of DragonFly's.
    fn default() -> Self {
        Self::KERN_DAEMON
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Priority({})", self.0)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A thread's name, held in place: at most [`Name::MAX_BYTES`] of UTF-8.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Name {
    pub(crate) bytes: [u8; Self::MAX_BYTES],
    pub(crate) len: u8,
}

impl Name {
    /// What is longer is cut, between two characters.
    pub const MAX_BYTES: usize = 31;

    /// A name of the first bytes of `name`.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; Self::MAX_BYTES];
        // `str::floor_char_boundary` is younger than the oldest supported Rust.
        let longest = name.len().min(Self::MAX_BYTES);
        let len = (0..=longest).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), name.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
        Self { bytes, len: len as u8 }
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("?")
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// What to make a thread of.
///
/// ```
/// use dfly_lwkt::{Priority, Spec};
/// let reaper = Spec::new("nvme0 reaper").priority(Priority::INT_MED).stack_bytes(32 << 10);
/// assert_eq!(&*reaper.name, "nvme0 reaper");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spec {
    /// For people.
    pub name: Name,
    /// How important it is.
    pub priority: Priority,
    /// How important it is among those of its priority, larger is more (DragonFly's `td_upri`).
    pub sub_priority: u8,
    /// How large its stack is to be, at least; the scheduler's [`Config::stack_bytes`] if `None`.
    pub stack_bytes: Option<usize>,
}

impl Spec {
    /// A thread with this name, default priority and default stack.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With this priority.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// With this sub-priority.
    pub fn sub_priority(self, sub_priority: u8) -> Self {
        Self { sub_priority, ..self }
    }

    /// With a stack of at least so many bytes.
    pub fn stack_bytes(self, bytes: usize) -> Self {
        Self { stack_bytes: Some(bytes), ..self }
    }
}

impl From<&str> for Spec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// What a scheduler is told at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How large a thread's stack is where its [`Spec`] does not say.
    pub stack_bytes: usize,
    /// Whether the time that threads run is measured.
    pub run_time: RunTime,
    /// How many events of its trace each CPU keeps; 0 for no trace.
    pub trace_events: usize,
    /// Whether threads may move where they share thread-locals.
    moves: bool,
}

/// Whether a scheduler measures how long its threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunTime {
    /// The clock is read at each switch.
    Measured,
    /// It is not: a switch is cheaper, and run times are 0.
    NotMeasured,
}

impl Default for Config {
    /// Stacks of 64 KiB, and of 256 KiB with `std`, whose panics and output want more; run times are measured; no trace.
    fn default() -> Self {
        let stack_bytes = if cfg!(feature = "std") { 256 << 10 } else { 64 << 10 };
        Self { stack_bytes, run_time: RunTime::Measured, trace_events: 0, moves: false }
    }
}

impl Config {
    /// With stacks of so many bytes.
    pub fn stack_bytes(self, stack_bytes: usize) -> Self {
        Self { stack_bytes, ..self }
    }

    /// With or without run times.
    pub fn run_time(self, run_time: RunTime) -> Self {
        Self { run_time, ..self }
    }

    /// Lets threads [move](crate::Cx::migrate) also where each CPU is an OS thread and its threads run on that. On bare metal
    /// they may anyway, and where an OS thread stands in for each thread.
    ///
    /// # Safety
    /// A thread that moves finds other thread-locals afterwards, on another OS thread. Whenever one does, its frames hold
    /// nothing that belongs to the OS thread: no reference to a thread-local, nothing that such a one shares (an `Rc` whose
    /// clone is in it), no value that its OS thread must drop (a guard of a `std::sync::Mutex`). No code around the move
    /// keeps the address of a thread-local over it: what touches one is in functions of its own that are not inlined.
    #[must_use]
    pub const unsafe fn threads_may_move(self) -> Self {
        Self { moves: true, ..self }
    }

    pub(crate) const fn moves(&self) -> bool {
        self.moves
    }

    /// With a [trace](crate#features) of so many events for each CPU, rounded up to a power of two: 48 bytes for each. No effect
    /// without the feature `trace`.
    pub fn trace_events(self, trace_events: usize) -> Self {
        Self { trace_events, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(&*Name::new("idle"), "idle");
        assert_eq!(&*Name::new("0123456789012345678901234567890123"), "0123456789012345678901234567890");
        let wide = "\u{fc}".repeat(20);
        assert_eq!(Name::new(&wide).len(), 30);
    }

    #[test]
    fn there_are_32_priorities() {
        assert_eq!(Priority::new(31), Some(Priority::MAX));
        assert_eq!(Priority::new(32), None);
        assert_eq!(Priority::COUNT, 32);
        assert!(Priority::INT_MED > Priority::KERN_USER);
    }
}
