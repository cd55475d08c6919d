//! What callers can get wrong, and what a scheduler then says.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;
use std::thread;

use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, block_on};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::{
    Config, ConfigError, JoinError, Platform, RunError, Scheduler, SpawnError, Spec, StackMemory,
};

const CPU0: CpuId = CpuId(0);

fn scheduler(cpus: u32) -> (Arc<HostPlatform>, &'static Scheduler) {
    let platform = Arc::new(HostPlatform::new(cpus));
    (platform.clone(), Scheduler::new(platform, Config::default()).unwrap())
}

#[test]
fn a_machine_without_cpus_and_stacks_out_of_range_are_refused() {
    struct None;
    // SAFETY: there is no CPU to be on.
    unsafe impl Cpus for None {
        fn this(&self) -> CpuId {
            CpuId::NONE
        }
        fn count(&self) -> u32 {
            0
        }
        fn raise_ipi(&self, _: CpuId) {}
    }
    impl Clock for None {
        fn now(&self) -> Instant {
            Instant::FAR_FUTURE
        }
        fn wake_at(&self, _: Instant, _: &Waker) {}
    }
    impl Platform for None {
        fn halt(&self, _: &dyn Fn() -> bool) {}
    }
    assert_eq!(Scheduler::new(Arc::new(None), Config::default()).unwrap_err(), ConfigError::NoCpu);

    let platform = Arc::new(HostPlatform::new(1));
    for (bytes, error) in
        [(100, SpawnError::StackTooSmall(100)), (usize::MAX, SpawnError::StackTooLarge(usize::MAX))]
    {
        let refused = Scheduler::new(platform.clone(), Config::default().stack_bytes(bytes));
        assert_eq!(refused.unwrap_err(), ConfigError::Stack(error));
        let scheduler = Scheduler::new(platform.clone(), Config::default()).unwrap();
        let refused = scheduler.spawn(CPU0, Spec::new("odd").stack_bytes(bytes), |_| ());
        assert_eq!(refused.unwrap_err(), error);
    }
}

#[test]
fn run_wants_a_cpu_that_does_not_run_yet() {
    let (platform, scheduler) = scheduler(2);
    assert_eq!(scheduler.run(), Err(RunError::NotACpu(CpuId::NONE)));
    let nested = scheduler.spawn(CPU0, "nested".into(), |cx| {
        assert_eq!(cx.scheduler().run(), Err(RunError::Running(CPU0)));
        cx.scheduler().stop();
    });
    let cpu = platform.attach(CPU0).unwrap();
    assert_eq!(scheduler.run(), Ok(()));
    assert_eq!(nested.unwrap().join(&mut ThreadWait::new()), Ok(()));
    assert_eq!(scheduler.run(), Err(RunError::Stopped));
    drop(cpu);
    let _never_ran = platform.attach(CpuId(1)).unwrap();
    assert_eq!(scheduler.run(), Err(RunError::Stopped));
}

#[test]
fn spawn_wants_a_cpu_that_exists_and_a_scheduler_that_runs() {
    let (_, scheduler) = scheduler(1);
    for id in [CpuId(1), CpuId::NONE] {
        let refused = scheduler.spawn(id, "nowhere".into(), |_| ());
        assert_eq!(refused.unwrap_err(), SpawnError::NoSuchCpu(id));
        assert_eq!(scheduler.cpu_stats(id), None);
    }
    scheduler.stop();
    assert_eq!(scheduler.spawn(CPU0, "late".into(), |_| ()).unwrap_err(), SpawnError::Stopped);
    scheduler.stop();
    assert!(scheduler.is_stopped());
}

