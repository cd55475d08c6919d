//! The scheduler and the machine, tried by threads of every CPU.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::{pending, poll_fn};
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;

use dfly_hal::conformance::{check_clock, check_cpus};
use dfly_hal::sync::Lock;
use dfly_hal::{Clock, CpuId, Cpus, block_on, sleep_until};
use dfly_lwkt::ipi::{CpuMask, IrqCx};
use dfly_lwkt::token::Token;
use dfly_lwkt::{Cx, Handle, Priority, Scheduler, Spec};

use crate::platform::{Virt, ipis};
use crate::{println, probe};

/// What went wrong.
type Outcome = Result<(), String>;
type Test = fn(&mut Cx<'_>) -> Outcome;

const TESTS: [(&str, Test); 15] = [
    ("threads run on their CPUs, and are joined", spawns),
    ("equals take turns, and the more important come first", turns),
    ("registers are kept from switch to switch", keeps),
    ("a thread wakes another on its CPU", |cx| rally(cx, CpuId(0), CpuId(0))),
    ("threads wake each other from CPU to CPU", |cx| {
        others().try_for_each(|other| rally(cx, CpuId(0), other).and_then(|()| rally(cx, other, CpuId(0))))
    }),
    ("a token is one thread's at a time", tokens),
    ("messages arrive in order", |cx| on_every_cpu(cx, messages)),
    ("interrupt threads preempt from CPU to CPU", |cx| {
        cpus().try_for_each(|busy| others().chain([CpuId(0)]).try_for_each(|from| preempts(cx, busy, from)))
    }),
    ("the clock keeps its promises", |cx| {
        check_clock(&Virt, &mut || cx.yield_now()).map_err(|e| e.to_string())
    }),
    ("interrupts from CPU to CPU arrive", |cx| on_every_cpu(cx, arrive)),
    ("time is the same on every CPU", |cx| on_every_cpu(cx, same_time)),
    ("sleepers wake in time", |cx| on_every_cpu(cx, sleeps)),
    ("interrupts disturb no computation", |cx| on_every_cpu(cx, storm)),
    ("preemption disturbs no computation", |cx| on_every_cpu(cx, preempted)),
    ("a sleeping CPU is woken by one interrupt", one_ipi),
];

static PASSED: AtomicBool = AtomicBool::new(false);

/// Starts the thread that runs the tests, or what `options` ask for, and then stops the scheduler; what is returned says
/// whether all passed.
pub fn start(scheduler: &'static Scheduler, options: &'static str) -> fn() -> bool {
    let work = move |cx: &mut Cx<'_>| {
        let end = options.split_whitespace().find_map(|word| word.strip_prefix("end="));
        let passed = match end {
            Some(how) => self::end(how, cx),
            None => run(cx),
        };
        PASSED.store(passed, Ordering::Release);
        cx.scheduler().stop();
    };
    drop(scheduler.spawn(CpuId(0), Spec::new("test"), work).expect("a thread"));
    || PASSED.load(Ordering::Acquire)
}

/// Runs the tests; whether all passed.
fn run(cx: &mut Cx<'_>) -> bool {
    println!("{} CPUs", Virt.count());
    let begin = Virt.now();
    let mut passed = true;
    for (name, test) in TESTS {
        let outcome = test(cx);
        match &outcome {
            Ok(()) => println!("{name}: ok"),
            Err(why) => println!("{name}: FAILED: {why}"),
        }
        passed &= outcome.is_ok();
    }
    println!("took {:?}", Virt.now().saturating_since(begin));
    passed
}

fn cpus() -> impl Iterator<Item = CpuId> {
    (0..Virt.count()).map(CpuId)
}

fn others() -> impl Iterator<Item = CpuId> {
    cpus().skip(1)
}

fn ensure(is: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if is { Ok(()) } else { Err(otherwise()) }
}

