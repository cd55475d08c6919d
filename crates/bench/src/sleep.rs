//! A thousand sleepers on one address, and who wakes them: beside tokio's, and beside a queue with a lock, as a futex has it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Poll, Waker};

use anyhow::{Context, Result};
use dfly_hal::sync::wait_queue::{Place, WaitQueue};
use dfly_hal::{CpuId, ThreadWait, Wait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::{Config, Cx, Handle, RunTime, Spec, ThreadInfo, ThreadState};

use crate::harness::{Bar, Effort, Group, Unit, cpu_time};

const SLEEPERS: u64 = 1000;
const IDENT: Ident = Ident(0x1000);

pub(crate) fn bench(effort: Effort) -> Result<()> {
    let machine = Machine::start(2, Config::default().run_time(RunTime::NotMeasured))?;
    let spec = Spec::new("bench").stack_bytes(1 << 20);
    let main = machine.scheduler().spawn(CpuId(0), spec, move |cx| {
        one_cpu(effort, cx);
        two_cpus(effort, cx);
    })?;
    main.join(&mut ThreadWait::new()).context("the thread that measures")
}

/// How threads sleep and are woken.
trait Queue: Send + Sync + 'static {
    fn sleep(&self, cx: &mut Cx<'_>);
    fn wake_all(&self, cx: &Cx<'_>);
}

/// Ours.
struct SleepQueue;

impl Queue for SleepQueue {
    fn sleep(&self, cx: &mut Cx<'_>) {
        // Without a deadline it is woken.
        let _ = cx.interlock(IDENT).wait(None);
    }
    fn wake_all(&self, cx: &Cx<'_>) {
        cx.scheduler().wakeup(IDENT);
    }
}

/// Waiters in a list under a lock, woken by their wakers outside of it.
struct Locked(WaitQueue<()>);

impl Queue for Locked {
    fn sleep(&self, cx: &mut Cx<'_>) {
        let waiter = pin!(self.0.waiter());
        let waiter = waiter.as_ref();
        let woken = poll_fn(|cx| {
            let mut queue = self.0.lock();
            match queue.place(waiter) {
                Place::Chosen => return Poll::Ready(()),
                Place::Outside => queue.push_back(waiter, (), cx.waker().clone()),
                _ => drop(queue.replace_waker(waiter, cx.waker().clone())),
            }
            Poll::Pending
        });
        let _ = cx.wait(pin!(woken), None);
    }

    fn wake_all(&self, _: &Cx<'_>) {
        // Those who sleep again meanwhile are not woken again.
        for _ in 0..SLEEPERS.div_ceil(32) {
            let mut queue = self.0.lock();
            // Some at a time: wakers are not called under the lock.
            let wakers: [Option<Waker>; 32] = std::array::from_fn(|_| queue.choose());
            drop(queue);
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

/// Threads that sleep again and again.
struct Sleepers<Q: Queue> {
    queue: Arc<Q>,
    slept: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<Handle>,
}

impl<Q: Queue> Sleepers<Q> {
    /// Some on each of `cpus`; they sleep when this returns.
    fn new(cx: &mut Cx<'_>, queue: Q, cpus: &[CpuId]) -> Self {
        let (queue, slept, over) =
            (Arc::new(queue), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for n in 0..SLEEPERS {
            let (queue, slept, over) = (queue.clone(), slept.clone(), over.clone());
            let cpu = cpus[n as usize % cpus.len()];
            let spec = Spec::new("sleeper").stack_bytes(16 << 10);
            let thread = cx.scheduler().spawn(cpu, spec, move |cx| {
                while !over.load(Relaxed) {
                    slept.fetch_add(1, Relaxed);
                    queue.sleep(cx);
                }
            });
            threads.extend(thread);
        }
        let all = Self { queue, slept, over, threads };
        all.settle(cx, SLEEPERS);
        all
    }

    /// Waits until they have gone to sleep so often.
    fn settle(&self, cx: &mut Cx<'_>, slept: u64) {
        while self.slept.load(Relaxed) < slept {
            cx.yield_now();
        }
        // The last one may not sleep yet.
        let any_is_awake = |cx: &Cx<'_>| {
            let mut any = false;
            let mine = |thread: &ThreadInfo| self.threads.iter().any(|handle| handle.id() == thread.id);
            cx.scheduler().threads(&mut |thread| any |= thread.state != ThreadState::Blocked && mine(thread));
            any
        };
        while any_is_awake(cx) {
            cx.yield_now();
        }
    }

    /// Wakes all of them, and waits until all of them have run.
    fn round(&self, cx: &mut Cx<'_>) {
        let before = self.slept.load(Relaxed);
        self.queue.wake_all(cx);
        while self.slept.load(Relaxed) < before + SLEEPERS {
            cx.yield_now();
        }
    }

    fn end(self, cx: &mut Cx<'_>) {
        self.over.store(true, Relaxed);
        self.queue.wake_all(cx);
        for thread in self.threads {
            // It has returned, or panicked and said so.
            let _ = thread.join(cx);
        }
    }
}

fn one_cpu(effort: Effort, cx: &mut Cx<'_>) {
    let here = [CpuId(0)];
    let rt = tokio::runtime::Builder::new_current_thread().build();
    let Ok(rt) = rt else { return println!("no tokio runtime") };
    let notify = Rc::new(tokio::sync::Notify::new());
    let slept = Rc::new(Cell::new(0));
    let tasks = tokio::task::LocalSet::new();
    for _ in 0..SLEEPERS {
        let (notify, slept) = (notify.clone(), slept.clone());
        tasks.spawn_local(async move {
            loop {
                slept.set(slept.get() + 1);
                notify.notified().await;
            }
        });
    }
    let until = |count| {
        tasks.block_on(&rt, async {
            while slept.get() < count {
                tokio::task::yield_now().await;
            }
        });
    };
    until(SLEEPERS);
    let ours = Sleepers::new(cx, SleepQueue, &here);
    let locked = Sleepers::new(cx, Locked(WaitQueue::new()), &here);
    let cx = RefCell::new(cx);
    let mut group =
        Group::new(format!("wake {SLEEPERS} sleepers, who run and sleep again, one CPU"), Unit::Operation);
    let peer = group.add("tokio Notify, one thread", || {
        let before = slept.get();
        notify.notify_waiters();
        until(before + SLEEPERS);
    });
    let lock = group.add("a list under a lock", || locked.round(*cx.borrow_mut()));
    let sleep = group.add("sleep queue", || ours.round(*cx.borrow_mut()));
    group.ratio(sleep, peer, Bar::TimeAtMost(1.0), "no bar of perf.md");
    group.ratio(sleep, lock, Bar::TimeAtMost(1.0), "no bar of perf.md");
    group.run(effort);
    let cx = cx.into_inner();
    ours.end(cx);
    locked.end(cx);
}

/// What a waker pays for sleepers of another CPU, until it may go on.
fn two_cpus(effort: Effort, cx: &mut Cx<'_>) {
    let rounds = if effort == Effort::Quick { 5 } else { 31 };
    println!("\nwake {SLEEPERS} sleepers of another CPU: what the waker pays");
    let show = |name: &str, mut nanos: Vec<u128>| {
        nanos.sort_unstable();
        let at = |quarter: usize| nanos[(nanos.len() - 1) * quarter / 4];
        println!("  {name:32} {:>9} ns   ({} to {})", at(2), at(1), at(3));
    };
    show("a list under a lock", far(cx, Locked(WaitQueue::new()), rounds));
    show("sleep queue", far(cx, SleepQueue, rounds));
}

fn far<Q: Queue>(cx: &mut Cx<'_>, queue: Q, rounds: u64) -> Vec<u128> {
    let sleepers = Sleepers::new(cx, queue, &[CpuId(1)]);
    let nanos = (1..=rounds).map(|round| {
        let begin = cpu_time();
        sleepers.queue.wake_all(cx);
        let took = (cpu_time() - begin).as_nanos();
        sleepers.settle(cx, (round + 1) * SLEEPERS);
        took
    });
    let nanos = nanos.collect();
    sleepers.end(cx);
    nanos
}
