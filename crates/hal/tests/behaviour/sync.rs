use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dfly_hal::sync::{AlreadyRegistered, Lock, PreemptionHooks, WaitLock, register_preemption};
use dfly_hal::{SpinWait, ThreadWait, TimedOut, host};

std::thread_local! {
    /// How deep this thread is in sections without preemption, since the hooks were registered.
    static DEPTH: Cell<i32> = const { Cell::new(0) };
    static DEEPEST: Cell<i32> = const { Cell::new(0) };
    /// The line that disabled it last.
    static LINE: Cell<u32> = const { Cell::new(0) };
}

fn disable(place: &'static Location<'static>) {
    LINE.set(place.line());
    DEPTH.set(DEPTH.get() + 1);
    DEEPEST.set(DEEPEST.get().max(DEPTH.get()));
}

fn enable() {
    DEPTH.set(DEPTH.get() - 1);
}

static HOOKS: PreemptionHooks = PreemptionHooks { disable, enable };

/// The hooks belong to the process, so one test has them all to itself; the others do not mind.
#[test]
fn a_lock_keeps_its_thread_from_being_preempted_from_before_the_attempt() {
    let held_before = Lock::new(());
    let early = held_before.lock();
    assert_eq!(register_preemption(&HOOKS), Ok(()));
    assert_eq!(register_preemption(&HOOKS), Err(AlreadyRegistered));
    drop(early);
    assert_eq!(DEPTH.get(), 0, "a guard from before the registration gave back what it had not taken");

    let (a, b) = (Lock::new(1), Lock::new(2));
    let outer = a.lock();
    let (inner, line) = (b.lock(), line!());
    assert_eq!((DEPTH.get(), LINE.get()), (2, line));
    DEEPEST.set(0);
    assert!(a.try_lock().is_none());
    assert_eq!(
        (DEPTH.get(), DEEPEST.get()),
        (2, 3),
        "an attempt that fails was made with preemption on, or left it off"
    );
    drop(outer);
    drop(inner);
    assert_eq!(DEPTH.get(), 0);

    // Across I/O nothing is disabled.
    let long = WaitLock::new(3);
    let guard = long.lock(&mut ThreadWait::new());
    assert_eq!(DEPTH.get(), 0);
    drop(guard);
}

#[test]
fn a_lock_excludes() {
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let lock = Lock::new(0);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..rounds {
                    *lock.lock() += 1;
                }
            });
        }
    });
    assert_eq!(lock.into_inner(), 4 * rounds);
}

#[test]
fn locks_can_be_taken_apart_and_printed() {
    let mut lock = Lock::new(1);
    *lock.get_mut() = 2;
    assert_eq!(format!("{lock:?}"), "Lock(2)");
    let guard = lock.lock();
    assert_eq!(format!("{lock:?} {guard:?}"), "Lock(<taken>) 2");
    drop(guard);
    let unsized_lock: &Lock<[u8]> = &Lock::new([1, 2]);
    assert_eq!(unsized_lock.lock().len(), 2);

    let mut lock = WaitLock::new(1);
    *lock.get_mut() = 2;
    assert_eq!(format!("{lock:?}"), "WaitLock(2)");
    let guard = lock.try_lock();
    assert_eq!(format!("{lock:?} {guard:?}"), "WaitLock(<taken>) Some(2)");
    drop(guard);
    assert_eq!(lock.into_inner(), 2);
    assert_eq!(*WaitLock::<u8>::default().try_lock().unwrap(), 0);
}

#[test]
fn a_wait_lock_excludes_parked_and_hasty_threads() {
    let rounds = if cfg!(miri) { 10 } else { 3000 };
    let lock = WaitLock::new((0, 0));
    std::thread::scope(|s| {
        for hasty in [false, false, true, true] {
            let lock = &lock;
            s.spawn(move || {
                let mut w = ThreadWait::new();
                for round in 0..rounds {
                    if !hasty {
                        lock.lock(&mut w).0 += 1;
                        continue;
                    }
                    let deadline = host::now().saturating_add(Duration::from_micros(round % 50));
                    if let Ok(mut n) = lock.lock_until(&mut w, deadline) {
                        n.1 += 1;
                    }
                }
            });
        }
    });
    let (patient, hasty) = lock.into_inner();
    assert_eq!(patient, 2 * rounds);
    assert!(hasty <= 2 * rounds);
}

