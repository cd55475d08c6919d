//! What a safe caller may do wrong: stuck at worst, never unsound. Miri looks on.

use std::mem;
use std::pin::Pin;
use std::sync::Mutex;

use dfly_lwkt::lock::{Holders, Lockmgr, Mtx, Spinlock};

use super::look;

/// What was forgotten stays reachable, so that Miri does not call it a leak.
static FORGOTTEN: Mutex<Vec<Address>> = Mutex::new(Vec::new());

struct Address(#[expect(dead_code, reason = "Miri looks at it")] *const ());

// SAFETY: nobody looks at what it points to.
unsafe impl Send for Address {}

fn forget<T>(place: Pin<Box<T>>) {
    FORGOTTEN.lock().unwrap().push(Address((&raw const *place).cast()));
    mem::forget(place);
}

#[test]
fn a_forgotten_guard_keeps_the_lock_and_nothing_dangles() {
    let lock = Mtx::new(vec![1]);
    mem::forget(lock.try_lock());
    let mut waiting = Box::pin(lock.acquire());
    assert!(look(waiting.as_mut()).is_pending());
    drop(waiting);
    assert_eq!(lock.into_inner(), [1]);
}

#[test]
fn a_forgotten_place_keeps_its_turn_and_the_lock_can_be_moved_after_it_is_gone() {
    let lock = Mtx::new(1);
    let held = lock.try_lock().unwrap();
    let mut forgotten = Box::pin(lock.acquire());
    let mut behind = Box::pin(lock.acquire());
    assert!(look(forgotten.as_mut()).is_pending() && look(behind.as_mut()).is_pending());
    forget(forgotten);
    drop(held);
    assert!(look(behind.as_mut()).is_pending(), "the forgotten one has it");
    drop(behind);
    let moved = Box::new(lock);
    assert_eq!(moved.status().holders, Holders::Exclusive(1));
    assert_eq!(moved.into_inner(), 1);
}

#[test]
fn a_forgotten_inner_guard_keeps_the_lock_after_the_outer_one() {
    let lock = Mtx::new(1);
    let mut outer = lock.try_lock().unwrap();
    mem::forget(outer.again());
    *outer += 1;
    let mut outer = outer.downgrade().unwrap_err();
    *outer += 1;
    drop(outer);
    assert_eq!(lock.status().holders, Holders::Exclusive(1));
    assert!(lock.try_lock_shared().is_none());
    assert_eq!(lock.into_inner(), 3);
}

#[test]
fn guards_of_two_locks_may_be_swapped() {
    let (a, b) = (Mtx::new(1), Mtx::new(2));
    let (mut of_a, mut of_b) = (a.try_lock().unwrap(), b.try_lock().unwrap());
    mem::swap(&mut of_a, &mut of_b);
    assert_eq!((*of_a, *of_b), (2, 1));
    drop(of_a);
    assert!(a.try_lock().is_none() && b.try_lock().is_some());
    let (spin_a, spin_b) = (Spinlock::new(1), Spinlock::new(2));
    let (mut of_a, mut of_b) = (spin_a.lock_shared(), spin_b.lock_shared());
    mem::swap(&mut of_a, &mut of_b);
    drop(of_a);
    assert!(spin_a.try_lock().is_none() && spin_b.try_lock().is_some());
}

#[test]
fn forgotten_shares_keep_writers_out() {
    let lock = Lockmgr::new(1);
    mem::forget(lock.try_shared());
    let share = lock.try_shared().unwrap();
    mem::forget(share.again());
    assert!(share.try_upgrade().is_err());
    assert_eq!(lock.status().holders, Holders::Shared(2));
    let spin = Spinlock::new(1);
    mem::forget(spin.lock_shared());
    assert!(spin.try_lock().is_none() && spin.try_lock_shared().is_some());
}

#[test]
fn a_future_dropped_before_it_was_looked_at_was_never_there() {
    let lock = Mtx::new(1);
    drop(lock.acquire());
    let held = lock.try_lock().unwrap();
    drop((lock.acquire(), lock.acquire_shared()));
    assert!(!lock.status().queued);
    drop(held);
    assert!(lock.try_lock().is_some());
}

/// A waker that takes the lock it is woken for, in the midst of the release.
#[test]
fn a_waker_may_use_the_lock() {
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};
    struct Curious(Mtx<u32>);
    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            assert!(self.0.try_lock().is_none(), "it was handed over");
            let mut place = std::pin::pin!(self.0.acquire());
            assert!(look(place.as_mut()).is_pending());
        }
    }
    let lock = Arc::new(Curious(Mtx::new(1)));
    let held = lock.0.try_lock().unwrap();
    let waker = Waker::from(lock.clone());
    let mut place = Box::pin(lock.0.acquire());
    assert!(place.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    assert!(look(place.as_mut()).is_ready());
    assert!(!lock.0.status().queued);
}
