//! Time that stands still until a test moves it.

use alloc::collections::BTreeMap;
use core::task::Waker;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Instant;

pub(super) struct ManualClock(Mutex<State>);

struct State {
    now: Instant,
    /// By time, then by order of arrival.
    due: BTreeMap<(Instant, u64), Waker>,
    arrivals: u64,
}

impl ManualClock {
    pub(super) fn new() -> Self {
        // Not zero: code that takes an instant for a duration should fail.
        let now = Instant::from_nanos(1_000_000_000);
        Self(Mutex::new(State { now, due: BTreeMap::new(), arrivals: 0 }))
    }

    pub(super) fn now(&self) -> Instant {
        self.lock().now
    }

    pub(super) fn wake_at(&self, at: Instant, waker: &Waker) {
        let kept = waker.clone();
        let mut state = self.lock();
        if at > state.now {
            state.arrivals += 1;
            let key = (at, state.arrivals);
            state.due.insert(key, kept);
            return;
        }
        drop(state);
        kept.wake();
    }

    pub(super) fn advance(&self, by: Duration) {
        let mut state = self.lock();
        let now = state.now.saturating_add(by);
        state.now = now;
        drop(state);
        // One at a time and unlocked: a woken one may set its next timer.
        while let Some(waker) = self.take_due(now) {
            waker.wake();
        }
    }

    pub(super) fn advance_to_next(&self) -> bool {
        let state = self.lock();
        let Some((&(at, _), _)) = state.due.first_key_value() else { return false };
        let by = at.saturating_since(state.now);
        drop(state);
        self.advance(by);
        true
    }

    fn take_due(&self, now: Instant) -> Option<Waker> {
        let mut state = self.lock();
        let first = state.due.first_entry()?;
        if first.key().0 <= now { Some(first.remove()) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so the state is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
