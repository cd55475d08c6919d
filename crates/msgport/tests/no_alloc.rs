//! After set-up nothing allocates: send, complete, wait, split, queue, pool.
#![cfg(not(loom))]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dfly_alloc_count::allocator_calls;
use dfly_hal::{SpinWait, ThreadWait, block_on};
use dfly_msgport::{
    Body, Completions, Event, Hook, HookRef, Job, List, Message, Own, Pool, Put, PutOnly, Request, SpinPort,
    Unanswered, WakerPort,
};

#[derive(Default)]
struct Msg {
    value: u32,
    hook: Option<HookRef<Msg>>,
}

impl Body for Msg {
    type Shared = AtomicU32;
    type Key = ();
    fn orphaned(&mut self) {}
    fn pop_hook(&mut self) -> Option<HookRef<Self>> {
        self.hook.take()
    }
    fn child_done(&mut self, parent: &AtomicU32) {
        parent.fetch_add(self.value, Ordering::Relaxed);
    }
}

struct Pass;
impl Hook<Msg> for Pass {
    fn passing(&self, job: Job<Msg>) -> Option<Job<Msg>> {
        Some(job)
    }
}

#[test]
fn nothing_allocates_after_set_up() {
    let pool = Pool::new(8, Msg::default);
    let done = Arc::new(Completions::new());
    let hook: Arc<dyn Hook<Msg>> = Arc::new(Pass);
    let mut thread_wait = ThreadWait::new();
    let mut spin = || {};
    let mut spin_wait = SpinWait::new(&mut spin);
    assert!(allocator_calls(|| drop(black_box(Box::new(1)))) == 2, "the counter counts");

    let calls = allocator_calls(|| {
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
            let own = pool.get().unwrap();

            // A waiter: polled before and after, with a waker that counts and one that does not.
            let (job, mut pending) = own.waitable();
            let mut job = Some(job);
            let mut device = || job.take().into_iter().for_each(Job::complete);
            let own = block_on(&mut SpinWait::new(&mut device), &mut pending, None).unwrap();
            let (job, pending) = own.waitable();
            job.complete();
            let own = block_on(&mut thread_wait, pending, None).unwrap();

            // A sink, a list and a hook.
            let mut job = own.send_to(done.clone());
            job.hook = Some(hook.clone().into());
            let mut list = List::from(job);
            list.extend((0..3).map(|_| pool.get().unwrap().send_to(done.clone())));
            let mut other = List::new();
            other.append(&mut list);
            other.for_each(Job::complete);
            assert_eq!(done.wait(&mut spin_wait, None).unwrap().count(), 4);

            // A family; a careless receiver; a waiter that gave up.
            let (job, pending) = pool.get().unwrap().waitable();
            let mut family = job.split();
            for _ in 0..3 {
                family.adopt(pool.get().unwrap()).complete();
            }
            drop(family.adopt(pool.get().unwrap()));
            drop((family, pending));
        }
        assert_eq!(std::iter::from_fn(|| pool.get()).collect::<dfly_msgport::Returned<_>>().len(), 8);
    });
    assert_eq!(calls, 0);

    // Without a pool: one for the node, one to give it back.
    assert_eq!(allocator_calls(|| Own::new(Msg::default()).detached().complete()), 2);
}

#[test]
fn ports_allocate_nothing_after_set_up() {
    let pool = Pool::new(4, || Message::new(0_u64));
    let (spin, lockless) = (SpinPort::new(), WakerPort::new());
    let (mut at_spin, mut at_lockless) = (spin.receiver(), lockless.receiver().unwrap());
    let replies = Arc::new(Completions::new());
    let at_once = PutOnly::new(|mut r: Request<u64>| {
        **r += 1;
        Put::Done(r)
    });
    let mut thread_wait = ThreadWait::new();
    let soon = || Some(dfly_hal::host::now());

    let calls = allocator_calls(|| {
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
            let msg = pool.get().unwrap().call(&at_once, &mut thread_wait);
            let sent = msg.start(&spin);
            let request = at_spin.wait(&mut thread_wait).unwrap();
            request.forward(&lockless);
            at_lockless.wait(&mut thread_wait).unwrap().reply();
            let mut msg = sent.wait(&mut thread_wait);

            // Urgent, queued, aborted, withdrawn, closed by nobody; receivers that sleep in vain.
            msg.set_urgent();
            let sent = msg.start(&spin);
            sent.abort(&spin);
            let msg = sent.wait(&mut thread_wait);
            assert_eq!(msg.outcome(), Err(Unanswered::Aborted));
            let mut msg = msg.start(&spin).withdraw(&spin).unwrap();
            msg.set_normal();
            while let Ok(Event::Recall) = at_spin.wait_event(&mut thread_wait, soon()) {}
            while let Ok(Event::Recall) = at_lockless.wait_event(&mut thread_wait, soon()) {}
            msg.send(&lockless, replies.clone());
            drop(at_lockless.get());
            assert_eq!(replies.drain().count(), 1);
        }
    });
    assert_eq!(calls, 0);
}
