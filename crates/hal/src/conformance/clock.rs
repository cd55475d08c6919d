//! The promises of [`Clock`].

use alloc::sync::Arc;
use alloc::task::Wake;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Waker;
use core::time::Duration;

use super::Violation;
use crate::{Clock, Instant};

/// A timer may be this late.
const LATE: Duration = Duration::from_secs(5);
/// After this many idle turns time must have moved.
const PATIENCE: usize = 1_000_000;

#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Checks a clock. `idle` lets a little time pass: it sleeps, halts until an interrupt, or moves a manual clock on.
///
/// Takes some milliseconds of the clock's own time.
pub fn check_clock(clock: &dyn Clock, idle: &mut dyn FnMut()) -> Result<(), Violation> {
    let mut watch = Watch { clock, idle, last: clock.now() };
    for _ in 0..1000 {
        watch.now()?;
    }
    let start = watch.now()?;
    watch.until(start.saturating_add(Duration::from_micros(1)), || false)?;

    // Due already, now, soon, and in no order.
    let start = watch.now()?;
    let due = [3000, 0, 1000, 2000, 1000].map(|us| start.saturating_add(Duration::from_micros(us)));
    let past = Instant::from_nanos(start.as_nanos().saturating_sub(1));
    let timers: [(Instant, Arc<Count>); 6] =
        [past, due[0], due[1], due[2], due[3], due[4]].map(|at| (at, Arc::new(Count::default())));
    for (at, count) in &timers {
        clock.wake_at(*at, &Waker::from(count.clone()));
    }
    for (at, count) in &timers {
        watch.until(at.saturating_add(LATE), || count.get() > 0)?;
        if count.get() == 0 {
            return Err(Violation::TimerLost { at: *at, now: watch.now()? });
        }
    }
    // A timer that comes again does so soon.
    let end = watch.now()?.saturating_add(Duration::from_millis(5));
    watch.until(end, || false)?;
    match timers.iter().map(|(_, count)| count.get()).max() {
        Some(times) if times > 1 => Err(Violation::WokenAgain { times }),
        _ => Ok(()),
    }
}

struct Watch<'a> {
    clock: &'a dyn Clock,
    idle: &'a mut dyn FnMut(),
    last: Instant,
}

impl Watch<'_> {
    fn now(&mut self) -> Result<Instant, Violation> {
        let now = self.clock.now();
        if now < self.last {
            return Err(Violation::ClockWentBack { from: self.last, to: now });
        }
        self.last = now;
        Ok(now)
    }

    /// Idles until `enough`, or until `end` has passed.
    fn until(&mut self, end: Instant, enough: impl Fn() -> bool) -> Result<(), Violation> {
        let mut standing = 0;
        while !enough() {
            let before = self.last;
            if self.now()? >= end {
                return Ok(());
            }
            standing = if self.last == before { standing + 1 } else { 0 };
            if standing == PATIENCE {
                return Err(Violation::ClockStands { at: self.last });
            }
            (self.idle)();
        }
        Ok(())
    }
}