fn spawn(
    cx: &Cx<'_>,
    cpu: CpuId,
    spec: Spec,
    f: impl FnOnce(&mut Cx<'_>) + Send + 'static,
) -> Result<Handle, String> {
    cx.scheduler().spawn(cpu, spec, f).map_err(|e| e.to_string())
}

/// Waits for threads to end.
fn join(cx: &mut Cx<'_>, threads: Vec<Handle>) -> Outcome {
    threads.into_iter().try_for_each(|thread| thread.join(cx).map_err(|e| e.to_string()))
}

/// Calls `f` in a thread of every CPU at the same time; the last thing that went wrong.
fn on_every_cpu(cx: &mut Cx<'_>, f: Test) -> Outcome {
    let wrong = Arc::new(Lock::new(Ok(())));
    let mut threads = Vec::new();
    for id in cpus() {
        let wrong = wrong.clone();
        threads.push(spawn(cx, id, Spec::new("test"), move |cx| {
            if let Err(why) = f(cx) {
                *wrong.lock() = Err(format!("{id}: {why}"));
            }
        })?);
    }
    join(cx, threads)?;
    core::mem::replace(&mut *wrong.lock(), Ok(()))
}

fn spawns(cx: &mut Cx<'_>) -> Outcome {
    let strays = Arc::new(AtomicU64::new(0));
    for round in 0..50_u64 {
        let mut threads = Vec::new();
        for id in cpus() {
            let strays = strays.clone();
            threads.push(spawn(cx, id, Spec::new("child"), move |cx| {
                let is_here = Virt.this() == id && cx.cpu() == id;
                strays.fetch_add(u64::from(!is_here), Ordering::Relaxed);
                if round % 2 == 0 {
                    cx.yield_now();
                }
            })?);
        }
        join(cx, threads)?;
    }
    let strays = strays.load(Ordering::Relaxed);
    ensure(strays == 0, || format!("{strays} threads were elsewhere"))
}

fn turns(cx: &mut Cx<'_>) -> Outcome {
    let log = Arc::new(Lock::new(String::new()));
    let mut threads = Vec::new();
    for (name, priority) in [
        ("a", Priority::KERN_USER),
        ("b", Priority::KERN_USER),
        ("c", Priority::KERN_DAEMON),
        ("d", Priority::KERN_USER),
    ] {
        let log = log.clone();
        threads.push(spawn(cx, cx.cpu(), Spec::new(name).priority(priority), move |cx| {
            for _ in 0..3 {
                log.lock().push_str(name);
                cx.yield_now();
            }
        })?);
    }
    join(cx, threads)?;
    let log = log.lock();
    ensure(*log == "cccabdabdabd", || log.to_string())
}

/// Eight threads of each CPU, each with numbers of its own in its registers, and interrupts in between.
fn keeps(cx: &mut Cx<'_>) -> Outcome {
    let lost = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for (seed, id) in (0..8).flat_map(|_| cpus()).enumerate() {
        let lost = lost.clone();
        threads.push(spawn(cx, id, Spec::new("keeper"), move |cx| {
            for round in 0..200 {
                let seed = 1000 * seed as u64 + round;
                let is_kept = probe::registers_are_kept(seed, &mut || {
                    Virt.raise_ipi(CpuId(seed as u32 % Virt.count()));
                    cx.yield_now();
                });
                lost.fetch_add(u64::from(!is_kept), Ordering::Relaxed);
            }
        })?);
    }
    join(cx, threads)?;
    let lost = lost.load(Ordering::Relaxed);
    ensure(lost == 0, || format!("{lost} times not"))
}

/// Two threads wake each other in turn, and find what the other has written.
fn rally(cx: &mut Cx<'_>, first: CpuId, second: CpuId) -> Outcome {
    const ROUNDS: u64 = 1000;
    #[derive(Default)]
    struct Court {
        turn: AtomicU64,
        ball: AtomicU64,
        wakers: [Lock<Option<Waker>>; 2],
        faults: AtomicU64,
    }
    let court = Arc::new(Court::default());
    let mut threads = Vec::new();
    for (me, cpu) in [first, second].into_iter().enumerate() {
        let court = court.clone();
        threads.push(spawn(cx, cpu, Spec::new("player"), move |cx| {
            for mine in (me as u64..2 * ROUNDS).step_by(2) {
                let ready = poll_fn(|cx| {
                    *court.wakers[me].lock() = Some(cx.waker().clone());
                    if court.turn.load(Ordering::Acquire) == mine { Poll::Ready(()) } else { Poll::Pending }
                });
                let is_late = block_on(cx, ready, None).is_err();
                let ball = court.ball.swap(7 * (mine + 1), Ordering::Relaxed);
                court.faults.fetch_add(u64::from(is_late || ball != 7 * mine), Ordering::Relaxed);
                court.turn.store(mine + 1, Ordering::Release);
                let other = court.wakers[1 - me].lock().take();
                if let Some(other) = other {
                    other.wake();
                }
            }
        })?);
    }
    join(cx, threads)?;
    let (turn, faults) = (court.turn.load(Ordering::Relaxed), court.faults.load(Ordering::Relaxed));
    ensure(turn == 2 * ROUNDS && faults == 0, || format!("{faults} faults in {turn} turns"))
}

/// Threads of every CPU change the same data, which nobody else protects, and let others run while they hold it.
fn tokens(cx: &mut Cx<'_>) -> Outcome {
    const ROUNDS: u64 = 300;
    let token = Arc::new(Token::named("ball", (0_u64, 0_u64)));
    let mut threads = Vec::new();
    for id in cpus().flat_map(|id| [id; 3]) {
        let token = token.clone();
        threads.push(spawn(cx, id, Spec::new("holder"), move |cx| {
            for round in 0..ROUNDS {
                let (mut cx, mut held) = cx.hold(&token);
                held.get_mut(&mut cx).0 += 1;
                if round % 4 == 0 {
                    // It is somebody else's meanwhile.
                    cx.yield_now();
                }
                held.get_mut(&mut cx).1 += 1;
            }
        })?);
    }
    let rounds = ROUNDS * threads.len() as u64;
    join(cx, threads)?;
    let (mut cx, mut held) = cx.hold(&token);
    let counted = *held.get_mut(&mut cx);
    ensure(counted == (rounds, rounds), || format!("{counted:?} of {rounds}"))
}

/// Each CPU sends to each; what runs there finds out whether it is in its place, and its turn has come.
fn messages(cx: &mut Cx<'_>) -> Outcome {
    const ROUNDS: u64 = 400;
    struct Line {
        from: CpuId,
        to: CpuId,
        next: AtomicU64,
        faults: AtomicU64,
    }
    let (ipis, from) = (cx.scheduler().ipis(), cx.cpu());
    for to in cpus() {
        let line = Arc::new(Line { from, to, next: AtomicU64::new(0), faults: AtomicU64::new(0) });
        let mut last = None;
        for round in 0..ROUNDS {
            let line = line.clone();
            let call = move |irq: &IrqCx<'_>| {
                let is_here = irq.cpu() == line.to && irq.from() == line.from && Virt.this() == line.to;
                let is_next = line.next.fetch_add(1, Ordering::Relaxed) == round;
                line.faults.fetch_add(u64::from(!(is_here && is_next)), Ordering::Relaxed);
            };
            last = Some(ipis.send(to, call).map_err(|e| e.to_string())?);
        }
        last.map_or(Ok(()), |last| ipis.wait(last)).map_err(|e| e.to_string())?;
        let (came, faults) = (line.next.load(Ordering::Relaxed), line.faults.load(Ordering::Relaxed));
        ensure(came == ROUNDS && faults == 0, || format!("{came} came to {to}, {faults} of them wrong"))?;
    }
    let all = cpus().collect::<CpuMask>();
    let ran = AtomicU64::new(0);
    let count = |_: &IrqCx<'_>| {
        ran.fetch_add(1, Ordering::Relaxed);
    };
    ipis.run_together(&all, count).map_err(|e| e.to_string())?;
    let ran = ran.load(Ordering::Relaxed);
    ensure(ran == u64::from(Virt.count()), || format!("{ran} CPUs ran together"))
}

