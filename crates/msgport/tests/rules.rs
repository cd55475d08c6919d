//! The walk of a message, and every drop rule, as `DESIGN.md` numbers them. Miri runs this file too.
#![cfg(not(loom))]

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use dfly_hal::{SpinWait, TimedOut, block_on};
use dfly_msgport::{Body, Completions, Hook, HookRef, Job, List, Own, Pending, Pool, Returned, Sink};

/// A body that remembers what was done to it.
#[derive(Default)]
struct Msg {
    value: u32,
    orphaned: bool,
    resets: u32,
    hooks: Vec<HookRef<Msg>>,
    trace: Vec<&'static str>,
    #[expect(dead_code, reason = "counts by being dropped")]
    alive: Option<Alive>,
}

impl Msg {
    fn counted(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self { alive: Some(Alive(alive.clone())), ..Self::default() }
    }
}

struct Alive(Arc<AtomicUsize>);
impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Msg {
    type Shared = AtomicU32;
    type Key = ();

    fn orphaned(&mut self) {
        self.orphaned = true;
    }
    fn pop_hook(&mut self) -> Option<HookRef<Self>> {
        self.hooks.pop()
    }
    fn child_done(&mut self, parent: &AtomicU32) {
        parent.fetch_add(self.value, Ordering::Relaxed);
    }
    fn all_children_done(&mut self, shared: &AtomicU32) {
        self.value += shared.load(Ordering::Relaxed);
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn msg(value: u32) -> Own<Msg> {
    Own::new(Msg { value, ..Msg::default() })
}

/// Counts its wake-ups.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<T: Body>(p: &mut Pending<T>, bell: &Arc<Bell>) -> Poll<Own<T>> {
    Future::poll(Pin::new(p), &mut Context::from_waker(&Waker::from(bell.clone())))
}

// Destinations.

#[test]
fn a_detached_message_goes_home_when_complete() {
    let alive = Arc::default();
    let job = Own::new(Msg::counted(&alive)).detached();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    job.complete();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_waiter_gets_what_the_receiver_wrote() {
    let (mut job, pending) = msg(1).waitable();
    job.value += 1;
    assert!(!pending.is_done());
    job.complete();
    assert!(pending.is_done());
    assert_eq!(pending.try_take().unwrap().value, 2);
}

#[test]
fn a_waiter_is_woken_once_by_its_last_waker() {
    let (job, mut pending) = msg(1).waitable();
    let (first, second) = (Arc::<Bell>::default(), Arc::<Bell>::default());
    assert!(poll(&mut pending, &first).is_pending());
    assert!(poll(&mut pending, &first).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "the same waker is kept");
    assert!(poll(&mut pending, &second).is_pending());
    assert_eq!(Arc::strong_count(&first), 1, "the old waker is dropped at once");
    job.complete();
    assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    assert!(poll(&mut pending, &second).is_ready());
    assert!(poll(&mut pending, &second).is_pending(), "it gives the message once");
    assert!(pending.is_done());
    assert!(pending.try_take().is_err());
}

#[test]
fn a_wait_that_times_out_keeps_the_message() {
    let clock = std::cell::Cell::new(0);
    let now = || {
        clock.set(clock.get() + 1);
        dfly_hal::Instant::from_nanos(clock.get())
    };
    let (job, mut pending) = msg(5).waitable();
    let deadline = Some(dfly_hal::Instant::from_nanos(3));
    let timed_out = block_on(&mut SpinWait::with_clock(&mut || {}, &now), &mut pending, deadline);
    assert_eq!(timed_out.err(), Some(TimedOut));
    let mut job = Some(job);
    let mut device = || job.take().into_iter().for_each(Job::complete);
    assert_eq!(block_on(&mut SpinWait::new(&mut device), &mut pending, None).unwrap().value, 5);
}

#[test]
fn a_sink_gets_the_message_at_rest() {
    struct Last(Mutex<Option<Own<Msg>>>);
    impl Sink<Msg> for Last {
        fn accept(&self, done: Own<Msg>) {
            *self.0.lock().unwrap() = Some(done);
        }
    }
    let last = Arc::new(Last(Mutex::new(None)));
    msg(3).send_to(last.clone()).complete();
    // It can be sent again, to somebody else.
    let own = last.0.lock().unwrap().take().unwrap();
    let (job, pending) = own.waitable();
    job.complete();
    assert_eq!(pending.try_take().unwrap().value, 3);
    assert_eq!(Arc::strong_count(&last), 1);
}

#[test]
fn a_static_sink_needs_no_count() {
    struct Sum;
    static SUM: AtomicU32 = AtomicU32::new(0);
    impl Sink<Msg> for Sum {
        fn accept(&self, done: Own<Msg>) {
            SUM.fetch_add(done.value, Ordering::SeqCst);
        }
    }
    msg(3).send_to(&Sum).complete();
    msg(4).send_to(&Sum as &'static dyn Sink<Msg>).complete();
    assert_eq!(SUM.load(Ordering::SeqCst), 7);
}

// Hooks.

struct Note(&'static str);
static UPPER: Note = Note("upper");
impl Hook<Msg> for Note {
    fn passing(&self, mut job: Job<Msg>) -> Option<Job<Msg>> {
        job.trace.push(self.0);
        Some(job)
    }
}

/// Completes the job itself, one stack frame deeper.
struct Inline;
impl Hook<Msg> for Inline {
    fn passing(&self, mut job: Job<Msg>) -> Option<Job<Msg>> {
        job.trace.push("inline");
        job.complete();
        None
    }
}

/// Keeps the job.
#[derive(Default)]
struct Keep(Mutex<List<Msg>>);
impl Hook<Msg> for Keep {
    fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
        self.0.lock().expect("nobody panicked").push(job);
        None
    }
}

#[test]
fn hooks_run_nearest_to_the_device_first_then_the_destination() {
    let (mut job, pending) = msg(0).waitable();
    let hooks: [HookRef<Msg>; 3] = [
        Arc::new(Note("upper")).into(),
        (&Inline).into(),
        (Arc::new(Note("lower")) as Arc<dyn Hook<Msg>>).into(),
    ];
    job.hooks.extend(hooks);
    job.complete();
    assert_eq!(pending.try_take().unwrap().trace, ["lower", "inline", "upper"]);
}

#[test]
fn a_hook_may_keep_the_job_and_complete_it_later() {
    let keep = Arc::new(Keep::default());
    let (mut job, pending) = msg(0).waitable();
    job.hooks.push((&UPPER).into());
    job.hooks.push(keep.clone().into());
    job.complete();
    assert!(!pending.is_done());
    let job = keep.0.lock().unwrap().pop().unwrap();
    job.complete();
    assert_eq!(pending.try_take().unwrap().trace, ["upper"]);
    assert_eq!(Arc::strong_count(&keep), 1, "the hook's reference is given up once it ran");
}

#[test]
fn a_hundred_thousand_hooks_need_no_stack() {
    let (mut job, pending) = msg(0).waitable();
    job.hooks.extend((0..if cfg!(miri) { 100 } else { 100_000 }).map(|_| HookRef::from(&UPPER)));
    job.complete();
    assert!(pending.is_done());
}

// Families.

#[test]
fn a_parent_completes_when_the_family_and_all_children_are_done_in_any_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (job, pending) = msg(100).waitable();
        let mut family = job.split();
        assert_eq!(family.value, 100, "the frozen parent can be read");
        let mut parts = [1, 2].map(|value| Some(family.adopt(msg(value))));
        let mut family = Some(family);
        for (done, which) in order.into_iter().enumerate() {
            assert!(!pending.is_done(), "{done} of 3 are not all");
            match parts.get_mut(which) {
                Some(child) => child.take().unwrap().complete(),
                None => drop(family.take()),
            }
        }
        assert_eq!(pending.try_take().unwrap().value, 103);
    }
}

#[test]
fn an_empty_family_completes_its_parent() {
    let (job, pending) = msg(1).waitable();
    let family = job.split();
    assert_eq!(family.shared().load(Ordering::Relaxed), 0);
    drop(family);
    assert_eq!(pending.try_take().unwrap().value, 1);
}

#[test]
fn what_children_share_is_new_for_every_split() {
    let mut own = msg(0);
    for round in 1..=3 {
        let (job, pending) = own.waitable();
        let mut family = job.split();
        family.adopt(msg(1)).complete();
        drop(family);
        own = pending.try_take().unwrap();
        assert_eq!(own.value, round);
    }
}

#[test]
fn an_orphaned_child_still_counts() {
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    drop(family.adopt(msg(1)));
    drop(family);
    let parent = pending.try_take().unwrap();
    assert!(!parent.orphaned);
    assert_eq!(parent.value, 1);
}

#[test]
fn a_child_goes_home_before_its_parent_is_told() {
    struct Parent(Arc<Pool<Msg>>, AtomicUsize);
    impl Sink<Msg> for Parent {
        fn accept(&self, _: Own<Msg>) {
            let child = self.0.get().unwrap();
            self.1.store(child.resets as usize, Ordering::SeqCst);
        }
    }
    let pool = Arc::new(Pool::new(1, Msg::default));
    let sink = Arc::new(Parent(pool.clone(), AtomicUsize::new(0)));
    let mut family = msg(0).send_to(sink.clone()).split();
    let child = family.adopt(pool.get().unwrap());
    drop(family);
    child.complete();
    assert_eq!(sink.1.load(Ordering::SeqCst), 2, "reset when the pool was filled, and on the way home");
}

#[test]
fn a_family_can_have_more_children_than_it_has_counts() {
    let rounds = if cfg!(miri) { 100 } else { 200_000 };
    let pool = Pool::new(1, || Msg { value: 1, ..Msg::default() });
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    let late = family.adopt(msg(1));
    for _ in 0..rounds {
        family.adopt(pool.get().unwrap()).complete();
    }
    drop(family);
    assert!(!pending.is_done());
    late.complete();
    assert_eq!(pending.try_take().unwrap().value, rounds + 1);
}

#[test]
fn completing_a_deep_line_of_families_needs_no_stack() {
    let depth = if cfg!(miri) { 50 } else { 200_000 };
    let (mut job, pending) = msg(0).waitable();
    for _ in 0..depth {
        let mut family = job.split();
        job = family.adopt(msg(1));
    }
    job.complete();
    // Each child counted its own value and what its child gave it.
    assert_eq!(pending.try_take().unwrap().value, depth);
}

// Drop rules.

#[test]
fn a_dropped_pending_does_not_block_and_the_node_goes_home_with_the_job() {
    for armed in [false, true] {
        let pool = Pool::new(1, Msg::default);
        let (job, mut pending) = pool.get().unwrap().waitable();
        let bell = Arc::<Bell>::default();
        if armed {
            assert!(poll(&mut pending, &bell).is_pending());
        }
        drop(pending);
        assert_eq!(Arc::strong_count(&bell), 1, "the waker went with it");
        assert!(pool.get().is_none(), "still with the receiver");
        job.complete();
        assert!(pool.get().is_some());
        assert_eq!(bell.0.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_dropped_pending_of_a_done_message_sends_it_home() {
    let alive = Arc::default();
    let (job, pending) = Own::new(Msg::counted(&alive)).waitable();
    job.complete();
    drop(pending);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
#[cfg_attr(miri, ignore = "leaks on purpose")]
fn a_forgotten_pending_leaks_one_node_and_no_more() {
    let alive = Arc::default();
    let (job, pending) = Own::new(Msg::counted(&alive)).waitable();
    std::mem::forget(pending);
    job.complete();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_job_completes_as_orphaned_through_its_hooks() {
    let (mut job, pending) = msg(0).waitable();
    job.hooks.push((&UPPER).into());
    drop(job);
    let own = pending.try_take().unwrap();
    assert!(own.orphaned);
    assert_eq!(own.trace, ["upper"]);
}

#[test]
fn a_dropped_list_completes_its_jobs_as_orphaned() {
    let done = Arc::new(Completions::new());
    let list: List<Msg> = (0..3).map(|i| msg(i).send_to(done.clone())).collect();
    drop(list);
    let back: Vec<u32> = done.drain().inspect(|own| assert!(own.orphaned)).map(|own| own.value).collect();
    assert_eq!(back, [0, 1, 2]);
}

#[test]
fn a_pool_dropped_before_its_messages_lets_them_free_themselves() {
    let alive = Arc::default();
    let pool = Pool::new(4, || Msg::counted(&alive));
    let at_rest = pool.get().unwrap();
    let on_its_way = pool.get().unwrap().detached();
    let (job, pending) = pool.get().unwrap().waitable();
    drop(pool);
    assert_eq!(alive.load(Ordering::SeqCst), 3);
    drop(at_rest);
    on_its_way.complete();
    drop(job);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    drop(pending);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn dropped_completions_send_their_messages_home() {
    let pool = Pool::new(1, Msg::default);
    let done = Arc::new(Completions::new());
    pool.get().unwrap().send_to(done.clone()).complete();
    assert!(pool.get().is_none());
    drop(done);
    assert!(pool.get().is_some());
}

#[test]
fn a_hook_that_panics_orphans_the_job() {
    struct Bad;
    impl Hook<Msg> for Bad {
        fn passing(&self, _: Job<Msg>) -> Option<Job<Msg>> {
            panic!("a bug in a layer");
        }
    }
    let (mut job, pending) = msg(0).waitable();
    job.hooks.push((&Bad).into());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.complete())).is_err());
    assert!(pending.try_take().unwrap().orphaned);
}

#[test]
fn a_child_that_panics_when_it_is_folded_does_not_keep_its_parent() {
    struct Fragile(u32);
    impl Body for Fragile {
        type Shared = ();
        type Key = ();
        fn orphaned(&mut self) {
            self.0 += 1;
        }
        fn child_done(&mut self, (): &()) {
            panic!("a bug in a body");
        }
    }
    let (job, pending) = Own::new(Fragile(0)).waitable();
    let mut family = job.split();
    let child = family.adopt(Own::new(Fragile(0)));
    drop(family);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child.complete())).is_err());
    assert_eq!(pending.try_take().unwrap().0, 0, "the parent itself is no orphan");
}

// Lists.

#[test]
fn a_list_keeps_order_through_push_pop_and_append() {
    let values = |list: &mut List<Msg>| list.by_ref().map(|job| job.value).collect::<Vec<_>>();
    let mut a = List::from(msg(1).detached());
    let mut b: List<Msg> = [2, 3].map(|v| msg(v).detached()).into_iter().collect();
    a.append(&mut b);
    assert!(b.is_empty() && b.pop().is_none());
    a.append(&mut b);
    assert_eq!((a.len(), a.peek().map(|m| m.value)), (3, Some(1)));
    b.push(msg(4).detached());
    a.append(&mut b);
    assert_eq!(a.pop().unwrap().value, 1);
    a.push(msg(5).detached());
    assert_eq!(values(&mut a), [2, 3, 4, 5]);
    assert!(a.peek().is_none());
    a.push(msg(6).detached());
    b.append(&mut a);
    assert_eq!(values(&mut b), [6]);
}

// Pools.

#[test]
fn a_pool_gives_each_message_to_one_and_none_when_all_are_out() {
    let pool = Pool::new(3, Msg::default);
    assert_eq!(pool.capacity(), 3);
    for _ in 0..2 {
        let mut out: Returned<Msg> = std::iter::from_fn(|| pool.get()).collect();
        assert_eq!(out.len(), 3);
        assert!(pool.get().is_none());
        drop(out.pop());
        assert!(pool.get().is_some());
    }
}

#[test]
fn an_empty_pool_has_nothing() {
    assert!(Pool::new(0, Msg::default).get().is_none());
}

// Completions.

#[test]
fn completions_come_in_order_and_wake_once_per_registration() {
    let done = Arc::new(Completions::new());
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(bell.clone());
    let cx = &mut Context::from_waker(&waker);
    let mut jobs = [1, 2, 3].map(|v| Some(msg(v).send_to(done.clone())));
    assert!(done.poll_drain(cx).is_pending());
    assert!(done.poll_drain(cx).is_pending());
    jobs.iter_mut().for_each(|job| job.take().unwrap().complete());
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(back) = done.poll_drain(cx) else { panic!("three came back") };
    assert_eq!(back.map(|own| own.value).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(done.drain().is_empty());
}

#[test]
fn a_loop_over_completions_sends_again_without_recursion() {
    // A device that completes inside its submit: a sink that sent from `accept` would recurse here.
    let done = Arc::new(Completions::new());
    let mut left = if cfg!(miri) { 100 } else { 10_000 };
    msg(0).send_to(done.clone()).complete();
    while left > 0 {
        for own in done.wait(&mut SpinWait::new(&mut || {}), None).unwrap() {
            left -= 1;
            own.send_to(done.clone()).complete();
        }
    }
}

// Threads: what loom proves for two threads, here with real ones and many messages (and under Miri).

#[test]
fn messages_cross_threads_and_come_back() {
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let pool = Arc::new(Pool::new(4, Msg::default));
    let queue = Arc::new(Mutex::new(List::<Msg>::new()));
    let receiver = {
        let queue = queue.clone();
        thread::spawn(move || {
            let mut served = 0;
            while served < 2 * rounds {
                let batch = std::mem::take(&mut *queue.lock().unwrap());
                if batch.is_empty() {
                    thread::yield_now();
                }
                for mut job in batch {
                    job.value += 1;
                    job.complete();
                    served += 1;
                }
            }
        })
    };
    let senders = [0, 1].map(|_| {
        let (pool, queue) = (pool.clone(), queue.clone());
        thread::spawn(move || {
            let done = Arc::new(Completions::new());
            let mut wait = dfly_hal::ThreadWait::new();
            for i in 0..rounds {
                let mut own = pool.get().unwrap();
                own.value = i;
                let own = if i % 2 == 0 {
                    let (job, pending) = own.waitable();
                    queue.lock().unwrap().push(job);
                    block_on(&mut wait, pending, None).unwrap()
                } else {
                    queue.lock().unwrap().push(own.send_to(done.clone()));
                    done.wait(&mut wait, None).unwrap().pop().unwrap()
                };
                assert_eq!(own.value, i + 1);
            }
        })
    });
    senders.into_iter().for_each(|t| t.join().unwrap());
    receiver.join().unwrap();
    assert_eq!(std::iter::from_fn(|| pool.get()).collect::<Returned<_>>().len(), 4);
}

#[test]
fn pools_and_pendings_dropped_while_others_complete_leak_nothing() {
    let alive = Arc::new(AtomicUsize::new(0));
    for round in 0..if cfg!(miri) { 10 } else { 2_000 } {
        let pool = Pool::new(3, || Msg::counted(&alive));
        let (first, mut pending) = pool.get().unwrap().waitable();
        let (second, other) = pool.get().unwrap().waitable();
        let mut family = pool.get().unwrap().detached().split();
        let child = family.adopt(Own::new(Msg::counted(&alive)));
        let completer = thread::spawn(move || {
            first.complete();
            drop(second);
            child.complete();
        });
        if round % 2 == 0 {
            let _ = poll(&mut pending, &Arc::default());
        }
        drop((pending, family, pool, other));
        completer.join().unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}
