//! Threads on a host machine: spawn, wait, wake, join, stop.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use dfly_hal::{CpuId, ThreadWait, TimedOut, Wait, block_on, sleep_until};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::{
    Config, Cx, Handle, JoinError, Priority, RunError, RunTime, Scheduler, Spec, ThreadInfo, ThreadState,
};
use dfly_msgport::{Body, Own};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);
const ROUNDS: u32 = if cfg!(miri) { 3 } else { 200 };

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
            (0..ROUNDS).map(|_| (Arc::new(Event::default()), Arc::new(Event::default()))).collect();
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
        assert_eq!(ping[0].load(Ordering::SeqCst), ROUNDS);
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

fn threads(scheduler: &Scheduler) -> Vec<ThreadInfo> {
    let mut all = Vec::new();
    scheduler.threads(&mut |thread| all.push(*thread));
    all.sort_by_key(|thread| thread.id);
    all
}

#[test]
fn threads_are_shown_with_what_they_do() {
    let machine = machine(2);
    let scheduler = machine.scheduler();
    assert_eq!(threads(scheduler), []);
    assert_eq!(scheduler.current(), None);
    let end = Arc::new(Event::default());
    let theirs = end.clone();
    let sleeper =
        scheduler.spawn(CPU0, Spec::new("sleeper").priority(Priority::SOFT_TIMER), move |cx| theirs.wait(cx));
    let watcher = spawn(&machine, CPU1, "watcher", move |cx| {
        let me = cx.scheduler().current().unwrap();
        assert_eq!((me.id, &*me.name, me.state), (cx.thread(), "watcher", ThreadState::Running));
        assert_eq!(dfly_lwkt::current().map(|thread| thread.id), Some(me.id));
        let other = loop {
            let [other, me] = threads(cx.scheduler())[..] else { panic!("two threads") };
            assert_eq!(&*me.name, "watcher");
            if other.state == ThreadState::Blocked {
                break other;
            }
            std::thread::yield_now();
        };
        assert_eq!((&*other.name, other.cpu, other.priority), ("sleeper", CPU0, Priority::SOFT_TIMER));
        assert_eq!((other.switches, other.wakes), (1, 0));
        assert!(other.stack_used_bytes.is_none_or(|used| used > 0 && used < other.stack_bytes / 2));
        end.set();
    });
    assert_eq!(join(watcher), Ok(()));
    assert_eq!(join(sleeper.unwrap()), Ok(()));
    while !threads(scheduler).is_empty() {
        std::thread::yield_now();
    }
    // The thread's last switch is counted when its slot is free, and both are seen in any order.
    let stats = loop {
        let stats = scheduler.cpu_stats(CPU0).unwrap();
        if stats.exited == 1 && stats.switches.is_multiple_of(2) {
            break stats;
        }
        std::thread::yield_now();
    };
    assert_eq!((stats.spawned, stats.wakes_local, stats.wakes_remote), (1, 0, 1));
    // To the thread and back, twice unless it was woken on its way.
    assert!(matches!(stats.switches, 2 | 4));
}

#[test]
#[cfg_attr(miri, ignore = "time goes by Miri's steps, and every sleep is over at once")]
fn run_time_is_measured_unless_it_is_not() {
    for (run_time, at_least) in
        [(RunTime::Measured, Duration::from_millis(3)), (RunTime::NotMeasured, Duration::ZERO)]
    {
        let machine = Machine::start(1, Config::default().run_time(run_time)).unwrap();
        let handle = spawn(&machine, CPU0, "busy", move |cx| {
            let clock = cx.scheduler().platform();
            let end = clock.now().saturating_add(Duration::from_millis(3));
            while clock.now() < end {}
            // A sleep that is over at once is no switch.
            while cx.scheduler().current().unwrap().switches == 1 {
                let later = clock.now().saturating_add(Duration::from_millis(1));
                block_on(cx, sleep_until(clock, later), None).unwrap();
            }
            let ran = cx.scheduler().current().unwrap().run_time;
            assert!(ran >= at_least && (ran > Duration::ZERO) == (at_least > Duration::ZERO), "{ran:?}");
        });
        assert_eq!(join(handle), Ok(()));
    }
}

