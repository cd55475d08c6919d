//! Models of sleep queues: the whole scheduler with OS threads in place of the switch, and wakers from elsewhere.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_sleep`
//!
//! A wake-up that gets lost shows as a deadlock. The patches `mutations/sleep-*` each drop one step.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use dfly_hal::{Clock, CpuId, Cpus, Instant, TimedOut};
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::{Config, Platform, RunTime, Scheduler};
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread::{self, Thread};

const CPU0: CpuId = CpuId(0);
const IDENT: Ident = Ident(7);
/// In the same bucket.
const NEIGHBOUR: Ident = Ident(2);

loom::thread_local! {
    static THIS: Cell<CpuId> = Cell::new(CpuId::NONE);
}

/// A CPU that is loom's thread, and whose timers go off at once.
struct Model {
    cpu: Mutex<Option<Thread>>,
    now: Mutex<u64>,
}

// SAFETY: each model attaches one thread.
unsafe impl Cpus for Model {
    fn this(&self) -> CpuId {
        THIS.with(Cell::get)
    }
    fn count(&self) -> u32 {
        1
    }
    fn raise_ipi(&self, _: CpuId) {
        let cpu = self.cpu.lock().unwrap().clone();
        if let Some(cpu) = cpu {
            cpu.unpark();
        }
    }
}

impl Clock for Model {
    fn now(&self) -> Instant {
        Instant::from_nanos(*self.now.lock().unwrap())
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        *self.now.lock().unwrap() = at.as_nanos();
        let waker = waker.clone();
        thread::spawn(move || waker.wake());
    }
}

impl Platform for Model {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        if !ready() {
            thread::park();
        }
    }
}

fn machine() -> (Arc<Model>, &'static Scheduler) {
    let model = Arc::new(Model { cpu: Mutex::new(None), now: Mutex::new(0) });
    let config = Config::default().run_time(RunTime::NotMeasured);
    let scheduler = Scheduler::new(model.clone(), config).unwrap();
    (model, scheduler)
}

fn run(model: &Model, scheduler: &'static Scheduler) {
    THIS.with(|this| this.set(CPU0));
    *model.cpu.lock().unwrap() = Some(thread::current());
    scheduler.run().unwrap();
    *model.cpu.lock().unwrap() = None;
}

#[test]
fn a_wake_up_between_the_look_and_the_sleep_is_not_lost() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let ready = Arc::new(AtomicBool::new(false));
        let theirs = ready.clone();
        let waker = thread::spawn(move || {
            theirs.store(true, Ordering::Relaxed);
            scheduler.wakeup(IDENT);
        });
        let sleeper = scheduler.spawn(CPU0, "sleeper".into(), move |cx| {
            // Not before: the first look is the one that counts.
            let sleep = cx.interlock(IDENT);
            if !ready.load(Ordering::Relaxed) {
                sleep.wait(None).unwrap();
                assert!(ready.load(Ordering::Relaxed), "it sees what its waker did");
            }
            scheduler.stop();
        });
        run(&model, scheduler);
        waker.join().unwrap();
        drop(sleeper);
    });
}

/// In a model a CPU has room for two requests.
#[test]
fn wake_ups_that_have_no_room_are_not_lost() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let done = Arc::new(AtomicBool::new(false));
        let theirs = done.clone();
        let waker = thread::spawn(move || {
            scheduler.wakeup_one(NEIGHBOUR);
            scheduler.wakeup_one(NEIGHBOUR);
            theirs.store(true, Ordering::Relaxed);
            scheduler.wakeup(IDENT);
        });
        let sleeper = scheduler.spawn(CPU0, "sleeper".into(), move |cx| {
            cx.sleep_while(IDENT, None, || !done.load(Ordering::Relaxed)).unwrap();
            scheduler.stop();
        });
        run(&model, scheduler);
        waker.join().unwrap();
        drop(sleeper);
    });
}

#[test]
fn a_sleeper_is_woken_or_late_and_the_other_one_is_not_forgotten() {
    loom::model(|| {
        let (model, scheduler) = machine();
        // What a wake-up for one is about: whoever is woken takes it.
        let item = Arc::new(AtomicU32::new(0));
        let theirs = item.clone();
        let waker = thread::spawn(move || {
            theirs.store(1, Ordering::Relaxed);
            scheduler.wakeup_one(IDENT);
        });
        let late = scheduler.spawn(CPU0, "late".into(), {
            let item = item.clone();
            move |cx| {
                let sleep = cx.interlock(IDENT);
                if item.load(Ordering::Relaxed) == 0 {
                    match sleep.wait(Some(Instant::from_nanos(1))) {
                        // Chosen: it passes on what it does not take.
                        Ok(()) => scheduler.wakeup_one(IDENT),
                        Err(TimedOut) => {}
                    }
                } else {
                    drop(sleep);
                }
            }
        });
        let patient = scheduler.spawn(CPU0, "patient".into(), move |cx| {
            cx.sleep_while(IDENT, None, || item.load(Ordering::Relaxed) == 0).unwrap();
            late.unwrap().join(cx).unwrap();
            scheduler.stop();
        });
        run(&model, scheduler);
        waker.join().unwrap();
        drop(patient);
    });
}