/// A thread that neither waits nor yields is preempted by an interrupt thread of its CPU that another CPU starts.
fn preempts(cx: &mut Cx<'_>, busy: CpuId, from: CpuId) -> Outcome {
    if busy == from {
        return Ok(());
    }
    let (began, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begins, stops) = (began.clone(), stop.clone());
    let limit = Virt.now().saturating_add(Duration::from_secs(20));
    let victim = spawn(cx, busy, Spec::new("victim"), move |_| {
        begins.store(true, Ordering::Release);
        while !stops.load(Ordering::Acquire) && Virt.now() < limit {}
    })?;
    let starter = spawn(cx, from, Spec::new("starter"), move |cx| {
        while !began.load(Ordering::Acquire) {
            cx.yield_now();
        }
        let urgent = Spec::new("urgent").priority(Priority::INT_MED);
        // Without it the victim is as late as it can be.
        let _ = spawn(cx, busy, urgent, move |_| stop.store(true, Ordering::Release));
    })?;
    join(cx, Vec::from([victim, starter]))?;
    ensure(Virt.now() < limit, || format!("nobody preempts {busy}"))
}

/// Computes, and is preempted at any instruction by somebody who computes something else.
fn preempted(cx: &mut Cx<'_>) -> Outcome {
    const WAKES: u64 = 100;
    let (others, expected) = (compute(7), compute(1));
    let wrong = Arc::new(AtomicU64::new(u64::MAX));
    let result = wrong.clone();
    let urgent = Spec::new("urgent").priority(Priority::INT_MED);
    let urgent = spawn(cx, cx.cpu(), urgent, move |cx| {
        let mut wrong = 0;
        for _ in 0..WAKES {
            let soon = Virt.now().saturating_add(Duration::from_micros(200));
            let _ = block_on(cx, sleep_until(&Virt, soon), None);
            wrong += u64::from(compute(7) != others);
        }
        result.store(wrong, Ordering::Release);
    })?;
    let before = cx.scheduler().cpu_stats(cx.cpu()).unwrap_or_default().preemptions;
    let mut rounds = 0_u64;
    while wrong.load(Ordering::Acquire) == u64::MAX {
        ensure(compute(1) == expected, || format!("another result in round {rounds}"))?;
        rounds += 1;
    }
    join(cx, Vec::from([urgent]))?;
    let preemptions = cx.scheduler().cpu_stats(cx.cpu()).unwrap_or_default().preemptions - before;
    ensure(wrong.load(Ordering::Relaxed) == 0, || "another result of who preempts".into())?;
    ensure(preemptions > 0, || format!("never preempted in {rounds} rounds"))
}

