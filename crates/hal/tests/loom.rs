//! Models of the locks and of the parking waiter, explored by loom:
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-hal --release --test loom`
//!
//! `mutations/*.patch` weaken one thing each; every one of them must make a model fail.
#![cfg(loom)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use dfly_hal::sync::{Lock, WaitGuard, WaitLock};
use dfly_hal::{Instant, ThreadWait, TimedOut};
use loom::sync::Arc;
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(f);
}

/// A look that wakes nobody, so that nothing but the lock orders memory (loom's `unpark` would).
fn look<F: Future>(f: Pin<&mut F>) -> Poll<F::Output> {
    f.poll(&mut Context::from_waker(Waker::noop()))
}

/// A lock that a guard in another thread may borrow.
fn leak(lock: WaitLock<u32>) -> &'static WaitLock<u32> {
    Box::leak(Box::new(lock))
}

#[test]
fn a_lock_excludes_and_publishes() {
    model(|| {
        let lock = Arc::new(Lock::new(0));
        let threads = [(); 1].map(|()| {
            let lock = lock.clone();
            thread::spawn(move || *lock.lock() += 1)
        });
        *lock.lock() += 1;
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*lock.lock(), 2);
    });
}

#[test]
fn try_lock_excludes_and_publishes() {
    model(|| {
        let lock = Arc::new(Lock::new(0));
        let other = lock.clone();
        let t = thread::spawn(move || other.try_lock().map(|mut n| *n += 1).is_some());
        let mine = lock.try_lock().map(|mut n| *n += 1).is_some();
        let theirs = t.join().unwrap();
        assert!(mine || theirs);
        assert_eq!(*lock.lock(), u32::from(mine) + u32::from(theirs));
    });
}

#[test]
fn a_wait_lock_publishes_by_try_lock() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let other = lock.clone();
        let t = thread::spawn(move || {
            if let Some(mut n) = other.try_lock() {
                *n += 1;
            }
        });
        if let Some(mut n) = lock.try_lock() {
            *n += 1;
        }
        t.join().unwrap();
    });
}

#[test]
fn a_wait_lock_publishes_to_whoever_takes_a_place() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let other = lock.clone();
        let t = thread::spawn(move || {
            if let Some(mut n) = other.try_lock() {
                *n += 1;
            }
        });
        let mut place = pin!(lock.acquire());
        if let Poll::Ready(mut n) = look(place.as_mut()) {
            *n += 1;
        }
        t.join().unwrap();
    });
}

/// Takes the lock by looking, twice at most: for ever would be for ever in a model, too.
fn look_twice(lock: &WaitLock<u32>) -> u32 {
    let mut place = pin!(lock.acquire());
    for _ in 0..2 {
        if let Poll::Ready(mut n) = look(place.as_mut()) {
            *n += 1;
            return 1;
        }
        thread::yield_now();
    }
    0
}

#[test]
fn a_wait_lock_excludes_whoever_looks_and_gives_up() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let other = lock.clone();
        let t = thread::spawn(move || look_twice(&other));
        let mine = look_twice(&lock);
        let theirs = t.join().unwrap();
        assert!(mine + theirs >= 1);
        assert_eq!(*lock.try_lock().expect("the lock was lost"), mine + theirs);
    });
}

#[test]
fn two_parked_threads_lose_no_wake_up() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let other = lock.clone();
        let t = thread::spawn(move || *other.lock(&mut ThreadWait::new()) += 1);
        *lock.lock(&mut ThreadWait::new()) += 1;
        t.join().unwrap();
        assert_eq!(*lock.try_lock().unwrap(), 2);
    });
}

#[test]
fn a_wait_lock_loses_no_wake_up_of_parked_waiters() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let threads = [(); 2].map(|()| {
            let lock = lock.clone();
            thread::spawn(move || *lock.lock(&mut ThreadWait::new()) += 1)
        });
        *lock.lock(&mut ThreadWait::new()) += 1;
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*lock.try_lock().unwrap(), 3);
    });
}

#[test]
fn a_waiter_that_times_out_hands_on_what_it_was_given() {
    model(|| {
        let lock = Arc::new(WaitLock::new(0));
        let (hasty, patient) = (lock.clone(), lock.clone());
        let guard = lock.try_lock().unwrap();
        let hasty =
            thread::spawn(move || match hasty.lock_until(&mut ThreadWait::new(), Instant::from_nanos(0)) {
                Ok(mut n) => *n += 1,
                Err(TimedOut) => {}
            });
        let patient = thread::spawn(move || *patient.lock(&mut ThreadWait::new()) += 10);
        drop(guard);
        hasty.join().unwrap();
        patient.join().unwrap();
        let n = *lock.try_lock().unwrap();
        assert!(n == 10 || n == 11);
    });
}

#[test]
fn a_place_dropped_while_it_is_chosen_goes_to_the_next() {
    model(|| {
        let lock = leak(WaitLock::new(0));
        let guard = lock.try_lock().unwrap();
        let mut first = Box::pin(lock.acquire());
        assert!(look(first.as_mut()).is_pending());
        let mut second = Box::pin(lock.acquire());
        assert!(look(second.as_mut()).is_pending());
        let t = thread::spawn(move || drop(guard));
        drop(first);
        t.join().unwrap();
        assert!(look(second.as_mut()).is_ready(), "the lock was lost");
        drop(second);
        assert!(lock.try_lock().is_some());
    });
}

#[test]
fn nobody_passes_who_waits() {
    model(|| {
        let lock = leak(WaitLock::new(0));
        let guard = lock.try_lock().unwrap();
        let mut first = Box::pin(lock.acquire());
        assert!(look(first.as_mut()).is_pending());
        let mut second = Box::pin(lock.acquire());
        assert!(look(second.as_mut()).is_pending());
        let t = thread::spawn(move || drop(guard));
        assert!(lock.try_lock().is_none(), "somebody passed");
        assert!(look(second.as_mut()).is_pending(), "out of order");
        t.join().unwrap();
        let Poll::Ready(guard) = look(first.as_mut()) else { panic!("not handed over") };
        assert!(look(second.as_mut()).is_pending(), "out of order");
        drop(guard);
        assert!(look(second.as_mut()).is_ready());
    });
}

#[test]
fn a_release_after_the_last_waiter_has_gone_publishes() {
    model(|| {
        let lock = leak(WaitLock::new(0));
        let mut guard: WaitGuard<'static, u32> = lock.try_lock().unwrap();
        let mut place = Box::pin(lock.acquire());
        assert!(look(place.as_mut()).is_pending());
        drop(place);
        let t = thread::spawn(move || {
            *guard += 1;
            drop(guard);
        });
        if let Some(mut n) = lock.try_lock() {
            *n += 1;
        }
        t.join().unwrap();
        assert!(lock.try_lock().is_some());
    });
}

#[test]
fn a_hand_over_publishes() {
    model(|| {
        let lock = leak(WaitLock::new(0));
        let mut guard: WaitGuard<'static, u32> = lock.try_lock().unwrap();
        let mut place = Box::pin(lock.acquire());
        assert!(look(place.as_mut()).is_pending());
        let t = thread::spawn(move || {
            *guard += 1;
            drop(guard);
        });
        if let Poll::Ready(mut n) = look(place.as_mut()) {
            assert_eq!(*n, 1);
            *n += 1;
        }
        t.join().unwrap();
    });
}
