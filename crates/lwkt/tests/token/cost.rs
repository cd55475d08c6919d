//! What tokens cost in atomic operations, allocations and IPIs: the figures of DESIGN.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;

use dfly_alloc_count::allocator_calls;
use dfly_hal::sync::count::{Counts, measure};
use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait};
use dfly_lwkt::host::{HostPlatform, Machine};
use dfly_lwkt::token::{Token, get2_mut};
use dfly_lwkt::{Config, Cx, Platform};

use crate::{CPU0, CPU1, on, spawn};

/// Read-modify-writes and stores; nothing may allocate.
fn cost(f: impl FnOnce()) -> (u64, u64) {
    let (calls, Counts { rmws, stores, fences, .. }) = measure(|| allocator_calls(f));
    assert_eq!((calls, fences), (0, 0));
    (rmws, stores)
}

#[test]
fn a_hold_costs_an_exchange_and_a_store_and_shared_two_exchanges() {
    let main = on(1, |cx| {
        let (a, b) = (Token::new(0), Token::new(0));
        let alone = |cx: &mut Cx<'_>| {
            let (mut cx, mut n) = cx.hold(&a);
            *n.get_mut(&mut cx) += 1;
        };
        let shared = |cx: &mut Cx<'_>| {
            let (cx, n) = cx.hold_shared(&a);
            assert!(*n.get(&cx) > 0);
        };
        assert_eq!(cost(|| alone(cx)), (1, 1));
        assert_eq!(cost(|| shared(cx)), (2, 0));
        assert_eq!(cost(|| assert!(cx.try_hold(&a).is_ok())), (1, 1));
        assert_eq!(cost(|| assert!(cx.try_hold_shared(&a).is_ok())), (2, 0));

        let (mut cx, mut n) = cx.hold(&a);
        let (mut cx, mut m) = cx.hold(&b);
        assert_eq!(cost(|| alone(&mut cx)), (0, 0), "it has it already");
        assert_eq!(cost(|| shared(&mut cx)), (0, 0));
        assert_eq!(cost(|| assert!(cx.try_hold(&a).is_ok())), (0, 0));
        assert_eq!(cost(|| assert!(cx.try_hold_shared(&b).is_ok())), (0, 0));
        let both = cost(|| {
            let (n, m) = get2_mut(&mut n, &mut m, &mut cx);
            *n += *m;
        });
        assert_eq!(both, (0, 0), "to look at the data costs nothing");
    });
    assert_eq!(main, Ok(()));
}

#[test]
fn a_thread_that_does_not_give_way_keeps_its_tokens_for_nothing() {
    let main = on(1, |cx| {
        let token = Token::new(0);
        let (mut cx, _n) = cx.hold(&token);
        let (calls, cost) = measure(|| {
            allocator_calls(|| {
                cx.yield_now();
                dfly_hal::block_on(&mut cx, async {}, None).unwrap();
            })
        });
        assert_eq!((calls, cost.rmws), (0, 0));
    });
    assert_eq!(main, Ok(()));
}

/// Where OS threads stand in for threads, they switch otherwise.
#[test]
#[cfg(all(target_arch = "x86_64", not(windows)))]
fn a_switch_costs_an_exchange_for_each_token_held() {
    let main = on(1, |cx| {
        let other = spawn(cx, CPU0, |cx| {
            let (a, b) = (Token::new(0), Token::new(0));
            let mut cx = cx.hold(&a).0;
            let mut cx = cx.hold_shared(&b).0;
            (0..12).for_each(|_| cx.yield_now());
        });
        let (a, b, c) = (Token::new(0), Token::new(0), Token::new(0));
        {
            let mut cx = cx.hold(&a).0;
            let mut cx = cx.hold(&b).0;
            let mut cx = cx.hold(&c).0;
            // Has nothing of its own.
            let mut cx = cx.hold_shared(&a).0;
            cx.yield_now();
            let (calls, cost) = measure(|| allocator_calls(|| (0..10).for_each(|_| cx.yield_now())));
            // Three of this thread, taken; of the other one, one taken, one taken and released shared.
            assert_eq!((calls, cost.rmws, cost.fences), (0, 10 * (3 + 1 + 2), 0));
        }
        other.join(cx).unwrap();
    });
    assert_eq!(main, Ok(()));
}

/// A host that counts its IPIs.
struct Counting {
    host: HostPlatform,
    ipis: AtomicU32,
}

// SAFETY: the host's.
unsafe impl Cpus for Counting {
    fn this(&self) -> CpuId {
        self.host.this()
    }
    fn count(&self) -> u32 {
        self.host.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.ipis.fetch_add(1, Ordering::SeqCst);
        self.host.raise_ipi(to);
    }
}

impl Clock for Counting {
    fn now(&self) -> Instant {
        self.host.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.host.wake_at(at, waker);
    }
}

impl Platform for Counting {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.host.halt(ready);
    }
}

#[test]
fn the_release_of_a_token_that_others_wait_for_wakes_nobody_and_interrupts_nobody() {
    let platform = Arc::new(Counting { host: HostPlatform::new(2), ipis: AtomicU32::new(0) });
    let attach = platform.clone();
    let machine =
        Machine::start_with(platform.clone(), Config::default(), move |id| attach.host.attach(id)).unwrap();
    let token = Arc::new(Token::new(0));
    let theirs = token.clone();
    let holder = move |cx: &mut Cx<'_>| {
        let scheduler = cx.scheduler();
        let waits = theirs.clone();
        let (mut inner, mut n) = cx.hold(&theirs);
        let waiter = scheduler.spawn(CPU1, "waiter".into(), move |cx| {
            let (mut cx, mut n) = cx.hold(&waits);
            *n.get_mut(&mut cx) += 1;
        });
        *n.get_mut(&mut inner) = 1;
        while scheduler.cpu_stats(CPU1).unwrap().token_collisions == 0 {
            std::thread::yield_now();
        }
        let before = platform.ipis.load(Ordering::SeqCst);
        assert_eq!(cost(|| drop(inner)), (0, 1));
        drop(n);
        assert_eq!(platform.ipis.load(Ordering::SeqCst), before);
        // It looks again by itself.
        waiter.unwrap().join(cx).unwrap();
        let (cx, n) = cx.hold(&theirs);
        assert_eq!(*n.get(&cx), 2);
    };
    let holder = machine.scheduler().spawn(CPU0, "holder".into(), holder).unwrap();
    holder.join(&mut ThreadWait::new()).unwrap();
}