fn arrive(cx: &mut Cx<'_>) -> Outcome {
    let mut seen: Vec<u64> = cpus().map(ipis).collect();
    let mut handled = |id: CpuId| {
        let taken = ipis(id);
        let came = core::mem::replace(&mut seen[id.index()], taken) != taken;
        if !came {
            // The host may be busy elsewhere for longer than the suite's patience with a loop that only spins.
            cx.yield_now();
            let end = Virt.now().saturating_add(Duration::from_micros(1));
            while Virt.now() < end {}
        }
        came
    };
    check_cpus(&Virt, &mut handled).map_err(|e| e.to_string())
}

fn same_time(_: &mut Cx<'_>) -> Outcome {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    for _ in 0..50_000 {
        // Acquire, so that the counter is read after it.
        let before = LATEST.load(Ordering::Acquire);
        let now = Virt.now().as_nanos();
        ensure(now >= before, || format!("{now} ns, after {before} ns on another CPU"))?;
        LATEST.fetch_max(now, Ordering::AcqRel);
    }
    Ok(())
}

/// Sleeps of several lengths: none ends early, and none is lost. What never comes is given up.
fn sleeps(cx: &mut Cx<'_>) -> Outcome {
    let start = Virt.now();
    for round in 0..20 {
        let at = Virt.now().saturating_add(Duration::from_micros(200 + 150 * (round % 7)));
        block_on(cx, sleep_until(&Virt, at), None).map_err(|e| e.to_string())?;
        ensure(Virt.now() >= at, || format!("round {round} ended early"))?;
    }
    let at = Virt.now().saturating_add(Duration::from_millis(1));
    ensure(block_on(cx, pending::<()>(), Some(at)).is_err(), || "what never comes came".into())?;
    ensure(Virt.now() >= at, || "given up early".into())?;
    let took = Virt.now().saturating_since(start);
    ensure(took < Duration::from_secs(20), || format!("it took {took:?}"))
}

