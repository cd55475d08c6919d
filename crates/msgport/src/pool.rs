//! A free list of messages.

use alloc::sync::Arc;
use core::fmt;

use dfly_hal::sync::Lock;

use crate::body::Body;
use crate::carrier::{Own, Pile, Stack};

/// A free list of messages, filled once; whatever is taken from it comes home by itself when it is dropped.
///
/// Dropping the pool does not wait for what is under way: those nodes free themselves when they are let go.
pub struct Pool<T: Body> {
    ready: Lock<Pile<T>>,
    home: Arc<Stack<T>>,
    capacity: usize,
}

impl<T: Body> Pool<T> {
    /// A pool of `capacity` messages, each with the body that `make` gives. Allocates; nothing later does.
    pub fn new(capacity: usize, mut make: impl FnMut() -> T) -> Self {
        let home = Arc::new(Stack::new());
        for _ in 0..capacity {
            // Dropping it is what brings it home.
            drop(Own::pooled(make(), home.clone()));
        }
        Self { ready: Lock::new(Pile::new()), home, capacity }
    }

    /// A message, or `None` if all are under way. Its body is as [`Body::reset`] left it.
    ///
    /// Never blocks; takes the pool's short lock.
    pub fn get(&self) -> Option<Own<T>> {
        let mut ready = self.ready.lock();
        if let Some(own) = ready.pop() {
            return Some(own);
        }
        *ready = self.home.take();
        ready.pop()
    }

    /// How many messages the pool was made with.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T: Body> Drop for Pool<T> {
    fn drop(&mut self) {
        // From here on nodes that come home free themselves: these first, then those that are `ready`.
        drop(self.home.close());
    }
}

impl<T: Body> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
