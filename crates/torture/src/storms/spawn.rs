//! Threads that begin and end all the time, everywhere, with all priorities.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use dfly_hal::block_on;
use dfly_lwkt::{Priority, Spec};

use crate::crew::{Crew, rest};

const THREADS: u32 = 3;

pub(super) fn storm(crew: &mut Crew) {
    let (begun, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for cpu in crew.cpus() {
        for _ in 0..THREADS {
            let (begun, ended) = (begun.clone(), ended.clone());
            crew.add(cpu, "parent".into(), move |cx, hand| {
                let stack = *hand.rng.one_of(&[16 << 10, 32 << 10]);
                // As important as its parent or less, so that nobody starves for long.
                let priority = Priority::new(hand.rng.below(1 + u64::from(Priority::default().get())) as u8);
                let spec = Spec::new("child").stack_bytes(stack).priority(priority.unwrap_or_default());
                let (ends, yields) = (ended.clone(), hand.rng.below(4));
                let child = cx.scheduler().spawn(hand.any_cpu(), spec, move |cx| {
                    (0..yields).for_each(|_| cx.yield_now());
                    ends.fetch_add(1, Relaxed);
                });
                match child {
                    Ok(mut child) => {
                        begun.fetch_add(1, Relaxed);
                        // Late ones go on alone, but not too many.
                        let deadline = hand.rng.once_in(8).then(|| hand.soon());
                        match block_on(cx, &mut child, deadline) {
                            Ok(Ok(())) | Err(_) => {}
                            Ok(Err(error)) => hand.weather.wrong(format!("a child: {error}")),
                        }
                    }
                    Err(error) => hand.weather.wrong(format!("no child: {error}")),
                }
                hand.dawdle(cx);
            });
        }
    }
    crew.check(move |cx| {
        // Those that go on alone have some time.
        for _ in 0..100 {
            if begun.load(Relaxed) == ended.load(Relaxed) {
                return Ok(());
            }
            rest(cx, Duration::from_millis(50));
        }
        Err(format!("{} threads have begun, and {} ended", begun.load(Relaxed), ended.load(Relaxed)))
    });
}
