//! What tokens do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dfly_hal::{Wait, block_on};
use dfly_lwkt::lock::{Holders, Mtx};
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::token::{Token, get2_mut, get3_mut};

use crate::{CPU0, CPU1, Event, on, spawn};

#[test]
fn a_token_lends_its_data_to_who_holds_it() {
    static NAMES: Token<Vec<&str>> = Token::named("names", Vec::new());
    let main = on(1, |cx| {
        let (mut cx, mut names) = cx.hold(&NAMES);
        names.get_mut(&mut cx).push("a");
        assert_eq!(*names.get(&cx), ["a"]);
        drop(cx);
        drop(names);
    });
    assert_eq!(main, Ok(()));
    assert_eq!(NAMES.site().name(), Some("names"));
    assert_eq!(NAMES.site().collisions(), 0);
    assert!(NAMES.site().taken_at().unwrap().file().ends_with("behaviour.rs"));
}

#[test]
fn who_owns_a_token_needs_no_context() {
    let mut token = Token::new(1);
    *token.get_mut() += 1;
    assert_eq!(token.into_inner(), 2);
    assert_eq!(Token::<u32>::default().into_inner(), 0);
    assert_eq!(Token::from(7).into_inner(), 7);
    let unsized_: &Token<[u32]> = &Token::new([1, 2]);
    assert!(format!("{unsized_:?}").starts_with("Token"));
}

