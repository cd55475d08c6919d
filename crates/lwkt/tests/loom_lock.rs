//! Models of the locks:
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_lock`
//!
//! `mutations/lock-*.patch` weaken one thing each; every one of them must make a model fail. loom's `unpark` orders
//! memory, so models that look for a missing ordering look with a waker that wakes nobody.
#![cfg(loom)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use dfly_hal::sync::atomic::{AtomicU32, Ordering::Relaxed};
use dfly_hal::{Instant, ThreadWait, TimedOut, Wait};
use dfly_lwkt::lock::{Cause, Holders, Lockmgr, Mtx, Request, Serializer, Spinlock, UpdateLock};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(f);
}

/// A look that wakes nobody, so that nothing but the lock orders memory.
fn look<F: Future>(f: Pin<&mut F>) -> Poll<F::Output> {
    f.poll(&mut Context::from_waker(Waker::noop()))
}

/// Something that a guard in another thread may borrow.
fn leak<T>(lock: T) -> &'static T {
    Box::leak(Box::new(lock))
}

/// Has no time at all: its deadline has passed when it begins to wait.
struct Hasty;

const PAST: Instant = Instant::from_nanos(0);

impl Wait for Hasty {
    fn wait(&mut self, _: Pin<&mut dyn Future<Output = ()>>, _: Option<Instant>) -> Result<(), TimedOut> {
        Err(TimedOut)
    }
}

const WAIT: Request = Request::wait();

mod spin {
    use super::*;

    #[test]
    fn it_excludes_and_publishes() {
        model(|| {
            let lock = leak(Spinlock::new(0));
            let t = thread::spawn(|| *lock.lock() += 1);
            *lock.lock() += 1;
            t.join().unwrap();
            assert_eq!(*lock.lock(), 2);
        });
    }

    #[test]
    fn who_reads_and_who_writes_exclude_each_other() {
        model(|| {
            let lock = leak(Spinlock::new(0));
            let t = thread::spawn(|| *lock.lock() += 1);
            let seen = *lock.lock_shared();
            assert!(seen <= 1);
            t.join().unwrap();
            assert_eq!(*lock.lock_shared(), 1);
        });
    }

    #[test]
    fn a_writer_comes_after_the_readers() {
        model(|| {
            let lock = leak(Spinlock::new(0));
            let readers = [(); 2].map(|()| thread::spawn(|| lock.try_lock_shared().map_or(0, |n| *n)));
            if let Some(mut n) = lock.try_lock() {
                *n = 7;
            }
            for reader in readers {
                assert!([0, 7].contains(&reader.join().unwrap()));
            }
        });
    }

    /// L13: each claim of one who waits is taken back.
    #[test]
    fn no_claim_is_lost() {
        model(|| {
            let lock = leak(Spinlock::new(0));
            let share = lock.lock_shared();
            let t = thread::spawn(|| *lock.lock() += 1);
            assert_eq!(*share, 0);
            drop(share);
            t.join().unwrap();
            assert!(lock.try_lock_shared().is_some_and(|n| *n == 1), "a claim stands");
        });
    }

    #[test]
    fn an_upgrade_comes_after_the_other_readers_and_a_downgrade_publishes() {
        model(|| {
            let lock = leak(Spinlock::new(0));
            let share = lock.lock_shared();
            let t = thread::spawn(|| {
                let other = lock.try_lock_shared();
                other.map(|n| *n)
            });
            if let Ok(mut alone) = share.try_upgrade() {
                *alone += 1;
                drop(alone.downgrade());
            }
            assert!(t.join().unwrap().is_none_or(|n| n <= 1));
        });
    }

    #[test]
    fn a_reader_of_an_update_lock_sees_whole_updates() {
        model(|| {
            let lock = leak(UpdateLock::new([AtomicU32::new(0), AtomicU32::new(0)]));
            let t = thread::spawn(|| {
                let pair = lock.update();
                pair[0].store(1, Relaxed);
                pair[1].store(1, Relaxed);
            });
            let (a, b) = lock.read(|[a, b]| (a.load(Relaxed), b.load(Relaxed)));
            assert_eq!(a, b, "half an update");
            t.join().unwrap();
        });
    }
}

/// L11: hand-over against time-out and abort.
mod mtx {
    use super::*;

    #[test]
    fn attempts_exclude_and_publish() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let t = thread::spawn(|| lock.try_lock().map(|mut n| *n += 1).is_some());
            let mine = lock.try_lock().map(|mut n| *n += 1).is_some();
            let theirs = t.join().unwrap();
            assert!(mine || theirs);
            assert_eq!(*lock.try_lock().expect("lost"), u32::from(mine) + u32::from(theirs));
        });
    }

    #[test]
    fn a_share_and_the_whole_exclude_each_other() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let readers = [(); 2].map(|()| thread::spawn(|| lock.try_lock_shared().map_or(0, |n| *n)));
            if let Some(mut n) = lock.try_lock() {
                *n = 7;
            }
            for reader in readers {
                assert!([0, 7].contains(&reader.join().unwrap()));
            }
        });
    }

    #[test]
    fn parked_threads_lose_no_wake_up() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let t = thread::spawn(|| *lock.lock(&mut ThreadWait::new()) += 1);
            *lock.lock(&mut ThreadWait::new()) += 1;
            t.join().unwrap();
            assert_eq!(*lock.try_lock().unwrap(), 2);
            assert!(!lock.status().queued);
        });
    }

    #[test]
    fn parked_sharers_and_writers_lose_no_wake_up() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let t = thread::spawn(|| *lock.lock(&mut ThreadWait::new()) += 1);
            let seen = *lock.lock_shared(&mut ThreadWait::new());
            assert!(seen <= 1);
            t.join().unwrap();
            assert_eq!(*lock.try_lock_shared().expect("a flag stands"), 1);
        });
    }

    #[test]
    fn three_parked_threads_lose_no_wake_up() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let writers = [(); 2].map(|()| thread::spawn(|| *lock.lock(&mut ThreadWait::new()) += 1));
            assert!(*lock.lock_shared(&mut ThreadWait::new()) <= 2);
            for writer in writers {
                writer.join().unwrap();
            }
            assert_eq!(*lock.try_lock_shared().expect("a flag stands"), 2);
        });
    }

    #[test]
    fn a_hand_over_publishes() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let mut guard = lock.try_lock().unwrap().detach().attach();
            let mut place = Box::pin(lock.acquire());
            assert!(look(place.as_mut()).is_pending());
            let t = thread::spawn({
                *guard += 1;
                let guard = guard.detach();
                move || {
                    let mut guard = guard.attach();
                    *guard += 1;
                }
            });
            if let Poll::Ready(Ok(mut n)) = look(place.as_mut()) {
                assert_eq!(*n, 2);
                *n += 1;
            }
            t.join().unwrap();
        });
    }

    #[test]
    fn a_newcomer_that_queues_finds_it_free_or_is_handed_it() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let t = thread::spawn(move || *guard.attach() += 1);
            let mut place = pin!(lock.acquire());
            let mut done = match look(place.as_mut()) {
                Poll::Ready(guard) => guard.map(|n| *n).ok(),
                Poll::Pending => None,
            };
            t.join().unwrap();
            if done.is_none() {
                let Poll::Ready(Ok(n)) = look(place.as_mut()) else { panic!("the lock was lost") };
                done = Some(*n);
            }
            assert_eq!(done, Some(1));
        });
    }

    #[test]
    fn the_last_of_two_readers_hands_over_after_both() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let shares = [(); 2].map(|()| lock.try_lock_shared().unwrap());
            let mut place = Box::pin(lock.acquire());
            assert!(look(place.as_mut()).is_pending());
            // A share stays on its thread, so these threads take their own through one that is left here.
            let [a, b] = shares;
            let t = thread::spawn(|| drop(lock.try_lock_shared()));
            drop(a);
            drop(b);
            t.join().unwrap();
            let Poll::Ready(Ok(mut n)) = look(place.as_mut()) else { panic!("the lock was lost") };
            *n += 1;
        });
    }

    #[test]
    fn a_writer_that_is_let_in_comes_after_every_reader() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let readers = [(); 2].map(|()| {
                thread::spawn(|| {
                    if let Some(n) = lock.try_lock_shared() {
                        assert!(*n <= 1);
                    }
                })
            });
            let mut place = pin!(lock.acquire());
            let mut wrote = false;
            for _ in 0..2 {
                if let Poll::Ready(Ok(mut n)) = look(place.as_mut()) {
                    *n = 1;
                    wrote = true;
                    break;
                }
                thread::yield_now();
            }
            for reader in readers {
                reader.join().unwrap();
            }
            if !wrote {
                assert!(look(place.as_mut()).is_ready(), "the lock was lost");
            }
        });
    }

    #[test]
    fn who_times_out_passes_on_what_it_was_given() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let t = thread::spawn(move || drop(guard));
            match lock.lock_until(&mut Hasty, PAST) {
                Ok(mut n) => *n += 1,
                Err(error) => assert_eq!(error.cause, Cause::TimedOut),
            }
            t.join().unwrap();
            assert!(lock.try_lock().is_some_and(|n| *n <= 1), "the lock was lost");
            assert!(!lock.status().queued);
        });
    }

    #[test]
    fn a_place_dropped_while_it_is_chosen_goes_to_the_next() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let mut first = Box::pin(lock.acquire());
            assert!(look(first.as_mut()).is_pending());
            let mut second = Box::pin(lock.acquire());
            assert!(look(second.as_mut()).is_pending());
            let t = thread::spawn(move || drop(guard));
            drop(first);
            t.join().unwrap();
            assert!(look(second.as_mut()).is_ready(), "the lock was lost");
            assert!(lock.try_lock().is_some());
        });
    }

    #[test]
    fn a_release_publishes_though_the_last_waiter_has_gone() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let mut place = Box::pin(lock.acquire());
            assert!(look(place.as_mut()).is_pending());
            let t = thread::spawn(move || *guard.attach() += 1);
            drop(place);
            if let Some(n) = lock.try_lock() {
                assert_eq!(*n, 1);
            }
            t.join().unwrap();
            assert!(lock.try_lock().is_some(), "the lock was lost");
        });
    }

    #[test]
    fn an_abort_or_the_lock_and_never_both() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let mut link = Box::pin(lock.acquire());
            assert!(look(link.as_mut()).is_pending());
            let t = thread::spawn(move || drop(guard));
            let in_time = link.as_ref().abort();
            match look(link.as_mut()) {
                Poll::Ready(Ok(_)) => assert!(!in_time, "aborted, and has the lock"),
                Poll::Ready(Err(error)) => assert!(in_time && error.cause == Cause::Aborted),
                Poll::Pending => panic!("neither"),
            }
            t.join().unwrap();
            assert!(lock.try_lock().is_some(), "the lock was lost");
        });
    }

    #[test]
    fn nobody_passes_who_waits() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let mut first = Box::pin(lock.acquire());
            assert!(look(first.as_mut()).is_pending());
            let t = thread::spawn(move || drop(guard));
            assert!(lock.try_lock().is_none() && lock.try_lock_shared().is_none(), "somebody passed");
            let mut second = Box::pin(lock.acquire());
            assert!(look(second.as_mut()).is_pending(), "a newcomer passed");
            t.join().unwrap();
            assert!(look(first.as_mut()).is_ready());
            assert!(look(second.as_mut()).is_ready());
        });
    }

    #[test]
    fn a_downgrade_publishes() {
        model(|| {
            let lock = leak(Mtx::new(0));
            let guard = lock.try_lock().unwrap().detach();
            let t = thread::spawn(move || {
                let mut guard = guard.attach();
                *guard = 1;
                drop(guard.downgrade());
            });
            let mut place = pin!(lock.acquire_shared());
            if let Poll::Ready(Ok(n)) = look(place.as_mut()) {
                assert_eq!(*n, 1);
            } else if let Some(n) = lock.try_lock_shared() {
                assert_eq!(*n, 1);
            }
            t.join().unwrap();
        });
    }
}

/// L12: the grant of an upgrade against its undoing, cancelling against newcomers.
mod lockmgr {
    use super::*;

    #[test]
    fn an_upgrade_comes_after_the_other_share() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let t = thread::spawn(|| lock.try_shared().map(|n| *n));
            let share = lock.try_shared().unwrap();
            *share.upgrade(WAIT, &mut ThreadWait::new()).unwrap() += 1;
            assert!(t.join().unwrap().is_none_or(|n| n <= 1));
            assert_eq!(lock.status().holders, Holders::Nobody);
        });
    }

    #[test]
    fn an_upgrade_is_granted_or_undone_and_a_share_remains() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let share = lock.try_shared().unwrap();
            let t = thread::spawn(|| {
                let other = lock.try_shared();
                thread::yield_now();
                drop(other);
            });
            match share.upgrade(WAIT.until(PAST), &mut Hasty) {
                Ok(mut alone) => *alone += 1,
                Err(not) => assert_eq!(*not.guard, 0),
            }
            t.join().unwrap();
            let status = lock.status();
            assert!(status.holders == Holders::Nobody && !status.queued, "{status:?}");
        });
    }

    #[test]
    fn of_two_upgrades_one_is_told() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let upgrade = || {
                let share = lock.shared(WAIT, &mut ThreadWait::new()).unwrap();
                match share.upgrade(WAIT, &mut ThreadWait::new()) {
                    Ok(mut alone) => *alone += 1,
                    Err(not) => assert_eq!(not.error.cause, Cause::Upgrading),
                }
            };
            let t = thread::spawn(upgrade);
            upgrade();
            t.join().unwrap();
            let status = lock.status();
            assert!(status.holders == Holders::Nobody && !status.queued, "{status:?}");
            assert!(*lock.try_shared().unwrap() >= 1);
        });
    }

    #[test]
    fn cancelling_leaves_nobody_who_agreed() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let alone = lock.try_exclusive().unwrap();
            let t = thread::spawn(|| {
                lock.exclusive(WAIT.cancelable(), &mut ThreadWait::new()).map(drop).map_err(|e| e.cause)
            });
            alone.cancel_begin();
            // It is told while the lock is held, however it came.
            assert_eq!(t.join().unwrap(), Err(Cause::Cancelled));
            assert!(!lock.status().queued);
            drop(alone);
            assert!(!lock.status().cancelling && lock.try_exclusive().is_some());
        });
    }

    #[test]
    fn cancelling_ends_with_its_holder() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let alone = lock.try_exclusive().unwrap();
            alone.cancel_begin();
            let alone = alone.detach();
            let t = thread::spawn(move || drop(alone));
            *lock.exclusive(WAIT, &mut ThreadWait::new()).unwrap() += 1;
            t.join().unwrap();
            let status = lock.status();
            assert!(!status.cancelling && !status.queued && status.holders == Holders::Nobody, "{status:?}");
        });
    }

    #[test]
    fn one_who_gives_up_makes_room_for_a_reader() {
        model(|| {
            let lock = leak(Lockmgr::new(0));
            let share = lock.try_shared().unwrap();
            let t = thread::spawn(|| {
                drop(lock.exclusive(WAIT.until(PAST), &mut Hasty));
            });
            // Behind the one who gives up: it must not wait for the share that stays.
            drop(lock.shared(WAIT, &mut ThreadWait::new()).unwrap());
            t.join().unwrap();
            assert_eq!(lock.status().holders, Holders::Shared(1));
            assert!(!lock.status().queued);
            drop(share);
        });
    }
}

mod serializer {
    use super::*;

    #[test]
    fn a_handler_does_not_run_after_who_disabled_it_inside() {
        model(|| {
            let gate = leak(Serializer::new(0));
            let t = thread::spawn(|| gate.handler_call(&mut ThreadWait::new(), |n| assert_eq!(*n, 0)));
            let mut inside = gate.enter(&mut ThreadWait::new());
            gate.handler_disable();
            *inside = 1;
            drop(inside);
            let _ = t.join().unwrap();
        });
    }
}
