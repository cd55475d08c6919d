//! What a path costs in atomic read-modify-writes, IPIs and allocations: the figures of DESIGN.md, part "Cost".
// Not where OS threads stand in for threads: those switch otherwise.
#![cfg(all(feature = "std", target_arch = "x86_64", not(any(loom, miri, windows))))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use dfly_alloc_count::allocator_calls;
use dfly_hal::sync::count::measure;
use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, Wait, block_on};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::{Config, Cx, Handle, Platform};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// A host that counts its IPIs.
struct Counting {
    host: HostPlatform,
    ipis: AtomicU32,
}

// SAFETY: the host's.
unsafe impl Cpus for Counting {
    fn this(&self) -> CpuId {
        self.host.this()
    }
    fn count(&self) -> u32 {
        self.host.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.ipis.fetch_add(1, Ordering::SeqCst);
        self.host.raise_ipi(to);
    }
}

impl Clock for Counting {
    fn now(&self) -> Instant {
        self.host.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.host.wake_at(at, waker);
    }
}

impl Platform for Counting {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.host.halt(ready);
    }
}

fn machine() -> (Arc<Counting>, Machine) {
    machine_of(1)
}

fn machine_of(cpus: u32) -> (Arc<Counting>, Machine) {
    let platform = Arc::new(Counting { host: HostPlatform::new(cpus), ipis: AtomicU32::new(0) });
    let attach = platform.clone();
    let start = Machine::start_with(platform.clone(), Config::default(), move |id| attach.host.attach(id));
    (platform, start.unwrap())
}

fn spawn(machine: &Machine, name: &str, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(CPU0, name.into(), f).unwrap()
}

/// Whose turn it is, and who waits for theirs. `std`'s: not counted.
#[derive(Default)]
struct Turns {
    turn: AtomicU32,
    waiting: Mutex<[Option<Waker>; 2]>,
}

impl Turns {
    fn waker(&self, who: u32) -> Option<Waker> {
        self.waiting.lock().unwrap()[who as usize].clone()
    }

    /// Gives the turn away, if it is mine, and waits until it is mine again.
    fn next(&self, me: u32, cx: &mut Cx<'_>, deadline: Option<Instant>) {
        self.turn.store(1 - me, Ordering::SeqCst);
        if let Some(waker) = self.waker(1 - me) {
            waker.wake();
        }
        self.wait(me, cx, deadline);
    }

    fn wait(&self, me: u32, cx: &mut Cx<'_>, deadline: Option<Instant>) {
        let wait = poll_fn(|cx| {
            self.waiting.lock().unwrap()[me as usize].get_or_insert_with(|| cx.waker().clone());
            if self.turn.load(Ordering::SeqCst) == me { Poll::Ready(()) } else { Poll::Pending }
        });
        cx.wait(std::pin::pin!(wait), deadline).unwrap();
    }
}

#[test]
fn a_yield_to_an_equal_costs_no_read_modify_write() {
    let (platform, machine) = machine();
    let main = spawn(&machine, "main", |cx| {
        let other = cx.scheduler().spawn(CPU0, "other".into(), |cx| (0..12).for_each(|_| cx.yield_now()));
        cx.yield_now();
        let switches = |cx: &Cx<'_>| cx.scheduler().cpu_stats(CPU0).unwrap().switches;
        let before = switches(cx);
        let (calls, cost) = measure(|| allocator_calls(|| (0..10).for_each(|_| cx.yield_now())));
        assert_eq!(switches(cx) - before, 20);
        assert_eq!((calls, cost.rmws, cost.fences), (0, 0, 0));
        other.unwrap().join(cx).unwrap();
    });
    main.join(&mut ThreadWait::new()).unwrap();
    assert!(platform.ipis.load(Ordering::SeqCst) <= 1, "one that found the CPU asleep");
}