/// Computes while interrupts come from the other CPUs and from the timer; each result is what it was in silence.
fn storm(cx: &mut Cx<'_>) -> Outcome {
    /// A waker of nobody.
    struct Quiet;
    impl Wake for Quiet {
        fn wake(self: Arc<Self>) {}
    }
    const TIME: Duration = Duration::from_millis(200);
    let expected = compute(1);
    let before = ipis(cx.cpu());
    let end = Virt.now().saturating_add(TIME);
    let (mut rounds, quiet) = (0_u64, Waker::from(Arc::new(Quiet)));
    while Virt.now() < end {
        Virt.wake_at(Virt.now().saturating_add(Duration::from_micros(30)), &quiet);
        cpus().for_each(|to| Virt.raise_ipi(to));
        ensure(compute(1) == expected, || format!("another result in round {rounds}"))?;
        rounds += 1;
        cx.yield_now();
    }
    let taken = ipis(cx.cpu()) - before;
    ensure(taken >= rounds, || format!("{taken} interrupts in {rounds} rounds"))
}

/// Something that keeps every register busy, those of floating point as well.
fn compute(seed: u64) -> ([u64; 8], [u64; 8]) {
    let mut state: [u64; 8] =
        core::array::from_fn(|i| (i as u64 + black_box(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut waves: [f64; 8] = core::array::from_fn(|i| black_box(i as f64 + seed as f64 / 10.0));
    for round in 0..200 {
        for i in 0..8 {
            state[i] = state[i].rotate_left(13 + i as u32).wrapping_mul(0x2545_f491_4f6c_dd1d)
                ^ state[(i + 3) % 8]
                ^ round;
            waves[i] = waves[i] * 0.75 + waves[(i + 5) % 8] * 0.5 - 0.3;
        }
    }
    (state, waves.map(f64::to_bits))
}

/// Where one is raised at all: to a CPU that is awake none is.
fn one_ipi(cx: &mut Cx<'_>) -> Outcome {
    for other in others() {
        for _ in 0..20 {
            // Long enough for it to fall asleep, mostly.
            let soon = Virt.now().saturating_add(Duration::from_millis(1));
            block_on(cx, sleep_until(&Virt, soon), None).map_err(|e| e.to_string())?;
            let before = ipis(other);
            spawn(cx, other, Spec::new("child"), |_| ())?.join(cx).map_err(|e| e.to_string())?;
            let taken = ipis(other) - before;
            ensure(taken <= 1, || format!("{other} took {taken} for one thread"))?;
        }
        let stats = cx.scheduler().cpu_stats(other).unwrap_or_default();
        ensure(stats.ipis > 0 && stats.halts > 0, || format!("{other} never slept: {stats:?}"))?;
    }
    Ok(())
}

/// A deliberate end, by name.
fn end(how: &str, cx: &mut Cx<'_>) -> bool {
    match how {
        "panic" => panic!("asked for"),
        "fault" => probe::touch_nothing(),
        "overflow" => {
            let other = CpuId(Virt.count() - 1);
            let spec = Spec::new("greedy").stack_bytes(GREEDY_BYTES);
            let _ = spawn(cx, other, spec, |cx| {
                black_box(dig(cx, 1));
                cx.yield_now();
            })
            .and_then(|thread| thread.join(cx).map_err(|e| e.to_string()));
        }
        _ => println!("no such end: {how}"),
    }
    false
}

const GREEDY_BYTES: usize = 8 << 10;

/// Uses the stack to its very end.
fn dig(cx: &Cx<'_>, depth: u64) -> u64 {
    let words = black_box([depth; 16]);
    let used = cx.scheduler().current().and_then(|thread| thread.stack_used_bytes);
    if used == Some(GREEDY_BYTES) { depth } else { dig(cx, depth + 1) + words[0] }
}
