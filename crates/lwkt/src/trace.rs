//! What the scheduler did, event by event: DragonFly's KTR.
//!
//! Off by default, and then not there at all: it needs the feature `trace`, and room for events
//! ([`Config::trace_events`](crate::Config::trace_events)). Each CPU writes into a ring of its own, without a lock and from any
//! context, and forgets its oldest events. Anybody reads them at any time, also while they are written.
//!
//! ```
//! # #[cfg(all(feature = "std", feature = "trace"))] {
//! use dfly_hal::{CpuId, ThreadWait};
//! use dfly_lwkt::trace::Kind;
//! use dfly_lwkt::{Config, host::Machine};
//!
//! let machine = Machine::start(1, Config::default().trace_events(64))?;
//! machine.scheduler().spawn(CpuId(0), "brief".into(), |_| ())?.join(&mut ThreadWait::new())?;
//! let mut switches = 0;
//! machine.scheduler().trace(&mut |event| {
//!     println!("{event}");                            // 0.000031057 cpu0: switch from idle to 1
//!     switches += u32::from(matches!(event.kind, Kind::Switch { .. }));
//! });
//! assert!(switches > 0);
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! | | allocates | may block | from an interrupt |
//! |---|---|---|---|
//! | [`Scheduler::new`](crate::Scheduler::new) | the rings, for good | no | no |
//! | an event is written | no | no | **yes** |
//! | [`Scheduler::trace`](crate::Scheduler::trace) | no | no | **yes** |
//!
//! While a trace is taken, an event costs two atomic read-modify-writes and a look at the clock.

use alloc::boxed::Box;
use core::fmt;

use dfly_hal::{CpuId, Instant};

#[doc(hidden)]
pub mod ring;
use ring::Ring;

use crate::sched::ThreadId;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When, by the machine's clock.
    pub at: Instant,
    /// The CPU that did it; [`CpuId::NONE`] if it was none.
    pub cpu: CpuId,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A CPU went from one thread to another; `None` is its idle context.
    Switch {
        /// What ran.
        from: Option<ThreadId>,
        /// What runs now.
        to: Option<ThreadId>,
    },
    /// A thread began to wait.
    Block {
        /// Which.
        thread: ThreadId,
    },
    /// A thread is ready that was blocked, or is new.
    Wake {
        /// Which.
        thread: ThreadId,
    },
    /// A thread interrupted another one.
    Preempt {
        /// Which was interrupted.
        thread: ThreadId,
        /// By which.
        by: ThreadId,
    },
    /// A CPU was interrupted, to end its halt or to look at its queues.
    Ipi {
        /// Which.
        to: CpuId,
    },
    /// A thread waits for a token that somebody else has.
    Contention {
        /// Which.
        thread: ThreadId,
        /// The address of the token's word.
        token: usize,
    },
    /// A thread went to another CPU.
    Migrate {
        /// Which.
        thread: ThreadId,
        /// To which CPU.
        to: CpuId,
    },
}

impl Kind {
    /// As a number and two words.
    fn encode(self) -> (u32, [u64; 2]) {
        let id = |thread: ThreadId| thread.0;
        let maybe = |thread: Option<ThreadId>| thread.map_or(0, id);
        match self {
            Self::Switch { from, to } => (0, [maybe(from), maybe(to)]),
            Self::Block { thread } => (1, [id(thread), 0]),
            Self::Wake { thread } => (2, [id(thread), 0]),
            Self::Preempt { thread, by } => (3, [id(thread), id(by)]),
            Self::Ipi { to } => (4, [u64::from(to.0), 0]),
            Self::Contention { thread, token } => (5, [id(thread), token as u64]),
            Self::Migrate { thread, to } => (6, [id(thread), u64::from(to.0)]),
        }
    }

    fn decode(number: u32, [a, b]: [u64; 2]) -> Option<Self> {
        let maybe = |id| (id != 0).then_some(ThreadId(id));
        let thread = ThreadId(a);
        Some(match number {
            0 => Self::Switch { from: maybe(a), to: maybe(b) },
            1 => Self::Block { thread },
            2 => Self::Wake { thread },
            3 => Self::Preempt { thread, by: ThreadId(b) },
            4 => Self::Ipi { to: CpuId(a as u32) },
            5 => Self::Contention { thread, token: b as usize },
            6 => Self::Migrate { thread, to: CpuId(b as u32) },
            _ => return None,
        })
    }
}