#[test]
fn many_threads_on_two_cpus_wake_each_other() {
    const THREADS: usize = if cfg!(miri) { 4 } else { 40 };
    let machine = machine(2);
    // A ring: each passes a token on, which is a number of steps left.
    let ring: Arc<Vec<(Event, AtomicU32)>> = Arc::new((0..THREADS).map(|_| Default::default()).collect());
    let steps: u32 = if cfg!(miri) { 8 } else { 20_000 };
    let taken = Arc::new(AtomicU32::new(0));
    let handles: Vec<_> = (0..THREADS)
        .map(|i| {
            let (ring, taken) = (ring.clone(), taken.clone());
            spawn(&machine, CpuId(i as u32 / 3 % 2), "member", move |cx| {
                loop {
                    let (event, left) = &ring[i];
                    event.wait(cx);
                    event.set.store(false, Ordering::SeqCst);
                    let left = left.load(Ordering::SeqCst);
                    let (next, next_left) = &ring[(i + 1) % THREADS];
                    next_left.store(left.saturating_sub(1), Ordering::SeqCst);
                    if left > 0 {
                        taken.fetch_add(1, Ordering::SeqCst);
                        next.set();
                    } else {
                        // The end goes round once.
                        if i + 1 < THREADS || !next.set.load(Ordering::SeqCst) {
                            next.set();
                        }
                        return;
                    }
                }
            })
        })
        .collect();
    ring[0].1.store(steps, Ordering::SeqCst);
    ring[0].0.set();
    for handle in handles {
        assert_eq!(join(handle), Ok(()));
    }
    assert_eq!(taken.load(Ordering::SeqCst), steps);
}

#[test]
fn a_panic_unwinds_its_thread_and_no_other() {
    let machine = machine(1);
    let shared = Arc::new(());
    let theirs = shared.clone();
    let bad = spawn(&machine, CPU0, "bad", move |cx| {
        let _held = theirs;
        cx.yield_now();
        let _: Result<(), TimedOut> = block_on(cx, async { panic!("as the test wants") }, None);
    });
    let good = spawn(&machine, CPU0, "good", |cx| (0..10).for_each(|_| cx.yield_now()));
    assert_eq!(join(bad), Err(JoinError::Panicked));
    assert_eq!(join(good), Ok(()));
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn two_machines_live_in_one_process_even_one_inside_the_other() {
    let outer = machine(1);
    let handle = spawn(&outer, CPU0, "outer", |cx| {
        let platform = Arc::new(HostPlatform::new(1));
        let inner = Scheduler::new(platform.clone(), Config::default()).unwrap();
        let thread = inner.spawn(CPU0, "inner".into(), |cx| {
            assert_eq!(dfly_lwkt::current().map(|thread| thread.name), Some("inner".into()));
            cx.scheduler().stop();
        });
        let cpu = platform.attach(CPU0).unwrap();
        inner.run().unwrap();
        drop(cpu);
        assert_eq!(thread.unwrap().join(cx), Ok(()));
        assert_eq!(cx.scheduler().current().map(|thread| thread.name), Some("outer".into()));
    });
    assert_eq!(join(handle), Ok(()));
}

#[test]
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn the_rounding_mode_is_the_threads_own() {
    use std::arch::asm;
    fn control() -> u32 {
        let mut word = 0_u32;
        // SAFETY: writes the control word of the vector unit to the variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word) };
        word & 0xffc0
    }
    fn round_towards_zero() {
        let word = 0x7f80_u32;
        // SAFETY: nothing is computed with floating point before the thread ends.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word) };
    }
    let machine = machine(1);
    let other = spawn(&machine, CPU0, "rounds", |cx| {
        round_towards_zero();
        (0..3).for_each(|_| cx.yield_now());
        assert_eq!(control(), 0x7f80);
    });
    let one = spawn(&machine, CPU0, "does not", |cx| {
        for _ in 0..3 {
            assert_eq!(control(), 0x1f80);
            cx.yield_now();
        }
    });
    assert_eq!(join(one), Ok(()));
    assert_eq!(join(other), Ok(()));
}
