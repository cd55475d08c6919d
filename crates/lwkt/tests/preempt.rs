//! Interrupt threads that preempt. A file of its own, because the preemption hooks are registered once for the whole
//! process.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Poll, Waker};

use dfly_hal::sync::Lock;
use dfly_hal::{CpuId, ThreadWait, Wait, block_on};
use dfly_lwkt::host::Machine;
use dfly_lwkt::token::Token;
use dfly_lwkt::{
    Config, CpuStats, Cx, Handle, JoinError, Priority, Scheduler, Spec, ThreadState, enable_preemption,
};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

fn machine(cpus: u32) -> Machine {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| enable_preemption().unwrap());
    Machine::start(cpus, Config::default()).unwrap()
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

fn stats(scheduler: &Scheduler, cpu: CpuId) -> CpuStats {
    scheduler.cpu_stats(cpu).unwrap()
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Wakes a thread that waits for it, as often as it is rung.
#[derive(Clone, Default)]
struct Bell(Arc<(AtomicU32, Mutex<Option<Waker>>)>);

impl Bell {
    fn ring(&self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        let waker = self.0.1.lock().unwrap().clone();
        // Nothing is locked by now.
        waker.inspect(Waker::wake_by_ref);
    }

    /// Waits for one more ring.
    fn wait(&self, cx: &mut Cx<'_>) {
        let wait = poll_fn(|cx| {
            *self.0.1.lock().unwrap() = Some(cx.waker().clone());
            let one_less = |rung: u32| rung.checked_sub(1);
            match self.0.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                Ok(_) => Poll::Ready(()),
                Err(_) => Poll::Pending,
            }
        });
        cx.wait(std::pin::pin!(wait), None).unwrap();
    }
}

fn spec(name: &str, priority: Priority) -> Spec {
    Spec::new(name).priority(priority)
}

