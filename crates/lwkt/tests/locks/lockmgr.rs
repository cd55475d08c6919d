use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::thread;
use std::time::Duration;

use dfly_hal::{Instant, SpinWait, ThreadWait, TimedOut, Wait, host};
use dfly_lwkt::lock::{Cause, Holders, Lockmgr, Request, Upgraded};

use super::soon;

const WAIT: Request = Request::wait();

fn waiter() -> ThreadWait {
    ThreadWait::new()
}

/// Runs `meanwhile` once while somebody waits.
fn meanwhile(mut meanwhile: impl FnMut(u32), f: impl FnOnce(&mut dyn Wait)) {
    let mut turn = 0;
    let mut poll = || {
        meanwhile(turn);
        turn += 1;
    };
    f(&mut SpinWait::with_clock(&mut poll, &host::now));
}

#[test]
fn an_upgrade_waits_for_the_other_shares_and_lets_nobody_in_between() {
    let lock = Lockmgr::new(1);
    let mut w = waiter();
    let share = lock.shared(WAIT, &mut w).unwrap();
    let mut other = Some(lock.shared(WAIT, &mut w).unwrap());
    meanwhile(
        |turn| {
            assert!(lock.try_shared().is_none() && lock.try_exclusive().is_none(), "somebody passed");
            if turn == 1 {
                other = None;
            }
        },
        |w| {
            let mut alone = share.upgrade(WAIT, w).unwrap();
            *alone += 1;
        },
    );
    assert_eq!(*lock.try_shared().unwrap(), 2);
    assert_eq!(lock.status().holders, Holders::Nobody);
}

#[test]
fn of_two_who_upgrade_the_second_is_told_and_keeps_its_share() {
    let lock = &Lockmgr::named("two", 1);
    thread::scope(|s| {
        let share = lock.shared(WAIT, &mut waiter()).unwrap();
        let first = s.spawn(|| {
            let share = lock.shared(WAIT, &mut waiter()).unwrap();
            *share.upgrade(WAIT, &mut waiter()).unwrap() += 1;
        });
        while !lock.status().queued {
            thread::yield_now();
        }
        let not = share.upgrade(WAIT, &mut waiter()).unwrap_err();
        assert_eq!((not.error.cause, not.error.name), (Cause::Upgrading, Some("two")));
        assert_eq!(*not.guard, 1);
        let (mut alone, upgraded) = not.guard.upgrade_or_relock(WAIT, &mut waiter()).unwrap();
        assert_eq!((*alone, upgraded), (2, Upgraded::AfterRelease));
        *alone += 1;
        drop(alone);
        first.join().unwrap();
    });
    let (alone, upgraded) = lock.try_shared().unwrap().upgrade_or_relock(WAIT, &mut waiter()).unwrap();
    assert_eq!((*alone, upgraded), (3, Upgraded::AtOnce));
}

#[test]
fn an_upgrade_that_fails_gives_the_share_back() {
    let lock = Lockmgr::new(1);
    let mut w = waiter();
    let (a, mut b) = (lock.try_shared().unwrap(), lock.try_shared());
    let not = a.upgrade(WAIT.until(soon()), &mut w).unwrap_err();
    assert_eq!(not.error.cause, Cause::TimedOut);
    assert_eq!(lock.status().holders, Holders::Shared(2));
    assert!(!lock.status().queued, "its place in the queue stayed");
    meanwhile(
        |_| b = None,
        |w| {
            let not = not.guard.upgrade(WAIT.sleep_fail(), w).unwrap_err();
            assert_eq!(not.error.cause, Cause::Slept);
            assert_eq!(*not.guard, 1);
        },
    );
    assert_eq!(lock.status().holders, Holders::Nobody);
}

#[test]
fn who_agreed_is_cancelled_until_the_lock_is_released() {
    let lock = &Lockmgr::new(1);
    thread::scope(|s| {
        let alone = lock.try_exclusive().unwrap();
        let agreed = WAIT.cancelable();
        let spawn = |request: Request| {
            s.spawn(move || lock.exclusive(request, &mut waiter()).map(|n| *n).map_err(|e| e.cause))
        };
        let (a, b) = (spawn(agreed), spawn(WAIT));
        let c = s.spawn(move || lock.shared(agreed, &mut waiter()).map(|n| *n).map_err(|e| e.cause));
        while lock.site().collisions() < 3 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(5));
        alone.cancel_begin();
        assert_eq!(a.join().unwrap(), Err(Cause::Cancelled));
        assert_eq!(c.join().unwrap(), Err(Cause::Cancelled));
        assert!(lock.status().cancelling);
        // A newcomer, too; who did not agree waits on.
        assert_eq!(lock.exclusive(agreed, &mut waiter()).unwrap_err().cause, Cause::Cancelled);
        assert!(!b.is_finished());
        alone.cancel_end();
        assert_eq!(
            lock.exclusive(agreed.until(soon()), &mut waiter()).unwrap_err().cause,
            Cause::TimedOut,
            "it was cancelled after the end"
        );
        alone.cancel_begin();
        drop(alone);
        assert_eq!(b.join().unwrap(), Ok(1));
        assert!(!lock.status().cancelling, "it outlived its holder");
        assert_eq!(*lock.exclusive(agreed, &mut waiter()).unwrap(), 1);
    });
}

