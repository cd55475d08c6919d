use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dfly_hal::sync::atomic::{AtomicU64, Ordering::Relaxed};
use dfly_lwkt::lock::{Spinlock, UpdateLock};

use super::panic_of;

const ROUNDS: usize = if cfg!(miri) { 20 } else { 20_000 };

#[test]
fn writers_exclude_each_other_and_readers_see_whole_writes() {
    let lock = Spinlock::new((0, 0));
    std::thread::scope(|s| {
        for i in 0..4 {
            let lock = &lock;
            s.spawn(move || {
                for _ in 0..ROUNDS {
                    if i < 2 {
                        let mut n = lock.lock();
                        n.0 += 1;
                        n.1 += 1;
                    } else {
                        let n = lock.lock_shared();
                        assert_eq!(n.0, n.1);
                    }
                }
            });
        }
    });
    assert_eq!(lock.into_inner(), (2 * ROUNDS, 2 * ROUNDS));
}

#[test]
fn attempts_do_not_wait() {
    let lock = Spinlock::new(1);
    let alone = lock.lock();
    assert!(lock.try_lock().is_none() && lock.try_lock_shared().is_none());
    drop(alone);
    let share = lock.lock_shared();
    assert!(lock.try_lock().is_none());
    assert_eq!(*lock.try_lock_shared().unwrap(), 1);
    drop(share);
    assert!(lock.try_lock().is_some());
}

#[test]
fn the_only_share_becomes_the_whole_and_the_whole_a_share() {
    let lock = Spinlock::new(1);
    let (a, b) = (lock.lock_shared(), lock.lock_shared());
    let a = a.try_upgrade().unwrap_err();
    drop(b);
    let mut alone = a.try_upgrade().unwrap();
    *alone += 1;
    let a = alone.downgrade();
    assert_eq!((*a, *lock.lock_shared()), (2, 2));
    drop(a);
    assert!(lock.try_lock().is_some());
}

#[test]
fn who_waits_absurdly_long_says_for_what_and_takes_back_its_claim() {
    let lock = Spinlock::named("stuck", ()).patience(100);
    let held = lock.lock();
    let there = format!("{}", lock.site().taken_at().unwrap());
    let message = panic_of(AssertUnwindSafe(|| drop(lock.lock())));
    assert!(message.starts_with(&format!("spun 100 rounds at {}:", file!())), "{message}");
    assert!(message.ends_with(&format!("for lock \"stuck\", last taken at {there}")), "{message}");
    let message = panic_of(AssertUnwindSafe(|| drop(lock.lock_shared())));
    assert!(message.contains("\"stuck\""), "{message}");
    drop(held);
    assert_eq!(lock.site().collisions(), 2);
    // Nobody waits any more, so sharers need not let anybody pass.
    assert!(lock.try_lock_shared().is_some());
}

#[test]
fn a_forgotten_guard_leaves_the_lock_taken_and_nothing_else() {
    let mut lock = Spinlock::new(vec![1]);
    std::mem::forget(lock.lock());
    assert!(lock.try_lock().is_none());
    lock.get_mut().push(2);
    assert_eq!(lock.into_inner(), [1, 2]);
}

/// Steady sharers, one who wants it alone; and the other way round.
#[test]
fn nobody_is_starved() {
    let (lock, done, got) = (&Spinlock::new(0_u32), &AtomicBool::new(false), &AtomicUsize::new(0));
    let goal = if cfg!(miri) { 2 } else { 50 };
    for few_write in [true, false] {
        done.store(false, Ordering::Relaxed);
        got.store(0, Ordering::Relaxed);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        if few_write { drop(lock.lock_shared()) } else { *lock.lock() += 1 }
                    }
                });
            }
            while got.fetch_add(1, Ordering::Relaxed) < goal {
                if few_write { *lock.lock() += 1 } else { drop(lock.lock_shared()) }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_lock_may_hold_what_has_no_size_and_prints_how_it_stands() {
    let lock: &Spinlock<[u8]> = &Spinlock::named("bytes", [1, 2]);
    let guard = lock.lock_shared();
    assert_eq!(format!("{guard:?}"), "[1, 2]");
    let shown = format!("{lock:?}");
    assert!(shown.contains("sharers: 1") && shown.contains("\"bytes\""), "{shown}");
    assert!(format!("{}", lock.site()).contains("spin.rs"));
}

#[test]
fn a_reader_of_an_update_lock_never_sees_half_an_update() {
    let lock = UpdateLock::named("pair", [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                for _ in 0..ROUNDS {
                    let pair = lock.update();
                    let n = pair[0].load(Relaxed) + 1;
                    pair[0].store(n, Relaxed);
                    pair[1].store(2 * n, Relaxed);
                }
            });
        }
        for _ in 0..2 {
            s.spawn(|| {
                let mut last = 0;
                for _ in 0..ROUNDS {
                    let (a, b) = lock.read(|[a, b]| (a.load(Relaxed), b.load(Relaxed)));
                    assert_eq!(2 * a, b);
                    assert!(a >= last, "time went back");
                    last = a;
                }
            });
        }
    });
    assert_eq!(lock.read(|[a, _]| a.load(Relaxed)), 2 * ROUNDS as u64);
}

#[test]
fn a_reader_looks_again_until_it_takes_its_turn() {
    let lock = UpdateLock::new(AtomicU64::new(0));
    let mut looks = 0;
    let seen = lock.read(|n| {
        looks += 1;
        let seen = n.load(Relaxed);
        if looks < 20 {
            // It comes in between, until the reader has the turn and nobody could.
            if looks <= 8 {
                drop(lock.update());
            }
        }
        seen
    });
    assert_eq!((looks, seen), (9, 0));
    assert_eq!(lock.site().collisions(), 0);
}
