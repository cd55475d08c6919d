//! Messages between CPUs, from threads and from callbacks, and functions that run on many CPUs.

use alloc::boxed::Box;
use alloc::format;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use dfly_lwkt::ipi::CpuMask;

use crate::crew::{Crew, rest};

const THREADS: u32 = 3;

#[derive(Default)]
struct Post {
    sent: AtomicU64,
    received: AtomicU64,
    ran: AtomicU64,
    to_run: AtomicU64,
}

pub(super) fn storm(crew: &mut Crew) {
    // Of no one: what the last callback drops would be freed in an interrupt.
    let post: &'static Post = Box::leak(Box::default());
    let all = CpuMask::first(crew.cpus().count() as u32);
    for cpu in crew.cpus() {
        for _ in 0..THREADS {
            crew.add(cpu, "ipis".into(), move |cx, hand| {
                let ipis = cx.scheduler().ipis();
                let (to, on) = (hand.any_cpu(), hand.any_cpu());
                let sent = match hand.rng.below(8) {
                    0 => {
                        let to_run = |mask: CpuMask| post.to_run.fetch_add(mask.len().into(), Relaxed);
                        let run = |_: &dfly_lwkt::ipi::IrqCx<'_>| _ = post.ran.fetch_add(1, Relaxed);
                        let ran = match hand.rng.below(2) {
                            0 => ipis.run_on(&all, run),
                            _ => ipis.run_together(&(all - CpuMask::of(on)), run),
                        };
                        match ran {
                            Ok(mask) => _ = to_run(mask),
                            Err(error) => hand.weather.wrong(format!("run_on: {error}")),
                        }
                        return;
                    }
                    1 => ipis.send_passive(to, move |_| _ = post.received.fetch_add(1, Relaxed)),
                    2 => {
                        // And from there to somewhere else: an index is all that fits beside the rest.
                        post.sent.fetch_add(1, Relaxed);
                        ipis.send(to, move |cx| {
                            post.received.fetch_add(1, Relaxed);
                            let sent = cx.send(on, move |_| _ = post.received.fetch_add(1, Relaxed));
                            if sent.is_err() {
                                post.received.fetch_add(1 << 32, Relaxed);
                            }
                        })
                    }
                    _ => ipis.send(to, move |_| _ = post.received.fetch_add(1, Relaxed)),
                };
                match sent {
                    Ok(_) => _ = post.sent.fetch_add(1, Relaxed),
                    Err(error) => hand.weather.wrong(format!("send: {error}")),
                }
                hand.dawdle(cx);
            });
        }
    }
    crew.check(move |cx| {
        let mut counts = [0; 4];
        for _ in 0..100 {
            counts = [&post.sent, &post.received, &post.to_run, &post.ran].map(|count| count.load(Relaxed));
            if counts[0] == counts[1] {
                break;
            }
            // Passive ones wait for somebody to look.
            for id in (0..cx.scheduler().platform().count()).map(dfly_hal::CpuId) {
                let _ = cx.scheduler().ipis().send(id, |_| ());
            }
            rest(cx, Duration::from_millis(20));
        }
        let [sent, received, to_run, ran] = counts;
        match sent == received && to_run == ran {
            true => Ok(()),
            false => Err(format!("{sent} sent, {received} received; {to_run} to run, {ran} ran")),
        }
    });
}
