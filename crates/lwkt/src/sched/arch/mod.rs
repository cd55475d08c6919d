//! How a CPU leaves one thread and goes on with another.
//!
//! A backend is a `Context`, where a suspended thread (or the idle caller of `Scheduler::run`) is kept, and the `Stack`
//! that it uses. Which targets have a switch says `build.rs`.

/// Where it can be, a switch is a dozen instructions.
#[cfg(all(own_stacks, not(any(miri, loom))))]
mod own;
#[cfg(all(own_stacks, not(any(miri, loom))))]
mod stack;
#[cfg(all(own_stacks, not(any(miri, loom))))]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod switch;
#[cfg(all(own_stacks, not(any(miri, loom))))]
pub(crate) use {
    own::{Context, ON_THE_CPUS_OWN, enter, stand_in},
    stack::Stack,
};

/// Elsewhere, and for tools that do not know assembly, an OS thread stands in for each thread.
#[cfg(any(not(own_stacks), miri, loom))]
mod parked;
#[cfg(any(not(own_stacks), miri, loom))]
pub(crate) use parked::{Context, ON_THE_CPUS_OWN, Stack, enter, stand_in};

// The paint is memory like any other: Miri looks at it in its test.
#[cfg(all(test, miri))]
#[expect(dead_code, reason = "only for its tests")]
mod stack;
