//! The way from an interrupt handler to a driver.

use alloc::boxed::Box;

use dfly_hal::sync::atomic::{AtomicU64, Ordering};
use once_cell::race::OnceBox;

/// An interrupt, shared by a platform, whose handler calls [`raise`](Self::raise), and a driver, which
/// [`connect`](Self::connect)s what is to happen.
#[derive(Default)]
pub struct Irq {
    handler: OnceBox<Handler>,
    raised: AtomicU64,
}

type Handler = Box<dyn Fn() + Send + Sync>;

impl Irq {
    /// Nothing is connected to it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls what is connected. For interrupt handlers: takes no lock, allocates nothing, and what is connected must not
    /// either.
    pub fn raise(&self) {
        // Before the handler is looked for: `connect` looks the other way round, so one of the two sees the other. Both
        // sides need the store before the load, which only a read-modify-write chain or a fence gives.
        self.raised.fetch_add(1, Ordering::Relaxed);
        dfly_hal::sync::atomic::fence(Ordering::SeqCst);
        if let Some(handler) = self.handler.get() {
            handler();
        }
    }

    /// Connects `handler`, once and for ever, and calls it if the interrupt was raised before. Returns whether it was the
    /// first.
    pub fn connect(&self, handler: impl Fn() + Send + Sync + 'static) -> bool {
        let first = self.handler.set(Box::new(Box::new(handler))).is_ok();
        dfly_hal::sync::atomic::fence(Ordering::SeqCst);
        if first && self.raised() > 0 {
            self.handler.get().inspect(|handler| handler());
        }
        first
    }

    /// How often it was raised.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }
}
