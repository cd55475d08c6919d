//! Sleep queues, by what their users see.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dfly_hal::{CpuId, Instant, ThreadWait, TimedOut, host::now};
use dfly_lwkt::host::Machine;
use dfly_lwkt::sleep::{Channel, Domain, Ident};
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx, Handle, JoinError};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

fn machine(cpus: u32) -> Machine {
    Machine::start(cpus, Config::default()).unwrap()
}

fn spawn(machine: &Machine, cpu: CpuId, name: &str, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(cpu, name.into(), f).unwrap()
}

fn join(handles: impl IntoIterator<Item = Handle>) {
    handles.into_iter().for_each(|handle| handle.join(&mut ThreadWait::new()).unwrap());
}

fn soon() -> Option<Instant> {
    Some(now().saturating_add(Duration::from_millis(20)))
}

/// How many threads sleep on `channel`.
fn asleep(machine: &Machine, channel: impl Into<Channel>) -> usize {
    let (channel, mut count) = (channel.into(), 0);
    machine.scheduler().threads(&mut |thread| count += usize::from(thread.sleeps_on == Some(channel)));
    count
}

/// Waits until so many do.
fn settle(machine: &Machine, channel: impl Into<Channel> + Copy, count: usize) {
    while asleep(machine, channel) != count {
        thread::yield_now();
    }
}

/// A thread that sleeps once, and what it was told.
fn sleeper(
    machine: &Machine,
    cpu: CpuId,
    channel: impl Into<Channel>,
    log: &Arc<Mutex<Vec<u32>>>,
    number: u32,
) -> Handle {
    let (channel, log) = (channel.into(), log.clone());
    spawn(machine, cpu, "sleeper", move |cx| {
        cx.interlock(channel).wait(None).unwrap();
        log.lock().unwrap().push(number);
    })
}

#[test]
fn a_wake_up_is_for_all_on_its_channel_and_for_no_others() {
    let machine = machine(2);
    let log = Arc::default();
    let here = Ident(0x1000);
    let elsewhere = [Ident(0x2000).into(), here.in_domain(Domain::UMTX)];
    let woken = [CPU0, CPU0, CPU1].map(|cpu| sleeper(&machine, cpu, here, &log, 1));
    let others = elsewhere.map(|channel| sleeper(&machine, CPU1, channel, &log, 2));
    settle(&machine, here, 3);
    elsewhere.iter().for_each(|&channel| settle(&machine, channel, 1));
    // From a host thread that is no CPU of the machine.
    machine.scheduler().wakeup(here);
    join(woken);
    assert_eq!(*log.lock().unwrap(), [1, 1, 1]);
    assert_eq!(elsewhere.map(|channel| asleep(&machine, channel)), [1, 1]);
    elsewhere.iter().for_each(|&channel| machine.scheduler().wakeup(channel));
    join(others);
}

