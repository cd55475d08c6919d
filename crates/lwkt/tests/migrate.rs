//! Threads that move from CPU to CPU, and threads that are given away.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use dfly_hal::{CpuId, ThreadWait, Wait, block_on};
use dfly_lwkt::host::Machine;
use dfly_lwkt::token::Token;
use dfly_lwkt::{
    Config, Cx, Descheduled, Handle, JoinError, MigrateError, Scheduler, SpawnError, ThreadState,
};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);
/// Threads run on the OS thread that is their CPU.
const SHARED: bool =
    cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"), unix, not(miri)));

fn machine(cpus: u32) -> Machine {
    // SAFETY: no thread here has anything of an OS thread while it moves.
    Machine::start(cpus, unsafe { Config::default().threads_may_move() }).unwrap()
}

fn spawn(machine: &Machine, cpu: CpuId, name: &str, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(cpu, name.into(), f).unwrap()
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// The thread is where it says, and the machine agrees.
fn is_on(cx: &Cx<'_>, cpu: CpuId) {
    assert_eq!((cx.cpu(), cx.scheduler().platform().this()), (cpu, cpu));
    let mut seen = None;
    cx.scheduler().threads(&mut |thread| {
        if thread.id == cx.thread() {
            seen = Some((thread.cpu, thread.state));
        }
    });
    assert_eq!(seen, Some((cpu, ThreadState::Running)));
    let current = cx.scheduler().current().unwrap();
    assert_eq!(current.id, cx.thread());
}

#[test]
fn a_thread_moves_and_its_stack_comes_along() {
    let machine = machine(3);
    let thread = spawn(&machine, CPU0, "wanderer", |cx| {
        let mine: Vec<u32> = (0..100).collect();
        for to in [0, 1, 2, 0, 2, 1].map(CpuId) {
            assert_eq!(cx.migrate(to), Ok(()));
            is_on(cx, to);
            assert_eq!(mine.iter().sum::<u32>(), 4950);
            cx.yield_now();
            is_on(cx, to);
        }
    });
    join(thread).unwrap();
    let stats = [0, 1, 2].map(|id| machine.scheduler().cpu_stats(CpuId(id)).unwrap());
    assert_eq!(stats.map(|stats| stats.moved_here), [1, 2, 2]);
    assert_eq!(stats.map(|stats| stats.spawned), [1, 0, 0]);
}

#[test]
fn where_threads_share_thread_locals_they_stay_unless_somebody_promises() {
    let machine = Machine::start(2, Config::default()).unwrap();
    let thread = spawn(&machine, CPU0, "settled", |cx| {
        assert_eq!(cx.migrate(CpuId(2)), Err(MigrateError::NoSuchCpu(CpuId(2))));
        assert_eq!(cx.migrate(CPU0), Ok(()));
        let moved = cx.migrate(CPU1);
        if SHARED {
            assert_eq!(moved, Err(MigrateError::ThreadLocals));
            is_on(cx, CPU0);
            cx.give_away(|me| assert_eq!(me.resume_on(CPU1), Err(MigrateError::ThreadLocals)));
            is_on(cx, CPU0);
        } else {
            assert_eq!(moved, Ok(()));
            is_on(cx, CPU1);
        }
    });
    join(thread).unwrap();
}

#[test]
fn wakes_find_a_thread_wherever_it_is() {
    const ROUNDS: u32 = if cfg!(miri) { 3 } else { 300 };
    let machine = machine(2);
    let wakes = Arc::new(AtomicU32::new(0));
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let (seen, slot) = (wakes.clone(), waker.clone());
    let thread = spawn(&machine, CPU0, "chased", move |cx| {
        for round in 0..ROUNDS {
            let wait = poll_fn(|cx| {
                *slot.lock().unwrap() = Some(cx.waker().clone());
                if seen.load(Ordering::SeqCst) > round { Poll::Ready(()) } else { Poll::Pending }
            });
            cx.wait(std::pin::pin!(wait), None).unwrap();
            cx.migrate(CpuId(round % 2)).unwrap();
        }
    });
    for _ in 0..ROUNDS {
        wakes.fetch_add(1, Ordering::SeqCst);
        let waker = waker.lock().unwrap().clone();
        waker.inspect(Waker::wake_by_ref);
        std::thread::yield_now();
    }
    join(thread).unwrap();
}

#[test]
fn tokens_are_given_up_on_the_way_and_taken_on_the_other_cpu() {
    static TOKEN: Token<(u32, u32)> = Token::new((0, 0));
    const ROUNDS: u32 = if cfg!(miri) { 2 } else { 200 };
    let machine = machine(2);
    let threads = [0, 1].map(|id| {
        spawn(&machine, CpuId(id), "holder", move |cx| {
            for round in 0..ROUNDS {
                let (mut cx, mut held) = cx.hold(&TOKEN);
                let pair = held.get_mut(&mut cx);
                pair.0 += 1;
                pair.1 += 1;
                cx.migrate(CpuId((id + round) % 2)).unwrap();
                let (a, b) = *held.get(&cx);
                assert_eq!(a, b);
            }
        })
    });
    for thread in threads {
        join(thread).unwrap();
    }
    let sum = spawn(&machine, CPU0, "sum", |cx| {
        let (cx, held) = cx.hold(&TOKEN);
        assert_eq!(*held.get(&cx), (2 * ROUNDS, 2 * ROUNDS));
    });
    join(sum).unwrap();
}

#[test]
fn a_thread_that_is_given_away_goes_on_where_it_is_sent() {
    let machine = machine(2);
    let (send, given) = channel::<Descheduled>();
    let thread = spawn(&machine, CPU0, "given", move |cx| {
        for (to, expected) in [(CPU1, CPU1), (CPU1, CPU1), (CPU0, CPU0)] {
            cx.give_away(|me| {
                assert_eq!((me.thread(), to), (me.thread(), expected));
                send.send(me).unwrap();
            });
            is_on(cx, expected);
        }
        // Before it has even left; where it is; and by dropping.
        cx.give_away(|me| me.resume_on(CPU1).unwrap());
        is_on(cx, CPU1);
        cx.give_away(|me| me.resume_on(CPU1).unwrap());
        cx.give_away(drop);
        is_on(cx, CPU1);
        cx.give_away(|me| assert_eq!(me.resume_on(CpuId(9)), Err(MigrateError::NoSuchCpu(CpuId(9)))));
        is_on(cx, CPU1);
    });
    for (from, to) in [(CPU0, CPU1), (CPU1, CPU1), (CPU1, CPU0)] {
        let given = given.recv().unwrap();
        assert_eq!((given.cpu(), given.thread()), (from, thread.id()));
        given.resume_on(to).unwrap();
    }
    join(thread).unwrap();
}

#[test]
fn wakes_do_not_bring_back_a_thread_that_was_given_away_and_are_not_lost() {
    let machine = machine(1);
    let (send, given) = channel::<Descheduled>();
    let mut waker = None;
    let thread = spawn(&machine, CPU0, "given", move |cx| {
        let mut looks = 0;
        let wait = poll_fn(|cx| {
            waker = Some(cx.waker().clone());
            looks += 1;
            if looks == 1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        cx.wait(std::pin::pin!(wait), None).unwrap();
        let waker = waker.unwrap();
        cx.give_away(|me| {
            waker.wake_by_ref();
            send.send(me).unwrap();
        });
        // What woke it meanwhile ends the next wait, which looks again.
        let mut looks = 0;
        let wait = poll_fn(|_| {
            looks += 1;
            if looks == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        cx.wait(std::pin::pin!(wait), None).unwrap();
    });
    let given = given.recv().unwrap();
    let state = || {
        let mut state = None;
        machine.scheduler().threads(&mut |thread| state = Some(thread.state));
        state
    };
    while state() != Some(ThreadState::Moving) {
        std::thread::yield_now();
    }
    drop(given);
    join(thread).unwrap();
}

#[test]
fn who_gives_a_thread_away_may_panic() {
    let machine = machine(1);
    let (send, given) = channel::<Descheduled>();
    let thread = spawn(&machine, CPU0, "careless", move |cx| {
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
            cx.give_away(|me| {
                send.send(me).unwrap();
                panic!("as the test wants");
            });
        }));
        assert!(caught.is_err());
        cx.yield_now();
        cx.give_away(drop);
    });
    // It does nothing to a thread that stayed.
    drop(given.recv().unwrap());
    join(thread).unwrap();
}

/// After a panic one is left that belongs to no wait, and is heard in the next.
#[test]
fn of_two_who_say_where_a_thread_goes_on_the_first_is_heard() {
    let machine = machine(2);
    let (send, given) = channel::<Descheduled>();
    let told = Arc::new(AtomicU32::new(0));
    let tells = told.clone();
    let thread = spawn(&machine, CPU0, "given", move |cx| {
        let mut first = None;
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
            cx.give_away(|me| {
                first = Some(me);
                panic!("as the test wants");
            });
        }));
        assert!(caught.is_err());
        cx.give_away(|me| {
            send.send(me).unwrap();
            first.unwrap().resume_on(CPU1).unwrap();
        });
        tells.store(1, Ordering::SeqCst);
        while tells.load(Ordering::SeqCst) == 1 {
            std::thread::yield_now();
        }
        // It runs, and is not on its way anywhere.
        is_on(cx, CPU1);
        cx.yield_now();
        is_on(cx, CPU1);
    });
    let second = given.recv().unwrap();
    while told.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    second.resume_on(CPU0).unwrap();
    told.store(2, Ordering::SeqCst);
    join(thread).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn the_stop_is_told_for_threads_on_the_way() {
    let machine = machine(2);
    let scheduler = machine.scheduler();
    let (send, given) = channel::<Descheduled>();
    let thread = spawn(&machine, CPU0, "given", move |cx| cx.give_away(|me| send.send(me).unwrap()));
    let wanderers = [0, 1].map(|id| {
        spawn(&machine, CpuId(id), "wanderer", |cx| {
            loop {
                if cx.migrate(CpuId(1 - cx.cpu().0)).is_err() {
                    cx.yield_now();
                }
            }
        })
    });
    let given = given.recv().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    scheduler.stop();
    machine.wait();
    for wanderer in wanderers {
        assert_eq!(join(wanderer), Err(JoinError::Stopped));
    }
    assert!(!thread.is_finished());
    drop(given);
    assert_eq!(join(thread), Err(JoinError::Stopped));
    assert_eq!(scheduler.spawn(CPU0, "late".into(), |_| ()).unwrap_err(), SpawnError::Stopped);
}

