//! What happens step by step: one thread plays all CPUs.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::keep;
use dfly_hal::sync::count;
use dfly_hal::{CpuId, Cpus};
use dfly_lwkt::ipi::{CpuMask, IpiQueues, IrqCx, SendError, SetupError, SyncError};

thread_local! {
    static THIS: Cell<CpuId> = const { Cell::new(CpuId(0)) };
}

/// CPUs that one thread plays. Counts the IPIs that each has been sent.
struct Stage {
    raised: Vec<AtomicU32>,
}

// SAFETY: a thread is one CPU at a time, and each test has a machine and a thread of its own.
unsafe impl Cpus for Stage {
    fn this(&self) -> CpuId {
        THIS.get()
    }
    fn count(&self) -> u32 {
        self.raised.len() as u32
    }
    fn raise_ipi(&self, to: CpuId) {
        self.raised[to.index()].fetch_add(1, Relaxed);
    }
}

impl Stage {
    fn new(count: usize) -> Self {
        Self { raised: (0..count).map(|_| AtomicU32::new(0)).collect() }
    }
}

/// `f` as done by a CPU.
fn on<R>(cpu: u32, f: impl FnOnce() -> R) -> R {
    let before = THIS.replace(CpuId(cpu));
    let result = f();
    THIS.set(before);
    result
}

type Queues<const DEPTH: usize> = IpiQueues<Stage, DEPTH>;

/// Queues whose CPUs all take part. Leaked, so that callbacks can use them.
fn queues<const DEPTH: usize>(count: usize) -> &'static Queues<DEPTH> {
    let queues = keep(Queues::new(Stage::new(count)).unwrap());
    (0..count as u32).for_each(|cpu| on(cpu, || queues.start().unwrap()));
    queues
}

fn raised<const DEPTH: usize>(queues: &Queues<DEPTH>, cpu: usize) -> u32 {
    queues.machine().raised[cpu].swap(0, Relaxed)
}

/// What was called, in order.
#[derive(Default)]
struct Log(Mutex<Vec<usize>>);

impl Log {
    fn new() -> &'static Self {
        keep(Self::default())
    }
    fn entry(&'static self, n: usize) -> impl FnOnce(&IrqCx<'_>) + Clone + Send + 'static {
        move |_| self.0.lock().unwrap().push(n)
    }
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn a_message_runs_where_it_was_sent_to_and_not_before_the_drain() {
    let (queues, log) = (queues::<4>(3), Log::new());
    queues.send(CpuId(1), log.entry(1)).unwrap();
    queues
        .send(CpuId(1), move |cx| {
            assert_eq!((cx.cpu(), cx.from()), (CpuId(1), CpuId(0)));
            log.0.lock().unwrap().push(2);
        })
        .unwrap();
    on(2, || queues.drain());
    assert!(log.take().is_empty());
    assert!(on(1, || queues.is_pending()) && !queues.is_pending());
    on(1, || queues.drain());
    assert_eq!(log.take(), [1, 2]);
    on(1, || queues.drain());
    assert!(log.take().is_empty());
    assert!(!on(1, || queues.is_pending()));
}

#[test]
fn pipelined_sends_raise_one_hardware_ipi() {
    let (queues, log) = (queues::<256>(2), Log::new());
    for round in 0..3 {
        for n in 0..100 {
            queues.send(CpuId(1), log.entry(n)).unwrap();
        }
        assert_eq!(raised(queues, 1), 1, "round {round}");
        on(1, || queues.drain());
        assert_eq!(log.take(), (0..100).collect::<Vec<_>>());
    }
    let stats = queues.stats(CpuId(0)).unwrap();
    assert_eq!((stats.sent, stats.raised, stats.passive, stats.stalls), (300, 3, 0, 0));
    assert_eq!(queues.stats(CpuId(1)).unwrap().received, 300);
    assert!(queues.stats(CpuId(2)).is_none());
}

#[test]
#[cfg_attr(miri, ignore = "thousands of queues")]
fn many_senders_raise_one_hardware_ipi_together() {
    let (queues, log) = (queues::<4>(60), Log::new());
    for from in 1..60 {
        on(from, || queues.send(CpuId(0), log.entry(from as usize)).unwrap());
    }
    assert_eq!(raised(queues, 0), 1);
    queues.drain();
    assert_eq!(log.take(), (1..60).collect::<Vec<_>>());
}

#[test]
#[cfg_attr(miri, ignore = "thousands of queues")]
fn senders_beyond_one_word_are_heard_as_well() {
    let (queues, log) = (queues::<2>(130), Log::new());
    for from in [62, 63, 64, 126, 129] {
        on(from, || queues.send(CpuId(0), log.entry(from as usize)).unwrap());
    }
    assert!(raised(queues, 0) <= 130_u32.div_ceil(usize::BITS - 1));
    queues.drain();
    assert_eq!(log.take(), [62, 63, 64, 126, 129]);
}

