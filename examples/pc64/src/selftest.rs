//! What the machine promises to the kernel, tried on the machine itself, by threads of every CPU at the same time.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use core::time::Duration;
use core::{mem, ptr};

use dfly_hal::conformance::{Device, check_clock, check_cpus, check_dma};
use dfly_hal::dma::DevAddr;
use dfly_hal::sync::Lock;
use dfly_hal::{Clock, CpuId, Cpus, block_on, sleep_until};
use dfly_lwkt::ipi::{CpuMask, IrqCx};
use dfly_lwkt::{Cx, Priority, Scheduler, Spec};
use dfly_torture::{Plan, torture};
use kernel::Verdict;

use crate::acpi::Madt;
use crate::panic::{Exit, exit};
use crate::pci::{self, Config};
use crate::platform::{MACHINE, Pc};
use crate::terminal::{Done, Editor};
use crate::{apic, clock, cpu, interrupts, memory, println, probe};

/// What went wrong.
type Outcome = Result<(), String>;
type Test = fn(&mut Cx<'_>) -> Outcome;

/// On the first CPU.
const ALONE: [(&str, Test); 8] = [
    ("memory is copied", copies),
    ("lists of a PCI function that lie come to an end", lies),
    ("a CPU that the firmware names twice is one", twins),
    ("registers are not where memory is", registers),
    ("a line that is too long is refused, and no other", long_lines),
    ("memory for devices keeps its promises", |_| {
        check_dma(&MACHINE, Some(&mut Identity)).map_err(|e| e.to_string())
    }),
    ("the clock keeps its promises", |cx| {
        check_clock(&Pc, &mut || cx.yield_now()).map_err(|e| e.to_string())
    }),
    ("the clock keeps time", keeps_time),
];

/// On every CPU at the same time.
const TOGETHER: [(&str, Test); 8] = [
    ("interrupts from CPU to CPU arrive", ipis),
    ("time is the same on every CPU", same_time),
    ("timers wake threads", timers),
    ("an interrupt thread preempts one that computes", preempts),
    ("functions run on CPUs whose threads compute", functions),
    ("equals take turns when the clock ticks", turns),
    ("threads move from CPU to CPU", moves),
    ("interrupts disturb no computation", storm),
];

/// Whether the kernel's options ask for tests: `selftest`; `disktest`, which overwrites the first NVMe disk, or with `=ahci`
/// the first AHCI disk (`=ahci-error` reads it and wants one error); `torture=SECONDS seed=N`; `end=HOW`.
pub fn is_wanted(options: &str) -> bool {
    options
        .split_whitespace()
        .any(|word| ["selftest", "disktest", "torture", "end"].contains(&name_of(word).0))
}

fn name_of(word: &str) -> (&str, &str) {
    word.split_once('=').unwrap_or((word, ""))
}

/// Threads without a kernel: one of them runs the tests and ends the machine.
pub fn boot(options: &'static str) -> (&'static Scheduler, crate::Run) {
    let scheduler = Scheduler::new(Arc::new(Pc), dfly_lwkt::Config::default()).expect("a scheduler");
    let work = move |cx: &mut Cx<'_>| {
        let passed = options.split_whitespace().all(|word| match name_of(word) {
            ("selftest", _) => run(cx),
            ("disktest", bus) => report("the disk holds what was written", crate::disktest::run(bus, cx)),
            ("torture", seconds) => report("torture", tortured(cx, seconds, options)),
            ("end", how) => end(how, cx),
            _ => true,
        });
        exit(if passed { Exit::Success } else { Exit::Failure })
    };
    drop(scheduler.spawn(CpuId(0), Spec::new("test"), work).expect("a thread"));
    (scheduler, Box::new(|| scheduler.run().map_or(Verdict::Failure, |()| Verdict::Success)))
}