#[test]
fn cancelling_stays_through_a_downgrade() {
    let lock = Lockmgr::new(1);
    let alone = lock.try_exclusive().unwrap();
    alone.cancel_begin();
    let share = alone.downgrade().unwrap();
    let error = lock.shared(WAIT.cancelable(), &mut waiter()).unwrap_err();
    assert_eq!(error.cause, Cause::Cancelled);
    // Who did not agree shares.
    let other = lock.shared(WAIT, &mut waiter()).unwrap();
    drop(share);
    assert!(lock.status().cancelling);
    drop(other);
    assert!(!lock.status().cancelling);
}

#[test]
fn a_request_can_fail_because_it_slept() {
    let lock = Lockmgr::new(1);
    assert!(lock.exclusive(WAIT.sleep_fail(), &mut waiter()).is_ok(), "it did not sleep");
    for shared in [true, false] {
        let mut held = lock.try_exclusive();
        meanwhile(
            |_| held = None,
            |w| {
                let request = WAIT.sleep_fail();
                let error = if shared {
                    lock.shared(request, w).map(drop).unwrap_err()
                } else {
                    lock.exclusive(request, w).map(drop).unwrap_err()
                };
                assert_eq!(error.cause, Cause::Slept);
            },
        );
        assert_eq!(lock.status().holders, Holders::Nobody);
    }
}

/// A waiter that panics once it has looked.
struct Unwinds<'a>(&'a mut dyn FnMut());

impl Wait for Unwinds<'_> {
    fn wait(&mut self, f: Pin<&mut dyn Future<Output = ()>>, _: Option<Instant>) -> Result<(), TimedOut> {
        assert!(f.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
        (self.0)();
        panic!("the waiter gave up")
    }
}

#[test]
fn a_waiter_that_unwinds_leaves_nothing_behind() {
    for granted in [true, false] {
        let lock = Lockmgr::new(1);
        let (share, mut other) = (lock.try_shared().unwrap(), lock.try_shared());
        let unwound = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut give = || {
                if granted {
                    other = None;
                }
            };
            drop(share.upgrade(WAIT, &mut Unwinds(&mut give)));
        }));
        assert!(unwound.is_err());
        drop(other);
        assert_eq!(lock.status().holders, Holders::Nobody, "granted: {granted}");
        assert!(!lock.status().queued && lock.try_exclusive().is_some());
    }
}

#[test]
fn threads_that_read_upgrade_and_write_lose_nothing() {
    let rounds = if cfg!(miri) { 8 } else { 2000 };
    let lock = &Lockmgr::named("busy", (0_u64, 0_u64));
    let written: u64 = thread::scope(|s| {
        let threads = [0, 1, 2, 3].map(|seed| {
            s.spawn(move || {
                let (mut w, mut written) = (waiter(), 0);
                for round in 0..rounds {
                    let deadline = host::now().saturating_add(Duration::from_micros(round % 40));
                    match (round + seed) % 4 {
                        0 => {
                            let share = lock.shared(WAIT, &mut w).unwrap();
                            let seen = share.0;
                            match share.upgrade(WAIT.until(deadline), &mut w) {
                                Ok(mut alone) => {
                                    assert_eq!(alone.0, seen, "somebody came in between");
                                    alone.0 += 1;
                                    alone.1 += 1;
                                    written += 1;
                                }
                                Err(not) => assert_eq!(not.guard.0, seen),
                            }
                        }
                        1 => {
                            if let Ok(mut alone) = lock.exclusive(WAIT.until(deadline), &mut w) {
                                alone.0 += 1;
                                alone.1 += 1;
                                written += 1;
                                let share = alone.downgrade().unwrap();
                                assert_eq!(share.0, share.1);
                            }
                        }
                        2 => {
                            let share = lock.shared(WAIT, &mut w).unwrap();
                            if let Ok((mut alone, _)) = share.upgrade_or_relock(WAIT, &mut w) {
                                alone.0 += 1;
                                alone.1 += 1;
                                written += 1;
                                if round % 3 == 0 {
                                    alone.cancel_begin();
                                }
                            }
                        }
                        _ => {
                            if let Ok(share) = lock.shared(WAIT.cancelable(), &mut w) {
                                assert_eq!(share.0, share.1);
                            }
                        }
                    }
                }
                written
            })
        });
        threads.map(|t| t.join().unwrap()).iter().sum()
    });
    let status = lock.status();
    assert!(status.holders == Holders::Nobody && !status.queued && !status.cancelling, "{status:?}");
    assert_eq!(*lock.try_shared().unwrap(), (written, written));
}
