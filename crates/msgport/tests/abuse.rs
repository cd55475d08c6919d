//! What careless or hostile callbacks can do from safe code, and what comes of it. Miri runs this file too: nothing here
//! may be undefined, and but where a test says so nothing may leak.
#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use dfly_msgport::{Body, Completions, Family, Hook, HookRef, Job, List, Own, Pending, Pool, Sink, SinkRef};

type Act = Box<dyn FnOnce() + Send + Sync>;
type ActOnShared = Box<dyn FnOnce(&Shared) + Send + Sync>;

/// A body whose every method does what the test wants.
#[derive(Default)]
struct Msg {
    value: u32,
    orphaned: u32,
    hooks: Vec<HookRef<Msg>>,
    /// Comes up when the body was folded or orphaned.
    late_hook: Option<HookRef<Msg>>,
    on_orphaned: Option<Act>,
    on_child_done: Option<ActOnShared>,
    on_all_done: Option<Act>,
    on_reset: Option<Act>,
    on_drop: OnDrop,
    pool: Option<Arc<Pool<Msg>>>,
}

#[derive(Default)]
struct Shared {
    family: Arc<Mutex<Option<Family<Msg>>>>,
    jobs: Mutex<List<Msg>>,
}

fn run(act: &mut Option<Act>) {
    if let Some(act) = act.take() {
        act();
    }
}

impl Body for Msg {
    type Shared = Shared;
    type Key = ();

    fn orphaned(&mut self) {
        self.orphaned += 1;
        self.hooks.extend(self.late_hook.take());
        run(&mut self.on_orphaned);
    }
    fn pop_hook(&mut self) -> Option<HookRef<Self>> {
        self.hooks.pop()
    }
    fn child_done(&mut self, parent: &Shared) {
        if let Some(act) = self.on_child_done.take() {
            act(parent);
        }
    }
    fn all_children_done(&mut self, _: &Shared) {
        self.value += 1000;
        run(&mut self.on_all_done);
    }
    fn reset(&mut self) {
        run(&mut self.on_reset);
        self.pool = None;
    }
}

#[derive(Default)]
struct OnDrop(Option<Act>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        run(&mut self.0);
    }
}

fn msg(value: u32) -> Own<Msg> {
    Own::new(Msg { value, ..Msg::default() })
}

fn panics(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
}

fn bug() -> Option<Act> {
    Some(Box::new(|| panic!("a bug in a body")))
}

fn bump(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::SeqCst);
}

/// As good as `mem::forget`, but its node stays reachable, so that Miri does not call it a leak.
fn keep(job: Job<Msg>) {
    static KEPT: Mutex<Vec<Job<Msg>>> = Mutex::new(Vec::new());
    KEPT.lock().expect("nobody panicked").push(job);
}

fn slot<T>() -> Arc<Mutex<Option<T>>> {
    Arc::new(Mutex::new(None))
}

/// A waker that does something when it is woken, and something when its last count is dropped.
struct Tricky {
    wake: Box<dyn Fn() + Send + Sync>,
    drop: Option<Act>,
}

impl Tricky {
    fn waker(wake: impl Fn() + Send + Sync + 'static, drop: impl FnOnce() + Send + Sync + 'static) -> Waker {
        Arc::new(Self { wake: Box::new(wake), drop: Some(Box::new(drop)) }).into()
    }
}

impl Wake for Tricky {
    fn wake(self: Arc<Self>) {
        (self.wake)();
    }
}

impl Drop for Tricky {
    fn drop(&mut self) {
        run(&mut self.drop);
    }
}

fn poll(p: &mut Pending<Msg>, waker: &Waker) -> Poll<Own<Msg>> {
    Future::poll(Pin::new(p), &mut Context::from_waker(waker))
}

// Wakers.

#[test]
fn a_waker_that_drops_the_pending_it_wakes() {
    let there = slot::<Pending<Msg>>();
    let (job, mut pending) = msg(1).waitable();
    let waker = {
        let there = there.clone();
        Tricky::waker(move || drop(there.lock().unwrap().take()), || ())
    };
    assert!(poll(&mut pending, &waker).is_pending());
    *there.lock().unwrap() = Some(pending);
    job.complete();
    assert!(there.lock().unwrap().is_none());
}

