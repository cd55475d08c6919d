//! Threads that move from CPU to CPU, by themselves and given away, while they hold tokens, sleep and are woken.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_hal::CpuId;
use dfly_hal::sync::Lock;
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Cx, Descheduled, MigrateError};

use super::Twin;
use crate::crew::{Crew, Hand};

const THREADS: u32 = 6;

struct Sea {
    token: Token<Twin>,
    grown: AtomicU64,
    /// Of each CPU: loads and stores, kept whole by critical sections.
    own: Vec<[AtomicU64; 2]>,
    /// Threads that others send on.
    given: Lock<Vec<Descheduled>>,
}

impl Sea {
    fn ident(&self) -> Ident {
        Ident::of(&self.grown)
    }

    /// Sends on a thread that was given away; whether there was one.
    fn send_on(&self, to: CpuId) -> bool {
        let given = self.given.lock().pop();
        // It goes on in any case.
        given.map(|given| given.resume_on(to)).is_some()
    }
}

pub(super) fn storm(crew: &mut Crew) {
    let sea = Arc::new(Sea {
        token: Token::named("moving", Twin::default()),
        grown: AtomicU64::new(0),
        own: crew.cpus().map(|_| Default::default()).collect(),
        given: Lock::new(Vec::new()),
    });
    for cpu in crew.cpus() {
        for _ in 0..THREADS {
            let sea = sea.clone();
            crew.add(cpu, "moves".into(), move |cx, hand| {
                match hand.rng.below(8) {
                    0 => give_away(cx, hand, &sea),
                    1 => _ = sea.send_on(hand.any_cpu()),
                    2 => with_a_token(cx, hand, &sea),
                    3 => {
                        let deadline = hand.soon();
                        let sleep = cx.interlock(sea.ident());
                        // Woken or late, it goes on.
                        let _ = sleep.wait(Some(deadline));
                    }
                    4 => cx.scheduler().wakeup(sea.ident()),
                    // A sleep that the move ends.
                    5 => core::mem::forget(cx.interlock(sea.ident())),
                    _ => {}
                }
                go(cx, hand);
                let section = cx.critical();
                let [count, added] = &sea.own[section.cpu().index()];
                let seen = count.load(Relaxed);
                hand.work();
                count.store(seen + 1, Relaxed);
                drop(section);
                added.fetch_add(1, Relaxed);
            });
        }
    }
    for cpu in crew.cpus() {
        // All others may have given themselves away.
        let sea = sea.clone();
        crew.add(cpu, "ferry".into(), move |cx, hand| {
            if !sea.send_on(hand.any_cpu()) {
                cx.yield_now();
            }
        });
    }
    let (all, scheduler) = (sea.clone(), crew.weather.scheduler);
    crew.at_the_end(move || {
        while all.send_on(CpuId(0)) {}
        scheduler.wakeup(all.ident());
    });
    crew.check(move |cx| {
        for (id, [count, added]) in (0..).map(CpuId).zip(&sea.own) {
            let (count, added) = (count.load(Relaxed), added.load(Relaxed));
            if count != added {
                return Err(format!("{id}: {added} added in critical sections, {count} there"));
            }
        }
        let (cx, twin) = cx.hold(&sea.token);
        let (left, grown) = (twin.get(&cx).left, sea.grown.load(Relaxed));
        if left == grown { Ok(()) } else { Err(format!("the token has grown {grown} times, and is {left}")) }
    });
}

/// Moves, where threads may.
fn go(cx: &mut Cx<'_>, hand: &mut Hand) {
    let to = hand.any_cpu();
    match cx.migrate(to) {
        Ok(()) => hand.ensure(cx.cpu() == to, || format!("on {}, and not on {to}", cx.cpu())),
        Err(MigrateError::ThreadLocals) => {}
        Err(error) => hand.weather.wrong(format!("to {to}: {error}")),
    }
}

fn give_away(cx: &mut Cx<'_>, hand: &mut Hand, sea: &Sea) {
    cx.give_away(|me| {
        let mut given = sea.given.lock();
        // After the end nobody looks there.
        if !hand.weather.is_over() {
            given.push(me);
        }
    });
}

fn with_a_token(cx: &mut Cx<'_>, hand: &mut Hand, sea: &Sea) {
    let (mut cx, mut twin) = cx.hold(&sea.token);
    for _ in 0..2 {
        let whole = twin.get_mut(&mut cx).grow(|| hand.work());
        sea.grown.fetch_add(1, Relaxed);
        hand.ensure(whole, || "the token is held twice".into());
        go(&mut cx, hand);
    }
}
