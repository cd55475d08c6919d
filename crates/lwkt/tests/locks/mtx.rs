use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dfly_hal::{ThreadWait, host};
use dfly_lwkt::lock::{Cause, Holders, Mtx};

use super::{Calls, look, soon};

const ROUNDS: u64 = if cfg!(miri) { 5 } else { 3000 };

#[test]
fn it_excludes_parked_hasty_and_sharing_threads() {
    let lock = Mtx::new((0, 0, 0));
    std::thread::scope(|s| {
        for kind in [0, 0, 1, 1, 2, 2] {
            let lock = &lock;
            s.spawn(move || {
                let mut w = ThreadWait::new();
                for round in 0..ROUNDS {
                    let deadline = host::now().saturating_add(Duration::from_micros(round % 50));
                    match kind {
                        0 => {
                            let mut n = lock.lock(&mut w);
                            n.0 += 1;
                            n.2 += 1;
                        }
                        1 => {
                            if let Ok(mut n) = lock.lock_until(&mut w, deadline) {
                                n.1 += 1;
                                n.2 += 1;
                            }
                        }
                        _ => {
                            let n = lock.lock_shared(&mut w);
                            assert_eq!(n.0 + n.1, n.2);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(lock.status().holders, Holders::Nobody);
    assert!(!lock.status().queued);
    let (patient, hasty, all) = lock.into_inner();
    assert_eq!((patient, all), (2 * ROUNDS, patient + hasty));
}

#[test]
fn it_is_handed_over_in_order_and_sharers_come_in_together() {
    let lock = Mtx::new(0);
    let held = lock.try_lock().unwrap();
    let (mut a, mut d) = (Box::pin(lock.acquire()), Box::pin(lock.acquire()));
    let (mut b, mut c) = (Box::pin(lock.acquire_shared()), Box::pin(lock.acquire_shared()));
    let mut e = Box::pin(lock.acquire_shared());
    // The place is taken at the first look, not when the future is made.
    assert!(look(a.as_mut()).is_pending() && look(b.as_mut()).is_pending());
    assert!(look(c.as_mut()).is_pending() && look(d.as_mut()).is_pending());
    assert!(look(e.as_mut()).is_pending());
    drop(held);
    assert!(lock.try_lock().is_none() && lock.try_lock_shared().is_none(), "somebody passed");
    assert!(look(d.as_mut()).is_pending() && look(b.as_mut()).is_pending());
    let Poll::Ready(Ok(first)) = look(a.as_mut()) else { panic!("not handed over") };
    drop(first);
    let Poll::Ready(Ok(second)) = look(c.as_mut()) else { panic!("not handed over") };
    let Poll::Ready(Ok(third)) = look(b.as_mut()) else { panic!("did not come in together") };
    assert!(look(e.as_mut()).is_pending(), "a sharer passed one who wants it alone");
    assert!(lock.try_lock_shared().is_none(), "a newcomer passed one who wants it alone");
    assert_eq!(lock.status().holders, Holders::Shared(2));
    drop((second, third));
    let Poll::Ready(Ok(fourth)) = look(d.as_mut()) else { panic!("not handed over") };
    assert!(lock.status().queued);
    drop(fourth);
    assert!(look(e.as_mut()).is_ready());
    assert!(!lock.status().queued);
}

#[test]
fn a_share_can_be_had_again_past_one_who_waits() {
    let lock = Mtx::new(5);
    let share = lock.try_lock_shared().unwrap();
    let mut alone = pin!(lock.acquire());
    assert!(look(alone.as_mut()).is_pending());
    let again = share.again();
    drop(share);
    assert_eq!(*again, 5);
    assert!(look(alone.as_mut()).is_pending());
    drop(again);
    assert!(look(alone).is_ready());
}

#[test]
fn a_callee_takes_the_lock_again_through_the_guard() {
    fn callee(mut n: dfly_lwkt::lock::ExclusiveGuard<'_, u32>) {
        *n += 1;
        assert_eq!(n.depth(), 2);
        assert!(n.downgrade().is_err(), "somebody else is alone, too");
    }
    let lock = Mtx::new(1);
    let mut guard = lock.try_lock().unwrap();
    callee(guard.again());
    assert_eq!((*guard, guard.depth()), (2, 1));
    let share = guard.downgrade().unwrap();
    assert_eq!((*share, lock.status().holders), (2, Holders::Shared(1)));
}

#[test]
fn a_downgrade_lets_in_who_waits_to_read() {
    let lock = Mtx::new(1);
    let mut guard = lock.try_lock().unwrap();
    let (mut a, mut b) = (pin!(lock.acquire_shared()), pin!(lock.acquire()));
    assert!(look(a.as_mut()).is_pending() && look(b.as_mut()).is_pending());
    *guard = 2;
    let share = guard.downgrade().unwrap();
    let Poll::Ready(Ok(other)) = look(a.as_mut()) else { panic!("not let in") };
    assert_eq!((*share, *other), (2, 2));
    assert!(look(b.as_mut()).is_pending());
    let share = share.try_upgrade().unwrap_err();
    drop(other);
    // As in the original: the only sharer may, whoever waits.
    drop(share.try_upgrade().unwrap());
    assert!(look(b.as_mut()).is_ready());
}

#[test]
fn a_deadline_names_the_lock_and_the_place_and_gives_the_place_in_the_queue_up() {
    let lock = Mtx::named("late", 7);
    let held = lock.try_lock().unwrap();
    let line = line!() - 1;
    let mut w = ThreadWait::new();
    let error = lock.lock_until(&mut w, soon()).unwrap_err();
    assert_eq!((error.cause, error.name), (Cause::TimedOut, Some("late")));
    let text = error.to_string();
    let place = format!("lock \"late\", last taken at {}:{line}:", file!());
    assert!(text.starts_with("not free before the deadline: ") && text.contains(&place), "{text}");
    assert_eq!(lock.lock_shared_until(&mut w, soon()).unwrap_err().cause, Cause::TimedOut);
    assert!(!lock.status().queued);
    drop(held);
    let past = host::now();
    assert_eq!(*lock.lock_until(&mut w, past).unwrap(), 7, "free, so the deadline does not matter");
    assert_eq!(lock.site().collisions(), 2);
}

#[test]
fn who_gives_up_makes_room_for_those_behind() {
    let lock = Mtx::new(());
    let share = lock.try_lock_shared().unwrap();
    let mut alone = Box::pin(lock.acquire());
    let mut other = pin!(lock.acquire_shared());
    assert!(look(alone.as_mut()).is_pending() && look(other.as_mut()).is_pending());
    drop(alone);
    assert!(look(other.as_mut()).is_ready(), "it waits for one who is gone");
    assert_eq!(lock.status().holders, Holders::Shared(1));
    assert!(!lock.status().queued);
    drop(share);
}

#[test]
fn every_place_can_be_given_up_from_any_position_before_and_after_it_was_chosen() {
    // Miri takes long.
    let some = if cfg!(miri) { 6..8 } else { 0..16_u32 };
    for gone in some {
        for before in [true, false] {
            let lock = Mtx::new(());
            let guard = lock.try_lock().unwrap();
            let mut places: Vec<_> = (0..4).map(|_| Some(Box::pin(lock.acquire()))).collect();
            for place in places.iter_mut().flatten() {
                assert!(look(place.as_mut()).is_pending());
            }
            let mut held = Some(guard);
            if !before {
                held = None;
            }
            for (i, place) in places.iter_mut().enumerate() {
                if gone & 1 << i != 0 {
                    *place = None;
                }
            }
            drop(held);
            for mut place in places.into_iter().flatten() {
                assert!(lock.try_lock().is_none());
                assert!(look(place.as_mut()).is_ready(), "{gone:#b}: not handed over");
            }
            assert!(lock.try_lock().is_some(), "{gone:#b}: lost");
            assert!(!lock.status().queued);
        }
    }
}

#[test]
fn a_link_calls_back_once_and_not_at_all_where_it_gets_the_lock_at_once() {
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(calls.clone());
    let mut cx = Context::from_waker(&waker);
    let lock = Mtx::new(1);
    let mut link = pin!(lock.acquire());
    let Poll::Ready(Ok(held)) = link.as_mut().poll(&mut cx) else { panic!("it was free") };
    assert_eq!(calls.get(), 0);
    let mut other = pin!(lock.acquire());
    assert!(other.as_mut().poll(&mut cx).is_pending());
    drop(held);
    assert_eq!(calls.get(), 1);
    // A link can be used again.
    assert!(link.as_mut().poll(&mut cx).is_pending());
    assert!(other.as_mut().poll(&mut cx).is_ready());
    assert_eq!(calls.get(), 2);
    assert!(link.poll(&mut cx).is_ready());
}

#[test]
fn an_abort_ends_a_wait_that_has_not_been_granted() {
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(calls.clone());
    let mut cx = Context::from_waker(&waker);
    let lock = Mtx::named("aborted", 1);
    // Before the first look.
    let mut link = pin!(lock.acquire());
    assert!(link.as_ref().abort());
    let Poll::Ready(Err(error)) = link.as_mut().poll(&mut cx) else { panic!("not aborted") };
    assert_eq!((error.cause, error.name), (Cause::Aborted, Some("aborted")));
    // While it waits; who is behind it gets the lock.
    let held = lock.try_lock().unwrap();
    let mut behind = pin!(lock.acquire());
    assert!(link.as_mut().poll(&mut cx).is_pending() && look(behind.as_mut()).is_pending());
    assert!(link.as_ref().abort());
    assert!(!link.as_ref().abort(), "once");
    assert_eq!(calls.get(), 1);
    drop(held);
    let Poll::Ready(Err(error)) = link.as_mut().poll(&mut cx) else { panic!("not aborted") };
    assert_eq!(error.cause, Cause::Aborted);
    let Poll::Ready(Ok(held)) = look(behind.as_mut()) else { panic!("not handed over") };
    // Too late.
    assert!(link.as_mut().poll(&mut cx).is_pending());
    drop(held);
    assert!(!link.as_ref().abort());
    let Poll::Ready(Ok(held)) = link.as_mut().poll(&mut cx) else { panic!("lost") };
    assert!(!link.as_ref().abort());
    drop(held);
    assert!(lock.try_lock().is_some());
}

#[test]
fn an_abort_comes_from_another_thread() {
    let lock = Mtx::new(());
    let _held = lock.try_lock().unwrap();
    let link = std::sync::Mutex::new(Box::pin(lock.acquire()));
    assert!(look(link.lock().unwrap().as_mut()).is_pending());
    std::thread::scope(|s| s.spawn(|| assert!(link.lock().unwrap().as_ref().abort())).join().unwrap());
    assert!(matches!(look(link.lock().unwrap().as_mut()), Poll::Ready(Err(_))));
}

#[test]
fn a_detached_lock_is_released_by_another_thread() {
    let lock = Mtx::new(1);
    let detached = lock.try_lock().unwrap().detach();
    std::thread::scope(|s| {
        s.spawn(|| *detached.attach() += 1);
    });
    assert_eq!(*lock.try_lock().unwrap(), 2);
    let detached = lock.try_lock().unwrap().detach();
    std::thread::scope(|s| {
        s.spawn(|| drop(detached));
    });
    assert!(lock.try_lock().is_some());
}

/// A waker that panics.
struct Bad;

impl std::task::Wake for Bad {
    fn wake(self: Arc<Self>) {
        panic!("no one to wake")
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_behind_it_out() {
    let lock = Mtx::new(1);
    let whole = lock.try_lock().unwrap();
    let (mut first, mut second) = (pin!(lock.acquire_shared()), pin!(lock.acquire_shared()));
    assert!(first.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Bad)))).is_pending());
    assert!(look(second.as_mut()).is_pending());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(whole))).is_err());
    let Poll::Ready(Ok(_second)) = look(second) else { panic!("kept out") };
    let Poll::Ready(Ok(_first)) = look(first) else { panic!("not let in") };
}