#[test]
fn whoever_waits_for_a_thread_that_never_began_is_told_of_the_stop() {
    let (_, scheduler) = scheduler(1);
    let handle = scheduler.spawn(CPU0, "unlucky".into(), |_| ()).unwrap();
    assert!(!handle.is_finished());
    scheduler.stop();
    assert!(handle.is_finished());
    assert_eq!(handle.join(&mut ThreadWait::new()), Err(JoinError::Stopped));
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn threads_that_never_end_stay_where_they_are() {
    struct NotDropped(Arc<AtomicBool>);
    impl Drop for NotDropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let machine = Machine::start(2, Config::default()).unwrap();
    let scheduler = machine.scheduler();
    let guard = NotDropped(dropped.clone());
    let blocked = scheduler.spawn(CPU0, "blocked".into(), move |cx| {
        let _guard = &guard;
        let _ = block_on(cx, pending::<()>(), None);
    });
    let busy = scheduler.spawn(CpuId(1), "busy".into(), |cx| {
        loop {
            cx.yield_now();
        }
    });
    drop(machine);
    for handle in [blocked, busy] {
        assert_eq!(handle.unwrap().join(&mut ThreadWait::new()), Err(JoinError::Stopped));
    }
    assert!(!dropped.load(Ordering::SeqCst));
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn no_thread_goes_on_after_the_stop() {
    let machine = Machine::start(1, Config::default()).unwrap();
    let (began, after) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for _ in 0..3 {
        let (began, after) = (began.clone(), after.clone());
        let endless = machine.scheduler().spawn(CPU0, "endless".into(), move |cx| {
            began.fetch_add(1, Ordering::SeqCst);
            while !cx.scheduler().is_stopped() {
                cx.yield_now();
            }
            after.fetch_add(1, Ordering::SeqCst);
        });
        drop(endless);
    }
    while began.load(Ordering::SeqCst) < 3 {
        thread::yield_now();
    }
    drop(machine);
    // Time for those that must not go on.
    thread::sleep(std::time::Duration::from_millis(20));
    // The one that ran may have seen the stop before its next switch.
    assert!(after.load(Ordering::SeqCst) <= 1);
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_thread_may_drop_its_own_machine() {
    let machine = Machine::start(2, Config::default()).unwrap();
    let scheduler = machine.scheduler();
    let (say, dropped) = std::sync::mpsc::channel();
    let last = scheduler.spawn(CPU0, "last".into(), move |_| {
        // It does not wait for its own end.
        drop(machine);
        say.send(()).unwrap();
    });
    dropped.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert!(scheduler.is_stopped());
    let _either = last.unwrap().join(&mut ThreadWait::new());
}

#[test]
#[cfg(all(target_arch = "x86_64", not(any(windows, miri))))]
fn thread_locals_that_a_thread_has_lent_outlive_it() {
    struct Lent(Arc<AtomicBool>);
    impl Drop for Lent {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread_local! {
        static LENT: std::cell::RefCell<Option<Lent>> = const { std::cell::RefCell::new(None) };
    }
    // Left over at the stop, and ended before it.
    for (ends, dropped_after) in [(false, false), (true, true)] {
        let dropped = Arc::new(AtomicBool::new(false));
        let theirs = dropped.clone();
        let machine = Machine::start(1, Config::default()).unwrap();
        let (say, lent) = std::sync::mpsc::channel();
        let lender = machine.scheduler().spawn(CPU0, "lender".into(), move |cx| {
            LENT.with(|slot| {
                *slot.borrow_mut() = Some(Lent(theirs));
                say.send(()).unwrap();
                if !ends {
                    let _lent = slot.borrow();
                    let _ = block_on(cx, pending::<()>(), None);
                }
            });
        });
        lent.recv().unwrap();
        let scheduler = machine.scheduler();
        if ends {
            while scheduler.cpu_stats(CPU0).unwrap().exited == 0 {
                thread::yield_now();
            }
        }
        drop(machine);
        let expected = if ends { Ok(()) } else { Err(JoinError::Stopped) };
        assert_eq!(lender.unwrap().join(&mut ThreadWait::new()), expected);
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(dropped.load(Ordering::SeqCst), dropped_after);
    }
}

#[test]
fn a_thread_without_a_handle_runs_all_the_same() {
    let machine = Machine::start(1, Config::default()).unwrap();
    let ran = Arc::new(AtomicU32::new(0));
    let theirs = ran.clone();
    drop(machine.scheduler().spawn(CPU0, "detached".into(), move |_| {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    while ran.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
}

#[test]
fn a_waker_that_comes_too_late_harms_nobody() {
    let machine = Machine::start(1, Config::default()).unwrap();
    let scheduler = machine.scheduler();
    let w = &mut ThreadWait::new();
    let (send, wakers) = std::sync::mpsc::channel();
    let first = scheduler.spawn(CPU0, "first".into(), move |cx| {
        let waker = block_on(cx, std::future::poll_fn(|cx| std::task::Poll::Ready(cx.waker().clone())), None);
        // The waker of `block_on`'s first look does nothing; that of the second is the thread's.
        send.send(waker.unwrap()).unwrap();
        let mut looks = 0;
        let wait = std::future::poll_fn(|cx| {
            looks += 1;
            send.send(cx.waker().clone()).unwrap();
            cx.waker().wake_by_ref();
            if looks < 3 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        });
        block_on(cx, wait, None).unwrap();
    });
    first.unwrap().join(w).unwrap();
    // Its end is told before it is off its stack, and its slot free.
    let have_exited = |count| {
        while scheduler.cpu_stats(CPU0).unwrap().exited != count {
            thread::yield_now();
        }
    };
    have_exited(1);
    let wakers: Vec<Waker> = wakers.iter().collect();
    wakers.iter().for_each(Waker::wake_by_ref);
    // The slot is somebody else's now, who is woken for nothing.
    let second = scheduler.spawn(CPU0, "second".into(), move |cx| {
        let mut looks = 0;
        let wait = std::future::poll_fn(|_| {
            looks += 1;
            wakers.iter().for_each(Waker::wake_by_ref);
            if looks < 10 { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        });
        block_on(cx, wait, None).unwrap();
    });
    second.unwrap().join(w).unwrap();
    have_exited(2);
}

/// A host that does not say that its stacks are guarded.
struct Unguarded(HostPlatform);

// SAFETY: the host's.
unsafe impl Cpus for Unguarded {
    fn this(&self) -> CpuId {
        self.0.this()
    }
    fn count(&self) -> u32 {
        self.0.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.0.raise_ipi(to);
    }
}

impl Clock for Unguarded {
    fn now(&self) -> Instant {
        self.0.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.0.wake_at(at, waker);
    }
}

impl Platform for Unguarded {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.0.halt(ready);
    }
    fn stack(&self, bytes: usize) -> Option<StackMemory> {
        let memory = StackMemory::allocate(bytes)?;
        // SAFETY: the same memory, of which less is promised.
        Some(unsafe { StackMemory::new(memory.bottom(), memory.bytes(), 0) })
    }
}

#[test]
#[cfg(all(target_arch = "x86_64", not(any(windows, miri))))]
fn a_thread_that_overflows_its_stack_panics_at_its_next_switch_by_name() {
    use std::sync::Mutex;
    let said = Arc::new(Mutex::new(String::new()));
    let hears = said.clone();
    let old = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.contains("overflowed") {
            *hears.lock().unwrap() = text.into();
        } else {
            old(panic);
        }
    }));
    let platform = Arc::new(Unguarded(HostPlatform::new(1)));
    let attach = platform.clone();
    let machine = Machine::start_with(platform, Config::default(), move |id| attach.0.attach(id)).unwrap();
    let spec = Spec::new("greedy").stack_bytes(64 << 10);
    let greedy = machine.scheduler().spawn(CPU0, spec, |cx| {
        let here = 0_u8;
        let here = std::hint::black_box(&raw const here).expose_provenance();
        // The stack is aligned to a page and this frame is near its top.
        let lowest = here.next_multiple_of(4096) - (64 << 10);
        // SAFETY: the last word of this very stack, which no frame uses: what an overflow writes to on its way.
        unsafe { std::ptr::with_exposed_provenance_mut::<u64>(lowest).write_volatile(1) };
        cx.yield_now();
        unreachable!();
    });
    assert_eq!(greedy.unwrap().join(&mut ThreadWait::new()), Err(JoinError::Panicked));
    let said = said.lock().unwrap();
    assert!(said.contains("(greedy) on cpu0 has overflowed its stack of 65536 bytes"), "{said}");
}