/// The slot of a thread that has ended elsewhere is used again where it came from.
#[test]
fn a_slot_goes_home() {
    let machine = machine(2);
    let exited = |scheduler: &Scheduler| {
        [CPU0, CPU1].map(|id| scheduler.cpu_stats(id).unwrap().exited).iter().sum::<u64>()
    };
    for round in 0..10 {
        let thread = spawn(&machine, CPU0, "emigrant", |cx| cx.migrate(CPU1).unwrap());
        join(thread).unwrap();
        while exited(machine.scheduler()) != round + 1 {
            std::thread::yield_now();
        }
    }
    let here = spawn(&machine, CPU0, "native", |cx| is_on(cx, CPU0));
    join(here).unwrap();
}

/// Threads that move all the time, wake each other, and count together.
#[test]
fn a_storm_of_moves() {
    const THREADS: u32 = if cfg!(miri) { 3 } else { 8 };
    const ROUNDS: u32 = if cfg!(miri) { 2 } else { 500 };
    static STARTED: AtomicU64 = AtomicU64::new(0);
    static ENDED: AtomicU64 = AtomicU64::new(0);
    let machine = machine(3);
    let threads: Vec<Handle> = (0..THREADS)
        .map(|id| {
            spawn(&machine, CpuId(id % 3), "stormy", move |cx| {
                let mut random = id + 1;
                for _ in 0..ROUNDS {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let to = CpuId((random >> 16) % 3);
                    match random >> 30 {
                        0 => cx.give_away(|me| me.resume_on(to).unwrap()),
                        1 => cx.yield_now(),
                        2 => {
                            STARTED.fetch_add(1, Ordering::Relaxed);
                            let child = cx.scheduler().spawn(to, "child".into(), move |cx| {
                                cx.migrate(CpuId((to.0 + 1) % 3)).unwrap();
                                ENDED.fetch_add(1, Ordering::Relaxed);
                            });
                            block_on(cx, child.unwrap(), None).unwrap().unwrap();
                        }
                        _ => {
                            cx.migrate(to).unwrap();
                            assert_eq!(cx.cpu(), to);
                        }
                    }
                    assert_eq!(cx.cpu(), cx.scheduler().platform().this());
                }
            })
        })
        .collect();
    for thread in threads {
        join(thread).unwrap();
    }
    assert_eq!(STARTED.load(Ordering::Relaxed), ENDED.load(Ordering::Relaxed));
}