fn look<F: Future>(f: Pin<&mut F>) -> Poll<F::Output> {
    f.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_wait_lock_is_handed_over_in_order_of_arrival() {
    let lock = WaitLock::new(());
    let guard = lock.try_lock().unwrap();
    let mut places: Vec<_> = (0..4).map(|_| Some(Box::pin(lock.acquire()))).collect();
    // The place is taken at the first look, not when the future is made.
    for i in [2, 0, 3, 1] {
        assert!(look(places[i].as_mut().unwrap().as_mut()).is_pending());
    }
    // One in the middle of the queue gives up.
    places[0] = None;
    drop(guard);
    for i in [2, 3, 1] {
        assert!(lock.try_lock().is_none(), "somebody passed");
        let mut next = places[i].take().unwrap();
        for (j, other) in places.iter_mut().enumerate() {
            if let Some(other) = other {
                assert!(look(other.as_mut()).is_pending(), "{j} came before {i}");
            }
        }
        assert!(look(next.as_mut()).is_ready(), "{i} was not next");
    }
    assert!(lock.try_lock().is_some());
}

#[test]
fn a_deadline_gives_the_place_up_and_nothing_else() {
    let lock = WaitLock::new(7);
    let guard = lock.try_lock().unwrap();
    let mut w = ThreadWait::new();
    let soon = host::now().saturating_add(Duration::from_millis(2));
    assert_eq!(lock.lock_until(&mut w, soon).unwrap_err(), TimedOut);
    drop(guard);
    assert_eq!(*lock.lock_until(&mut w, soon).unwrap(), 7, "free, so the deadline does not matter");
}

#[test]
fn every_place_can_be_given_up_from_any_position() {
    for gone in 0..8_u32 {
        let lock = WaitLock::new(());
        let guard = lock.try_lock().unwrap();
        let mut places: Vec<_> = (0..3).map(|_| Box::pin(lock.acquire())).collect();
        for place in &mut places {
            assert!(look(place.as_mut()).is_pending());
        }
        let mut left: Vec<_> = places
            .into_iter()
            .enumerate()
            .filter(|(i, _)| gone & 1 << i == 0)
            .map(|(_, place)| place)
            .collect();
        drop(guard);
        for place in &mut left {
            assert!(lock.try_lock().is_none());
            let Poll::Ready(guard) = look(place.as_mut()) else { panic!("{gone:#b}: not handed over") };
            drop(guard);
        }
        assert!(lock.try_lock().is_some(), "{gone:#b}");
    }
}

#[test]
fn a_place_that_was_chosen_and_dropped_hands_on() {
    let lock = WaitLock::new(());
    let guard = lock.try_lock().unwrap();
    let mut first = Box::pin(lock.acquire());
    let mut second = Box::pin(lock.acquire());
    assert!(look(first.as_mut()).is_pending() && look(second.as_mut()).is_pending());
    drop(guard);
    drop(first);
    assert!(look(second.as_mut()).is_ready());
}

#[test]
fn a_future_can_be_used_again_after_it_has_completed() {
    let lock = WaitLock::new(());
    let mut place = pin!(lock.acquire());
    assert!(look(place.as_mut()).is_ready());
    assert!(look(place.as_mut()).is_ready());
}

#[test]
fn guards_of_the_long_lock_travel_and_share_as_their_data_does() {
    fn send<T: Send>(_: &T) {}
    fn sync<T: Sync>(_: &T) {}
    let lock = WaitLock::new(1);
    send(&lock.acquire());
    let guard = lock.try_lock().unwrap();
    send(&guard);
    sync(&guard);
    std::thread::scope(|s| s.spawn(move || drop(guard)).join().unwrap());
    assert!(lock.try_lock().is_some());
}

#[test]
fn a_polling_kernel_can_wait_for_a_lock_too() {
    let lock = WaitLock::new(1);
    let mut held = lock.try_lock();
    let mut turns = 0;
    let mut poll = || {
        turns += 1;
        if turns == 3 {
            held = None;
        }
    };
    assert_eq!(*lock.lock(&mut SpinWait::new(&mut poll)), 1);
    assert_eq!(turns, 3);
}

#[cfg(feature = "count")]
mod cost {
    use super::*;
    use dfly_hal::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};
    use dfly_hal::sync::count::{Counts, measure};

    fn counts(loads: u64, stores: u64, rmws: u64, fences: u64) -> Counts {
        let mut c = Counts::default();
        (c.loads, c.stores, c.rmws, c.fences) = (loads, stores, rmws, fences);
        c
    }

    #[test]
    fn an_uncontended_lock_costs_one_read_modify_write_and_one_store() {
        let lock = Lock::new(0);
        assert_eq!(measure(|| *lock.lock() += 1).1, counts(0, 1, 1, 0));
        assert_eq!(measure(|| *lock.try_lock().unwrap() += 1).1, counts(0, 1, 1, 0));
    }

    #[test]
    fn an_uncontended_wait_lock_costs_two_read_modify_writes() {
        let lock = WaitLock::new(0);
        let mut w = ThreadWait::new();
        assert_eq!(measure(|| *lock.lock(&mut w) += 1).1, counts(0, 0, 2, 0));
    }

    #[test]
    fn every_kind_of_operation_is_counted_and_done() {
        let n = AtomicU64::new(5);
        let ((), cost) = measure(|| {
            assert_eq!(n.fetch_add(1, Ordering::Relaxed), 5);
            assert_eq!(n.swap(8, Ordering::Relaxed), 6);
            assert_eq!(n.compare_exchange(1, 2, Ordering::Relaxed, Ordering::Relaxed), Err(8));
            assert_eq!(n.fetch_max(9, Ordering::Relaxed), 8);
            assert_eq!(n.load(Ordering::Relaxed), 9);
            n.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            assert_eq!(n.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |_| None), Err(1));
        });
        assert_eq!(cost, counts(2, 1, 4, 1));
        let flag = AtomicBool::default();
        assert!(!flag.fetch_or(true, Ordering::Relaxed));
        let mut at = 3;
        let p = AtomicPtr::new(&raw mut at);
        assert_eq!(measure(|| p.load(Ordering::Relaxed)), (&raw mut at, counts(1, 0, 0, 0)));
        assert_eq!(format!("{flag:?} {:?}", AtomicU64::from(3).into_inner()), "true 3");
    }
}
