//! What safe code can try, at run time. Under Miri this shows that it is sound.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use dfly_lwkt::Cx;
use dfly_lwkt::lock::Holders;
use dfly_lwkt::token::{Held, Token, get2_mut, get3_mut};

use crate::{CPU0, message, on, spawn};

#[test]
fn whoever_shares_a_token_and_wants_it_alone_panics_and_both_places_are_named() {
    let main = on(1, |cx| {
        let token = Token::named("names", 0);
        let (mut cx, shared) = cx.hold_shared(&token);
        assert!(cx.try_hold(&token).is_err());
        let panic = catch_unwind(AssertUnwindSafe(|| drop(cx.hold(&token)))).unwrap_err();
        let message = message(&*panic);
        let line = line!() - 2;
        let here = format!("exclusively at {}:{line}:", file!());
        let there = format!("shares it since {}:{}:", file!(), line - 2);
        assert!(message.starts_with("thread 1 (main) on cpu0 wants token \"names\""), "{message}");
        assert!(message.contains(&here) && message.contains(&there), "{message}");
        assert_eq!(*shared.get(&cx), 0);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn two_holds_of_one_token_do_not_lend_it_twice() {
    let main = on(1, |cx| {
        let (token, other) = (Token::named("one", vec![1]), Token::new(0));
        let (mut cx, mut a) = cx.hold(&token);
        let (mut cx, mut c) = cx.hold(&other);
        let (mut cx, mut b) = cx.hold(&token);
        let panic = catch_unwind(AssertUnwindSafe(|| _ = get2_mut(&mut a, &mut b, &mut cx))).unwrap_err();
        assert_eq!(message(&*panic), "both are holds of token \"one\"");
        for _ in 0..2 {
            std::mem::swap(&mut a, &mut b);
            assert!(
                catch_unwind(AssertUnwindSafe(|| _ = get3_mut(&mut a, &mut c, &mut b, &mut cx))).is_err()
            );
        }
        a.get_mut(&mut cx).push(2);
        assert_eq!(*b.get(&cx), [1, 2]);
    });
    assert_eq!(main, Ok(()));
}

#[test]
#[expect(clippy::forget_non_drop, reason = "that it is nothing is to be shown")]
fn a_forgotten_hold_changes_nothing() {
    let main = on(1, |cx| {
        let token = Box::new(Token::new(vec![1]));
        {
            let (mut cx, held) = cx.hold(&token);
            std::mem::forget(held);
            cx.yield_now();
        }
        let (mut cx, mut held) = cx.hold(&token);
        held.get_mut(&mut cx).push(2);
        assert_eq!(*held.get(&cx), [1, 2]);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_forgotten_context_leaves_the_token_taken_and_nothing_dangles() {
    let main = on(1, |cx| {
        let token = Box::new(Token::new(vec![1]));
        let (inner, mut held) = cx.hold(&token);
        std::mem::forget(inner);
        // No context is left that `held` could be used with: the outer one is borrowed as long as it lives.
        let _ = &mut held;
        assert!(cx.try_hold(&token).is_err());
        // Others run, and this thread goes on: the chain does not know of the hold.
        let other = spawn(cx, CPU0, |cx| cx.yield_now());
        cx.yield_now();
        other.join(cx).unwrap();
        // The token can go where it likes.
        let mut moved = *token;
        moved.get_mut().push(2);
        assert_eq!(moved.into_inner(), [1, 2]);
        cx.yield_now();
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn forgetting_the_context_and_the_hold_and_freeing_the_token_is_safe() {
    let main = on(1, |cx| {
        let token = Box::new(Token::new(vec![1]));
        std::mem::forget(cx.hold(&token));
        std::mem::forget(cx.try_hold_shared(&token));
        drop(token);
        let other = spawn(cx, CPU0, |cx| cx.yield_now());
        cx.yield_now();
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

/// Pending once.
struct Once(bool);

impl Future for Once {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn add(cx: &mut Cx<'_>, token: &Token<Vec<i32>>) {
    let (mut cx, mut held) = cx.hold(token);
    held.get_mut(&mut cx).push(2);
    Once(false).await;
    held.get_mut(&mut cx).push(3);
}

#[test]
fn a_future_with_a_hold_may_be_dropped_half_way() {
    let main = on(1, |cx| {
        let token = Box::new(Token::new(vec![1]));
        let mut task = Context::from_waker(Waker::noop());
        {
            let mut dropped = Box::pin(add(cx, &token));
            assert!(dropped.as_mut().poll(&mut task).is_pending());
        }
        cx.yield_now();
        {
            let mut ends = Box::pin(add(cx, &token));
            assert!(ends.as_mut().poll(&mut task).is_pending());
            assert!(ends.as_mut().poll(&mut task).is_ready());
        }
        assert_eq!(token.holders(), Holders::Nobody);
        assert_eq!(token.into_inner(), [1, 2, 2, 3]);
    });
    assert_eq!(main, Ok(()));
}

#[test]
#[cfg_attr(miri, ignore = "leaks a future: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_future_with_a_hold_may_be_forgotten_half_way() {
    let main = on(1, |cx| {
        let token = Box::new(Token::new(vec![1]));
        let mut task = Context::from_waker(Waker::noop());
        let mut forgotten = Box::pin(add(cx, &token));
        assert!(forgotten.as_mut().poll(&mut task).is_pending());
        std::mem::forget(forgotten);
        assert!(cx.try_hold(&token).is_err());
        cx.yield_now();
        assert_eq!(token.into_inner(), [1, 2]);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_hold_may_leave_the_function_that_took_it() {
    fn take<'a>(cx: &'a mut Cx<'_>, token: &'a Token<i32>) -> Box<(Cx<'a>, Held<'a, i32>)> {
        Box::new(cx.hold(token))
    }
    let main = on(1, |cx| {
        let token = Arc::new(Token::new(1));
        let theirs = token.clone();
        let other = spawn(cx, CPU0, move |cx| {
            let (mut cx, mut n) = cx.hold(&theirs);
            *n.get_mut(&mut cx) += 1;
        });
        {
            let (mut cx, mut held) = *take(cx, &token);
            *held.get_mut(&mut cx) += 1;
            cx.yield_now();
            assert_eq!(*held.get(&cx), 3);
        }
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}