/// Runs the tests; whether all passed.
fn run(cx: &mut Cx<'_>) -> bool {
    let mut passed = true;
    for (name, test) in ALONE {
        passed &= report(name, test(cx));
    }
    for (name, test) in TOGETHER {
        passed &= report(name, on_every_cpu(cx, test));
    }
    passed
}

/// Storms against the scheduler, for so many seconds.
fn tortured(cx: &mut Cx<'_>, seconds: &str, options: &str) -> Outcome {
    let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text}"));
    let seed = options.split_whitespace().map(name_of).find(|(name, _)| *name == "seed");
    let seed = seed.map_or(Ok(1), |(_, text)| number(text))?;
    // Emulated CPUs wait for each other's hosts.
    let patience = Duration::from_secs(60);
    let plan = Plan { seed, time: Duration::from_secs(number(seconds)?), patience };
    let outcome = Arc::new(Lock::new(Ok(())));
    let theirs = outcome.clone();
    let watch = move |cx: &mut Cx<'_>| {
        let tortured = torture(cx, &plan, &mut |line| println!("{line}"));
        *theirs.lock() = tortured;
    };
    // More important than what it watches.
    let thread = cx.scheduler().spawn(CpuId(0), Spec::new("torture").priority(Priority::MAX), watch);
    thread.map_err(|e| e.to_string())?.join(cx).map_err(|e| e.to_string())?;
    mem::replace(&mut *outcome.lock(), Ok(()))
}

/// Prints how a test went.
fn report(name: &str, outcome: Outcome) -> bool {
    match &outcome {
        Ok(()) => println!("{name}: ok"),
        Err(why) => println!("{name}: FAILED: {why}"),
    }
    outcome.is_ok()
}

/// Calls `f` in a thread of every CPU; the first thing that went wrong.
pub fn on_every_cpu(cx: &mut Cx<'_>, f: impl Fn(&mut Cx<'_>) -> Outcome + Send + Sync + 'static) -> Outcome {
    let (f, wrong) = (Arc::new(f), Arc::new(Lock::new(Ok(()))));
    let mut threads = Vec::new();
    for id in (0..cpu::count()).map(CpuId) {
        let (f, wrong) = (f.clone(), wrong.clone());
        let work = move |cx: &mut Cx<'_>| {
            if let Err(why) = f(cx) {
                *wrong.lock() = Err(format!("{id}: {why}"));
            }
        };
        threads.push(cx.scheduler().spawn(id, Spec::new("test"), work).map_err(|e| e.to_string())?);
    }
    for thread in threads {
        thread.join(cx).map_err(|e| e.to_string())?;
    }
    mem::replace(&mut *wrong.lock(), Ok(()))
}

fn ensure(is: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if is { Ok(()) } else { Err(otherwise()) }
}

/// Devices see memory where the CPU does.
struct Identity;

impl Device for Identity {
    fn read(&mut self, from: DevAddr, to: &mut [u8]) -> bool {
        probe::read_as_device(from.0, to)
    }
    fn write(&mut self, to: DevAddr, from: &[u8]) -> bool {
        probe::write_as_device(to.0, from)
    }
}

/// Each length and displacement, against bytes moved one by one.
fn copies(_: &mut Cx<'_>) -> Outcome {
    const BYTES: usize = 512;
    let pattern = |i: usize| (i * 7 + i / 256) as u8;
    for len in (0..200).chain([255, 256, 257, 300]) {
        for (from, to) in [(0, 0), (1, 0), (0, 1), (3, 8), (8, 3), (0, 64), (64, 0), (17, 200), (200, 17)] {
            let mut bytes: [u8; BYTES] = core::array::from_fn(pattern);
            let mut expected = bytes;
            for i in 0..len {
                expected[to + i] = core::hint::black_box(pattern(from + i));
            }
            bytes.copy_within(from..from + len, to);
            let differs = (0..BYTES).find(|&i| bytes[i] != core::hint::black_box(expected[i]));
            ensure(differs.is_none() && bytes == expected, || format!("{len} bytes from {from} to {to}"))?;
            bytes[to..to + len].fill(len as u8);
            let whole = (0..BYTES)
                .all(|i| bytes[i] == if (to..to + len).contains(&i) { len as u8 } else { expected[i] });
            ensure(whole, || format!("filling {len} bytes at {to}"))?;
        }
        let (a, mut b) = ([5_u8; BYTES], [5_u8; BYTES]);
        ensure(a[..len] == b[..len], || format!("{len} equal bytes"))?;
        if len > 0 {
            b[len - 1] = 200;
            ensure(a[..len] < b[..len], || format!("the order of {len} bytes"))?;
        }
    }
    Ok(())
}

