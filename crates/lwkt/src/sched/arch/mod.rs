//! How a CPU leaves one thread and goes on with another.
//!
//! A backend is a `Context`, where a suspended thread (or the idle caller of `Scheduler::run`) is kept, and the `Stack`
//! that it uses.

/// Where it can be, a switch is a dozen instructions.
#[cfg(all(target_arch = "x86_64", not(any(windows, miri, loom))))]
mod stack;
#[cfg(all(target_arch = "x86_64", not(any(windows, miri, loom))))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", not(any(windows, miri, loom))))]
pub(crate) use {
    stack::Stack,
    x86_64::{Context, enter, stand_in},
};

/// Elsewhere, and for tools that do not know assembly, an OS thread stands in for each thread.
#[cfg(not(all(target_arch = "x86_64", not(any(windows, miri, loom)))))]
mod parked;
#[cfg(not(all(target_arch = "x86_64", not(any(windows, miri, loom)))))]
pub(crate) use parked::{Context, Stack, enter, stand_in};

// The paint is memory like any other: Miri looks at it in its test.
#[cfg(all(test, miri))]
#[expect(dead_code, reason = "only for its tests")]
mod stack;