impl Event {
    fn encode(self) -> [u64; 4] {
        let (number, [a, b]) = self.kind.encode();
        [self.at.as_nanos(), u64::from(number) << 32 | u64::from(self.cpu.0), a, b]
    }

    fn decode([at, what, a, b]: [u64; 4]) -> Option<Self> {
        let kind = Kind::decode((what >> 32) as u32, [a, b])?;
        Some(Self { at: Instant::from_nanos(at), cpu: CpuId(what as u32), kind })
    }
}

/// `12.000345678 cpu0: switch from 3 to idle`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.at.as_nanos();
        write!(f, "{}.{:09} ", ns / 1_000_000_000, ns % 1_000_000_000)?;
        match self.cpu {
            CpuId::NONE => f.write_str("elsewhere")?,
            cpu => cpu.fmt(f)?,
        }
        write!(f, ": {}", self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_idle = |thread: Option<ThreadId>| Named(thread);
        match *self {
            Self::Switch { from, to } => write!(f, "switch from {} to {}", or_idle(from), or_idle(to)),
            Self::Block { thread } => write!(f, "{thread} blocks"),
            Self::Wake { thread } => write!(f, "{thread} is ready"),
            Self::Preempt { thread, by } => write!(f, "{thread} preempted by {by}"),
            Self::Ipi { to } => write!(f, "IPI to {to}"),
            Self::Contention { thread, token } => write!(f, "{thread} waits for token {token:#x}"),
            Self::Migrate { thread, to } => write!(f, "{thread} goes to {to}"),
        }
    }
}

struct Named(Option<ThreadId>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(thread) => thread.fmt(f),
            None => f.write_str("idle"),
        }
    }
}

/// A ring for each CPU, and one for who is on none.
pub(crate) struct Trace(Box<[Ring]>);

impl Trace {
    /// Rings of at least so many events; none where that is 0.
    pub(crate) fn new(cpus: u32, events: usize) -> Option<Self> {
        let any = cfg!(feature = "trace") && events != 0;
        any.then(|| Self((0..=cpus).map(|_| Ring::new(events)).collect()))
    }

    pub(crate) fn write(&self, event: Event) {
        let ring = self.0.get(event.cpu.index()).or_else(|| self.0.last());
        if let Some(ring) = ring {
            ring.write(event.encode());
        }
    }

    pub(crate) fn read(&self, each: &mut dyn FnMut(&Event)) {
        for ring in &self.0 {
            ring.read(&mut |words| {
                if let Some(event) = Event::decode(words) {
                    each(&event);
                }
            });
        }
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn events_are_what_they_were_when_they_are_read_and_show_themselves() {
        let (one, two) = (ThreadId(1), ThreadId(2));
        let all = [
            (Kind::Switch { from: None, to: Some(two) }, "switch from idle to 2"),
            (Kind::Switch { from: Some(one), to: None }, "switch from 1 to idle"),
            (Kind::Block { thread: one }, "1 blocks"),
            (Kind::Wake { thread: one }, "1 is ready"),
            (Kind::Preempt { thread: one, by: two }, "1 preempted by 2"),
            (Kind::Ipi { to: CpuId(3) }, "IPI to cpu3"),
            (Kind::Contention { thread: one, token: 0xf00 }, "1 waits for token 0xf00"),
            (Kind::Migrate { thread: two, to: CpuId(1) }, "2 goes to cpu1"),
        ];
        let trace = Trace(Box::new([Ring::new(8), Ring::new(8)]));
        let event = |kind| Event { at: Instant::from_nanos(12_000_345_678), cpu: CpuId(0), kind };
        all.iter().for_each(|&(kind, _)| trace.write(event(kind)));
        trace.write(Event { cpu: CpuId::NONE, ..event(all[0].0) });
        let mut seen = Vec::new();
        trace.read(&mut |event| seen.push((event.kind, event.to_string())));
        let shown = |cpu, text| std::format!("12.000345678 {cpu}: {text}");
        let mut expected: Vec<_> = all.iter().map(|&(kind, text)| (kind, shown("cpu0", text))).collect();
        expected.push((all[0].0, shown("elsewhere", all[0].1)));
        assert_eq!(seen, expected);
        assert_eq!(Event::decode([0, 7 << 32, 0, 0]), None);
    }
}
