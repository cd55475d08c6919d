//! The IPI queues, by what they promise.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod mask;
mod one_thread;

use std::any::Any;
use std::sync::Mutex;

/// For callbacks, which live as long as they like. Reachable for ever, and so no leak to Miri.
fn keep<T: Any + Send + Sync>(value: T) -> &'static T {
    static KEPT: Mutex<Vec<&'static (dyn Any + Send + Sync)>> = Mutex::new(Vec::new());
    let value: &'static T = Box::leak(Box::new(value));
    KEPT.lock().unwrap().push(value);
    value
}
