//! Threads that compute, interrupt threads that are woken all the time by callbacks and timers, and critical sections that
//! keep them apart.

use alloc::boxed::Box;
use alloc::format;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_hal::CpuId;
use dfly_lwkt::ipi::IrqCx;
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::{Cx, Priority, Scheduler, Spec};

use crate::crew::Crew;

/// What is of one CPU: loads and stores without order, kept whole by critical sections.
#[derive(Default)]
struct Own {
    count: AtomicU64,
    /// What it should be.
    added: AtomicU64,
    /// How many interrupts there were, and how many of them an interrupt thread has seen.
    due: AtomicU64,
    done: AtomicU64,
}

impl Own {
    fn add(&self, cx: &Cx<'_>, mut work: impl FnMut()) {
        let section = cx.critical();
        let count = self.count.load(Relaxed);
        work();
        self.count.store(count + 1, Relaxed);
        drop(section);
        self.added.fetch_add(1, Relaxed);
    }

    fn ident(&self) -> Ident {
        Ident::of(self)
    }
}

/// A reference to it is all that fits into a message.
struct All {
    scheduler: &'static Scheduler,
    own: Box<[Own]>,
}

impl All {
    /// Has an interrupt thread of `cpu` run.
    fn interrupt(&self, cpu: CpuId) {
        let own = &self.own[cpu.index()];
        own.due.fetch_add(1, Relaxed);
        self.scheduler.wakeup(own.ident());
    }
}

pub(super) fn storm(crew: &mut Crew) {
    let scheduler = crew.weather.scheduler;
    // Of no one: what the last callback drops would be freed in an interrupt.
    let all: &'static All =
        Box::leak(Box::new(All { scheduler, own: crew.cpus().map(|_| Own::default()).collect() }));
    let expected = compute(black_box(1));
    for cpu in crew.cpus() {
        for priority in [Priority::INT_LOW, Priority::INT_HIGH] {
            crew.add(cpu, Spec::new("interrupt").priority(priority), move |cx, hand| {
                let own = &all.own[cpu.index()];
                let over = || hand.weather.is_over();
                // A time-out is another interrupt.
                let deadline =
                    scheduler.platform().now().saturating_add(core::time::Duration::from_millis(2));
                let idle = || own.done.load(Relaxed) >= own.due.load(Relaxed) && !over();
                let _ = cx.sleep_while(own.ident(), Some(deadline), idle);
                // All that came until now are one, or a flood of them would leave no time for others.
                let due = own.due.load(Relaxed);
                own.add(cx, || ());
                own.done.fetch_max(due, Relaxed);
            });
        }
        for _ in 0..2 {
            crew.add(cpu, "compute".into(), move |cx, hand| {
                let result = compute(black_box(1));
                hand.ensure(result == expected, || format!("{result:?} computed, and not {expected:?}"));
                all.own[cpu.index()].add(cx, || hand.work());
                if hand.rng.once_in(8) {
                    // A host has no clock that ends a turn.
                    cx.yield_now();
                }
                let to = hand.any_cpu();
                match hand.rng.below(3) {
                    0 => all.interrupt(to),
                    // From its callback.
                    _ => {
                        let sent = scheduler.ipis().send(to, move |cx: &IrqCx<'_>| all.interrupt(cx.cpu()));
                        hand.ensure(sent.is_ok(), || format!("{sent:?}"));
                    }
                }
            });
        }
    }
    crew.at_the_end(move || all.own.iter().for_each(|own| scheduler.wakeup(own.ident())));
    crew.check(move |_| {
        for (id, own) in (0..).map(CpuId).zip(&all.own) {
            let (count, added) = (own.count.load(Relaxed), own.added.load(Relaxed));
            if count != added {
                return Err(format!("{id}: {added} added in critical sections, {count} there"));
            }
        }
        Ok(())
    });
}

/// Something that needs many registers, and tells if one was lost.
fn compute(seed: u64) -> (u64, u64) {
    let (mut a, mut b, mut c, mut d) = (seed, seed + 2, seed + 3, seed + 5);
    let mut x = black_box(1.5_f64);
    for i in 0..500 {
        a = a.rotate_left(5) ^ b.wrapping_mul(0x9e37_79b9);
        b = b.wrapping_add(c ^ i);
        c = c.rotate_right(7).wrapping_add(d);
        d ^= a.wrapping_mul(c | 1);
        x = x * 1.000_1 + (i as f64) * 0.5;
    }
    (a ^ b ^ c ^ d, x.to_bits())
}