#[test]
fn a_passive_message_interrupts_nobody_and_waits_for_the_tick() {
    let (queues, log) = (queues::<16>(2), Log::new());
    queues.send_passive(CpuId(1), log.entry(1)).unwrap();
    assert_eq!(raised(queues, 1), 0);
    on(1, || queues.drain());
    assert!(log.take().is_empty());
    on(1, || queues.tick());
    assert_eq!(log.take(), [1]);
    assert_eq!(queues.stats(CpuId(0)).unwrap().passive, 1);
}

#[test]
fn a_passive_message_comes_with_the_next_active_one_and_before_it() {
    let (queues, log) = (queues::<16>(2), Log::new());
    queues.send_passive(CpuId(1), log.entry(1)).unwrap();
    queues.send(CpuId(1), log.entry(2)).unwrap();
    on(1, || queues.drain());
    assert_eq!(log.take(), [1, 2]);
}

#[test]
fn passive_messages_interrupt_once_they_fill_a_quarter() {
    let (queues, log) = (queues::<256>(2), Log::new());
    for n in 0..64 {
        queues.send_passive(CpuId(1), log.entry(n)).unwrap();
        assert_eq!(raised(queues, 1), 0);
    }
    queues.send_passive(CpuId(1), log.entry(64)).unwrap();
    assert_eq!(raised(queues, 1), 1);
    on(1, || queues.drain());
    assert_eq!(log.take(), (0..65).collect::<Vec<_>>());
    assert_eq!(queues.stats(CpuId(0)).unwrap().passive, 64);
}

#[test]
fn a_send_to_oneself_is_a_call() {
    let (queues, log) = (queues::<4>(1), Log::new());
    let ticket = queues.send(CpuId(0), log.entry(1)).unwrap();
    assert_eq!(log.take(), [1]);
    assert!(queues.is_done(ticket));
    queues.send_passive(CpuId(0), log.entry(2)).unwrap();
    assert_eq!(log.take(), [2]);
    assert_eq!(raised(queues, 0), 0);
}

#[test]
fn sends_to_oneself_inside_each_other_end_with_an_error() {
    fn again(cx: &IrqCx<'_>, depth: &'static AtomicUsize) {
        match cx.send(cx.cpu(), move |cx| again(cx, depth)) {
            Ok(_) => {
                depth.fetch_add(1, Relaxed);
            }
            Err(error) => assert_eq!(error, SendError::TooDeep),
        }
    }
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    let queues = queues::<4>(1);
    queues.send(CpuId(0), |cx| again(cx, &DEPTH)).unwrap();
    assert_eq!(DEPTH.load(Relaxed), 19);
    assert!(queues.send(CpuId(0), |_| ()).is_ok());
}

#[test]
fn one_cpu_is_a_machine_too() {
    let (queues, log) = (queues::<2>(1), Log::new());
    assert_eq!(queues.send_mask(&CpuMask::first(9), log.entry(1)), Ok(1));
    assert_eq!(queues.run_on(&CpuMask::first(9), |cx| log.entry(2)(cx)), Ok(CpuMask::first(1)));
    let in_body = queues.interlocked(
        &CpuMask::first(1),
        |mask| log.0.lock().unwrap().push(mask.len() as usize + 2),
        |cx| log.entry(4)(cx),
    );
    assert_eq!(in_body, Ok(()));
    assert_eq!(log.take(), [1, 2, 3, 4]);
    queues.drain();
    queues.tick();
    queues.stop().unwrap();
    assert_eq!(queues.run_together(&CpuMask::first(1), |cx| log.entry(5)(cx)), Ok(CpuMask::EMPTY));
    assert!(log.take().is_empty());
    assert_eq!(raised(queues, 0), 0);
}

#[test]
fn a_mask_is_told_beginning_with_oneself_and_without_those_that_are_offline() {
    let (queues, log) = (queues::<4>(4), Log::new());
    on(3, || queues.stop().unwrap());
    assert_eq!(queues.online().to_string(), "0-2");
    let sent = on(1, || queues.send_mask(&CpuMask::first(4), move |cx| log.entry(cx.cpu().index())(cx)));
    assert_eq!(sent, Ok(3));
    assert_eq!(log.take(), [1]);
    (0..4).for_each(|cpu| on(cpu, || queues.tick()));
    assert_eq!(log.take(), [0, 2]);
}

