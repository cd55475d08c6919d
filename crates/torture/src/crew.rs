//! The threads of a storm, and what they know.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use dfly_hal::sync::Lock;
use dfly_hal::{CpuId, Instant, block_on, sleep_until};
use dfly_lwkt::{Cx, Handle, Scheduler, Spec};

use crate::rng::Rng;

/// What a storm's threads share.
pub(crate) struct Weather {
    pub(crate) scheduler: &'static Scheduler,
    over: AtomicBool,
    /// The first thing that went wrong.
    wrong: Lock<Option<String>>,
    /// Of each thread.
    steps: Lock<Vec<Arc<AtomicU64>>>,
}

impl Weather {
    /// Notes what went wrong, and ends the storm.
    pub(crate) fn wrong(&self, why: String) {
        self.wrong.lock().get_or_insert(why);
        self.end();
    }

    pub(crate) fn take_wrong(&self) -> Option<String> {
        self.wrong.lock().take()
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// How many steps all threads have made.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.lock().iter().map(|steps| steps.load(Relaxed)).sum()
    }

    /// How many threads have made none.
    fn idlers(&self) -> usize {
        self.steps.lock().iter().filter(|steps| steps.load(Relaxed) == 0).count()
    }
}

/// Those who make a storm.
pub(crate) struct Crew {
    pub(crate) weather: Arc<Weather>,
    cpus: u32,
    seed: u64,
    threads: Vec<Handle>,
    /// What sleepers wait for when the storm is over.
    wakes: Vec<Box<dyn Fn()>>,
    /// What must be true at the end.
    checks: Vec<Check>,
}

type Check = Box<dyn FnOnce(&mut Cx<'_>) -> Result<(), String>>;

impl Crew {
    pub(crate) fn new(scheduler: &'static Scheduler, seed: u64) -> Self {
        let weather = Weather {
            scheduler,
            over: AtomicBool::new(false),
            wrong: Lock::new(None),
            steps: Lock::new(Vec::new()),
        };
        let cpus = scheduler.platform().count();
        let (threads, wakes, checks) = (Vec::new(), Vec::new(), Vec::new());
        Self { weather: Arc::new(weather), cpus, seed, threads, wakes, checks }
    }

    pub(crate) fn cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        (0..self.cpus).map(CpuId)
    }

    /// A thread of the storm: calls `work` again and again until the storm is over.
    pub(crate) fn add(
        &mut self,
        cpu: CpuId,
        spec: Spec,
        mut work: impl FnMut(&mut Cx<'_>, &mut Hand) + Send + 'static,
    ) {
        let steps = Arc::new(AtomicU64::new(0));
        let weather = self.weather.clone();
        weather.steps.lock().push(steps.clone());
        let rng = Rng::new(self.seed, self.threads.len() as u64 + 1);
        let mut hand = Hand { weather: weather.clone(), rng, cpus: self.cpus };
        let thread = weather.scheduler.spawn(cpu, spec, move |cx| {
            while !hand.weather.is_over() {
                work(cx, &mut hand);
                steps.store(steps.load(Relaxed) + 1, Relaxed);
                if cx.should_yield() {
                    cx.yield_now();
                }
            }
        });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => weather.wrong(format!("no thread: {error}")),
        }
    }

    /// `wake` is called when the storm is over: nobody sleeps any longer.
    pub(crate) fn at_the_end(&mut self, wake: impl Fn() + 'static) {
        self.wakes.push(Box::new(wake));
    }

    /// `check` is asked when all threads have ended.
    pub(crate) fn check(&mut self, check: impl FnOnce(&mut Cx<'_>) -> Result<(), String> + 'static) {
        self.checks.push(Box::new(check));
    }

    /// Lets the storm blow for so long. It must not stand still for longer than `patience`, and end within that.
    pub(crate) fn blow(self, cx: &mut Cx<'_>, time: Duration, patience: Duration) -> Result<u64, String> {
        let Self { weather, threads, wakes, checks, .. } = self;
        let clock = weather.scheduler.platform();
        let end = clock.now().saturating_add(time);
        let (mut seen, mut moved) = (0, clock.now());
        while clock.now() < end && !weather.is_over() {
            rest(cx, Duration::from_millis(100));
            let steps = weather.steps();
            if steps != seen {
                (seen, moved) = (steps, clock.now());
            } else if clock.now().saturating_since(moved) > patience {
                weather.wrong(format!("no step for {patience:?}\n{}", Report(weather.scheduler)));
            }
        }
        let idlers = weather.idlers();
        weather.end();
        wakes.iter().for_each(|wake| wake());
        let deadline = clock.now().saturating_add(patience);
        for mut thread in threads {
            let (id, ended) = (thread.id(), block_on(cx, &mut thread, Some(deadline)));
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => weather.wrong(format!("thread {id}: {error}")),
                Err(late) => {
                    weather.wrong(format!("thread {id} does not end: {late}\n{}", Report(weather.scheduler)));
                    break;
                }
            }
        }
        if let Some(why) = weather.take_wrong() {
            return Err(why);
        }
        for check in checks {
            check(cx)?;
        }
        if idlers != 0 {
            return Err(format!("{idlers} threads made no step at all"));
        }
        Ok(weather.steps())
    }
}

