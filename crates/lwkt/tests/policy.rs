//! Policies of the caller's: what they decide, and what happens to one that says what is not so.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dfly_hal::{CpuId, ThreadWait, Wait};
use dfly_lwkt::host::HostPlatform;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx, Handle, JoinError, Policy, Priority, ReadyThread, RunError, Scheduler, Spec};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// A machine with a policy for each CPU, whose CPUs do not run yet.
struct Machine {
    platform: Arc<HostPlatform>,
    scheduler: &'static Scheduler,
}

impl Machine {
    fn new<P: Policy + 'static>(cpus: u32, mut policy: impl FnMut(CpuId) -> P) -> Self {
        let platform = Arc::new(HostPlatform::new(cpus));
        let policy = &mut |cpu| -> Box<dyn Policy> { Box::new(policy(cpu)) };
        let scheduler = Scheduler::with_policy(platform.clone(), Config::default(), policy).unwrap();
        Self { platform, scheduler }
    }

    fn spawn(&self, cpu: CpuId, spec: Spec, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
        self.scheduler.spawn(cpu, spec, f).unwrap()
    }

    fn run(&self, cpu: CpuId) -> JoinHandle<Result<(), RunError>> {
        let (platform, scheduler) = (self.platform.clone(), self.scheduler);
        thread::spawn(move || {
            let _cpu = platform.attach(cpu).unwrap();
            scheduler.run()
        })
    }
}

fn join(handle: Handle) -> Result<(), JoinError> {
    handle.join(&mut ThreadWait::new())
}

/// What came last goes first, whatever its priority.
#[derive(Default)]
struct Stack(Vec<ReadyThread>);

impl Policy for Stack {
    fn enqueue(&mut self, thread: ReadyThread) {
        self.0.push(thread);
    }
    fn pick(&mut self, fits: &mut dyn FnMut(ReadyThread) -> bool) -> Option<ReadyThread> {
        let at = (0..self.0.len()).rev().find(|&at| fits(self.0[at]))?;
        Some(self.0.remove(at))
    }
    fn best(&self) -> Option<Priority> {
        self.0.iter().map(|thread| thread.priority()).max()
    }
    fn tick(&mut self, running: ReadyThread) -> bool {
        &*running.name() != "favourite"
    }
}