#[test]
fn indexes_wrap() {
    let queues = Queues::<4>::starting_at(Stage::new(2), usize::MAX - 5).unwrap();
    let log = Log::new();
    (0..2).for_each(|cpu| on(cpu, || queues.start().unwrap()));
    let mut tickets = Vec::new();
    for n in 0..20 {
        tickets.push(queues.send(CpuId(1), log.entry(n)).unwrap());
        assert!(!queues.is_done(tickets[n]));
        if n % 2 == 1 {
            on(1, || queues.drain());
            assert_eq!(log.take(), [n - 1, n]);
        }
        assert!(tickets[..n & !1].iter().all(|&ticket| queues.is_done(ticket)));
    }
}

#[test]
fn a_ticket_is_done_when_its_callback_has_returned() {
    let queues = queues::<4>(2);
    let done = Arc::new(AtomicUsize::new(0));
    let seen = done.clone();
    let first = queues
        .send(CpuId(1), move |_| {
            seen.fetch_add(1, Relaxed);
        })
        .unwrap();
    assert_eq!(first.to(), CpuId(1));
    let second = queues.send(CpuId(1), |_| ()).unwrap();
    assert!(!queues.is_done(first));
    on(1, || queues.drain());
    assert!(queues.is_done(first) && queues.is_done(second));
    assert_eq!(queues.wait(first), Ok(()));
    assert_eq!(done.load(Relaxed), 1);
}