/// A thread that runs `f` each time that the bell is rung. It has begun to wait when this returns: it preempts.
fn serve(
    cx: &Cx<'_>,
    name: &str,
    priority: Priority,
    mut f: impl FnMut(&mut Cx<'_>) + Send + 'static,
) -> Bell {
    let bell = Bell::default();
    let theirs = bell.clone();
    let server = cx.scheduler().spawn(cx.cpu(), spec(name, priority), move |cx| {
        loop {
            theirs.wait(cx);
            f(cx);
        }
    });
    drop(server.unwrap());
    bell
}

/// Runs `f` as a thread of a machine, which ends with the process: its servers never do.
fn as_thread(f: impl FnOnce(&mut Cx<'_>) + Send + 'static) {
    let machine = machine(1);
    let main = machine.scheduler().spawn(CPU0, "main".into(), f).unwrap();
    assert_eq!(join(main), Ok(()));
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn an_interrupt_thread_runs_at_the_wake_and_one_that_is_none_does_not() {
    as_thread(|cx| {
        let log = Log::default();
        let theirs = log.clone();
        let bell = serve(cx, "interrupt", Priority::INT_LOW, move |_| theirs.add("interrupt"));
        let theirs = log.clone();
        let daemon = serve(cx, "daemon", Priority::SOFT_TIMER, move |_| theirs.add("daemon"));
        cx.yield_now();
        let before = stats(cx.scheduler(), CPU0);
        for bell in [&bell, &daemon, &bell] {
            bell.ring();
            log.add("on");
        }
        assert_eq!(log.take(), ["interrupt", "on", "on", "interrupt", "on"]);
        let after = stats(cx.scheduler(), CPU0);
        assert_eq!(after.preemptions - before.preemptions, 2);
        assert_eq!(after.switches - before.switches, 4);
        assert!(cx.should_yield());
        cx.yield_now();
        assert_eq!(log.take(), ["daemon"]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn not_inside_of_a_section_or_with_a_short_lock_but_at_its_end() {
    as_thread(|cx| {
        let log = Log::default();
        let theirs = log.clone();
        let bell = serve(cx, "interrupt", Priority::INT_LOW, move |_| theirs.add("interrupt"));
        let before = stats(cx.scheduler(), CPU0).preemptions_put_off;
        let outer = cx.critical();
        bell.ring();
        drop(cx.critical());
        log.add("inside");
        drop(outer);
        log.add("outside");
        assert_eq!(log.take(), ["inside", "interrupt", "outside"]);
        let lock = Lock::new(());
        let guard = lock.lock();
        bell.ring();
        log.add("locked");
        drop(guard);
        assert_eq!(log.take(), ["locked", "interrupt"]);
        assert_eq!(stats(cx.scheduler(), CPU0).preemptions_put_off - before, 2);
    });
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn preemption_nests_and_unwinds_in_order() {
    as_thread(|cx| {
        let log = Log::default();
        let theirs = log.clone();
        let high = serve(cx, "high", Priority::INT_HIGH, move |_| theirs.add("high"));
        let theirs = log.clone();
        let low = serve(cx, "low", Priority::INT_LOW, move |_| theirs.add("low"));
        let theirs = log.clone();
        let middle = serve(cx, "middle", Priority::INT_MED, move |cx| {
            theirs.add("middle begins");
            // It goes first, on top of this thread; the other one has to wait for this thread, and not for `main`.
            high.ring();
            low.ring();
            let mut states = Vec::new();
            cx.scheduler().threads(&mut |thread| states.push((thread.name.to_string(), thread.state)));
            assert!(states.contains(&("main".into(), ThreadState::Preempted)), "{states:?}");
            theirs.add("middle ends");
        });
        middle.ring();
        log.add("main");
        assert_eq!(log.take(), ["middle begins", "high", "middle ends", "low", "main"]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_victim_keeps_its_tokens_and_goes_on_before_who_wants_them() {
    static TOKEN: Token<u32> = Token::new(0);
    as_thread(|cx| {
        let log = Log::default();
        let theirs = log.clone();
        let bell = serve(cx, "wants it", Priority::INT_HIGH, move |cx| {
            theirs.add("wants");
            let (mut cx, mut held) = cx.hold(&TOKEN);
            *held.get_mut(&mut cx) += 1;
            theirs.add("has");
        });
        {
            let (mut cx, mut held) = cx.hold(&TOKEN);
            bell.ring();
            log.add("kept");
            assert_eq!(*held.get(&cx), 0);
            // At the end of a section it is not tried again: that one has to wait for the token.
            drop(cx.critical());
            assert!(cx.should_yield());
            *held.get_mut(&mut cx) += 1;
            cx.yield_now();
            log.add("again");
            assert_eq!(*held.get(&cx), 2);
        }
        assert_eq!(log.take(), ["wants", "kept", "has", "again"]);
        bell.ring();
        assert_eq!(log.take(), ["wants", "has"]);
    });
}

#[test]
fn who_waits_for_a_token_preempts_once_it_is_free() {
    static TOKEN: Token<u32> = Token::new(0);
    as_thread(|cx| {
        let urgent = {
            let (cx, _held) = cx.hold(&TOKEN);
            let urgent = cx.scheduler().spawn(CPU0, spec("wants it", Priority::INT_MED), |cx| {
                let _ = cx.hold(&TOKEN);
            });
            urgent.unwrap()
        };
        // At the next safe point after a tick, and nobody yields.
        cx.scheduler().tick();
        drop(cx.critical());
        assert!(urgent.is_finished());
    });
}

#[test]
fn threads_that_preempt_may_yield_to_their_equals_and_end() {
    as_thread(|cx| {
        let log = Log::default();
        let section = cx.critical();
        let threads = [("one", "one again"), ("two", "two again")].map(|(first, second)| {
            let log = log.clone();
            let scheduler = cx.scheduler();
            scheduler.spawn(CPU0, spec(first, Priority::INT_MED), move |cx| {
                log.add(first);
                cx.yield_now();
                log.add(second);
            })
        });
        log.add("main");
        drop(section);
        log.add("main again");
        assert_eq!(log.take(), ["main", "one", "two", "one again", "two again", "main again"]);
        assert!(threads.iter().all(|thread| thread.as_ref().unwrap().is_finished()));
        // Their slots are free: the victim saw to it.
        let stats = stats(cx.scheduler(), CPU0);
        assert_eq!((stats.spawned, stats.exited), (3, 2));
    });
}

#[test]
fn a_victim_that_is_woken_meanwhile_does_not_miss_it() {
    as_thread(|cx| {
        let mut looks = 0;
        let wait = poll_fn(|task| {
            looks += 1;
            if looks == 3 {
                return Poll::Ready(());
            }
            // Preempts, wakes the victim, and ends.
            let waker = task.waker().clone();
            let waking =
                cx_scheduler().spawn(CPU0, spec("waking", Priority::INT_HIGH), move |_| waker.wake());
            assert!(waking.unwrap().is_finished());
            Poll::Pending
        });
        SCHEDULER.set(Some(cx.scheduler()));
        cx.wait(std::pin::pin!(wait), None).unwrap();
        assert_eq!(looks, 3);
    });

    thread_local! {
        static SCHEDULER: std::cell::Cell<Option<&'static Scheduler>> = const { std::cell::Cell::new(None) };
    }
    fn cx_scheduler() -> &'static Scheduler {
        SCHEDULER.get().unwrap()
    }
}

#[test]
fn a_busy_thread_is_preempted_from_another_cpu_at_its_next_safe_point() {
    let machine = machine(2);
    let scheduler = machine.scheduler();
    let (began, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (theirs, stops) = (began.clone(), stop.clone());
    let busy = scheduler.spawn(CPU1, "busy".into(), move |_| {
        let lock = Lock::new(0_u64);
        while !stops.load(Ordering::Acquire) {
            *lock.lock() += 1;
            theirs.store(true, Ordering::Release);
        }
    });
    let main = scheduler.spawn(CPU0, "main".into(), move |cx| {
        while !began.load(Ordering::Acquire) {
            cx.yield_now();
        }
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
            let urgent = cx.scheduler().spawn(CPU1, spec("urgent", Priority::INT_MED), |_| ()).unwrap();
            assert_eq!(urgent.join(cx), Ok(()));
        }
        stop.store(true, Ordering::Release);
    });
    assert_eq!((join(main.unwrap()), join(busy.unwrap())), (Ok(()), Ok(())));
    assert!(stats(scheduler, CPU1).preemptions > 0);
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn those_who_wait_for_a_victim_are_told_of_the_stop() {
    let machine = machine(1);
    let scheduler = machine.scheduler();
    let victim = scheduler.spawn(CPU0, "victim".into(), |cx| {
        let stopper = cx.scheduler().spawn(CPU0, spec("stopper", Priority::INT_MED), |cx| {
            cx.scheduler().stop();
            let _ = block_on(cx, pending::<()>(), None);
        });
        drop(stopper);
        unreachable!("it was preempted for good");
    });
    machine.wait();
    assert_eq!(join(victim.unwrap()), Err(JoinError::Stopped));
}

/// Every thread wakes every other one, in sections and out of them; each wake is answered.
#[test]
fn a_storm_of_wakes_that_preempt_loses_nothing() {
    const ROUNDS: u32 = if cfg!(miri) { 5 } else { 300 };
    let machine = machine(2);
    let scheduler = machine.scheduler();
    let priorities =
        [Priority::KERN_DAEMON, Priority::INT_LOW, Priority::INT_MED, Priority::INT_HIGH, Priority::MAX];
    let bells: Vec<Bell> = (0..2 * priorities.len()).map(|_| Bell::default()).collect();
    let threads: Vec<Handle> = (0..bells.len())
        .map(|me| {
            let bells = bells.clone();
            let spec = spec("stormy", priorities[me % priorities.len()]);
            let work = move |cx: &mut Cx<'_>| {
                let lock = Lock::new(());
                for round in 0..ROUNDS {
                    let next = &bells[(me + 1 + round as usize % (bells.len() - 1)) % bells.len()];
                    match round % 3 {
                        0 => next.ring(),
                        1 => {
                            let section = cx.critical();
                            next.ring();
                            drop(section);
                        }
                        _ => {
                            let guard = lock.lock();
                            next.ring();
                            drop(guard);
                        }
                    }
                    // Each bell is rung as often as its owner waits.
                    bells[me].wait(cx);
                }
            };
            scheduler.spawn(CpuId(u32::from(me >= priorities.len())), spec, work).unwrap()
        })
        .collect();
    for thread in threads {
        assert_eq!(join(thread), Ok(()));
    }
}

/// A CPU that is detached while it runs a thread, which nobody should do; another OS thread says that it is the CPU.
#[test]
#[cfg(all(target_arch = "x86_64", not(any(windows, miri))))]
fn an_interrupt_that_ends_on_another_os_thread_lets_nobody_run_there() {
    use dfly_hal::host::HostCpu;
    use dfly_lwkt::host::HostPlatform;
    use std::thread;
    thread_local! {
        static ATTACHED: std::cell::RefCell<Option<HostCpu>> = const { std::cell::RefCell::new(None) };
    }
    // For the hooks.
    drop(machine(1));
    let platform = Arc::new(HostPlatform::new(1));
    let scheduler = Scheduler::new(platform.clone(), Config::default()).unwrap();
    let (detached, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (leaves, ends) = (detached.clone(), over.clone());
    let busy = scheduler.spawn(CPU0, "busy".into(), move |_| {
        ATTACHED.take();
        leaves.store(true, Ordering::SeqCst);
        while !ends.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    });
    let theirs = platform.clone();
    let cpu = thread::spawn(move || {
        ATTACHED.set(Some(theirs.attach(CPU0).unwrap()));
        scheduler.run()
    });
    while !detached.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let ran = Arc::new(AtomicBool::new(false));
    let runs = ran.clone();
    // By a thread that is no CPU: where the CPU spawns it, it looks at once.
    let urgent =
        scheduler.spawn(CPU0, spec("urgent", Priority::INT_MED), move |_| runs.store(true, Ordering::SeqCst));
    drop(urgent);
    {
        let _impostor = platform.attach(CPU0).unwrap();
        scheduler.interrupt_exit(|| (), || ());
    }
    assert!(!ran.load(Ordering::SeqCst));
    scheduler.stop();
    over.store(true, Ordering::SeqCst);
    drop((busy, cpu));
}