#[test]
fn a_yield_to_nobody_costs_no_switch() {
    let (_, machine) = machine();
    let main = spawn(&machine, "main", |cx| {
        let before = cx.scheduler().cpu_stats(CPU0).unwrap();
        let ((), cost) = measure(|| cx.yield_now());
        assert_eq!((cost.rmws, cost.stores), (0, 0));
        assert_eq!(cx.scheduler().cpu_stats(CPU0).unwrap(), before);
    });
    main.join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_wake_costs_two_on_its_cpu_and_a_wait_three_and_nothing_allocates() {
    let (platform, machine) = machine();
    let ipis = platform.clone();
    let turns = Arc::new(Turns::default());
    let main = spawn(&machine, "main", move |cx| {
        let theirs = turns.clone();
        let other = cx.scheduler().spawn(CPU0, "other".into(), move |cx| {
            theirs.wait(1, cx, None);
            for _ in 0..34 {
                theirs.next(1, cx, None);
            }
            theirs.turn.store(0, Ordering::SeqCst);
            theirs.waker(0).unwrap().wake();
        });
        turns.next(0, cx, None);

        let waker = turns.waker(1).unwrap();
        let before = ipis.ipis.load(Ordering::SeqCst);
        // To and fro is two wakes and two waits. A wake: the state, the list. A wait: to block, to take the list, to
        // resume.
        let (calls, cost) = measure(|| allocator_calls(|| turns.next(0, cx, None)));
        assert_eq!((calls, cost.rmws, cost.fences), (0, 2 * (2 + 3), 0));
        // One that is woken already costs the state only.
        assert_eq!(measure(|| waker.wake_by_ref()).1.rmws, 2);
        assert_eq!(measure(|| waker.wake_by_ref()).1.rmws, 1);

        let calls = allocator_calls(|| (0..16).for_each(|_| turns.next(0, cx, None)));
        assert_eq!(calls, 0);
        // The first wait with a deadline sets a timer, which the host allocates. Later ones rely on it.
        let deadline = || Some(ipis.now().saturating_add(Duration::from_secs(3600)));
        turns.next(0, cx, deadline());
        let calls = allocator_calls(|| (0..15).for_each(|_| turns.next(0, cx, deadline())));
        assert_eq!(calls, 0);
        assert_eq!(ipis.ipis.load(Ordering::SeqCst), before, "no IPI to oneself");
        turns.next(0, cx, None);
        other.unwrap().join(cx).unwrap();
    });
    main.join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_wake_from_elsewhere_costs_two_and_one_ipi_if_the_cpu_sleeps() {
    let (platform, machine) = machine();
    let turns = [Arc::new(Turns::default()), Arc::new(Turns::default())];
    let sleepers = turns.clone().map(|turns| spawn(&machine, "sleeper", move |cx| turns.wait(1, cx, None)));
    let stats = || machine.scheduler().cpu_stats(CPU0).unwrap();
    // Until both are blocked and the CPU halts.
    let blocked = || {
        let mut blocked = 0;
        machine.scheduler().threads(&mut |thread| {
            blocked += u32::from(thread.state == dfly_lwkt::ThreadState::Blocked);
        });
        blocked
    };
    while blocked() < 2 || turns.iter().any(|turns| turns.waker(1).is_none()) {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(200));
    let [first, second] = turns.each_ref().map(|turns| {
        turns.turn.store(1, Ordering::SeqCst);
        turns.waker(1).unwrap()
    });
    let (before, halts) = (platform.ipis.load(Ordering::SeqCst), stats().halts);
    assert_eq!(measure(|| first.wake()).1.rmws, 2);
    assert_eq!(platform.ipis.load(Ordering::SeqCst), before + 1);
    assert_eq!(measure(|| second.wake()).1.rmws, 2);
    for sleeper in sleepers {
        sleeper.join(&mut ThreadWait::new()).unwrap();
    }
    let raised = platform.ipis.load(Ordering::SeqCst) - before;
    assert!(raised == 1 || stats().halts > halts, "a second one only if the CPU went to sleep in between");
    assert_eq!(stats().wakes_remote, 2);
}

#[test]
fn a_cpu_that_runs_is_not_interrupted() {
    let (platform, machine) = machine();
    let stop = Arc::new(AtomicU32::new(0));
    let seen = stop.clone();
    let busy = spawn(&machine, "busy", move |cx| {
        seen.store(1, Ordering::SeqCst);
        while seen.load(Ordering::SeqCst) != 2 {
            cx.yield_now();
        }
    });
    while stop.load(Ordering::SeqCst) != 1 {
        thread::yield_now();
    }
    let before = platform.ipis.load(Ordering::SeqCst);
    for _ in 0..20 {
        spawn(&machine, "brief", |_| ()).join(&mut ThreadWait::new()).unwrap();
    }
    assert_eq!(platform.ipis.load(Ordering::SeqCst), before);
    stop.store(2, Ordering::SeqCst);
    busy.join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_wake_up_of_a_thousand_sleepers_costs_two_and_one_ipi_for_each_of_their_cpus() {
    const IDENT: Ident = Ident(0x1000);
    let (platform, machine) = machine_of(2);
    let scheduler = machine.scheduler();
    let asleep = || {
        let mut asleep = 0;
        scheduler.threads(&mut |thread| asleep += u32::from(thread.sleeps_on.is_some()));
        asleep
    };
    // Nobody sleeps: a fence, and a look at the mask.
    let (calls, cost) = measure(|| allocator_calls(|| scheduler.wakeup(IDENT)));
    assert_eq!((calls, cost.rmws, cost.fences, cost.loads, cost.stores), (0, 0, 1, 4, 0));
    for round in 0..3 {
        let sleepers: Vec<_> = (0..1000)
            .map(|n| {
                let spec = dfly_lwkt::Spec::new("sleeper").stack_bytes(16 << 10);
                let sleep = |cx: &mut Cx<'_>| cx.interlock(IDENT).wait(None).unwrap();
                scheduler.spawn(CpuId(n % 2), spec, sleep).unwrap()
            })
            .collect();
        while asleep() < 1000 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(100));
        let before = platform.ipis.load(Ordering::SeqCst);
        // For each CPU to ask, and to end its halt.
        let (calls, cost) = measure(|| allocator_calls(|| scheduler.wakeup(IDENT)));
        assert_eq!((calls, cost.fences), (0, 2));
        assert!(cost.rmws <= 2 * 2, "{cost:?}");
        sleepers.into_iter().for_each(|sleeper| sleeper.join(&mut ThreadWait::new()).unwrap());
        let ipis = platform.ipis.load(Ordering::SeqCst) - before;
        assert!(ipis <= 2, "{ipis} in round {round}");
    }
    assert_eq!(measure(|| scheduler.wakeup(IDENT)).1.rmws, 0, "the masks are clear again");
}

#[test]
fn a_critical_section_costs_no_read_modify_write() {
    let (_, machine) = machine();
    let main = spawn(&machine, "main", |cx| {
        let (_, cost) = measure(|| drop((cx.critical(), cx.critical())));
        assert_eq!((cost.rmws, cost.fences), (0, 0));
        let (_, cost) = measure(|| assert!(!cx.should_yield()));
        assert_eq!((cost.rmws, cost.fences), (0, 0));
    });
    main.join(&mut ThreadWait::new()).unwrap();
}

/// Many messages to a CPU that does not look interrupt it once.
#[test]
fn messages_one_after_the_other_cost_two_each_and_one_ipi() {
    static CALLED: AtomicU32 = AtomicU32::new(0);
    let (platform, machine) = machine_of(2);
    let state = Arc::new(AtomicU32::new(0));
    let theirs = state.clone();
    let scheduler = machine.scheduler();
    let target = scheduler.spawn(CPU1, "target".into(), move |cx| {
        let section = cx.critical();
        theirs.store(1, Ordering::SeqCst);
        while theirs.load(Ordering::SeqCst) == 1 {
            thread::yield_now();
        }
        assert_eq!(CALLED.load(Ordering::SeqCst), 0);
        drop(section);
        assert_eq!(CALLED.load(Ordering::SeqCst), 100);
    });
    while state.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let sender = spawn(&machine, "sender", move |cx| {
        let before = platform.ipis.load(Ordering::SeqCst);
        for _ in 0..100 {
            let send = || {
                cx.scheduler().ipis().send(CPU1, |_| {
                    CALLED.fetch_add(1, Ordering::SeqCst);
                })
            };
            let (sent, cost) = measure(send);
            assert!(sent.is_ok() && cost.rmws == 2, "{cost:?}");
        }
        assert_eq!(platform.ipis.load(Ordering::SeqCst) - before, 1);
        state.store(2, Ordering::SeqCst);
    });
    sender.join(&mut ThreadWait::new()).unwrap();
    target.unwrap().join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_move_costs_one_ipi_at_the_most() {
    const MOVES: u32 = 200;
    let platform = Arc::new(Counting { host: HostPlatform::new(2), ipis: AtomicU32::new(0) });
    let attach = platform.clone();
    // SAFETY: the thread has nothing of an OS thread while it moves.
    let config = unsafe { Config::default().threads_may_move() };
    let machine = Machine::start_with(platform.clone(), config, move |id| attach.host.attach(id)).unwrap();
    let main = spawn(&machine, "main", move |cx| {
        let before = platform.ipis.load(Ordering::SeqCst);
        (0..MOVES).for_each(|round| cx.migrate(CpuId(1 - round % 2)).unwrap());
        assert!(platform.ipis.load(Ordering::SeqCst) - before <= MOVES);
        let moved = [CPU0, CPU1].map(|id| cx.scheduler().cpu_stats(id).unwrap().moved_here);
        assert_eq!(moved, [u64::from(MOVES) / 2; 2]);
    });
    main.join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_wait_for_what_is_ready_costs_nothing() {
    let (_, machine) = machine();
    let main = spawn(&machine, "main", |cx| {
        let (calls, cost) = measure(|| allocator_calls(|| block_on(cx, async {}, None).unwrap()));
        assert_eq!((calls, cost.rmws, cost.loads, cost.stores), (0, 0, 0, 0));
    });
    main.join(&mut ThreadWait::new()).unwrap();
}

#[test]
fn a_thread_in_the_place_of_an_ended_one_allocates_what_it_runs_and_its_end() {
    let (_, machine) = machine();
    let number = 7_u64;
    let end = || {
        let mut handle = None;
        let calls = allocator_calls(|| {
            handle = Some(spawn(&machine, "again", move |_| assert_eq!(std::hint::black_box(number), 7)));
        });
        let handle = handle.unwrap();
        handle.join(&mut ThreadWait::new()).unwrap();
        // Until its slot is free.
        while machine.scheduler().cpu_stats(CPU0).is_some_and(|stats| stats.exited != stats.spawned) {
            thread::yield_now();
        }
        calls
    };
    // A slot, and a stack where that is the heap's.
    assert_eq!(end(), 2 + 1 + usize::from(cfg!(not(unix))));
    assert_eq!(end(), 2);
    assert_eq!(end(), 2);
}