#[test]
fn a_policy_decides_the_order() {
    let machine = Machine::new(1, |_| Stack::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<Handle> = [5, 20, 12, 1]
        .into_iter()
        .map(|priority| {
            let order = order.clone();
            let spec = Spec::new("one").priority(Priority::new(priority).unwrap());
            machine.spawn(CPU0, spec, move |_| order.lock().unwrap().push(priority))
        })
        .collect();
    let cpu = machine.run(CPU0);
    for thread in threads {
        assert_eq!(join(thread), Ok(()));
    }
    assert_eq!(*order.lock().unwrap(), [1, 12, 20, 5]);
    machine.scheduler.stop();
    assert_eq!(cpu.join().unwrap(), Ok(()));
}

#[test]
fn a_policy_decides_who_should_yield_after_a_tick() {
    let machine = Machine::new(1, |_| Stack::default());
    let cpu = machine.run(CPU0);
    for (name, should) in [("favourite", false), ("other", true)] {
        let thread = machine.spawn(CPU0, name.into(), move |cx| {
            let next = cx.scheduler().spawn(CPU0, "next".into(), |_| ()).unwrap();
            cx.scheduler().tick();
            assert_eq!(cx.should_yield(), should);
            next.join(cx).unwrap();
        });
        assert_eq!(join(thread), Ok(()));
    }
    machine.scheduler.stop();
    assert_eq!(cpu.join().unwrap(), Ok(()));
}

#[test]
fn threads_whose_tokens_are_not_to_be_had_are_passed_over() {
    static TOKEN: Token<u32> = Token::new(0);
    let machine = Machine::new(2, |_| Stack::default());
    let cpus = [CPU0, CPU1].map(|cpu| machine.run(cpu));
    let threads = [0, 0, 1, 1].map(|cpu| {
        machine.spawn(CpuId(cpu), "holder".into(), |cx| {
            for _ in 0..if cfg!(miri) { 5 } else { 300 } {
                let (mut cx, mut held) = cx.hold(&TOKEN);
                *held.get_mut(&mut cx) += 1;
                drop(cx);
            }
            cx.yield_now();
        })
    });
    for thread in threads {
        assert_eq!(join(thread), Ok(()));
    }
    machine.scheduler.stop();
    for cpu in cpus {
        assert_eq!(cpu.join().unwrap(), Ok(()));
    }
}

#[test]
fn sub_priorities_order_those_of_one_priority() {
    let platform = Arc::new(HostPlatform::new(1));
    let scheduler = Scheduler::new(platform.clone(), Config::default()).unwrap();
    let machine = Machine { platform, scheduler };
    let order = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<Handle> = [3, 7, 3, 0, 9, 7]
        .into_iter()
        .enumerate()
        .map(|(number, rank)| {
            let order = order.clone();
            let spec = Spec::new("one").sub_priority(rank);
            machine.spawn(CPU0, spec, move |_| order.lock().unwrap().push((rank, number)))
        })
        .collect();
    let cpu = machine.run(CPU0);
    for thread in threads {
        assert_eq!(join(thread), Ok(()));
    }
    assert_eq!(*order.lock().unwrap(), [(9, 4), (7, 1), (7, 5), (3, 0), (3, 2), (0, 3)]);
    machine.scheduler.stop();
    assert_eq!(cpu.join().unwrap(), Ok(()));
}

/// What a policy can do wrong.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// The same thread again, which has ended or waits by then.
    Twice,
    /// One that another CPU was given.
    Elsewhere,
    /// One that the CPU of another scheduler with the same number was given.
    OfAnother,
    /// One that it has not asked about.
    Unasked,
    /// Nobody, though somebody fits.
    Nobody,
    /// Another one than the one that fits.
    Another,
    PanicsInPick,
    PanicsInEnqueue,
}

struct Liar {
    lie: Lie,
    cpu: CpuId,
    ready: VecDeque<ReadyThread>,
    last: Option<ReadyThread>,
    /// What the policy of CPU 1 was given.
    theirs: Arc<Mutex<Option<ReadyThread>>>,
}

impl Policy for Liar {
    fn enqueue(&mut self, thread: ReadyThread) {
        if self.cpu == CPU1 {
            *self.theirs.lock().unwrap() = Some(thread);
        }
        assert!(!matches!(self.lie, Lie::PanicsInEnqueue), "the policy panics in enqueue");
        self.ready.push_back(thread);
    }
    fn pick(&mut self, fits: &mut dyn FnMut(ReadyThread) -> bool) -> Option<ReadyThread> {
        match self.lie {
            Lie::Twice if self.ready.is_empty() => return self.last.filter(|&thread| fits(thread)),
            Lie::Elsewhere if self.cpu == CPU0 => return *self.theirs.lock().unwrap(),
            Lie::OfAnother => return self.theirs.lock().unwrap().filter(|&thread| fits(thread)),
            Lie::Unasked => return self.ready.pop_front(),
            Lie::PanicsInPick => panic!("the policy panics in pick"),
            _ => {}
        }
        let first = self.ready.pop_front().filter(|&thread| fits(thread))?;
        self.last = Some(first);
        match self.lie {
            Lie::Nobody => None,
            Lie::Another => self.ready.pop_front(),
            _ => Some(first),
        }
    }
    fn best(&self) -> Option<Priority> {
        self.ready.front().map(|thread| thread.priority())
    }
}

/// What the panics of all tests said.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn is_said(words: &[&str]) -> bool {
    SAID.lock().unwrap().iter().any(|said| words.iter().all(|word| said.contains(word)))
}

/// Waits until somebody has said so, about `lie`.
fn hear(lie: Lie, words: &[&str]) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_said(words) {
        assert!(Instant::now() < patience, "{lie:?}: {:?}", SAID.lock().unwrap());
        thread::yield_now();
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SAID.lock().unwrap().push(panic.to_string());
            before(panic);
        }));
    });
}

