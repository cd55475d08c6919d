//! The trace of what a scheduler does.
#![cfg(all(feature = "std", feature = "trace", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::trace::{Event, Kind};
use dfly_lwkt::{Config, Platform, RunTime, Scheduler, ThreadId};

fn events(scheduler: &Scheduler) -> Vec<Event> {
    let mut events = Vec::new();
    scheduler.trace(&mut |event| events.push(*event));
    events
}

/// A thread that sleeps once, from its beginning to its end; it is woken when `sleeps` says so, too.
fn sleeper(machine: &Machine, sleeps: impl Fn(ThreadId) -> bool) -> ThreadId {
    let scheduler = machine.scheduler();
    let thread = scheduler.spawn(CpuId(0), "sleeper".into(), |cx| cx.interlock(Ident(1)).wait(None).unwrap());
    let thread = thread.unwrap();
    let mut asleep = false;
    while !asleep || !sleeps(thread.id()) {
        scheduler.threads(&mut |thread| asleep |= thread.sleeps_on.is_some());
        std::thread::yield_now();
    }
    scheduler.wakeup(Ident(1));
    let id = thread.id();
    thread.join(&mut ThreadWait::new()).unwrap();
    id
}

#[test]
fn a_trace_tells_the_life_of_a_thread() {
    let machine = Machine::start(1, Config::default().trace_events(64)).unwrap();
    // Once it is off its CPU.
    let switched = |id| {
        let all = events(machine.scheduler());
        all.iter().any(|event| matches!(event.kind, Kind::Switch { from: Some(from), .. } if from == id))
    };
    let id = sleeper(&machine, switched);
    let about = |event: &&Event| match event.kind {
        Kind::Switch { from, to } => from == Some(id) || to == Some(id),
        Kind::Block { thread } | Kind::Wake { thread } => thread == id,
        _ => false,
    };
    // Its last switch may not have come.
    let all = events(machine.scheduler());
    let life: Vec<Kind> = all.iter().filter(about).map(|event| event.kind).take(6).collect();
    let (to, from) = (Kind::Switch { from: None, to: Some(id) }, Kind::Switch { from: Some(id), to: None });
    let expected =
        [Kind::Wake { thread: id }, to, Kind::Block { thread: id }, from, Kind::Wake { thread: id }, to];
    assert_eq!(life, expected);
    let on_cpu: Vec<_> = all.iter().filter(|event| event.cpu == CpuId(0)).map(|event| event.at).collect();
    assert!(on_cpu.is_sorted());
}

#[test]
fn a_ring_forgets_what_is_oldest_and_without_room_there_is_none() {
    let machine = Machine::start(1, Config::default().trace_events(4)).unwrap();
    for _ in 0..3 {
        sleeper(&machine, |_| true);
    }
    // What is being written is left out.
    let on_cpu = || events(machine.scheduler()).iter().filter(|event| event.cpu == CpuId(0)).count();
    loop {
        match on_cpu() {
            0..4 => std::thread::yield_now(),
            all => break assert_eq!(all, 4),
        }
    }
    let machine = Machine::start(1, Config::default()).unwrap();
    sleeper(&machine, |_| true);
    assert_eq!(events(machine.scheduler()), []);
}

/// A clock that panics once, when it is told to.
struct Fragile {
    host: HostPlatform,
    panics: AtomicBool,
}

// SAFETY: the host's.
unsafe impl Cpus for Fragile {
    fn this(&self) -> CpuId {
        self.host.this()
    }
    fn count(&self) -> u32 {
        self.host.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.host.raise_ipi(to);
    }
}

impl Clock for Fragile {
    fn now(&self) -> Instant {
        if self.panics.swap(false, Ordering::SeqCst) {
            // Nobody drops the payload, which has no memory.
            std::panic::panic_any(());
        }
        self.host.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.host.wake_at(at, waker);
    }
}

impl Platform for Fragile {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.host.halt(ready);
    }
}

/// The event is written where the thread is half gone: it must not unwind there.
#[test]
fn a_clock_that_panics_costs_the_event_and_not_the_thread() {
    let platform = Arc::new(Fragile { host: HostPlatform::new(1), panics: AtomicBool::new(false) });
    let (attach, breaks) = (platform.clone(), platform.clone());
    let config = Config::default().trace_events(64).run_time(RunTime::NotMeasured);
    let machine = Machine::start_with(platform.clone(), config, move |id| attach.host.attach(id)).unwrap();
    let scheduler = machine.scheduler();
    let thread = scheduler.spawn(CpuId(0), "sleeper".into(), move |cx| {
        let sleep = cx.interlock(Ident(1));
        breaks.panics.store(true, Ordering::SeqCst);
        sleep.wait(None).unwrap();
    });
    let thread = thread.unwrap();
    while !thread.is_finished() {
        scheduler.wakeup(Ident(1));
        std::thread::yield_now();
    }
    assert_eq!(thread.join(&mut ThreadWait::new()), Ok(()));
    assert!(!platform.panics.load(Ordering::SeqCst));
}