/// Configuration space that is made up: every list in it leads to itself.
struct Liar;

impl Config for Liar {
    fn read(&self, offset: u8) -> u32 {
        match offset {
            0x04 => 1 << 20,
            0x34 => 0x40,
            0x40 => 0x44 << 8,
            0x44 => 0x40 << 8,
            // A BAR without a single address bit, and a wide one in the last place.
            0x10 => 0,
            0x24 => 4,
            _ => u32::MAX,
        }
    }
    fn write(&self, _: u8, _: u32) {}
}

fn lies(_: &mut Cx<'_>) -> Outcome {
    ensure(pci::capability(&Liar, 0x11).is_none(), || "found what is not there".into())?;
    for index in [0, 5, 6, 255] {
        ensure(pci::bar(&Liar, index).is_none(), || format!("BAR {index}"))?;
    }
    Ok(())
}

/// Local APICs by either kind of entry: 3; 3 again, twice; one that is off; one that no command reaches; 4. Then an entry
/// without length.
fn twins(_: &mut Cx<'_>) -> Outcome {
    const ENTRIES: [&[u8]; 7] = [
        &[0, 8, 0, 3, 1, 0, 0, 0],
        &[0, 8, 0, 3, 1, 0, 0, 0],
        &[9, 16, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 8, 0, 5, 0, 0, 0, 0],
        &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 8, 0, 4, 1, 0, 0, 0],
        &[0, 0, 0, 6, 1, 0, 0, 0],
    ];
    let madt = Madt::of(&ENTRIES.concat());
    ensure(madt.cpus == [3, 4], || format!("{:?}", madt.cpus))
}

fn registers(_: &mut Cx<'_>) -> Outcome {
    let heap = Box::new(0_u64);
    let places =
        [ptr::from_ref(&*heap).addr() as u64, memory::image().start, 0x8000, 1 << 47, 1 << 63, u64::MAX - 7];
    for at in places {
        ensure(memory::device(at, 16).is_none(), || format!("at {at:#x}"))?;
    }
    Ok(())
}

fn long_lines(_: &mut Cx<'_>) -> Outcome {
    const CTRL_U: u8 = 21;
    let type_in = |keys: &[u8]| {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        let last = keys.iter().map(|&key| editor.key(key, &mut echo)).last();
        (last, editor.line.len(), echo.ends_with(b"ignored\n"))
    };
    for (typed, len, is_refused) in [(4096, 4096, false), (4097, 0, true), (5000, 0, true)] {
        let came = type_in(&[&vec![b'x'; typed][..], b"\r"].concat());
        ensure(came == (Some(Done::Line), len, is_refused), || format!("{typed} bytes: {came:?}"))?;
    }
    let came = type_in(&[&vec![b'x'; 5000][..], &[CTRL_U, b'y', b'\r']].concat());
    ensure(came == (Some(Done::Line), 1, false), || format!("taken back: {came:?}"))
}

/// The time-stamp counter was calibrated against the same timer that is asked again here.
fn keeps_time(_: &mut Cx<'_>) -> Outcome {
    let (told, passed) = clock::compare();
    let off = told.abs_diff(passed);
    ensure(off < passed / 20, || format!("{told:?} told, {passed:?} passed"))
}

