//! What an uncontended pair costs: DESIGN.md, "Locks".

use dfly_alloc_count::allocator_calls;
use dfly_hal::ThreadWait;
use dfly_hal::sync::atomic::{AtomicU64, Ordering::Relaxed};
use dfly_hal::sync::count::measure;
use dfly_lwkt::lock::{Lockmgr, Mtx, Request, Serializer, Spinlock, UpdateLock};

use super::look;

/// Read-modify-writes and stores of `f`, which allocates nothing and fences nothing.
fn cost(f: impl FnOnce()) -> (u64, u64) {
    let (mut rmws, mut stores) = (0, 0);
    let calls = allocator_calls(|| {
        let ((), counts) = measure(f);
        assert_eq!(counts.fences, 0);
        (rmws, stores) = (counts.rmws, counts.stores);
    });
    assert_eq!(calls, 0);
    (rmws, stores)
}

#[test]
fn a_spinlock_costs_one_and_a_store_alone_and_two_shared() {
    let lock = Spinlock::new(0);
    assert_eq!(cost(|| *lock.lock() += 1), (1, 1));
    assert_eq!(cost(|| *lock.try_lock().unwrap() += 1), (1, 1));
    assert_eq!(cost(|| drop(lock.lock_shared())), (2, 0));
    assert_eq!(cost(|| drop(lock.try_lock_shared().unwrap())), (2, 0));
    let share = lock.lock_shared();
    assert_eq!(cost(|| drop(share.try_upgrade().unwrap().downgrade())), (2, 1));
}

#[test]
fn a_reader_of_an_update_lock_costs_none() {
    let lock = UpdateLock::new(AtomicU64::new(1));
    let (read, counts) = measure(|| lock.read(|n| n.load(Relaxed)));
    assert_eq!((read, counts.rmws, counts.stores, counts.fences), (1, 0, 0, 1));
}

#[test]
fn a_blocking_lock_costs_two() {
    let mut w = ThreadWait::new();
    let mtx = Mtx::new(0);
    assert_eq!(cost(|| *mtx.lock(&mut w) += 1), (2, 0));
    assert_eq!(cost(|| drop(mtx.lock_shared(&mut w))), (2, 0));
    let lockmgr = Lockmgr::new(0);
    assert_eq!(cost(|| *lockmgr.exclusive(Request::wait(), &mut w).unwrap() += 1), (2, 0));
    assert_eq!(cost(|| drop(lockmgr.shared(Request::wait(), &mut w).unwrap())), (2, 0));
    let gate = Serializer::new(0);
    assert_eq!(cost(|| *gate.enter(&mut w) += 1), (2, 0));
}

#[test]
fn a_hand_over_allocates_nothing_and_wakes_once() {
    let lock = Mtx::new(0);
    let held = lock.try_lock().unwrap();
    let mut places = [Box::pin(lock.acquire()), Box::pin(lock.acquire())];
    let calls = allocator_calls(|| {
        for place in &mut places {
            assert!(look(place.as_mut()).is_pending());
        }
        drop(held);
        for place in &mut places {
            assert!(look(place.as_mut()).is_ready());
        }
    });
    assert_eq!(calls, 0);
}
