//! Four CPUs send each other whatever comes to mind, through queues that are nearly always full: everything arrives
//! exactly once, and in order.
//!
//! Two seconds; `DFLY_TORTURE_SECONDS=3600 cargo test -p dfly-lwkt --features std --release --test ipi_torture` for an hour.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

use dfly_hal::CpuId;
use dfly_hal::host::HostCpus;
use dfly_lwkt::ipi::{CpuMask, IpiQueues, IrqCx, SendError};

const CPUS: usize = 4;

/// What CPUs know of each other's messages.
#[derive(Default)]
struct Book {
    /// Messages of threads, by sender and receiver: the number of the last one that was called.
    last: [[AtomicUsize; CPUS]; CPUS],
    /// Messages of callbacks: how many were sent, and how many were called. They overtake each other while queues are full.
    answers: [AtomicUsize; 2],
    /// Functions run on all CPUs.
    together: AtomicUsize,
}

/// A number that is different each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn arrive(cx: &IrqCx<'_>, book: &Book, n: usize) {
    let last = book.last[cx.from().index()][cx.cpu().index()].swap(n, Relaxed);
    assert_eq!(last + 1, n, "from {} to {}", cx.from(), cx.cpu());
}

/// Answers, until `left` is none.
fn answer(cx: &IrqCx<'_>, book: &'static Book, left: usize) {
    if left > 0 {
        book.answers[0].fetch_add(1, Relaxed);
        let next = move |cx: &IrqCx<'_>| {
            book.answers[1].fetch_add(1, Relaxed);
            answer(cx, book, left - 1);
        };
        match cx.send(cx.from(), next) {
            Ok(_) => {}
            // Too many callbacks that wait for room inside each other: refused, and so never called.
            Err(error) => {
                assert_eq!(error, SendError::TooDeep);
                book.answers[1].fetch_add(1, Relaxed);
            }
        }
    }
}

fn work<const DEPTH: usize>(
    queues: &IpiQueues<Arc<HostCpus>, DEPTH>,
    me: CpuId,
    book: &'static Book,
    until: Instant,
) -> [usize; CPUS] {
    let mut sent = [0; CPUS];
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ me.0 as u64);
    while Instant::now() < until {
        let to = CpuId(dice.roll(CPUS as u64) as u32);
        match dice.roll(100) {
            0..60 if to != me => {
                sent[to.index()] += 1;
                let n = sent[to.index()];
                queues.send(to, move |cx| arrive(cx, book, n)).unwrap();
            }
            60..75 if to != me => {
                sent[to.index()] += 1;
                let n = sent[to.index()];
                queues.send_passive(to, move |cx| arrive(cx, book, n)).unwrap();
            }
            75..80 => {
                let left = dice.roll(4) as usize;
                queues.send(to, move |cx| answer(cx, book, left)).unwrap();
            }
            80..82 => {
                let sum = AtomicUsize::new(0);
                let add = |_: &IrqCx<'_>| {
                    sum.fetch_add(1, Relaxed);
                };
                let mask = queues.run_on(&CpuMask::first(CPUS as u32), add).unwrap();
                assert_eq!(sum.load(Relaxed) as u32, mask.len());
            }
            82 => {
                let others = CpuMask::first(CPUS as u32) - CpuMask::of(to);
                let body = |_: &CpuMask| book.together.store(book.together.load(Relaxed) + 1, Relaxed);
                queues.interlocked(&others, body, |_| ()).unwrap();
                sent[me.index()] += 1;
            }
            83..85 if to != me => {
                sent[to.index()] += 1;
                let n = sent[to.index()];
                let ticket = queues.send(to, move |cx| arrive(cx, book, n)).unwrap();
                queues.wait(ticket).unwrap();
                assert!(book.last[me.index()][to.index()].load(Relaxed) >= n);
            }
            85..95 => queues.drain(),
            _ => queues.tick(),
        }
    }
    sent
}

fn torture<const DEPTH: usize>(time: Duration) {
    let cpus = Arc::new(HostCpus::new(CPUS as u32));
    let queues: IpiQueues<_, DEPTH> = IpiQueues::new(cpus.clone()).unwrap();
    let book: &'static Book = Box::leak(Box::default());
    let (ready, working) = (AtomicUsize::new(0), AtomicUsize::new(CPUS));
    let until = Instant::now() + time;
    let sent: Vec<[usize; CPUS]> = thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|id| {
            let (cpus, queues, ready, working) = (&cpus, &queues, &ready, &working);
            scope.spawn(move || {
                let cpu = cpus.attach(CpuId(id)).unwrap();
                queues.start().unwrap();
                ready.fetch_add(1, AcqRel);
                while ready.load(Acquire) != CPUS {
                    thread::yield_now();
                }
                let sent = work(queues, CpuId(id), book, until);
                working.fetch_sub(1, AcqRel);
                while working.load(Acquire) != 0
                    || book.answers[0].load(Acquire) != book.answers[1].load(Acquire)
                {
                    cpu.wait_for_ipi(Duration::from_millis(1));
                    queues.tick();
                }
                // What was passive, and what the last answers left.
                queues.tick();
                sent
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    for (from, sent) in sent.iter().enumerate() {
        for (to, &sent) in sent.iter().enumerate().filter(|&(to, _)| to != from) {
            assert_eq!(book.last[from][to].load(Relaxed), sent, "from {from} to {to}");
        }
    }
    let together: usize = (0..CPUS).map(|cpu| sent[cpu][cpu]).sum();
    assert_eq!(book.together.load(Relaxed), together);
    let sum = |part: &dyn Fn(CpuId) -> u64| (0..CPUS as u32).map(|cpu| part(CpuId(cpu))).sum::<u64>();
    let of = |cpu| queues.stats(cpu).unwrap();
    assert_eq!(sum(&|cpu| of(cpu).sent), sum(&|cpu| of(cpu).received));
    println!(
        "depth {DEPTH}: {} messages, {} passive, {} hardware IPIs, {} stalls, {} syncs",
        sum(&|cpu| of(cpu).sent),
        sum(&|cpu| of(cpu).passive),
        sum(&|cpu| of(cpu).raised),
        sum(&|cpu| of(cpu).stalls),
        sum(&|cpu| of(cpu).syncs)
    );
}

#[test]
#[cfg_attr(miri, ignore = "too long; tests/ipi has the same, in small")]
fn every_message_arrives_once_and_in_order() {
    let given = std::env::var("DFLY_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    let all = Duration::from_secs(given.unwrap_or(2));
    torture::<2>(all / 4);
    torture::<4>(all / 4);
    torture::<16>(all / 4);
    torture::<64>(all / 4);
}
