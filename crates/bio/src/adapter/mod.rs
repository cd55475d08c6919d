//! Devices over a device, for looking and for testing: each has the shape of what it wraps, so they stack.

mod fault;
mod power;
mod rng;
mod trace;

pub use fault::{Fault, FaultInjector, FaultStats, Rule};
pub use power::{Cut, Keep, PowerCut, PowerStats, Unflushed};
pub use trace::{OpStats, TraceRecord, TraceStats, Tracer};