#[test]
fn a_waker_that_takes_the_message_and_sends_it_again() {
    let there = slot::<Pending<Msg>>();
    let (job, mut pending) = msg(1).waitable();
    let waker = {
        let there = there.clone();
        let wake = move || {
            let pending = there.lock().unwrap().take().unwrap();
            let mut own = pending.try_take().ok().unwrap();
            own.value += 1;
            let (job, pending) = own.waitable();
            *there.lock().unwrap() = Some(pending);
            job.complete();
        };
        Tricky::waker(wake, || ())
    };
    assert!(poll(&mut pending, &waker).is_pending());
    *there.lock().unwrap() = Some(pending);
    job.complete();
    let pending = there.lock().unwrap().take().unwrap();
    assert_eq!(pending.try_take().unwrap().value, 2);
}

#[test]
fn a_replaced_waker_whose_drop_completes_the_job() {
    for orphan in [false, true] {
        let (job, mut pending) = msg(1).waitable();
        let end = move || if orphan { drop(job) } else { job.complete() };
        let first = Tricky::waker(|| (), end);
        assert!(poll(&mut pending, &first).is_pending());
        drop(first);
        // The node has its last count; this poll drops it, and so completes what it polls.
        let woken = Arc::new(AtomicUsize::new(0));
        let second = {
            let woken = woken.clone();
            Tricky::waker(move || bump(&woken), || ())
        };
        assert!(poll(&mut pending, &second).is_pending());
        assert_eq!(woken.load(Ordering::SeqCst), 1, "registered before the old one was dropped");
        assert_eq!(pending.try_take().unwrap().orphaned, u32::from(orphan));
    }
}

#[test]
fn a_pending_whose_waker_completes_the_job_while_it_is_dropped() {
    let (job, mut pending) = msg(1).waitable();
    let waker = Tricky::waker(|| (), move || job.complete());
    assert!(poll(&mut pending, &waker).is_pending());
    drop(waker);
    drop(pending);
}

#[test]
fn a_waker_whose_clone_completes_the_job() {
    // The job, and how often it was woken.
    static HELD: Mutex<Option<Job<Msg>>> = Mutex::new(None);
    static WOKEN: AtomicUsize = AtomicUsize::new(0);
    fn clone(_: *const ()) -> RawWaker {
        if let Some(job) = HELD.lock().unwrap().take() {
            job.complete();
        }
        RawWaker::new(std::ptr::null(), &TABLE)
    }
    fn wake(_: *const ()) {
        WOKEN.fetch_add(1, Ordering::SeqCst);
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| ());

    let (job, mut pending) = msg(7).waitable();
    *HELD.lock().unwrap() = Some(job);
    // SAFETY: the functions of the table need nothing of the pointer.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) };
    let Poll::Ready(own) = poll(&mut pending, &waker) else { panic!("it is complete") };
    assert_eq!((own.value, WOKEN.load(Ordering::SeqCst)), (7, 0));
}

#[test]
fn a_waker_whose_drop_panics_leaves_nothing_to_touch() {
    let (job, mut pending) = msg(1).waitable();
    let waker = Tricky::waker(|| (), || panic!("a bug in an executor"));
    assert!(poll(&mut pending, &waker).is_pending());
    drop(waker);
    // The node has the last count. Now the job has no waiter, and nobody is told that: the node would leak.
    panics(|| drop(pending));
    keep(job);
}

// Completions.

