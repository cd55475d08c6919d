//! The IPI queues, by what they promise.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod mask;
mod one_thread;
