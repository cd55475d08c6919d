//! Models of tokens: the word, the set of a thread that its CPU takes on its behalf, and the scheduler around them.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_token`
//!
//! Each step that a model relies on has a patch in `mutations/token-*` that weakens it, and makes a model fail.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, Wait};
use dfly_lwkt::lock::Holders;
use dfly_lwkt::token::Token;
use dfly_lwkt::token::model::Hold;
use dfly_lwkt::{Config, Cx, Platform, RunTime, Scheduler};
use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle, Thread};

/// So often a model tries. More would be a live-lock.
const TRIES: u32 = 50;

/// Memory without any order of its own.
struct Memory(UnsafeCell<u32>);

// SAFETY: loom reports an access that races.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }
    fn add(&self, n: u32) {
        // SAFETY: loom reports an access that races.
        self.0.with_mut(|p| unsafe { *p += n });
    }
    fn get(&self) -> u32 {
        // SAFETY: loom reports an access that races.
        self.0.with(|p| unsafe { *p })
    }
}

#[derive(Default)]
struct Two {
    a: Token<()>,
    b: Token<()>,
}

/// Tokens, and memory that they guard.
fn world() -> Arc<(Two, Memory)> {
    Arc::new((Two::default(), Memory::new()))
}

fn go(world: &Arc<(Two, Memory)>, f: impl FnOnce(&Two, &Memory) + 'static) -> JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || f(&world.0, &world.1))
}

#[test]
fn who_holds_alone_sees_what_was_done_before() {
    loom::model(|| {
        let world = world();
        let others =
            [1, 1].map(|n| go(&world, move |t, m| Hold::alone(&t.a, None).with(TRIES, || m.add(n)).unwrap()));
        others.into_iter().for_each(|other| other.join().unwrap());
        Hold::alone(&world.0.a, None).with(0, || assert_eq!(world.1.get(), 2)).unwrap();
    });
}

#[test]
fn sharers_see_what_a_writer_did_and_it_waits_until_they_have_read() {
    loom::model(|| {
        let world = world();
        let writer = go(&world, |t, m| Hold::alone(&t.a, None).with(TRIES, || m.add(1)).unwrap());
        let reader = go(&world, |t, m| {
            let seen = Hold::shared(&t.a, None).with(TRIES, || m.get()).unwrap();
            assert!(seen <= 1);
        });
        Hold::shared(&world.0.a, None).with(TRIES, || world.1.get()).unwrap();
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(world.0.a.holders(), Holders::Nobody);
    });
}

/// L4: a share comes and goes while somebody asks to have it alone.
#[test]
fn a_request_loses_no_share() {
    loom::model(|| {
        let world = world();
        let sharer = go(&world, |t, _| Hold::shared(&t.a, None).with(TRIES, || ()).unwrap());
        let writer = go(&world, |t, m| {
            // Once only: what it has asked for may become stale.
            let _ = Hold::alone(&t.a, None).with(0, || m.add(1));
        });
        Hold::shared(&world.0.a, None).with(TRIES, || ()).unwrap();
        sharer.join().unwrap();
        writer.join().unwrap();
        assert_eq!(world.0.a.holders(), Holders::Nobody);
        Hold::alone(&world.0.a, None).with(0, || world.1.get()).unwrap();
    });
}

/// L4: shares that are added without a look, while others have it alone or ask for that.
#[test]
fn a_share_that_is_added_in_vain_is_forgotten() {
    loom::model(|| {
        let world = world();
        let [one, two] = [(); 2].map(|()| {
            go(&world, |t, m| {
                let share = Hold::shared(&t.a, None);
                if share.share() {
                    m.get();
                    share.give_up();
                }
            })
        });
        Hold::alone(&world.0.a, None).with(TRIES, || world.1.add(1)).unwrap();
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(world.0.a.holders(), Holders::Nobody);
        Hold::alone(&world.0.a, None).with(0, || world.1.add(1)).unwrap();
    });
}

/// L4: nobody comes back who has asked.
#[test]
fn a_stale_request_keeps_nobody_out_for_ever() {
    loom::model(|| {
        let world = world();
        let (two, _) = &*world;
        let share = Hold::shared(&two.a, None);
        share.with(0, || assert_eq!(Hold::alone(&two.a, None).with(0, || ()), None)).unwrap();
        assert_eq!(share.with(0, || ()), None, "who has asked goes first");
        assert_eq!(share.with(10, || ()), Some(()), "for a while");
        assert_eq!(share.with(0, || ()), Some(()), "and the request is taken back");
        assert_eq!(two.a.holders(), Holders::Nobody);
    });
}

/// L5: all or none, in opposite orders, and both get on.
#[test]
fn sets_in_opposite_orders_are_taken_in_turn() {
    loom::model(|| {
        let world = world();
        let there = go(&world, |t, m| {
            let a = Hold::alone(&t.a, None);
            Hold::alone(&t.b, Some(&a)).with(TRIES, || m.add(1)).unwrap();
        });
        let back = go(&world, |t, m| {
            let b = Hold::alone(&t.b, None);
            Hold::alone(&t.a, Some(&b)).with(TRIES, || m.add(1)).unwrap();
        });
        there.join().unwrap();
        back.join().unwrap();
        let (two, memory) = &*world;
        assert_eq!([&two.a, &two.b].map(Token::holders), [Holders::Nobody; 2]);
        Hold::alone(&two.a, None).with(0, || assert_eq!(memory.get(), 2)).unwrap();
    });
}