#[test]
fn a_waiter_without_data_in_its_waker_is_not_forgotten_for_another_without() {
    static WOKEN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    macro_rules! table {
        ($name:ident, $i:expr) => {
            static $name: RawWakerVTable = RawWakerVTable::new(
                |_| RawWaker::new(std::ptr::null(), &$name),
                |_| bump(&WOKEN[$i]),
                |_| bump(&WOKEN[$i]),
                |_| (),
            );
        };
    }
    table!(FIRST, 0);
    table!(SECOND, 1);
    // SAFETY: the functions of the tables need nothing of the pointer.
    let first = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &FIRST)) };
    // SAFETY: as above.
    let second = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &SECOND)) };
    let done = Completions::<Msg>::new();
    assert!(done.poll_drain(&mut Context::from_waker(&first)).is_pending());
    assert!(done.poll_drain(&mut Context::from_waker(&second)).is_pending());
    assert_eq!(WOKEN[0].load(Ordering::SeqCst), 1, "whose place was taken looks again");
    assert!(done.poll_drain(&mut Context::from_waker(&second)).is_pending());
    assert_eq!(WOKEN[1].load(Ordering::SeqCst), 0);
}

#[test]
fn a_sink_that_drops_its_own_last_count_and_the_pool() {
    struct Last {
        me: Mutex<Option<Arc<Last>>>,
        pool: Mutex<Option<Pool<Msg>>>,
    }
    impl Sink<Msg> for Last {
        fn accept(&self, done: Own<Msg>) {
            drop(self.pool.lock().unwrap().take());
            drop(self.me.lock().unwrap().take());
            // It is the destination that keeps `self` alive.
            assert_eq!(done.value, 3);
        }
    }
    let pool = Pool::new(2, Msg::default);
    let mut own = pool.get().unwrap();
    own.value = 3;
    let sink = Arc::new(Last { me: Mutex::new(None), pool: Mutex::new(Some(pool)) });
    *sink.me.lock().unwrap() = Some(sink.clone());
    own.send_to(sink).complete();
}

#[test]
fn a_queue_that_is_the_last_holder_of_what_comes_back_to_it() {
    // The job's destination is the only count of the queue; what is accepted is dropped with the queue.
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut own = msg(0);
    own.on_drop = {
        let dropped = dropped.clone();
        OnDrop(Some(Box::new(move || bump(&dropped))))
    };
    own.send_to(Arc::new(Completions::new())).complete();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

// Hooks.

#[test]
fn a_hook_that_returns_another_job_and_one_that_completes_another() {
    /// Gives back whatever is in the slot, and puts there what comes.
    struct Swap(Mutex<Option<Job<Msg>>>);
    impl Hook<Msg> for Swap {
        fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
            self.0.lock().unwrap().replace(job)
        }
    }
    let swap = Arc::new(Swap(Mutex::new(None)));
    let (mut a, at_a) = msg(1).waitable();
    let (mut b, at_b) = msg(2).waitable();
    a.hooks.push(swap.clone().into());
    b.hooks.push(swap.clone().into());
    // Bodies may be swapped, too: the destinations are not in them.
    std::mem::swap(&mut *a, &mut *b);
    a.complete();
    assert!(!at_a.is_done() && !at_b.is_done());
    b.complete();
    assert_eq!(at_a.try_take().unwrap().value, 2);
    drop(at_b);
    drop(swap.0.lock().unwrap().take());
}

#[test]
fn a_hook_that_drops_the_waiter_and_the_pool() {
    struct Cut(Mutex<Option<(Pending<Msg>, Pool<Msg>)>>);
    impl Hook<Msg> for Cut {
        fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
            drop(self.0.lock().unwrap().take());
            Some(job)
        }
    }
    let pool = Pool::new(3, Msg::default);
    let (mut job, pending) = pool.get().unwrap().waitable();
    job.hooks.push(Arc::new(Cut(Mutex::new(Some((pending, pool))))).into());
    job.complete();
}

#[test]
fn a_hook_that_splits_the_job_on_its_way_back() {
    struct Splitter;
    impl Hook<Msg> for Splitter {
        fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
            let mut family = job.split();
            family.adopt(msg(0)).complete();
            None
        }
    }
    let (mut job, pending) = msg(0).waitable();
    job.hooks.push((&Splitter).into());
    job.hooks.push((&Splitter).into());
    job.complete();
    assert_eq!(pending.try_take().unwrap().value, 2000);
}