/// CPU 0 has a policy that lies, and a thread that waits once if it ever runs. What the CPU says about it.
fn catch(lie: Lie, words: &[&str]) {
    listen();
    let theirs = Arc::new(Mutex::new(None));
    let machine = Machine::new(2, |cpu| Liar {
        lie: if cpu == CPU0 { lie } else { Lie::Twice },
        cpu,
        ready: VecDeque::new(),
        last: None,
        theirs: theirs.clone(),
    });
    let other = machine.spawn(CPU1, Spec::new("of cpu1"), |_| ());
    let threads = ["one", "two"].map(|name| {
        machine.spawn(CPU0, Spec::new(name), |cx| {
            let wait = poll_fn(|_| Poll::<()>::Pending);
            let _ = cx.wait(std::pin::pin!(wait), None);
        })
    });
    if matches!(lie, Lie::Elsewhere) {
        // CPU 1 takes it, and runs it.
        let _runs_for_ever = machine.run(CPU1);
        while theirs.lock().unwrap().is_none() {
            thread::yield_now();
        }
    }
    let _may_park_for_ever = machine.run(CPU0);
    // The CPU ends, and whoever waits for its threads is told.
    for thread in threads {
        assert_eq!(join(thread), Err(JoinError::Stopped), "{lie:?}");
    }
    hear(lie, words);
    drop(other);
}

#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_policy_that_says_what_is_not_so_ends_its_cpu_and_is_named() {
    catch(Lie::Twice, &["the policy of cpu0 names thread 3 (two) on cpu0, which is not ready"]);
    catch(Lie::Elsewhere, &["the policy of cpu0 names thread 1 (of cpu1) on cpu1, which is another CPU's"]);
    catch(Lie::Unasked, &["the policy of cpu0 names thread 2 (one)", "was not asked for"]);
    catch(Lie::Nobody, &["thread 2 (one)", "fits, and then says that nobody does"]);
    catch(Lie::Another, &["the policy of cpu0 names thread 3 (two) on cpu0, which does not fit"]);
    catch(Lie::PanicsInPick, &["the policy panics in pick"]);
    catch(Lie::PanicsInEnqueue, &["the policy panics in enqueue"]);
}

/// Both have a CPU 0, and a thread of the one must never run as the other's.
#[test]
#[cfg_attr(miri, ignore = "leaves OS threads: run with MIRIFLAGS=-Zmiri-ignore-leaks and -- --ignored")]
fn a_policy_that_names_a_thread_of_another_scheduler_ends_its_cpu() {
    listen();
    let theirs = Arc::new(Mutex::new(None));
    let liar = |lie, cpu| {
        let theirs = theirs.clone();
        move |_| Liar { lie, cpu, ready: VecDeque::new(), last: None, theirs: theirs.clone() }
    };
    // Its policy shows what it is given last, as that of CPU 1 does elsewhere.
    let other = Machine::new(1, liar(Lie::Twice, CPU1));
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let busy = other.spawn(CPU0, "busy".into(), move |_| {
        while !ends.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    });
    let ready = other.spawn(CPU0, "of another".into(), |_| ());
    let _runs_for_ever = other.run(CPU0);
    while theirs.lock().unwrap().is_none_or(|thread: ReadyThread| &*thread.name() != "of another") {
        thread::yield_now();
    }
    let machine = Machine::new(1, liar(Lie::OfAnother, CPU0));
    let one = machine.spawn(CPU0, "one".into(), |_| ());
    let _may_park_for_ever = machine.run(CPU0);
    hear(Lie::OfAnother, &["the policy of cpu0 names", "(of another)", "which is another scheduler's"]);
    assert_eq!(join(one), Err(JoinError::Stopped));
    // Nobody has touched it.
    assert!(!ready.is_finished());
    over.store(true, Ordering::SeqCst);
    assert_eq!((join(busy), join(ready)), (Ok(()), Ok(())));
}
