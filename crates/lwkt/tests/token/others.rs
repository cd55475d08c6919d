//! Pools, interrupts, and values of each CPU.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use dfly_hal::{CpuId, ThreadWait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::lock::Holders;
use dfly_lwkt::token::{Token, TokenPool};
use dfly_lwkt::{Config, PerCpu};

use crate::{CPU0, CPU1, Event, message, on, spawn};

#[test]
fn objects_find_their_pool_token_by_address_and_may_share_it() {
    static POOL: TokenPool<8> = TokenPool::new("objects");
    let main = on(1, |cx| {
        let objects: [u64; 200] = std::array::from_fn(|i| i as u64);
        let (mut cx, _) = cx.hold(POOL.of(&objects[0]));
        assert!(std::ptr::eq(POOL.of(&objects[0]), POOL.of(&objects[0])));
        assert_eq!(POOL.of(&objects[0]).holders(), Holders::Exclusive(1));
        let used: HashSet<_> = objects.iter().map(|object| std::ptr::from_ref(POOL.of(object))).collect();
        assert_eq!(used.len(), 8, "all tokens are used");
        // Whatever collides with it is had already.
        let same = objects[1..].iter().find(|object| std::ptr::eq(POOL.of(*object), POOL.of(&objects[0])));
        drop(cx.hold(POOL.of(same.unwrap())));
        assert_eq!(POOL.of(&objects[0]).holders(), Holders::Exclusive(1));
    });
    assert_eq!(main, Ok(()));
    assert_eq!((POOL.of_key(3).site().name(), POOL.collisions()), (Some("objects"), 0));
}

#[test]
fn a_pool_spreads_keys_that_differ_in_few_bits() {
    static POOL: TokenPool<64> = TokenPool::new("keys");
    for shift in [0, 3, 6, 12, 20, 40] {
        let used: HashSet<_> =
            (0..64).map(|key: u64| std::ptr::from_ref(POOL.of_key(key << shift))).collect();
        assert!(used.len() >= 32, "{} for keys with {shift} zeros", used.len());
    }
    static ONE: TokenPool<1> = TokenPool::new("one");
    assert!(std::ptr::eq(ONE.of_key(0), ONE.of_key(u64::MAX)));
}

#[test]
fn a_pool_counts_who_had_to_wait() {
    static POOL: TokenPool<4> = TokenPool::new("contended");
    let main = on(2, |cx| {
        let held = Event::default();
        let holds = held.clone();
        let other = spawn(cx, CPU1, move |cx| {
            let (_cx, _) = cx.hold(POOL.of_key(1));
            holds.happen();
            while POOL.collisions() == 0 {
                std::thread::yield_now();
            }
        });
        held.wait(cx);
        drop(cx.hold(POOL.of_key(1)));
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
    assert_eq!(POOL.collisions(), 1);
}

#[test]
fn an_interrupt_holds_a_token_only_if_nobody_has_it() {
    static TOKEN: Token<u32> = Token::named("irq", 0);
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let main = on(2, |cx| {
        let send_and_wait = |cx: &mut dfly_lwkt::Cx<'_>| {
            let before = TRIED.load(Ordering::SeqCst);
            let ticket = cx.scheduler().ipis().send(CPU1, |irq| {
                let held = irq.try_hold(&TOKEN).map(|mut n| {
                    *n += 1;
                    assert!(irq.try_hold(&TOKEN).is_none());
                    assert_eq!(format!("{n:?}"), format!("IrqHeld({})", *n));
                });
                TRIED.fetch_add(if held.is_some() { 100 } else { 1 }, Ordering::SeqCst);
            });
            ticket.unwrap();
            while TRIED.load(Ordering::SeqCst) == before {
                cx.yield_now();
                std::thread::yield_now();
            }
        };
        send_and_wait(cx);
        assert_eq!((TRIED.load(Ordering::SeqCst), TOKEN.holders()), (100, Holders::Nobody));
        let done = Arc::new(AtomicU32::new(0));
        let held = Event::default();
        let (holds, is_done) = (held.clone(), done.clone());
        let holder = spawn(cx, CPU0, move |cx| {
            // Without a wait: it is held all the time.
            let (mut cx, mut n) = cx.hold(&TOKEN);
            *n.get_mut(&mut cx) += 1;
            holds.happen();
            let before = TRIED.load(Ordering::SeqCst);
            let ticket = cx.scheduler().ipis().send(CPU1, |irq| {
                assert!(irq.try_hold(&TOKEN).is_none());
                TRIED.fetch_add(1, Ordering::SeqCst);
            });
            ticket.unwrap();
            while TRIED.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
            is_done.store(1, Ordering::SeqCst);
        });
        held.wait(cx);
        holder.join(cx).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 1);
        send_and_wait(cx);
        assert_eq!(TRIED.load(Ordering::SeqCst), 201);
        let (cx, n) = cx.hold(&TOKEN);
        assert_eq!(*n.get(&cx), 3);
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn each_cpu_has_its_own_value_and_its_threads_share_it() {
    let machine = Machine::start(2, Config::default()).unwrap();
    let values = Arc::new(PerCpu::new(machine.scheduler(), |cpu| (cpu, RefCell::new(Vec::new()))));
    let threads: Vec<_> = (0..6_u32)
        .map(|i| {
            let values = values.clone();
            let thread = move |cx: &mut dfly_lwkt::Cx<'_>| {
                for _ in 0..3 {
                    let section = cx.critical();
                    let (cpu, seen) = values.with(&section);
                    assert_eq!(*cpu, section.cpu());
                    seen.borrow_mut().push(i);
                    drop(section);
                    cx.yield_now();
                }
            };
            machine.scheduler().spawn(CpuId(i % 2), "adder".into(), thread).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join(&mut ThreadWait::new()).unwrap();
    }
    drop(machine);
    let mut values = Arc::into_inner(values).unwrap();
    assert!(values.get_mut(CpuId(2)).is_none());
    values.get_mut(CPU1).unwrap().1.borrow_mut().push(1);
    let lens: Vec<_> = values
        .into_values()
        .map(|(cpu, seen)| {
            let seen = seen.into_inner();
            assert!(seen.iter().all(|i| CpuId(i % 2) == cpu));
            seen.len()
        })
        .collect();
    assert_eq!(lens, [9, 10]);
}

#[test]
fn a_thread_of_another_scheduler_has_no_value() {
    let elsewhere = Machine::start(2, Config::default()).unwrap();
    let values = Arc::new(PerCpu::new(elsewhere.scheduler(), |_| Cell::new(1)));
    let said = Arc::new(Mutex::new(String::new()));
    let says = said.clone();
    let main = on(2, move |cx| {
        let section = cx.critical();
        let panic = catch_unwind(AssertUnwindSafe(|| values.with(&section).set(2))).unwrap_err();
        let text = panic.downcast_ref::<&str>().map_or_else(|| message(&*panic).into(), ToString::to_string);
        *says.lock().unwrap() = text;
    });
    assert_eq!(main, Ok(()));
    assert!(said.lock().unwrap().contains("one scheduler"));
}