/// What a thread of a storm works with.
pub(crate) struct Hand {
    pub(crate) weather: Arc<Weather>,
    pub(crate) rng: Rng,
    cpus: u32,
}

impl Hand {
    /// One of the CPUs.
    pub(crate) fn any_cpu(&mut self) -> CpuId {
        CpuId(self.rng.below(self.cpus.into()) as u32)
    }

    /// Soon, or very soon.
    pub(crate) fn soon(&mut self) -> Instant {
        let micros = *self.rng.one_of(&[0, 10, 100, 1000]);
        let nanos = self.rng.below(1 + 1000 * micros);
        self.weather.scheduler.platform().now().saturating_add(Duration::from_nanos(nanos))
    }

    /// Does nothing, now and then, in one of the ways in which a thread can.
    pub(crate) fn dawdle(&mut self, cx: &mut Cx<'_>) {
        match self.rng.below(16) {
            0..4 => cx.yield_now(),
            4 => {
                let clock = self.weather.scheduler.platform();
                let until = self.soon();
                // Whether it is late does not matter.
                let _ = block_on(cx, sleep_until(clock, until), None);
            }
            5..10 => self.work(),
            // Refused where threads may not.
            10 => _ = cx.migrate(self.any_cpu()),
            _ => {}
        }
    }

    /// Keeps the CPU busy for a moment.
    pub(crate) fn work(&mut self) {
        for _ in 0..self.rng.below(200) {
            core::hint::black_box(self.rng.next());
        }
    }

    /// Notes what is not as it should be.
    pub(crate) fn ensure(&self, is: bool, otherwise: impl FnOnce() -> String) {
        if !is {
            self.weather.wrong(otherwise());
        }
    }
}

/// Blocks for so long.
pub(crate) fn rest(cx: &mut Cx<'_>, time: Duration) {
    let clock = cx.scheduler().platform();
    let until = clock.now().saturating_add(time);
    // Without a deadline it is woken.
    let _ = block_on(cx, sleep_until(clock, until), None);
}

/// Every thread, one in a line.
pub(crate) struct Report(pub(crate) &'static Scheduler);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.0.threads(&mut |thread| {
            let line = write!(
                f,
                "{:>6} {:<16} {} pri {:<2} {:<8} {} switches, {} wakes",
                thread.id,
                thread.name,
                thread.cpu,
                thread.priority,
                thread.state,
                thread.switches,
                thread.wakes
            );
            let line = line.and_then(|()| match thread.sleeps_on {
                Some(channel) => writeln!(f, ", sleeps on {channel}"),
                None => writeln!(f),
            });
            if result.is_ok() {
                result = line;
            }
        });
        result
    }
}