#[test]
fn a_wake_up_for_one_wakes_the_one_that_has_slept_longest() {
    let machine = machine(1);
    let log = Arc::default();
    let ident = Ident(1);
    let mut threads = Vec::new();
    for number in 0..3 {
        threads.push(sleeper(&machine, CPU0, ident, &log, number));
        settle(&machine, ident, number as usize + 1);
    }
    for left in [2, 1] {
        machine.scheduler().wakeup_one(ident);
        settle(&machine, ident, left);
    }
    machine.scheduler().wakeup_one_on(CPU1, ident);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(asleep(&machine, ident), 1, "there is no CPU 1");
    machine.scheduler().wakeup_one_on(CPU0, ident);
    join(threads);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn a_wake_up_for_one_wakes_one_on_each_cpu_at_the_most() {
    let machine = machine(2);
    let log = Arc::default();
    let ident = Ident(1);
    let threads = [CPU0, CPU0, CPU1, CPU1].map(|cpu| sleeper(&machine, cpu, ident, &log, cpu.0));
    settle(&machine, ident, 4);
    machine.scheduler().wakeup_one(ident);
    settle(&machine, ident, 2);
    machine.scheduler().wakeup_on(CPU1, ident);
    settle(&machine, ident, 1);
    machine.scheduler().wakeup_on(CPU0, ident);
    join(threads);
    let mut log = log.lock().unwrap().clone();
    log.sort_unstable();
    assert_eq!(log, [0, 0, 1, 1]);
}

#[test]
fn a_wake_up_after_the_interlock_ends_the_sleep_before_it_begins() {
    let machine = machine(1);
    let main = spawn(&machine, CPU0, "main", |cx| {
        let scheduler = cx.scheduler();
        let sleep = cx.interlock(Ident(1));
        scheduler.wakeup(Ident(1));
        sleep.wait(None).unwrap();
        // One that came before the interlock does not count.
        scheduler.wakeup(Ident(1));
        assert_eq!(cx.interlock(Ident(1)).wait(soon()), Err(TimedOut));
    });
    join([main]);
}

#[test]
fn who_has_given_up_or_is_late_is_not_the_one_that_is_woken() {
    let machine = machine(1);
    let log = Arc::default();
    let ident = Ident(1);
    let gone = spawn(&machine, CPU0, "gone", move |cx| {
        assert_eq!(cx.interlock(ident).wait(soon()), Err(TimedOut));
        drop(cx.interlock(ident));
        std::mem::forget(cx.interlock(ident));
    });
    join([gone]);
    // In the slot of the one that has forgotten its interlock.
    let threads = [sleeper(&machine, CPU0, Ident(2), &log, 2), sleeper(&machine, CPU0, ident, &log, 1)];
    settle(&machine, ident, 1);
    settle(&machine, Ident(2), 1);
    machine.scheduler().wakeup_one(ident);
    settle(&machine, ident, 0);
    assert_eq!(asleep(&machine, Ident(2)), 1);
    machine.scheduler().wakeup_one(Ident(2));
    join(threads);
    assert_eq!(*log.lock().unwrap(), [1, 2]);
}

#[test]
fn a_forgotten_interlock_leaves_when_its_thread_sleeps_again() {
    let machine = machine(1);
    let main = spawn(&machine, CPU0, "main", |cx| {
        std::mem::forget(cx.interlock(Ident(1)));
        cx.scheduler().wakeup(Ident(1));
        cx.yield_now();
        std::mem::forget(cx.interlock(Ident(1)));
        assert_eq!(cx.interlock(Ident(2)).wait(soon()), Err(TimedOut));
    });
    join([main]);
}

/// Its slot goes home to the first CPU, whose queues have never had it.
#[test]
fn an_interlock_that_is_forgotten_on_another_cpu_ends_with_its_thread() {
    // SAFETY: no thread here has anything of an OS thread while it moves.
    let machine = Machine::start(2, unsafe { Config::default().threads_may_move() }).unwrap();
    let ident = Ident(1);
    let sleeper = sleeper(&machine, CPU0, ident, &Arc::default(), 1);
    settle(&machine, ident, 1);
    let wanderer = spawn(&machine, CPU0, "wanderer", move |cx| {
        cx.migrate(CPU1).unwrap();
        std::mem::forget(cx.interlock(ident));
    });
    join([wanderer]);
    while machine.scheduler().cpu_stats(CPU1).unwrap().exited == 0 {
        thread::yield_now();
    }
    // In its slot.
    join([spawn(&machine, CPU0, "next", |cx| drop(cx.interlock(Ident(2))))]);
    machine.scheduler().wakeup(ident);
    let patience = now().saturating_add(Duration::from_secs(20));
    while !sleeper.is_finished() {
        assert!(now() < patience, "nobody has woken it");
        thread::yield_now();
    }
}

#[test]
fn a_wake_up_for_one_that_unwinds_meanwhile_is_for_the_next() {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let machine = machine(2);
    let log = Arc::default();
    let ident = Ident(1);
    let [unlucky, next] = [0, 1].map(|number| {
        let sleeper = sleeper(&machine, CPU0, ident, &log, number);
        settle(&machine, ident, number as usize + 1);
        sleeper
    });
    // Without a safe point, so that the first to run after it is the one that is woken.
    let busy = spawn(&machine, CPU0, "busy", |cx| {
        ROUND.store(1, Ordering::SeqCst);
        while ROUND.load(Ordering::SeqCst) == 1 {
            thread::yield_now();
        }
        cx.yield_now();
    });
    let sender = spawn(&machine, CPU1, "sender", move |cx| {
        while ROUND.load(Ordering::SeqCst) == 0 {
            cx.yield_now();
        }
        cx.scheduler().ipis().send(CPU0, |_| panic!("as the test wants")).unwrap();
        cx.scheduler().wakeup_one(ident);
        ROUND.store(2, Ordering::SeqCst);
    });
    assert_eq!(unlucky.join(&mut ThreadWait::new()), Err(JoinError::Panicked));
    join([busy, sender]);
    let patience = now().saturating_add(Duration::from_secs(20));
    while !next.is_finished() {
        assert!(now() < patience, "nobody has woken it");
        thread::yield_now();
    }
    assert_eq!(*log.lock().unwrap(), [1]);
}

#[test]
fn more_wake_ups_than_a_cpu_looks_at_wake_all_and_lose_none() {
    let machine = machine(2);
    let flag = Arc::new(AtomicU32::new(0));
    let idents: Vec<Ident> = (0..10).map(Ident).collect();
    let threads: Vec<_> = idents
        .iter()
        .map(|&ident| {
            let flag = flag.clone();
            spawn(&machine, CPU0, "sleeper", move |cx| {
                cx.sleep_while(ident, None, || flag.load(Ordering::Relaxed) < 1000).unwrap();
            })
        })
        .collect();
    idents.iter().for_each(|&ident| settle(&machine, ident, 1));
    // The CPU is busy meanwhile.
    let busy = flag.clone();
    let busy = spawn(&machine, CPU0, "busy", move |_| {
        busy.fetch_add(1, Ordering::Relaxed);
        while busy.load(Ordering::Relaxed) < 1000 {
            std::hint::spin_loop();
        }
    });
    while flag.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    for _ in 0..200 {
        machine.scheduler().wakeup(idents[0]);
    }
    flag.store(1000, Ordering::Relaxed);
    // No room: told to all of them.
    machine.scheduler().wakeup(idents[9]);
    (1..9).for_each(|n| machine.scheduler().wakeup_one(idents[n]));
    join(threads);
    join([busy]);
}

#[test]
fn a_sleep_that_is_woken_for_nothing_goes_on_until_its_deadline() {
    let machine = machine(2);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let noise = spawn(&machine, CPU1, "noise", move |cx| {
        while !seen.load(Ordering::Relaxed) {
            cx.scheduler().wakeup(Ident(1));
            cx.yield_now();
        }
    });
    let main = spawn(&machine, CPU0, "main", move |cx| {
        let deadline = soon().unwrap();
        assert_eq!(cx.sleep_while(Ident(1), Some(deadline), || true), Err(TimedOut));
        assert!(now() >= deadline);
        stop.store(true, Ordering::Relaxed);
    });
    join([main, noise]);
}

/// Producers and consumers of tickets, with wake-ups for one: no ticket is left while somebody sleeps.
#[test]
fn no_wake_up_is_lost_between_two_cpus() {
    const ROUNDS: u32 = if cfg!(miri) { 20 } else { 5000 };
    let machine = machine(2);
    let tickets = Arc::new(AtomicU32::new(0));
    let take = |tickets: &AtomicU32| {
        tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    };
    let mut threads = Vec::new();
    for cpu in [CPU0, CPU1] {
        for _ in 0..2 {
            let consumed = tickets.clone();
            threads.push(spawn(&machine, cpu, "consumer", move |cx| {
                for _ in 0..ROUNDS {
                    cx.sleep_while(Ident::of(&*consumed), None, || !take(&consumed)).unwrap();
                }
            }));
            let produced = tickets.clone();
            threads.push(spawn(&machine, cpu, "producer", move |cx| {
                for _ in 0..ROUNDS {
                    produced.fetch_add(1, Ordering::Relaxed);
                    cx.scheduler().wakeup_one(Ident::of(&*produced));
                    cx.yield_now();
                }
            }));
        }
    }
    join(threads);
    assert_eq!(tickets.load(Ordering::Relaxed), 0);
}

#[test]
fn what_a_token_guards_is_looked_at_between_the_interlock_and_the_sleep() {
    static ITEMS: Token<Vec<u32>> = Token::named("items", Vec::new());
    let machine = machine(2);
    let ident = || Ident::of(&ITEMS);
    let taker = spawn(&machine, CPU0, "taker", move |cx| {
        let (mut cx, mut items) = cx.hold(&ITEMS);
        for expected in 0..100 {
            let item = loop {
                let sleep = cx.interlock(ident());
                if items.get(sleep.cx()).is_empty() {
                    // The token is given up meanwhile.
                    sleep.wait(None).unwrap();
                } else {
                    drop(sleep);
                    break items.get_mut(&mut cx).remove(0);
                }
            };
            assert_eq!(item, expected);
        }
    });
    let giver = spawn(&machine, CPU1, "giver", move |cx| {
        for item in 0..100 {
            let (mut cx, mut items) = cx.hold(&ITEMS);
            items.get_mut(&mut cx).push(item);
            cx.scheduler().wakeup_one(ident());
        }
    });
    join([taker, giver]);
}

#[test]
fn idents_and_channels_show_themselves() {
    let channel = Ident(0x10).in_domain(Domain(3));
    assert_eq!(
        (channel.to_string(), Channel::from(Ident(0x10)).to_string()),
        ("0x10 in domain 3".into(), "0x10".into())
    );
    let value = 7_u32;
    assert_eq!(Ident::of(&value), Ident(std::ptr::from_ref(&value).addr()));
}
