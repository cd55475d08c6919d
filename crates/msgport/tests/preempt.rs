//! Moving a waker out happens with preemption off, waking does not. A file of its own, because the hooks are
//! registered once for the whole process.
#![cfg(not(loom))]

use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use dfly_hal::sync::{PreemptionHooks, register_preemption};
use dfly_msgport::{Body, Own};

static DEPTH: AtomicUsize = AtomicUsize::new(0);
static TIMES: AtomicUsize = AtomicUsize::new(0);

fn disable(_: &'static Location<'static>) {
    DEPTH.fetch_add(1, Ordering::SeqCst);
    TIMES.fetch_add(1, Ordering::SeqCst);
}

fn enable() {
    DEPTH.fetch_sub(1, Ordering::SeqCst);
}

struct Msg;

impl Body for Msg {
    type Shared = ();
    type Key = ();
    fn orphaned(&mut self) {}
}

/// Notes how deep preemption was off when it was woken.
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(DEPTH.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[test]
fn the_completer_is_not_preempted_while_a_waiter_may_spin_for_it() {
    register_preemption(&PreemptionHooks { disable, enable }).unwrap();

    let (job, pending) = Own::new(Msg).waitable();
    job.complete();
    assert!(pending.try_take().is_ok());
    assert_eq!(TIMES.load(Ordering::SeqCst), 0, "nobody can spin where nobody armed");

    let bell = Arc::new(Bell(AtomicUsize::new(usize::MAX)));
    let waker = Waker::from(bell.clone());
    let (job, mut pending) = Own::new(Msg).waitable();
    assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
    job.complete();
    assert_eq!(TIMES.load(Ordering::SeqCst), 1);
    assert_eq!(bell.0.load(Ordering::SeqCst), 0, "on again before the waker runs");
    assert!(pending.try_take().is_ok());
}