fn ipis(_: &mut Cx<'_>) -> Outcome {
    static SEEN: [[AtomicU64; cpu::MOST]; cpu::MOST] =
        [const { [const { AtomicU64::new(0) }; cpu::MOST] }; cpu::MOST];
    let mut handled = |id: CpuId| {
        let taken = cpu::get(id).map_or(0, |cpu| cpu.ipis.load(Ordering::Acquire));
        let came = SEEN[cpu::this().index()][id.index()].swap(taken, Ordering::Relaxed) != taken;
        if !came {
            // The host may be busy elsewhere for longer than the suite's patience with a loop that only spins.
            clock::spin(Duration::from_micros(1));
        }
        came
    };
    check_cpus(&Pc, &mut handled).map_err(|e| e.to_string())
}

fn same_time(_: &mut Cx<'_>) -> Outcome {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    for _ in 0..200_000 {
        // Acquire, so that the counter is read after it.
        let before = LATEST.load(Ordering::Acquire);
        let now = Pc.now().as_nanos();
        ensure(now >= before, || format!("{now} ns, after {before} ns on another CPU"))?;
        LATEST.fetch_max(now, Ordering::AcqRel);
    }
    Ok(())
}

/// Sleeps on every CPU, of several lengths at once; none ends early, and none is lost.
fn timers(cx: &mut Cx<'_>) -> Outcome {
    let start = Pc.now();
    for round in 0..20_u64 {
        let at = Pc.now().saturating_add(Duration::from_micros(200 + 150 * (round % 7)));
        block_on(cx, sleep_until(&Pc, at), None).map_err(|e| e.to_string())?;
        ensure(Pc.now() >= at, || format!("round {round} ended early"))?;
    }
    let never =
        block_on(cx, core::future::pending::<()>(), Some(Pc.now().saturating_add(Duration::from_millis(1))));
    ensure(never.is_err(), || "what never comes came".into())?;
    let took = Pc.now().saturating_since(start);
    ensure(took < Duration::from_secs(5), || format!("it took {took:?}"))
}

/// Computes while interrupts come from the other CPUs and from the timer; each result is what it was in silence.
fn storm(_: &mut Cx<'_>) -> Outcome {
    const TIME: Duration = Duration::from_millis(200);
    let expected = compute();
    let Some(this) = cpu::get(cpu::this()) else { return Err("on no CPU".into()) };
    let before = this.taken.load(Ordering::Relaxed);
    let end = Pc.now().saturating_add(TIME);
    let (mut rounds, quiet) = (0_u64, Waker::from(Arc::new(Quiet)));
    while Pc.now() < end {
        clock::wake_at(Pc.now().saturating_add(Duration::from_micros(30)), &quiet);
        (0..cpu::count()).for_each(|to| Pc.raise_ipi(CpuId(to)));
        ensure(compute() == expected, || format!("another result in round {rounds}"))?;
        rounds += 1;
    }
    clock::expire();
    let taken = this.taken.load(Ordering::Relaxed) - before;
    ensure(taken > rounds, || format!("{taken} interrupts in {rounds} rounds"))
}