/// L5: a set that could not be had leaves nothing taken, in the order of the chain and by address.
#[test]
fn a_set_that_fails_holds_nothing() {
    loom::model(|| {
        let world = world();
        let (two, _) = &*world;
        let busy = Hold::alone(&two.b, None);
        for tries in [0, 10] {
            let fails = || {
                let b = Hold::alone(&two.b, None);
                // `a` is to be had, and then `b` is not.
                assert_eq!(Hold::alone(&two.a, Some(&b)).with(tries, || ()), None);
                assert_eq!([&two.a, &two.b].map(Token::holders), [Holders::Nobody, Holders::Exclusive(1)]);
            };
            busy.with(0, fails).unwrap();
        }
    });
}

loom::thread_local! {
    static THIS: Cell<CpuId> = Cell::new(CpuId::NONE);
}

/// CPUs that are loom's threads. `std`'s mutexes are no step of a model.
struct Model {
    cpus: Vec<Mutex<Option<Thread>>>,
}

// SAFETY: each model attaches one thread for each CPU.
unsafe impl Cpus for Model {
    fn this(&self) -> CpuId {
        THIS.with(Cell::get)
    }
    fn count(&self) -> u32 {
        self.cpus.len() as u32
    }
    fn raise_ipi(&self, to: CpuId) {
        let cpu = self.cpus[to.index()].lock().unwrap().clone();
        if let Some(cpu) = cpu {
            cpu.unpark();
        }
    }
}

impl Clock for Model {
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn wake_at(&self, _: Instant, waker: &Waker) {
        waker.wake_by_ref();
    }
}

impl Platform for Model {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        if !ready() {
            thread::park();
        }
    }
}

fn machine(cpus: usize) -> (Arc<Model>, &'static Scheduler) {
    let model = Arc::new(Model { cpus: (0..cpus).map(|_| Mutex::new(None)).collect() });
    let config = Config::default().run_time(RunTime::NotMeasured);
    let scheduler = Scheduler::new(model.clone(), config).unwrap();
    (model, scheduler)
}

/// Runs a CPU on the calling thread.
fn run(model: &Model, scheduler: &'static Scheduler, cpu: CpuId) {
    THIS.with(|this| this.set(cpu));
    *model.cpus[cpu.index()].lock().unwrap() = Some(thread::current());
    scheduler.run().unwrap();
    // loom's `unpark` also wakes a thread that waits for something else.
    *model.cpus[cpu.index()].lock().unwrap() = None;
}

fn spawn(
    scheduler: &'static Scheduler,
    cpu: u32,
    f: impl FnOnce(&mut Cx<'_>) + Send + 'static,
) -> dfly_lwkt::Handle {
    scheduler.spawn(CpuId(cpu), "thread".into(), f).unwrap()
}

/// Blocks until somebody else has woken it.
fn be_woken(cx: &mut Cx<'_>) {
    let mut first = true;
    let wait = poll_fn(|cx| {
        if core::mem::take(&mut first) {
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            return Poll::Pending;
        }
        Poll::Ready(())
    });
    cx.wait(pin!(wait), None).unwrap();
}

#[test]
fn a_thread_that_is_woken_has_its_token_again_before_it_runs() {
    loom::model(|| {
        let (model, scheduler) = machine(1);
        let token = Arc::new(Token::new(0));
        let theirs = token.clone();
        let sleeper = spawn(scheduler, 0, move |cx| {
            {
                let (mut cx, mut n) = cx.hold(&theirs);
                *n.get_mut(&mut cx) += 1;
                be_woken(&mut cx);
                assert_eq!(theirs.holders(), Holders::Exclusive(1));
                *n.get_mut(&mut cx) += 1;
            }
            // The other one waits for the sleep, or has been.
            cx.yield_now();
            cx.scheduler().stop();
        });
        let other = spawn(scheduler, 0, move |cx| {
            // To be had only while the first one sleeps.
            let (mut cx, mut n) = cx.hold(&token);
            *n.get_mut(&mut cx) += 10;
        });
        run(&model, scheduler, CpuId(0));
        other.join(&mut ThreadWait::new()).unwrap();
        sleeper.join(&mut ThreadWait::new()).unwrap();
    });
}

#[test]
fn threads_of_two_cpus_have_a_token_in_turn_and_no_cpu_sleeps_over_it() {
    let mut builder = loom::model::Builder::new();
    // The scheduler around it has models of its own.
    builder.preemption_bound = Some(1);
    builder.check(|| {
        let (model, scheduler) = machine(2);
        let token = Arc::new((Token::new(0), Mutex::new(0)));
        let [one, two] = [0, 1].map(|cpu| {
            let token = token.clone();
            spawn(scheduler, cpu, move |cx| {
                let (mut cx, mut n) = cx.hold(&token.0);
                *n.get_mut(&mut cx) += 1;
                drop(cx);
                let mut ended = token.1.lock().unwrap();
                *ended += 1;
                if *ended == 2 {
                    scheduler.stop();
                }
            })
        });
        let other = model.clone();
        let cpu1 = thread::spawn(move || run(&other, scheduler, CpuId(1)));
        run(&model, scheduler, CpuId(0));
        cpu1.join().unwrap();
        one.join(&mut ThreadWait::new()).unwrap();
        two.join(&mut ThreadWait::new()).unwrap();
        assert_eq!(token.0.holders(), Holders::Nobody);
    });
}
