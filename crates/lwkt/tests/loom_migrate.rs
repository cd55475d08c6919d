//! Models of threads that move between two CPUs: the whole scheduler, with OS threads in place of the switch.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_migrate`
//!
//! A thread that runs on two CPUs at once, or that arrives before its CPU has left its stack, shows as a race; one that
//! nobody runs as a deadlock. The patches `mutations/migrate-*` each drop one step.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, Wait};
use dfly_lwkt::{Config, Handle, JoinError, Platform, RunError, RunTime, Scheduler};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, Thread};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

loom::thread_local! {
    static THIS: Cell<CpuId> = Cell::new(CpuId::NONE);
}

/// Two CPUs that are loom's threads. `std`'s mutexes are no step of a model.
struct Model {
    cpus: Mutex<[Option<Thread>; 2]>,
    /// An IPI has come that nobody has taken.
    ipis: [AtomicBool; 2],
}

// SAFETY: each model attaches one thread for each CPU.
unsafe impl Cpus for Model {
    fn this(&self) -> CpuId {
        THIS.with(Cell::get)
    }
    fn count(&self) -> u32 {
        2
    }
    fn raise_ipi(&self, to: CpuId) {
        self.ipis[to.index()].swap(true, Ordering::AcqRel);
        let cpu = self.cpus.lock().unwrap()[to.index()].clone();
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
    /// As on a machine: an IPI that came before the window for interrupts was closed has been taken, for nothing.
    fn halt(&self, ready: &dyn Fn() -> bool) {
        let ipi = &self.ipis[self.this().index()];
        ipi.swap(false, Ordering::Acquire);
        if !ready() {
            while !ipi.swap(false, Ordering::Acquire) {
                thread::park();
            }
        }
    }
}

fn machine() -> (Arc<Model>, &'static Scheduler) {
    let model = Arc::new(Model { cpus: Mutex::default(), ipis: [(); 2].map(|()| AtomicBool::new(false)) });
    let config = Config::default().run_time(RunTime::NotMeasured);
    let scheduler = Scheduler::new(model.clone(), config).unwrap();
    (model, scheduler)
}

/// Runs a CPU on the calling thread.
fn run(model: &Model, scheduler: &'static Scheduler, cpu: CpuId) -> Result<(), RunError> {
    THIS.with(|this| this.set(cpu));
    model.cpus.lock().unwrap()[cpu.index()] = Some(thread::current());
    let result = scheduler.run();
    // loom's `unpark` also wakes a thread that waits for something else.
    model.cpus.lock().unwrap()[cpu.index()] = None;
    result
}

/// Runs both, and returns when both have ended.
fn run_both(model: &Arc<Model>, scheduler: &'static Scheduler) {
    let theirs = model.clone();
    let other = thread::spawn(move || run(&theirs, scheduler, CPU1));
    assert!(matches!(run(model, scheduler, CPU0), Ok(()) | Err(RunError::Stopped)));
    assert!(matches!(other.join().unwrap(), Ok(()) | Err(RunError::Stopped)));
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// What only the thread touches, wherever it is: its stack, to the model.
struct Frame(UnsafeCell<u32>);

// SAFETY: loom reports an access that races.
unsafe impl Send for Frame {}

impl Frame {
    fn add(&mut self) {
        // SAFETY: loom reports an access that races.
        self.0.with_mut(|p| unsafe { *p += 1 });
    }
}

#[test]
fn a_thread_that_moves_is_on_one_cpu_at_a_time() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let mut frame = Frame(UnsafeCell::new(0));
        let thread = scheduler.spawn(CPU0, "wanderer".into(), move |cx| {
            frame.add();
            cx.migrate(CPU1).unwrap();
            frame.add();
            assert_eq!(cx.cpu(), CPU1);
            cx.scheduler().stop();
        });
        run_both(&model, scheduler);
        assert_eq!(join(thread.unwrap()), Ok(()));
    });
}

#[test]
fn a_wake_that_comes_while_a_thread_moves_is_not_lost() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let thread = scheduler.spawn(CPU0, "chased".into(), |cx| {
            let mut cpu = Some(cx.scheduler());
            let mut looks = 0;
            let mut woken: Option<Waker> = None;
            let first = poll_fn(|cx| {
                woken.get_or_insert_with(|| cx.waker().clone());
                looks += 1;
                if looks == 1 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(())
            });
            cx.wait(pin!(first), None).unwrap();
            let waker = woken.take().unwrap();
            thread::spawn(move || waker.wake());
            cx.migrate(CPU1).unwrap();
            // The one wake ends this wait, whether it came before the move, in between, or comes now.
            let mut looks = 0;
            let second = poll_fn(|_| {
                looks += 1;
                if looks == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            cx.wait(pin!(second), None).unwrap();
            cpu.take().unwrap().stop();
        });
        run_both(&model, scheduler);
        assert_eq!(join(thread.unwrap()), Ok(()));
    });
}

#[test]
fn a_thread_that_is_given_away_goes_on_once_whoever_comes_first() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let mut frame = Frame(UnsafeCell::new(0));
        let thread = scheduler.spawn(CPU0, "given".into(), move |cx| {
            frame.add();
            cx.give_away(|me| drop(thread::spawn(move || me.resume_on(CPU1).unwrap())));
            frame.add();
            assert_eq!(cx.cpu(), CPU1);
            cx.scheduler().stop();
        });
        run_both(&model, scheduler);
        assert_eq!(join(thread.unwrap()), Ok(()));
    });
}

#[test]
fn a_message_for_a_cpu_that_goes_to_sleep_ends_its_halt() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let thread = scheduler.spawn(CPU0, "sender".into(), |cx| {
            let scheduler: &'static Scheduler = cx.scheduler();
            scheduler.ipis().send(CPU1, move |_| scheduler.stop()).unwrap();
        });
        run_both(&model, scheduler);
        assert_eq!(join(thread.unwrap()), Ok(()));
    });
}

#[test]
fn a_slot_is_used_again_when_nobody_is_on_its_stack() {
    loom::model(|| {
        let (model, scheduler) = machine();
        let first = scheduler.spawn(CPU0, "first".into(), |_| ()).unwrap();
        let spawner = thread::spawn(move || {
            assert_eq!(join(first), Ok(()));
            let second = scheduler.spawn(CPU0, "second".into(), |cx| cx.scheduler().stop());
            assert_eq!(join(second.unwrap()), Ok(()));
        });
        assert_eq!(run(&model, scheduler, CPU0), Ok(()));
        spawner.join().unwrap();
    });
}