/// A thread that sleeps goes on in time though this one computes, and does not disturb it.
fn preempts(cx: &mut Cx<'_>) -> Outcome {
    const ROUNDS: u64 = 10;
    /// An emulated CPU that shares a busy host is late.
    const LATEST: Duration = Duration::from_secs(10);
    let expected = compute();
    let (rounds, worst) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (theirs, lateness) = (rounds.clone(), worst.clone());
    let before = cx.scheduler().cpu_stats(cx.cpu()).unwrap_or_default().preemptions;
    let sleeper = Spec::new("sleeper").priority(Priority::INT_LOW);
    let sleeper = cx.scheduler().spawn(cx.cpu(), sleeper, move |cx| {
        for round in 1..=ROUNDS {
            let at = Pc.now().saturating_add(Duration::from_millis(1));
            let _ = block_on(cx, sleep_until(&Pc, at), None);
            lateness.fetch_max(Pc.now().saturating_since(at).as_nanos() as u64, Ordering::Relaxed);
            theirs.store(round, Ordering::Relaxed);
        }
    });
    let sleeper = sleeper.map_err(|e| e.to_string())?;
    let end = Pc.now().saturating_add(Duration::from_secs(20));
    while rounds.load(Ordering::Relaxed) < ROUNDS && Pc.now() < end {
        ensure(compute() == expected, || "another result".into())?;
    }
    let (rounds, worst) =
        (rounds.load(Ordering::Relaxed), Duration::from_nanos(worst.load(Ordering::Relaxed)));
    let after = cx.scheduler().cpu_stats(cx.cpu()).unwrap_or_default().preemptions;
    ensure(rounds == ROUNDS && worst < LATEST, || format!("{rounds} rounds, {worst:?} late"))?;
    // One that is late enough finds that its time has come before it waits.
    ensure(after - before > ROUNDS / 2, || format!("{} preemptions", after - before))?;
    sleeper.join(cx).map_err(|e| e.to_string())
}

/// One CPU runs a function on all of them, whose threads do nothing that would let them look.
fn functions(cx: &mut Cx<'_>) -> Outcome {
    const ROUNDS: u64 = 10;
    static RAN: AtomicU64 = AtomicU64::new(0);
    static READY: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicU64 = AtomicU64::new(0);
    let count = u64::from(cpu::count());
    READY.fetch_add(1, Ordering::Relaxed);
    if cx.cpu() != CpuId(0) {
        let expected = compute();
        while OVER.load(Ordering::Acquire) == 0 {
            ensure(compute() == expected, || "another result".into())?;
        }
        return Ok(());
    }
    while READY.load(Ordering::Relaxed) < count {
        cx.yield_now();
    }
    let all: CpuMask = (0..cpu::count()).map(CpuId).collect();
    let ipis = cx.scheduler().ipis();
    let call = |_: &IrqCx<'_>| {
        RAN.fetch_add(1, Ordering::Relaxed);
    };
    let outcome = (0..ROUNDS).try_for_each(|round| {
        let ran = if round % 2 == 0 { ipis.run_on(&all, call) } else { ipis.run_together(&all, call) };
        ran.map_err(|e| e.to_string())?;
        let ran = RAN.load(Ordering::Relaxed);
        ensure(ran == (round + 1) * count, || format!("it ran {ran} times in {} rounds", round + 1))
    });
    OVER.store(1, Ordering::Release);
    outcome
}

/// Two threads that compute, and yield when they should.
fn turns(cx: &mut Cx<'_>) -> Outcome {
    const TURNS: u64 = 5;
    let turns = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let threads = turns.clone().map(|mine| {
        cx.scheduler().spawn(cx.cpu(), Spec::new("turns"), move |cx| {
            while mine.load(Ordering::Relaxed) < TURNS {
                compute();
                if cx.should_yield() {
                    mine.fetch_add(1, Ordering::Relaxed);
                    cx.yield_now();
                }
            }
        })
    });
    for thread in threads {
        let mut thread = thread.map_err(|e| e.to_string())?;
        let end = Pc.now().saturating_add(Duration::from_secs(20));
        let ended = block_on(cx, &mut thread, Some(end));
        ensure(ended == Ok(Ok(())), || {
            format!("{:?} turns", turns.each_ref().map(|turns| turns.load(Ordering::Relaxed)))
        })?;
    }
    Ok(())
}