// Families.

#[test]
fn a_family_that_its_children_hold_is_dropped_by_one_of_them() {
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    let mut child = msg(1);
    child.on_child_done = Some(Box::new(|parent| drop(parent.family.lock().unwrap().take())));
    let child = family.adopt(child);
    let there = family.shared().family.clone();
    *there.lock().unwrap() = Some(family);
    assert!(!pending.is_done());
    child.complete();
    assert_eq!(pending.try_take().unwrap().value, 1000);
}

#[test]
fn a_child_that_takes_its_siblings_with_it() {
    // One child leaves another in what they share; the third completes it from inside its own `child_done`.
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    let sibling = family.adopt(msg(1));
    let mut child = msg(2);
    child.on_child_done = Some(Box::new(|parent| {
        let all = std::mem::take(&mut *parent.jobs.lock().unwrap());
        all.for_each(Job::complete);
    }));
    let child = family.adopt(child);
    family.shared().jobs.lock().unwrap().push(sibling);
    drop(family);
    child.complete();
    assert_eq!(pending.try_take().unwrap().value, 1000);
}

#[test]
fn a_job_of_another_family_left_in_the_shared_part_goes_with_it() {
    let (other, at_other) = msg(5).waitable();
    let (job, pending) = msg(0).waitable();
    let family = job.split();
    family.shared().jobs.lock().unwrap().push(other);
    drop(family);
    let own = pending.try_take().unwrap();
    assert!(!at_other.is_done(), "it lies in the parent's node");
    // The next split renews the shared part.
    drop(own.detached().split());
    assert_eq!(at_other.try_take().unwrap().orphaned, 1);
}

#[test]
fn a_child_of_a_child_completes_its_grandparent_from_within_a_reset() {
    // The reset of one child completes the other: the family's last count is given up while the first is not home.
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    let second = family.adopt(msg(2));
    let pool = Pool::new(1, Msg::default);
    let mut first = pool.get().unwrap();
    first.on_reset = Some(Box::new(move || second.complete()));
    let first = family.adopt(first);
    drop(family);
    first.complete();
    assert_eq!(pending.try_take().unwrap().value, 1000);
}

// Panics.

#[test]
fn a_panic_while_a_list_is_dropped_orphans_the_rest_all_the_same() {
    struct Bad;
    impl Hook<Msg> for Bad {
        fn passing(&self, _: Job<Msg>) -> Option<Job<Msg>> {
            panic!("a bug in a layer");
        }
    }
    let mut list = List::new();
    let pendings: Vec<_> = (0..3)
        .map(|i| {
            let (mut job, pending) = msg(i).waitable();
            if i == 0 {
                job.hooks.push((&Bad).into());
            }
            list.push(job);
            pending
        })
        .collect();
    panics(|| drop(list));
    for pending in pendings {
        assert!(pending.try_take().unwrap().orphaned > 0);
    }
}

#[test]
fn a_panic_when_all_children_are_done_orphans_the_parent() {
    let (mut job, pending) = msg(0).waitable();
    job.on_all_done = bug();
    let mut family = job.split();
    let child = family.adopt(msg(1));
    drop(family);
    panics(|| child.complete());
    assert_eq!(pending.try_take().unwrap().orphaned, 1);
}

#[test]
fn a_panic_of_the_shared_parts_default_or_drop_orphans_the_parent() {
    struct Picky(Mutex<Option<()>>);
    static PANIC: AtomicUsize = AtomicUsize::new(0);
    impl Default for Picky {
        fn default() -> Self {
            assert_ne!(PANIC.load(Ordering::SeqCst), 1, "a bug in default");
            Self(Mutex::new(Some(())))
        }
    }
    impl Drop for Picky {
        fn drop(&mut self) {
            let armed = self.0.lock().unwrap().take().is_some();
            assert!(!armed || PANIC.load(Ordering::SeqCst) != 2, "a bug in drop");
        }
    }
    #[derive(Default)]
    struct Small(u32);
    impl Body for Small {
        type Shared = Picky;
        type Key = ();
        fn orphaned(&mut self) {
            self.0 += 1;
        }
    }
    for kind in [1, 2] {
        let (job, pending) = Own::new(Small(0)).waitable();
        PANIC.store(kind, Ordering::SeqCst);
        panics(|| drop(job.split()));
        PANIC.store(0, Ordering::SeqCst);
        assert_eq!(pending.try_take().unwrap().0, 1);
    }
}

