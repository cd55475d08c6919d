//! Threads on a host machine: spawn, wait, wake, join, stop.
#![cfg(not(loom))]

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use dfly_hal::{CpuId, ThreadWait, TimedOut, Wait, block_on, sleep_until};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::{
    Config, ConfigError, Cx, Handle, JoinError, Name, Priority, RunError, Scheduler, SpawnError, Spec,
    ThreadState,
};
use dfly_msgport::{Body, Own};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

fn machine(cpus: u32) -> Machine {
    Machine::start(cpus, Config::default()).unwrap()
}

fn spawn(machine: &Machine, cpu: CpuId, name: &str, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(cpu, name.into(), f).unwrap()
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// A flag to wait for.
#[derive(Default)]
struct Event {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Event {
    fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    fn wait(&self, w: &mut dyn Wait) {
        block_on(
            w,
            poll_fn(|cx| {
                *self.waker.lock().unwrap() = Some(cx.waker().clone());
                if self.set.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
            }),
            None,
        )
        .unwrap();
    }
}

#[test]
fn a_thread_runs_on_its_cpu_and_is_joined() {
    let machine = machine(2);
    for id in [CPU0, CPU1] {
        let seen = Arc::new(AtomicU32::new(99));
        let set = seen.clone();
        let handle = spawn(&machine, id, "one", move |cx| {
            assert_eq!(cx.scheduler().platform().this(), cx.cpu());
            set.store(cx.cpu().0, Ordering::SeqCst);
        });
        join(handle).unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), id.0);
    }
}

#[test]
fn threads_wake_each_other_on_one_cpu_and_across_two() {
    for other in [CPU0, CPU1] {
        let machine = machine(2);
        let (ping, pong) = (Arc::new([const { AtomicU32::new(0) }; 1]), Arc::new(Event::default()));
        let rounds: Vec<_> =
            (0..200).map(|_| (Arc::new(Event::default()), Arc::new(Event::default()))).collect();
        let theirs = rounds.clone();
        let (count, done) = (ping.clone(), pong.clone());
        let a = spawn(&machine, CPU0, "a", move |cx| {
            for (there, back) in &rounds {
                there.set();
                back.wait(cx);
            }
            done.set();
        });
        let b = spawn(&machine, other, "b", move |cx| {
            for (there, back) in &theirs {
                there.wait(cx);
                count[0].fetch_add(1, Ordering::SeqCst);
                back.set();
            }
        });
        pong.wait(&mut ThreadWait::new());
        join(a).unwrap();
        join(b).unwrap();
        assert_eq!(ping[0].load(Ordering::SeqCst), 200);
    }
}

#[test]
fn a_thread_joins_another_and_a_panic_is_reported() {
    let machine = machine(1);
    let handle = spawn(&machine, CPU0, "parent", |cx| {
        let child = cx.scheduler().spawn(cx.cpu(), "child".into(), |cx| cx.yield_now()).unwrap();
        let bad = cx.scheduler().spawn(cx.cpu(), "bad".into(), |_| panic!("as the test wants")).unwrap();
        assert_eq!(child.join(cx), Ok(()));
        assert_eq!(bad.join(cx), Err(JoinError::Panicked));
    });
    assert_eq!(join(handle), Ok(()));
}

#[test]
fn a_wait_with_a_deadline_times_out_and_the_message_is_still_there() {
    struct Msg;
    impl Body for Msg {
        type Shared = ();
        type Key = ();
        fn orphaned(&mut self) {}
    }
    let machine = machine(1);
    let handle = spawn(&machine, CPU0, "waiter", |cx| {
        let clock = cx.scheduler().platform();
        let (job, mut pending) = Own::new(Msg).waitable();
        let soon = clock.now().saturating_add(Duration::from_millis(5));
        assert!(matches!(block_on(cx, &mut pending, Some(soon)), Err(TimedOut)));
        assert!(clock.now() >= soon);
        job.complete();
        assert!(block_on(cx, pending, Some(soon)).is_ok());
        let later = clock.now().saturating_add(Duration::from_millis(5));
        block_on(cx, sleep_until(clock, later), None).unwrap();
        assert!(clock.now() >= later);
    });
    join(handle).unwrap();
}

#[test]
fn equals_take_turns_and_the_more_important_come_first() {
    let platform = Arc::new(HostPlatform::new(1));
    let scheduler = Scheduler::new(platform.clone(), Config::default()).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut handles = Vec::new();
    for (name, priority) in [
        ("low", Priority::KERN_USER),
        ("a", Priority::KERN_DAEMON),
        ("b", Priority::KERN_DAEMON),
        ("high", Priority::INT_MED),
    ] {
        let log = log.clone();
        let spec = Spec::new(name).priority(priority);
        let thread = scheduler.spawn(CPU0, spec, move |cx| {
            for _ in 0..2 {
                log.lock().unwrap().push(name);
                cx.yield_now();
            }
        });
        handles.push(thread.unwrap());
    }
    handles.push(
        scheduler
            .spawn(CPU0, Spec::new("last").priority(Priority::IDLE_WORK), |cx| cx.scheduler().stop())
            .unwrap(),
    );
    let _cpu = platform.attach(CPU0).unwrap();
    scheduler.run().unwrap();
    assert_eq!(*log.lock().unwrap(), ["high", "high", "a", "b", "a", "b", "low", "low"]);
    assert!(handles.into_iter().all(|handle| join(handle).is_ok()));
    assert_eq!(scheduler.run(), Err(RunError::Stopped));
}
