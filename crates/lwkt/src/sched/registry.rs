//! All schedulers of the process, for a panic handler and for debuggers.

use alloc::boxed::Box;
use core::ptr;
// `core`'s atomic, not the facade's: loom's have no place in a static.
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::sched::cpu::Cpu;
use crate::sched::info::ThreadInfo;
use crate::sched::scheduler::Scheduler;

/// The thread that runs on the calling CPU, whichever scheduler it is of: for a panic handler, which has none at hand.
/// From any context. On a host, where a CPU of one machine may be a thread of another, the machine made last comes first.
pub fn current() -> Option<ThreadInfo> {
    schedulers().find_map(Scheduler::current)
}

/// The thread whose stack has the page that guards it at `address`: for the handler of page faults, which names it before it
/// ends the machine. From any context.
pub fn overflowed_at(address: usize) -> Option<ThreadInfo> {
    let mut slots = schedulers().flat_map(Scheduler::cpus).flat_map(Cpu::slots);
    slots.find(|slot| slot.stack.guard().contains(&address))?.info()
}

static NEWEST: AtomicPtr<Link> = AtomicPtr::new(ptr::null_mut());

struct Link {
    scheduler: &'static Scheduler,
    older: *const Link,
}

fn link(ptr: *const Link) -> Option<&'static Link> {
    // SAFETY: null, or a link that `add` has leaked.
    unsafe { ptr.as_ref() }
}

pub(crate) fn add(scheduler: &'static Scheduler) {
    let new = Box::leak(Box::new(Link { scheduler, older: ptr::null() }));
    let mut newest = NEWEST.load(Ordering::Relaxed);
    loop {
        new.older = newest;
        // Release pairs with the Acquire in `schedulers`.
        match NEWEST.compare_exchange(newest, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => newest = now,
        }
    }
}

pub(crate) fn schedulers() -> impl Iterator<Item = &'static Scheduler> {
    let newest = link(NEWEST.load(Ordering::Acquire));
    core::iter::successors(newest, |at| link(at.older)).map(|at| at.scheduler)
}
