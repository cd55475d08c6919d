//! How a CPU leaves one thread and goes on with another.
//!
//! A backend is a `Context`, where a suspended thread (or the idle caller of `Scheduler::run`) is kept, and the `Stack`
//! that it uses.

/// Where it can be, a switch is a dozen instructions. Not where `extern "C"` is another ABI than System V's.
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(windows, target_os = "uefi", target_os = "cygwin", miri, loom))
))]
mod stack;
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(windows, target_os = "uefi", target_os = "cygwin", miri, loom))
))]
mod x86_64;
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(windows, target_os = "uefi", target_os = "cygwin", miri, loom))
))]
pub(crate) use {
    stack::Stack,
    x86_64::{Context, ON_THE_CPUS_OWN, enter, stand_in},
};

/// Elsewhere, and for tools that do not know assembly, an OS thread stands in for each thread.
#[cfg(not(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(windows, target_os = "uefi", target_os = "cygwin", miri, loom))
)))]
mod parked;
#[cfg(not(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    not(any(windows, target_os = "uefi", target_os = "cygwin", miri, loom))
)))]
pub(crate) use parked::{Context, ON_THE_CPUS_OWN, Stack, enter, stand_in};

// The paint is memory like any other: Miri looks at it in its test.
#[cfg(all(test, miri))]
#[expect(dead_code, reason = "only for its tests")]
mod stack;