#[test]
fn a_panic_while_a_child_goes_home_tells_the_parent() {
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    let mut child = msg(1);
    child.on_drop = OnDrop(bug());
    let child = family.adopt(child);
    drop(family);
    panics(|| child.complete());
    assert_eq!(pending.try_take().unwrap().value, 1000);
}

#[test]
fn a_child_whose_fold_panics_is_home_before_its_parent_is_told() {
    /// Keeps what passes: a body that points into its parent must not get here once its parent is told.
    struct Keep(Arc<Mutex<List<Msg>>>);
    impl Hook<Msg> for Keep {
        fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
            self.0.lock().unwrap().push(job);
            None
        }
    }
    #[derive(Default)]
    struct Order(Mutex<Vec<&'static str>>);
    impl Sink<Msg> for Order {
        fn accept(&self, _: Own<Msg>) {
            self.0.lock().unwrap().push("parent");
        }
    }
    let kept = Arc::new(Mutex::new(List::new()));
    let order = Arc::new(Order::default());
    let mut family = msg(0).send_to(order.clone()).split();
    let mut child = msg(1);
    child.late_hook = Some(Arc::new(Keep(kept.clone())).into());
    child.on_child_done = Some(Box::new(|_| panic!("a bug in a body")));
    child.on_drop = {
        let order = order.clone();
        OnDrop(Some(Box::new(move || order.0.lock().unwrap().push("child"))))
    };
    let child = family.adopt(child);
    drop(family);
    panics(|| child.complete());
    assert!(kept.lock().unwrap().is_empty());
    assert_eq!(*order.0.lock().unwrap(), ["child", "parent"]);
}

#[test]
fn a_panic_of_a_sink_or_a_waker_frees_the_message_once() {
    struct Bad;
    impl Sink<Msg> for Bad {
        fn accept(&self, _: Own<Msg>) {
            panic!("a bug in a sink");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = || {
        let mut own = msg(0);
        let dropped = dropped.clone();
        own.on_drop = OnDrop(Some(Box::new(move || bump(&dropped))));
        own
    };
    panics(|| counted().send_to(&Bad).complete());
    panics(|| drop(counted().send_to(SinkRef::from(Arc::new(Bad)))));
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    let (job, mut pending) = counted().waitable();
    assert!(poll(&mut pending, &Tricky::waker(|| panic!("a bug in an executor"), || ())).is_pending());
    panics(|| job.complete());
    drop(pending.try_take().unwrap());
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

// Pools.

#[test]
fn a_pool_whose_last_count_is_dropped_by_the_reset_of_its_own_message() {
    let pool = Arc::new(Pool::new(3, Msg::default));
    let mut own = pool.get().unwrap();
    own.pool = Some(pool);
    drop(own);
    let pool = Arc::new(Pool::new(3, Msg::default));
    let (mut job, pending) = pool.get().unwrap().waitable();
    job.pool = Some(pool);
    drop(pending);
    drop(job);
}

#[test]
fn a_forgotten_child_freezes_its_parent_for_ever() {
    let (job, pending) = msg(0).waitable();
    let mut family = job.split();
    keep(family.adopt(msg(1)));
    drop(family);
    assert!(!pending.is_done());
    drop(pending);
}

#[test]
fn a_message_that_sends_another_of_its_pool_while_it_is_freed() {
    let pool = Pool::new(2, Msg::default);
    let (mut a, b) = (pool.get().unwrap(), pool.get().unwrap());
    a.on_drop = OnDrop(Some(Box::new(move || b.detached().complete())));
    drop(a);
    drop(pool);
}