#[test]
fn a_wait_gives_every_token_up_and_has_them_again() {
    struct Pair {
        a: Token<u32>,
        b: Token<u32>,
    }
    let main = on(1, |cx| {
        let pair = Arc::new(Pair { a: Token::new(0), b: Token::new(0) });
        let (theirs, event) = (pair.clone(), Event::default());
        let happens = event.clone();
        let other = spawn(cx, CPU0, move |cx| {
            let (mut cx, mut b) = cx.hold(&theirs.b);
            let (mut cx, mut a) = cx.hold(&theirs.a);
            let (a, b) = get2_mut(&mut a, &mut b, &mut cx);
            (*a, *b) = (*a + 10, *b + 10);
            happens.happen();
        });
        {
            let (mut cx, mut a) = cx.hold(&pair.a);
            let (mut cx, mut b) = cx.hold(&pair.b);
            *a.get_mut(&mut cx) = 1;
            *b.get_mut(&mut cx) = 2;
            event.wait(&mut cx);
            assert_eq!((*a.get(&cx), *b.get(&cx)), (11, 12));
            assert_eq!([&pair.a, &pair.b].map(Token::holders), [Holders::Exclusive(1); 2]);
        }
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_yield_from_an_inner_context_gives_tokens_up_too() {
    let main = on(1, |cx| {
        let token = Arc::new(Token::new(0));
        let theirs = token.clone();
        let other = spawn(cx, CPU0, move |cx| {
            for round in 0..5 {
                let (mut cx, mut n) = cx.hold(&theirs);
                assert_eq!(*n.get(&cx), 2 * round + 1);
                *n.get_mut(&mut cx) += 1;
                cx.yield_now();
            }
        });
        {
            let (mut cx, mut n) = cx.hold(&token);
            for round in 0..5 {
                assert_eq!(*n.get(&cx), 2 * round);
                *n.get_mut(&mut cx) += 1;
                cx.yield_now();
            }
        }
        other.join(cx).unwrap();
        assert_eq!(Arc::into_inner(token).map(Token::into_inner), Some(10));
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_thread_holds_a_token_again_and_again() {
    let main = on(1, |cx| {
        let (token, other) = (Token::new(0), Token::new(0));
        let (mut cx, mut first) = cx.hold(&token);
        *first.get_mut(&mut cx) += 1;
        {
            let (mut cx, _between) = cx.hold(&other);
            let (mut cx, mut second) = cx.hold(&token);
            *second.get_mut(&mut cx) += 1;
            let (mut cx, shared) = cx.hold_shared(&token);
            assert_eq!(*shared.get(&cx), 2);
            *first.get_mut(&mut cx) += 1;
            let (mut cx, mut third) = cx.try_hold(&token).ok().unwrap();
            *third.get_mut(&mut cx) += 1;
            let (cx, shared) = cx.try_hold_shared(&token).ok().unwrap();
            assert_eq!(*shared.get(&cx), 4);
        }
        // What is inside has released nothing.
        assert_eq!(token.holders(), Holders::Exclusive(1));
        drop(cx);
        assert_eq!(token.holders(), Holders::Nobody);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn sharers_hold_together_and_exclude_who_wants_it_alone() {
    let main = on(2, |cx| {
        let token = Arc::new(Token::new(5));
        let (entered, leave) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let sharer = {
            let (token, entered, leave) = (token.clone(), entered.clone(), leave.clone());
            spawn(cx, CPU1, move |cx| {
                let (cx, n) = cx.hold_shared(&token);
                entered.store(1, Ordering::SeqCst);
                while !leave.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                assert_eq!(*n.get(&cx), 5);
            })
        };
        while entered.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        {
            let (mut cx, n) = cx.hold_shared(&token);
            assert_eq!(*n.get(&cx), 5);
            assert!(cx.try_hold(&token).is_err());
        }
        assert!(cx.try_hold(&token).is_err());
        assert!(cx.try_hold_shared(&token).is_ok());
        leave.store(true, Ordering::SeqCst);
        {
            let (mut cx, mut n) = cx.hold(&token);
            *n.get_mut(&mut cx) += 1;
        }
        sharer.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_try_gives_the_context_back() {
    let main = on(2, |cx| {
        let (token, held, done) =
            (Arc::new(Token::new(0)), Event::default(), Arc::new(AtomicBool::new(false)));
        let other = {
            let (token, held, done) = (token.clone(), held.clone(), done.clone());
            spawn(cx, CPU1, move |cx| {
                let (_cx, _n) = cx.hold(&token);
                held.happen();
                while !done.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            })
        };
        held.wait(cx);
        assert!(cx.try_hold_shared(&token).is_err());
        match cx.try_hold(&token) {
            Ok(_) => unreachable!("somebody has it"),
            Err(cx) => {
                done.store(true, Ordering::SeqCst);
                other.join(cx).unwrap();
            }
        }
        assert!(cx.try_hold(&token).is_ok());
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_cpu_runs_others_while_a_token_is_not_to_be_had() {
    let main = on(2, |cx| {
        let token = Arc::new(Token::named("elsewhere", 0));
        let (held, done) = (Event::default(), Arc::new(AtomicBool::new(false)));
        let holder = {
            let (token, held, done) = (token.clone(), held.clone(), done.clone());
            spawn(cx, CPU1, move |cx| {
                let (mut cx, mut n) = cx.hold(&token);
                held.happen();
                while !done.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                *n.get_mut(&mut cx) = 1;
            })
        };
        held.wait(cx);
        // More important than who lets the holder go.
        let ends = done.clone();
        let mild = dfly_lwkt::Spec::new("mild").priority(dfly_lwkt::Priority::new(3).unwrap());
        let mild = cx.scheduler().spawn(CPU0, mild, move |_| ends.store(true, Ordering::SeqCst)).unwrap();
        {
            let (cx, n) = cx.hold(&token);
            assert_eq!(*n.get(&cx), 1);
        }
        assert!(token.site().collisions() > 0);
        assert_eq!(cx.scheduler().cpu_stats(CPU0).unwrap().token_collisions, 1);
        mild.join(cx).unwrap();
        holder.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_blocking_lock_inside_of_a_hold_gives_the_token_up() {
    let main = on(1, |cx| {
        let token = Arc::new(Token::new(0));
        let lock = Arc::new(Mtx::new(0));
        let (their_token, their_lock) = (token.clone(), lock.clone());
        let (locked, other_has_been) = (Event::default(), Event::default());
        let (locks, has_been) = (locked.clone(), other_has_been.clone());
        let other = spawn(cx, CPU0, move |cx| {
            let mut guard = their_lock.lock(cx);
            locks.happen();
            // It is to be had only while the other one waits for the lock.
            let (mut cx, mut n) = cx.hold(&their_token);
            *n.get_mut(&mut cx) += 1;
            *guard += 1;
            has_been.happen();
        });
        locked.wait(cx);
        {
            let (mut cx, n) = cx.hold(&token);
            let guard = lock.lock(&mut cx);
            assert_eq!((*guard, *n.get(&cx)), (1, 1));
            block_on(&mut cx, async {}, None).unwrap();
            other_has_been.wait(&mut cx);
            let w: &mut dyn Wait = &mut cx;
            w.wait(std::pin::pin!(async {}), None).unwrap();
        }
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn three_tokens_lend_at_once() {
    let main = on(1, |cx| {
        let (a, b, c) = (Token::new(1), Token::new(2), Token::new(3));
        let (mut cx, mut a) = cx.hold(&a);
        let (mut cx, mut b) = cx.hold(&b);
        let (mut cx, mut c) = cx.hold(&c);
        let (x, y, z) = get3_mut(&mut a, &mut b, &mut c, &mut cx);
        std::mem::swap(x, z);
        *y += *x;
        assert_eq!((*a.get(&cx), *b.get(&cx), *c.get(&cx)), (3, 5, 1));
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_panic_in_a_hold_releases_it() {
    let main = on(1, |cx| {
        let token = Arc::new(Token::new(0));
        let theirs = token.clone();
        let other = spawn(cx, CPU0, move |cx| {
            let (mut cx, mut n) = cx.hold(&theirs);
            *n.get_mut(&mut cx) = 7;
            panic!("on purpose");
        });
        assert!(other.join(cx).is_err());
        let (cx, n) = cx.hold(&token);
        assert_eq!(*n.get(&cx), 7);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_sleep_gives_tokens_up_and_its_condition_is_read_through_the_interlock() {
    let main = on(1, |cx| {
        let jobs = Arc::new(Token::new(Vec::new()));
        let theirs = jobs.clone();
        let other = spawn(cx, CPU0, move |cx| {
            for job in 0..3 {
                let (mut cx, mut jobs) = cx.hold(&theirs);
                jobs.get_mut(&mut cx).push(job);
                cx.scheduler().wakeup(Ident::of(&*theirs));
                cx.yield_now();
            }
        });
        {
            let (mut cx, mut list) = cx.hold(&jobs);
            for job in 0..3 {
                loop {
                    let sleep = cx.interlock(Ident::of(&*jobs));
                    if !list.get(sleep.cx()).is_empty() {
                        break;
                    }
                    sleep.wait(None).unwrap();
                }
                assert_eq!(*list.get_mut(&mut cx), [job]);
                list.get_mut(&mut cx).clear();
            }
        }
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_critical_section_reads_what_is_held() {
    let main = on(1, |cx| {
        let token = Token::new(1);
        let (mut cx, mut n) = cx.hold(&token);
        *n.get_mut(&mut cx) += 1;
        let section = cx.critical();
        assert_eq!((*n.get(&cx), section.cpu()), (2, CPU0));
        drop(section);
        cx.yield_now();
    });
    assert_eq!(main, Ok(()));
}