#[test]
fn what_a_full_queue_of_an_offline_cpu_refuses_is_dropped() {
    let queues: Queues<4> = Queues::new(Stage::new(2)).unwrap();
    queues.start().unwrap();
    let held = Arc::new(());
    let mut sent = 0;
    let refused = loop {
        let held = held.clone();
        match queues.send(CpuId(1), move |_| drop(held)) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::Offline(CpuId(1)));
    assert_eq!((sent, Arc::strong_count(&held)), (3, 4));
    assert_eq!(queues.stats(CpuId(0)).unwrap().stalls, 1);
    let ticket = queues.send(CpuId(0), |_| ()).unwrap();
    assert_eq!(queues.wait(ticket), Ok(()));
    // Those before it run when the CPU starts.
    on(1, || queues.start().unwrap());
    assert_eq!(Arc::strong_count(&held), 1);
    // And what nobody takes is dropped with the queues.
    let left = held.clone();
    let ticket = queues.send(CpuId(1), move |_| drop(left)).unwrap();
    on(1, || queues.online().contains(CpuId(1)).then(|| queues.stop())).unwrap().unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(queues.wait(ticket), Ok(()));
    let left = held.clone();
    let ticket = queues.send(CpuId(1), move |_| drop(left)).unwrap();
    assert_eq!(queues.wait(ticket), Err(SyncError::Offline(CpuId(1))));
    drop(queues);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn nobody_is_asked_who_is_no_cpu() {
    let queues = queues::<4>(2);
    assert_eq!(queues.send(CpuId(2), |_| ()).unwrap_err(), SendError::NoSuchCpu(CpuId(2)));
    assert_eq!(queues.send(CpuId::NONE, |_| ()).unwrap_err(), SendError::NoSuchCpu(CpuId::NONE));
    on(u32::MAX, || {
        assert_eq!(queues.send(CpuId(0), |_| ()).unwrap_err(), SendError::NotACpu);
        assert_eq!(queues.start().unwrap_err(), SendError::NotACpu);
        assert_eq!(queues.run_on(&CpuMask::first(2), |_| ()).unwrap_err(), SyncError::NotACpu);
        queues.drain();
        queues.tick();
        assert!(!queues.is_pending());
    });
    assert_eq!(Queues::<4>::new(Stage::new(0)).unwrap_err(), SetupError::NoCpu);
    assert_eq!(Queues::<4>::new(Stage::new(257)).unwrap_err(), SetupError::TooManyCpus(257));
}

#[test]
fn a_drain_inside_a_callback_is_put_off_and_the_cpu_interrupts_itself() {
    let (queues, log) = (queues::<8>(2), Log::new());
    queues
        .send(CpuId(1), move |_| {
            // Another sender's message and its IPI come meanwhile.
            on(0, || queues.send(CpuId(1), log.entry(2)).unwrap());
            queues.drain();
            queues.tick();
            log.0.lock().unwrap().push(1);
        })
        .unwrap();
    raised(queues, 1);
    on(1, || queues.drain());
    // The queue was emptied by the drain that was under way; its IPI is spurious.
    assert_eq!(log.take(), [1, 2]);
    assert!(raised(queues, 1) >= 1);
    on(1, || queues.drain());
    assert!(log.take().is_empty());
}

#[test]
fn a_callback_sends_and_cannot_wait() {
    let (queues, log) = (queues::<8>(2), Log::new());
    queues
        .send(CpuId(1), move |cx| {
            let ticket = cx.send(cx.from(), log.entry(2)).unwrap();
            assert_eq!(queues.wait(ticket), Err(SyncError::InCallback));
            assert_eq!(queues.run_on(&CpuMask::first(2), |_| ()), Err(SyncError::InCallback));
            assert_eq!(queues.run_together(&CpuMask::first(2), |_| ()), Err(SyncError::InCallback));
            assert_eq!(queues.stop(), Err(SyncError::InCallback));
            log.0.lock().unwrap().push(1);
        })
        .unwrap();
    on(1, || queues.drain());
    queues.drain();
    assert_eq!(log.take(), [1, 2]);
}

#[test]
fn a_master_cannot_be_one_twice() {
    let queues = queues::<8>(1);
    let inner =
        queues.interlocked(&CpuMask::EMPTY, |_| queues.run_on(&CpuMask::first(1), |_| ()), |_| ()).unwrap();
    assert_eq!(inner, Err(SyncError::Busy(CpuId(0))));
    assert_eq!(queues.run_on(&CpuMask::first(1), |_| ()), Ok(CpuMask::first(1)));
}

#[test]
fn a_callback_that_panics_ends_itself_only() {
    let (queues, log) = (queues::<8>(2), Log::new());
    let ticket = queues.send(CpuId(1), |_| panic!("as it must")).unwrap();
    queues.send(CpuId(1), log.entry(1)).unwrap();
    raised(queues, 1);
    assert!(catch_unwind(AssertUnwindSafe(|| on(1, || queues.drain()))).is_err());
    THIS.set(CpuId(0));
    assert!(queues.is_done(ticket));
    // Nobody will send again, so the CPU has interrupted itself.
    assert!(on(1, || queues.is_pending()));
    on(1, || queues.drain());
    assert_eq!(log.take(), [1]);
    let sync = catch_unwind(AssertUnwindSafe(|| {
        let _ = queues.interlocked(&CpuMask::first(1), |_| panic!("as it must"), |cx| log.entry(2)(cx));
    }));
    assert!(sync.is_err());
    assert_eq!(log.take(), [2]);
    assert_eq!(queues.run_together(&CpuMask::first(1), |cx| log.entry(3)(cx)), Ok(CpuMask::first(1)));
    assert_eq!(log.take(), [3]);
}

#[test]
fn a_drain_calls_at_most_a_queueful_of_each_sender() {
    // Each callback sends the next one, from the other side.
    fn next(cx: &IrqCx<'_>, left: &'static AtomicUsize, queues: &'static Queues<4>) {
        if left.fetch_sub(1, Relaxed) > 1 {
            on(0, || queues.send(CpuId(1), move |cx| next(cx, left, queues)).unwrap());
        }
        assert_eq!(cx.from(), CpuId(0));
    }
    static LEFT: AtomicUsize = AtomicUsize::new(10);
    let queues = queues::<4>(2);
    queues.send(CpuId(1), move |cx| next(cx, &LEFT, queues)).unwrap();
    for left in [6, 2, 0] {
        assert!(raised(queues, 1) >= 1);
        on(1, || queues.drain());
        assert_eq!(LEFT.load(Relaxed), left);
    }
}

#[test]
fn the_price_of_each_step() {
    let (queues, log) = (queues::<64>(2), Log::new());
    // A preemption hook is looked up by an atomic that is not counted, and none is registered.
    let cost = |f: &mut dyn FnMut()| count::measure(f).1;
    let first = cost(&mut || {
        queues.send(CpuId(1), log.entry(0)).unwrap();
    });
    let second = cost(&mut || {
        queues.send(CpuId(1), log.entry(0)).unwrap();
    });
    let passive = cost(&mut || {
        queues.send_passive(CpuId(1), log.entry(0)).unwrap();
    });
    let own = cost(&mut || {
        queues.send(CpuId(0), log.entry(0)).unwrap();
    });
    let nothing = cost(&mut || queues.drain());
    let pending = cost(&mut || {
        queues.is_pending();
    });
    let drain3 = on(1, || cost(&mut || queues.drain()));
    assert_eq!((first.rmws, second.rmws, passive.rmws, own.rmws, nothing.rmws), (2, 2, 1, 0, 0));
    assert_eq!(drain3.rmws, 1 + 3);
    let fences = [first, second, passive, own, nothing, drain3].map(|cost| cost.fences);
    assert_eq!(fences, [0; 6]);
    assert_eq!((pending.loads, pending.stores, pending.rmws), (2, 0, 0));
    assert_eq!((nothing.loads, nothing.stores), (2, 0));
    assert_eq!((second.loads, second.stores), (4, 1));
}
