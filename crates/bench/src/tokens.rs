//! Tokens that nobody else wants: bars L4 to L7. Contenders run in a thread of the scheduler.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};
use dfly_hal::{CpuId, ThreadWait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::token::{Token, get2_mut};
use dfly_lwkt::{Config, Cx, RunTime, Spec};

use crate::harness::{Bar, Effort, Group, Unit};

/// An operation of the tables is so many pairs, or switches, so that calling it weighs nothing.
const PAIRS: u32 = 100;
const YIELDS: u32 = 1000;

pub(crate) fn bench(effort: Effort) -> Result<()> {
    let machine = Machine::start(1, Config::default().run_time(RunTime::NotMeasured))?;
    let spec = Spec::new("bench").stack_bytes(1 << 20);
    let main = machine.scheduler().spawn(CpuId(0), spec, move |cx| {
        let cx = RefCell::new(cx);
        exclusive(effort, &cx);
        shared(effort, &cx);
        switches(effort, &cx);
    })?;
    main.join(&mut ThreadWait::new()).context("the thread that measures")
}

/// Calls `pair` so often, with the context.
fn pairs<'a>(cx: &'a RefCell<&mut Cx<'_>>, mut pair: impl FnMut(&mut Cx<'_>) + 'a) -> impl FnMut() + 'a {
    move || {
        let cx = &mut *cx.borrow_mut();
        (0..PAIRS).for_each(|_| pair(cx));
    }
}

fn exclusive(effort: Effort, cx: &RefCell<&mut Cx<'_>>) {
    let (std_mutex, pl_mutex) = (std::sync::Mutex::new(0), parking_lot::Mutex::new(0));
    let spin_mutex = spin::Mutex::<_>::new(0);
    let [a, b, c, d] = [(); 4].map(|()| Token::new(0));

    let mut group = Group::new(format!("{PAIRS} x hold, add, release, uncontended"), Unit::Operation);
    group.add("std Mutex", pairs(cx, |_| *std_mutex.lock().unwrap_or_else(|e| e.into_inner()) += 1));
    let peer = group.add("parking_lot Mutex", pairs(cx, |_| *pl_mutex.lock() += 1));
    group.add("spin Mutex", pairs(cx, |_| *spin_mutex.lock() += 1));
    let hold = |cx: &mut Cx<'_>| {
        let (mut cx, mut n) = cx.hold(&a);
        *n.get_mut(&mut cx) += 1;
    };
    let ours = group.add("Token", pairs(cx, hold));
    group.ratio(ours, peer, Bar::TimeAtMost(0.60), "L4");
    let again = || {
        let cx = &mut *cx.borrow_mut();
        let (mut cx, _held) = cx.hold(&b);
        for _ in 0..PAIRS {
            let (mut cx, mut n) = cx.hold(&b);
            *n.get_mut(&mut cx) += 1;
        }
    };
    let ours = group.add("Token, held already", again);
    group.ratio(ours, peer, Bar::TimeAtMost(0.30), "L5");
    let try_hold = |cx: &mut Cx<'_>| {
        if let Ok((mut cx, mut n)) = cx.try_hold(&a) {
            *n.get_mut(&mut cx) += 1;
        }
    };
    group.add("Token, try", pairs(cx, try_hold));
    let two = |cx: &mut Cx<'_>| {
        let (mut cx, mut c) = cx.hold(&c);
        let (mut cx, mut d) = cx.hold(&d);
        let (c, d) = get2_mut(&mut c, &mut d, &mut cx);
        (*c, *d) = (*c + 1, *d + 1);
    };
    group.add("two Tokens at once", pairs(cx, two));
    group.run(effort);
}

fn shared(effort: Effort, cx: &RefCell<&mut Cx<'_>>) {
    let (pl, spin, token) = (parking_lot::RwLock::new(0), spin::RwLock::<_>::new(0), Token::new(0));
    let [mut a, mut b, mut c] = [0_u64; 3];
    let mut group = Group::new(format!("{PAIRS} x hold shared, read, release, uncontended"), Unit::Operation);
    let peer = group.add("parking_lot RwLock", pairs(cx, |_| a += *pl.read()));
    group.add("spin RwLock", pairs(cx, |_| b += *spin.read()));
    let hold = |cx: &mut Cx<'_>| {
        let (cx, n) = cx.hold_shared(&token);
        c += *n.get(&cx);
    };
    let ours = group.add("Token, shared", pairs(cx, hold));
    group.ratio(ours, peer, Bar::TimeAtMost(0.85), "L7");
    group.run(effort);
}

/// Two threads that yield to each other, each of which holds tokens of its own meanwhile: at each switch one of them gives
/// them up, and the other one takes its own again.
fn switches(effort: Effort, cx: &RefCell<&mut Cx<'_>>) {
    let lock = parking_lot::Mutex::new(0_u32);
    let mut group = Group::new(format!("{YIELDS} x yield, to and fro, with tokens held"), Unit::Operation);
    group.add("no token", || to_and_fro::<0>(cx, || ()));
    group.add("1 token each", || to_and_fro::<1>(cx, || ()));
    let ours = group.add("5 tokens each", || to_and_fro::<5>(cx, || ()));
    // The bar is the switch and 0.60 pairs for each token.
    let pairs = || (0..6).for_each(|_| *lock.lock() += 1);
    let peer = group.add("none, 3 pairs of a parking_lot Mutex", || to_and_fro::<0>(cx, pairs));
    group.ratio(ours, peer, Bar::TimeAtMost(1.0), "L6");
    group.run(effort);
}

/// `extra` is done once for each two switches.
fn to_and_fro<const N: usize>(cx: &RefCell<&mut Cx<'_>>, mut extra: impl FnMut()) {
    let cx = &mut *cx.borrow_mut();
    let over = Arc::new(AtomicBool::new(false));
    let theirs = over.clone();
    let other = cx.scheduler().spawn(cx.cpu(), "other".into(), move |cx| {
        with_held(cx, &[(); N].map(Token::new), &mut |cx| {
            while !theirs.load(Relaxed) {
                cx.yield_now();
            }
        });
    });
    with_held(cx, &[(); N].map(Token::new), &mut |cx| {
        for _ in 0..YIELDS {
            cx.yield_now();
            extra();
        }
    });
    over.store(true, Relaxed);
    // Its end is not what is measured.
    let _ = other.map(|other| other.join(cx));
}

/// Calls `f` with all of these held.
fn with_held(cx: &mut Cx<'_>, tokens: &[Token<()>], f: &mut dyn FnMut(&mut Cx<'_>)) {
    match tokens.split_first() {
        Some((first, rest)) => with_held(&mut cx.hold(first).0, rest, f),
        None => f(cx),
    }
}
