//! Sleepers, and who wakes them.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_hal::TimedOut;
use dfly_lwkt::Cx;
use dfly_lwkt::sleep::{Domain, Ident};

use crate::crew::{Crew, Hand};

/// A semaphore over a sleep queue.
struct Semaphore {
    count: AtomicU64,
    domain: Domain,
}

impl Semaphore {
    fn new(count: u64) -> Self {
        // Some with the address only, some in a domain.
        Self { count: AtomicU64::new(count), domain: Domain((count % 2) as u16) }
    }

    fn channel(&self) -> dfly_lwkt::sleep::Channel {
        Ident::of(self).in_domain(self.domain)
    }

    fn try_take(&self) -> bool {
        self.count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_ok()
    }

    /// Whether it was taken before the storm was over.
    fn take(&self, cx: &mut Cx<'_>, hand: &mut Hand) -> bool {
        loop {
            let deadline = hand.rng.once_in(3).then(|| hand.soon());
            let mut taken = false;
            let slept = cx.sleep_while(self.channel(), deadline, || {
                taken = taken || self.try_take();
                !taken && !hand.weather.is_over()
            });
            match slept {
                Ok(()) => return taken,
                Err(TimedOut) if hand.weather.is_over() => return false,
                Err(TimedOut) => {}
            }
        }
    }

    fn give(&self, cx: &Cx<'_>, hand: &mut Hand) {
        self.count.fetch_add(1, Relaxed);
        match hand.rng.below(8) {
            0 => cx.scheduler().wakeup(self.channel()),
            _ => cx.scheduler().wakeup_one(self.channel()),
        }
    }
}

/// A buffer of two places.
struct Buffer {
    free: Semaphore,
    full: Semaphore,
    put: AtomicU64,
    got: AtomicU64,
}

const BUFFERS: usize = 3;

/// Producers and consumers of bounded buffers: whoever is forgotten stands still for ever.
pub(super) fn storm(crew: &mut Crew) {
    let buffers: Arc<[Buffer; BUFFERS]> = Arc::new(core::array::from_fn(|_| Buffer {
        free: Semaphore::new(2),
        full: Semaphore::new(0),
        put: AtomicU64::new(0),
        got: AtomicU64::new(0),
    }));
    for cpu in crew.cpus() {
        for number in 0..BUFFERS {
            let puts = buffers.clone();
            crew.add(cpu, "producer".into(), move |cx, hand| {
                let buffer = &puts[number];
                if buffer.free.take(cx, hand) {
                    buffer.put.fetch_add(1, Relaxed);
                    buffer.full.give(cx, hand);
                }
                hand.dawdle(cx);
            });
            let gets = buffers.clone();
            crew.add(cpu, "consumer".into(), move |cx, hand| {
                let buffer = &gets[number];
                if buffer.full.take(cx, hand) {
                    buffer.got.fetch_add(1, Relaxed);
                    buffer.free.give(cx, hand);
                }
                hand.dawdle(cx);
            });
        }
    }
    let (scheduler, all) = (crew.weather.scheduler, buffers.clone());
    crew.at_the_end(move || {
        let semaphores = all.iter().flat_map(|buffer| [&buffer.free, &buffer.full]);
        semaphores.for_each(|semaphore| scheduler.wakeup(semaphore.channel()));
    });
    crew.check(move |_| {
        for Buffer { full, put, got, .. } in &*buffers {
            let (put, got, left) = (put.load(Relaxed), got.load(Relaxed), full.count.load(Relaxed));
            if put != got + left {
                return Err(format!("{put} put, {got} got, {left} left"));
            }
        }
        Ok(())
    });
}

/// Who sleeps for a moment, and who wakes at that moment.
#[derive(Default)]
struct Race {
    /// When the sleeper is late, in nanoseconds.
    deadline: AtomicU64,
    woken: AtomicU64,
    late: AtomicU64,
}

/// Sleepers whose deadline passes when they are woken: each sleep ends, one way or the other.
pub(super) fn races(crew: &mut Crew) {
    let races: Arc<[Race; 4]> = Arc::default();
    let ident = |race: &Race| Ident::of(race);
    for cpu in crew.cpus() {
        for number in 0..races.len() {
            // The waker is on each CPU, the sleeper on one: of its own and of another one's.
            let both = races.clone();
            if cpu.index() == number % crew.cpus().count() {
                crew.add(cpu, "sleeper".into(), move |cx, hand| {
                    let race = &both[number];
                    let deadline = hand.soon();
                    let sleep = cx.interlock(ident(race));
                    race.deadline.store(deadline.as_nanos(), Relaxed);
                    match sleep.wait(Some(deadline)) {
                        Ok(()) => _ = race.woken.fetch_add(1, Relaxed),
                        Err(TimedOut) => {
                            let now = hand.weather.scheduler.platform().now();
                            hand.ensure(now >= deadline, || {
                                format!("race {number}: late at {now:?}, before {deadline:?}")
                            });
                            race.late.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let both = races.clone();
            crew.add(cpu, "waker".into(), move |cx, hand| {
                let race = &both[number];
                let clock = hand.weather.scheduler.platform();
                let ahead = hand.rng.below(3000);
                // Near the moment, if that is near.
                for _ in 0..200 {
                    let left = race.deadline.load(Relaxed).saturating_sub(clock.now().as_nanos());
                    if left <= ahead {
                        break;
                    }
                    core::hint::spin_loop();
                }
                cx.scheduler().wakeup_one(ident(race));
                cx.yield_now();
                hand.dawdle(cx);
            });
        }
    }
    crew.check(move |_| {
        let both =
            |count: fn(&Race) -> &AtomicU64| races.iter().map(|race| count(race).load(Relaxed)).sum::<u64>();
        match (both(|race| &race.woken), both(|race| &race.late)) {
            (0, _) | (_, 0) => Err("no race: nobody was woken, or nobody late".into()),
            _ => Ok(()),
        }
    });
}