/// Every CPU's threads go round all CPUs, by themselves and given away, while interrupts preempt them, and end where they will.
fn moves(cx: &mut Cx<'_>) -> Outcome {
    const THREADS: u32 = 3;
    const ROUNDS: u32 = 40;
    let (expected, count, first) = (compute(), cpu::count(), cx.cpu().0);
    let ended = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let ended = ended.clone();
        let wanderer = move |cx: &mut Cx<'_>| {
            for round in 0..ROUNDS {
                let to = CpuId((first + number + round * round) % count);
                let moved = if round % 4 == 0 {
                    let mut moved = Ok(());
                    cx.give_away(|me| moved = me.resume_on(to));
                    moved
                } else {
                    cx.migrate(to)
                };
                if moved.is_err() || (cx.cpu(), cpu::this()) != (to, to) || compute() != expected {
                    return;
                }
            }
            ended.fetch_add(1, Ordering::Relaxed);
        };
        let priority = if number == 0 { Priority::INT_LOW } else { Priority::KERN_DAEMON };
        let spec = Spec::new("wanderer").priority(priority);
        threads.push(cx.scheduler().spawn(cx.cpu(), spec, wanderer).map_err(|e| e.to_string())?);
    }
    for thread in threads {
        thread.join(cx).map_err(|e| e.to_string())?;
    }
    let ended = ended.load(Ordering::Relaxed);
    ensure(ended == u64::from(THREADS), || format!("{ended} of {THREADS} threads went all the way"))
}

/// Something that keeps every register busy.
fn compute() -> [u64; 8] {
    let mut state: [u64; 8] = core::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for round in 0..200 {
        for i in 0..8 {
            state[i] = state[i].rotate_left(13 + i as u32).wrapping_mul(0x2545_f491_4f6c_dd1d)
                ^ state[(i + 3) % 8]
                ^ round;
        }
    }
    state
}

/// A waker of nobody.
struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

fn on_the_last_cpu(cx: &mut Cx<'_>, spec: Spec, f: fn()) {
    let thread = cx.scheduler().spawn(CpuId(cpu::count() - 1), spec, move |_| f());
    let _ = thread.map(|thread| thread.join(cx));
}

/// A deliberate end, by name: whether it went as it should, where it is none.
fn end(how: &str, cx: &mut Cx<'_>) -> bool {
    match how {
        "panic" => panic!("asked for"),
        "nested" => panic!("asked for: {Rude}"),
        "fault" => probe::touch_nothing(),
        "code" => probe::write_to_code(),
        "data" => probe::execute_data(),
        "overflow" => {
            on_the_last_cpu(cx, Spec::new("greedy").stack_bytes(256 << 10), || {
                overflow(0);
            });
        }
        "gone" => probe::use_a_page_that_is_gone(&mut |f| on_the_last_cpu(cx, Spec::new("late"), f)),
        "deep" => {
            // Of a handler, on a stack of the CPU.
            let handler = || {
                overflow(0);
            };
            if let Some(vector) = interrupts::connect(handler) {
                apic::interrupt(apic::id(), vector);
                clock::spin(Duration::from_secs(1));
            }
        }
        "interrupt" => {
            // A handler that allocates is told so.
            if let Some(vector) = interrupts::connect(|| drop(core::hint::black_box(Box::new(0)))) {
                apic::interrupt(apic::id(), vector);
                clock::spin(Duration::from_secs(1));
            }
        }
        "allocating" => {
            // The other CPUs want the heap all the time, and the words of the panic want it, too.
            let _ = on_every_cpu(cx, |_| match cpu::this() {
                CpuId(0) => {
                    clock::spin(Duration::from_millis(20));
                    panic!("asked for: {Greedy}")
                }
                _ => loop {
                    drop(core::hint::black_box(Box::new(0)));
                },
            });
        }
        "everywhere" => {
            // Which is also where one panic interrupts another.
            let _ = on_every_cpu(cx, |_| panic!("asked for"));
        }
        "triple" => probe::forget_everything(),
        "hang" => loop {
            spin_loop();
        },
        _ => println!("no such end: {how}"),
    }
    false
}

/// What takes memory to be shown.
struct Greedy;

impl fmt::Display for Greedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::hint::black_box(Box::new(0)).fmt(f)
    }
}

/// What cannot be shown.
struct Rude;

impl fmt::Display for Rude {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("within a panic")
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    core::hint::black_box(depth) + overflow(depth + 1) + core::hint::black_box(1)
}
