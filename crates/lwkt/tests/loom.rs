//! Models of what CPUs, wakers and spawners can do to each other: the whole scheduler, with OS threads in place of the
//! switch.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom`
//!
//! A wake that gets lost shows as a deadlock, and an ordering that is missing as a race. Each step that a model relies on
//! has a patch in `mutations/` that weakens it, and makes a model fail.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, Wait};
use dfly_lwkt::{Config, Cx, Handle, JoinError, Platform, RunError, RunTime, Scheduler, SpawnError};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread::{self, Thread};

const CPU0: CpuId = CpuId(0);

loom::thread_local! {
    static THIS: Cell<CpuId> = Cell::new(CpuId::NONE);
}

/// CPUs that are loom's threads. `std`'s mutexes are no step of a model.
struct Model {
    cpu: Mutex<Option<Thread>>,
}

// SAFETY: each model attaches one thread for each CPU.
unsafe impl Cpus for Model {
    fn this(&self) -> CpuId {
        THIS.with(Cell::get)
    }
    fn count(&self) -> u32 {
        1
    }
    fn raise_ipi(&self, to: CpuId) {
        assert_eq!(to, CPU0);
        let cpu = self.cpu.lock().unwrap().clone();
        if let Some(cpu) = cpu {
            cpu.unpark();
        }
    }
}

impl Clock for Model {
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn wake_at(&self, _: Instant, waker: &Waker) {
        waker.wake_by_ref();
    }
}

impl Platform for Model {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        if !ready() {
            thread::park();
        }
    }
}

/// A machine of one CPU.
fn machine() -> (Arc<Model>, &'static Scheduler) {
    let model = Arc::new(Model { cpu: Mutex::new(None) });
    let config = Config::default().run_time(RunTime::NotMeasured);
    let scheduler = Scheduler::new(model.clone(), config).unwrap();
    (model, scheduler)
}

/// Runs the CPU on the calling thread.
fn run(model: &Model, scheduler: &'static Scheduler) -> Result<(), RunError> {
    THIS.with(|this| this.set(CPU0));
    *model.cpu.lock().unwrap() = Some(thread::current());
    let result = scheduler.run();
    // loom's `unpark` also wakes a thread that waits for something else.
    *model.cpu.lock().unwrap() = None;
    result
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// Memory without any order of its own.
struct Memory(UnsafeCell<u32>);

// SAFETY: loom reports an access that races.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn add(&self, n: u32) {
        // SAFETY: loom reports an access that races.
        self.0.with_mut(|p| unsafe { *p += n });
    }
    fn get(&self) -> u32 {
        // SAFETY: loom reports an access that races.
        self.0.with(|p| unsafe { *p })
    }
}

/// Blocks until it has been woken: looks for the first time with `first`, which is given the waker, and is satisfied at
/// the second look.
fn be_woken(cx: &mut Cx<'_>, first: impl FnOnce(&Waker)) {
    let mut first = Some(first);
    let wait = poll_fn(|cx| match first.take() {
        Some(first) => {
            first(cx.waker());
            Poll::Pending
        }
        None => Poll::Ready(()),
    });
    // Not by `block_on`, which looks once before it waits.
    cx.wait(pin!(wait), None).unwrap();
}

#[test]
fn a_wake_is_not_lost_and_shows_what_came_before_it() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let memory = Arc::new(Memory(UnsafeCell::new(0)));
        let sleeper = scheduler.spawn(CPU0, "sleeper".into(), move |cx| {
            be_woken(cx, |waker| {
                let (waker, memory) = (waker.clone(), memory.clone());
                thread::spawn(move || {
                    memory.add(1);
                    waker.wake();
                });
            });
            assert_eq!(memory.get(), 1);
            cx.scheduler().stop();
        });
        assert_eq!(run(&model, scheduler), Ok(()));
        assert_eq!(join(sleeper.unwrap()), Ok(()));
    });
}

#[test]
fn of_two_wakers_neither_gets_lost() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let wakes = Arc::new(AtomicU32::new(0));
        let sleeper = scheduler.spawn(CPU0, "sleeper".into(), move |cx| {
            let mut first = true;
            let wait = poll_fn(|cx| {
                if core::mem::take(&mut first) {
                    for _ in 0..2 {
                        let (waker, wakes) = (cx.waker().clone(), wakes.clone());
                        thread::spawn(move || {
                            wakes.fetch_add(1, Ordering::Relaxed);
                            waker.wake();
                        });
                    }
                }
                if wakes.load(Ordering::Relaxed) == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            cx.wait(pin!(wait), None).unwrap();
            cx.scheduler().stop();
        });
        assert_eq!(run(&model, scheduler), Ok(()));
        assert_eq!(join(sleeper.unwrap()), Ok(()));
    });
}

#[test]
fn two_threads_that_are_woken_one_after_the_other_both_run() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let waker = Arc::new(Mutex::new(None));
        let theirs = waker.clone();
        // Plain counting: the threads are of one CPU.
        let ended = Arc::new(Mutex::new(0));
        let also = ended.clone();
        let end = |cx: &Cx<'_>, ended: &Mutex<u32>| {
            *ended.lock().unwrap() += 1;
            if *ended.lock().unwrap() == 2 {
                cx.scheduler().stop();
            }
        };
        let one = scheduler.spawn(CPU0, "one".into(), move |cx| {
            be_woken(cx, |waker| *theirs.lock().unwrap() = Some(waker.clone()));
            end(cx, &also);
        });
        let two = scheduler.spawn(CPU0, "two".into(), move |cx| {
            be_woken(cx, |mine| {
                let wakers = [waker.lock().unwrap().take().unwrap(), mine.clone()];
                thread::spawn(move || wakers.map(Waker::wake));
            });
            end(cx, &ended);
        });
        assert_eq!(run(&model, scheduler), Ok(()));
        assert_eq!(join(two.unwrap()), Ok(()));
        assert_eq!(join(one.unwrap()), Ok(()));
    });
}

#[test]
fn a_thread_that_is_spawned_while_the_cpu_stops_ends_or_is_given_up() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let stopper = thread::spawn(move || scheduler.stop());
        let spawner = thread::spawn(move || match scheduler.spawn(CPU0, "late".into(), |_| ()) {
            Ok(thread) => assert!(matches!(join(thread), Ok(()) | Err(JoinError::Stopped))),
            Err(error) => assert_eq!(error, SpawnError::Stopped),
        });
        assert!(matches!(run(&model, scheduler), Ok(()) | Err(RunError::Stopped)));
        stopper.join().unwrap();
        spawner.join().unwrap();
    });
}
