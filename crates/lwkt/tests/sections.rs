//! Critical sections, short locks, and the IPI queues of a scheduler: what is put off, and what is refused. A file of its
//! own, because the preemption hooks are registered once for the whole process.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Poll, Waker};
use std::time::Duration;

use dfly_hal::sync::Lock;
use dfly_hal::{CpuId, ThreadWait, Wait, block_on, host::now};
use dfly_lwkt::host::Machine;
use dfly_lwkt::ipi::CpuMask;
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx, Handle, JoinError, Priority, Spec, enable_preemption};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// What the panics of all tests said.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn machine(cpus: u32) -> Machine {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        enable_preemption().unwrap();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SAID.lock().unwrap().push(panic.to_string());
            before(panic);
        }));
    });
    Machine::start(cpus, Config::default()).unwrap()
}

fn spawn(machine: &Machine, cpu: CpuId, name: &str, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(cpu, name.into(), f).unwrap()
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// What was said by the panic of the thread `name`.
fn said_of(name: &str) -> String {
    SAID.lock().unwrap().iter().find(|said| said.contains(&format!("({name})"))).cloned().unwrap()
}

fn place(line: u32) -> String {
    format!("{}:{line}:", file!())
}

#[test]
fn a_thread_that_waits_with_a_short_lock_is_told_both_places() {
    static LOCK: Lock<u32> = Lock::new(0);
    let machine = machine(1);
    let (say, lines) = std::sync::mpsc::channel();
    let careless = spawn(&machine, CPU0, "careless", move |cx| {
        let (_guard, taken) = (LOCK.lock(), line!());
        say.send((taken, line!() + 1)).unwrap();
        let _ = block_on(cx, pending::<()>(), None);
    });
    assert_eq!(join(careless), Err(JoinError::Panicked));
    let (taken, waits) = lines.recv().unwrap();
    let said = said_of("careless");
    assert!(said.contains(&place(taken)) && said.contains(&place(waits)), "{said}");
    assert!(said.contains("on cpu0 waits at") && said.contains("(1 open)"), "{said}");
    // Unwinding has released it, and the CPU goes on.
    join(spawn(&machine, CPU0, "next", |_| *LOCK.lock() += 1)).unwrap();
    assert_eq!(*LOCK.lock(), 1);
}

#[test]
fn a_thread_that_gives_way_for_a_token_with_a_short_lock_is_told_both_places() {
    static LOCK: Lock<u32> = Lock::new(0);
    static TOKEN: Token<u32> = Token::new(0);
    let machine = machine(2);
    let (held, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (holds, ends) = (held.clone(), over.clone());
    let holder = spawn(&machine, CPU1, "holder", move |cx| {
        let (_cx, _held) = cx.hold(&TOKEN);
        holds.store(true, Ordering::SeqCst);
        while !ends.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    });
    while !held.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let (say, lines) = std::sync::mpsc::channel();
    let careless = spawn(&machine, CPU0, "takes a token", move |cx| {
        let (_guard, taken) = (LOCK.lock(), line!());
        say.send((taken, line!() + 1)).unwrap();
        let _ = cx.hold(&TOKEN);
    });
    assert_eq!(join(careless), Err(JoinError::Panicked));
    over.store(true, Ordering::SeqCst);
    join(holder).unwrap();
    let (taken, waits) = lines.recv().unwrap();
    let said = said_of("takes a token");
    assert!(said.contains(&place(taken)) && said.contains(&place(waits)), "{said}");
    assert!(said.contains("waits for a token"), "{said}");
    // Not so where nobody else has it.
    let careful = spawn(&machine, CPU0, "careful", |cx| {
        let _guard = LOCK.lock();
        let (mut cx, mut n) = cx.hold(&TOKEN);
        *n.get_mut(&mut cx) += 1;
    });
    join(careful).unwrap();
}

#[test]
fn the_lock_that_is_still_held_is_named_and_not_the_one_before() {
    let machine = machine(1);
    let (say, line) = std::sync::mpsc::channel();
    let thread = spawn(&machine, CPU0, "two locks", move |cx| {
        let (one, two) = (Lock::new(1), Lock::new(2));
        let (_one, taken) = (one.lock(), line!());
        drop(two.lock());
        say.send(taken).unwrap();
        cx.yield_now();
    });
    assert_eq!(join(thread), Err(JoinError::Panicked));
    let said = said_of("two locks");
    assert!(said.contains(&place(line.recv().unwrap())) && said.contains("yields"), "{said}");
}

#[test]
fn a_section_that_is_forgotten_ends_with_its_thread() {
    let machine = machine(1);
    let waits = spawn(&machine, CPU0, "forgets and yields", |cx| {
        std::mem::forget(cx.critical());
        cx.yield_now();
    });
    let ends = spawn(&machine, CPU0, "forgets and ends", |cx| std::mem::forget(cx.critical()));
    for (thread, name, does) in [(waits, "forgets and yields", "yields"), (ends, "forgets and ends", "ends")]
    {
        assert_eq!(join(thread), Err(JoinError::Panicked));
        assert!(said_of(name).contains(does));
    }
    join(spawn(&machine, CPU0, "next", |cx| cx.yield_now())).unwrap();
}

#[test]
fn messages_and_functions_for_other_cpus_work_from_threads() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let machine = machine(2);
    let thread = spawn(&machine, CPU0, "sender", |cx| {
        // CPU 1 takes part as soon as it runs.
        let ipis = cx.scheduler().ipis();
        while ipis.online().len() < 2 {
            cx.yield_now();
        }
        let ticket = ipis.send(CPU1, |cx| {
            assert_eq!((cx.cpu(), cx.from()), (CPU1, CPU0));
            CALLS.fetch_add(1, Ordering::Relaxed);
        });
        ipis.wait(ticket.unwrap()).unwrap();
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        let both = CpuMask::of(CPU0) | CpuMask::of(CPU1);
        let call = |_: &dfly_lwkt::ipi::IrqCx<'_>| {
            CALLS.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(ipis.run_on(&both, call), Ok(both));
        assert_eq!(CALLS.load(Ordering::Relaxed), 3);
        ipis.interlocked(&both, |mask| assert_eq!(*mask, both), call).unwrap();
        assert_eq!(CALLS.load(Ordering::Relaxed), 5);
    });
    join(thread).unwrap();
}

#[test]
fn a_message_waits_for_the_end_of_the_outermost_section() {
    let machine = machine(2);
    let (inside, called) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (theirs, calls) = (inside.clone(), called.clone());
    let guarded = spawn(&machine, CPU1, "guarded", move |cx| {
        let outer = cx.critical();
        assert_eq!(outer.cpu(), CPU1);
        theirs.store(true, Ordering::Release);
        while cx.scheduler().ipis().stats(CPU0).unwrap().raised == 0 {
            std::hint::spin_loop();
        }
        for _ in 0..3 {
            drop(cx.critical());
            let lock = Lock::new(());
            drop(lock.lock());
        }
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        drop(outer);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    });
    let sender = spawn(&machine, CPU0, "sender", move |cx| {
        while !inside.load(Ordering::Acquire) {
            cx.yield_now();
        }
        let called = Box::leak(Box::new(called));
        let ticket = cx.scheduler().ipis().send(CPU1, |_| {
            called.fetch_add(1, Ordering::Relaxed);
        });
        ticket.unwrap();
    });
    join(sender).unwrap();
    join(guarded).unwrap();
}

#[test]
fn a_function_that_runs_everywhere_meets_busy_threads_at_the_end_of_a_short_lock() {
    let machine = machine(2);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = stop.clone();
    let busy = spawn(&machine, CPU1, "busy", move |_| {
        let lock = Lock::new(0);
        while !theirs.load(Ordering::Acquire) {
            *lock.lock() += 1;
        }
    });
    let master = spawn(&machine, CPU0, "master", move |cx| {
        while cx.scheduler().cpu_stats(CPU1).unwrap().spawned == 0 {
            cx.yield_now();
        }
        for _ in 0..if cfg!(miri) { 2 } else { 20 } {
            let ran = cx.scheduler().ipis().run_on(&CpuMask::of(CPU1), |_| ());
            assert_eq!(ran, Ok(CpuMask::of(CPU1)));
        }
        stop.store(true, Ordering::Release);
    });
    join(master).unwrap();
    join(busy).unwrap();
}

#[test]
fn waiting_while_other_cpus_are_stopped_is_refused() {
    let machine = machine(1);
    let thread = spawn(&machine, CPU0, "stopper", |cx| {
        let scheduler = cx.scheduler();
        let here = CpuMask::of(CPU0);
        let _ = scheduler.ipis().interlocked(&here, |_| cx.yield_now(), |_| ());
    });
    assert_eq!(join(thread), Err(JoinError::Panicked));
    let said = said_of("stopper");
    assert!(said.contains("yields") && said.contains("ipi/sync.rs"), "{said}");
    // The interlock is free again.
    let next = spawn(&machine, CPU0, "next", |cx| {
        let ran = cx.scheduler().ipis().interlocked(&CpuMask::of(CPU0), |_| 7, |_| ());
        assert_eq!(ran, Ok(7));
    });
    join(next).unwrap();
}

#[test]
fn a_thread_should_yield_to_its_equals_after_a_tick_and_to_its_betters_at_once() {
    let machine = machine(1);
    let thread = spawn(&machine, CPU0, "first", |cx| {
        let scheduler = cx.scheduler();
        assert!(!cx.should_yield());
        scheduler.tick();
        assert!(!cx.should_yield(), "there is nobody");
        let equal = scheduler.spawn(CPU0, "equal".into(), |_| ()).unwrap();
        assert!(!cx.should_yield());
        scheduler.tick();
        assert!(cx.should_yield() && cx.should_yield());
        cx.yield_now();
        assert!(equal.is_finished() && !cx.should_yield());
        let less = Spec::new("less").priority(Priority::IDLE_WORK);
        let less = scheduler.spawn(CPU0, less, |_| ()).unwrap();
        scheduler.tick();
        assert!(!cx.should_yield());
        let more = Spec::new("more").priority(Priority::SOFT_NORM);
        let more = scheduler.spawn(CPU0, more, |_| ()).unwrap();
        assert!(cx.should_yield());
        cx.yield_now();
        assert!(more.is_finished() && !less.is_finished());
        less.join(cx).unwrap();
    });
    join(thread).unwrap();
}

#[test]
fn a_passive_message_waits_for_the_tick() {
    let machine = machine(2);
    static CALLED: AtomicBool = AtomicBool::new(false);
    let (send, wakers) = std::sync::mpsc::channel::<Waker>();
    let ticking = spawn(&machine, CPU1, "ticking", move |cx| {
        let mut first = true;
        let wait = poll_fn(|cx| {
            if std::mem::take(&mut first) {
                send.send(cx.waker().clone()).unwrap();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        cx.wait(std::pin::pin!(wait), None).unwrap();
        drop(cx.critical());
        assert!(!CALLED.load(Ordering::Relaxed));
        cx.scheduler().tick();
        drop(cx.critical());
        assert!(CALLED.load(Ordering::Relaxed));
    });
    let sender = spawn(&machine, CPU0, "sender", move |cx| {
        let waker = wakers.recv().unwrap();
        cx.scheduler().ipis().send_passive(CPU1, |_| CALLED.store(true, Ordering::Relaxed)).unwrap();
        waker.wake();
    });
    join(sender).unwrap();
    join(ticking).unwrap();
}

/// Its end wakes a thread that preempts, which is a safe point; but nobody is left to unwind there.
#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_callback_that_panics_is_not_called_on_a_thread_at_its_end() {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let machine = machine(2);
    let joiner = Spec::new("joiner").priority(Priority::INT_MED);
    let joiner = machine.scheduler().spawn(CPU0, joiner, |cx| {
        let ending = cx.scheduler().spawn(CPU0, "ending".into(), |_| {
            ROUND.store(1, Ordering::SeqCst);
            // No safe point: the message waits.
            while ROUND.load(Ordering::SeqCst) == 1 {
                std::thread::yield_now();
            }
        });
        let _ = ending.unwrap().join(cx);
    });
    let sender = spawn(&machine, CPU1, "sender", |cx| {
        while ROUND.load(Ordering::SeqCst) == 0 {
            cx.yield_now();
        }
        cx.scheduler().ipis().send(CPU0, |_| panic!("as the test wants")).unwrap();
        ROUND.store(2, Ordering::SeqCst);
    });
    join(sender).unwrap();
    // The next one there has it.
    assert_eq!(join(joiner.unwrap()), Err(JoinError::Panicked));
    join(spawn(&machine, CPU0, "next", |cx| cx.yield_now())).unwrap();
}

/// A panic is counted by its OS thread, and the idle CPU on it unwinds nothing.
#[test]
fn an_idle_cpu_answers_while_a_thread_waits_that_unwinds() {
    static WAITS: AtomicBool = AtomicBool::new(false);
    static ANSWERED: AtomicBool = AtomicBool::new(false);
    static IN_TIME: AtomicBool = AtomicBool::new(false);
    struct WaitsAtItsEnd<'a, 'b>(&'a mut Cx<'b>);
    impl Drop for WaitsAtItsEnd<'_, '_> {
        fn drop(&mut self) {
            WAITS.store(true, Ordering::SeqCst);
            let late = now().saturating_add(Duration::from_secs(10));
            let not_yet = || !ANSWERED.load(Ordering::SeqCst);
            let slept = self.0.sleep_while(Ident::of(&ANSWERED), Some(late), not_yet);
            IN_TIME.store(slept.is_ok(), Ordering::SeqCst);
        }
    }
    let machine = machine(2);
    let unwinds = spawn(&machine, CPU0, "unwinds", |cx| {
        let _waits = WaitsAtItsEnd(cx);
        panic!("as the test wants");
    });
    let asks = spawn(&machine, CPU1, "asks", |cx| {
        while !WAITS.load(Ordering::SeqCst) {
            cx.yield_now();
        }
        let scheduler = cx.scheduler();
        assert_eq!(scheduler.ipis().run_on(&CpuMask::of(CPU0), |_| ()), Ok(CpuMask::of(CPU0)));
        ANSWERED.store(true, Ordering::SeqCst);
        scheduler.wakeup(Ident::of(&ANSWERED));
    });
    join(asks).unwrap();
    assert_eq!(join(unwinds), Err(JoinError::Panicked));
    assert!(IN_TIME.load(Ordering::SeqCst));
}
