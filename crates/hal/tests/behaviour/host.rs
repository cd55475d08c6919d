use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use dfly_hal::host::{AttachError, HostClock, HostCpus};
use dfly_hal::{Clock, CpuId, Cpus, Instant, ThreadWait, block_on, sleep_until};

#[test]
fn timers_wake_in_their_order_whatever_the_order_they_were_set_in() {
    let clock = HostClock::new();
    let start = clock.now();
    let mut w = ThreadWait::new();
    for ms in [3, 1, 2] {
        let at = start.saturating_add(Duration::from_millis(ms));
        block_on(&mut w, sleep_until(&clock, at), None).unwrap();
        assert!(clock.now() >= at);
    }
}

/// Owns the clock that is to wake it.
struct Owner(Arc<HostClock>, Arc<AtomicUsize>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        let _ = self.0.now();
        self.1.fetch_add(1, Ordering::Release);
    }
}

#[test]
fn a_clock_may_be_dropped_by_its_own_timer() {
    let woken = Arc::new(AtomicUsize::new(0));
    let clock = Arc::new(HostClock::new());
    let at = clock.now().saturating_add(Duration::from_millis(5));
    let waker = Waker::from(Arc::new(Owner(clock.clone(), woken.clone())));
    clock.wake_at(at, &waker);
    drop((clock, waker));
    while woken.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_clock_that_is_dropped_forgets_its_timers() {
    let woken = Arc::new(AtomicUsize::new(0));
    let other = Arc::new(HostClock::new());
    let clock = HostClock::new();
    clock.wake_at(Instant::FAR_FUTURE, &Waker::from(Arc::new(Owner(other.clone(), woken.clone()))));
    drop(clock);
    assert_eq!((Arc::strong_count(&other), woken.load(Ordering::Acquire)), (1, 0));
}

#[test]
fn a_thread_is_the_cpu_that_it_attached_to_and_one_only() {
    let cpus = HostCpus::new(2);
    assert_eq!(cpus.this(), CpuId::NONE);
    assert_eq!(cpus.attach(CpuId(2)).unwrap_err(), AttachError::NoSuchCpu(CpuId(2)));
    let me = cpus.attach(CpuId(0)).unwrap();
    assert_eq!((cpus.this(), me.id()), (CpuId(0), CpuId(0)));
    assert_eq!(cpus.attach(CpuId(1)).unwrap_err(), AttachError::Attached(CpuId(0)));
    std::thread::scope(|s| {
        s.spawn(|| {
            assert_eq!(cpus.this(), CpuId::NONE);
            assert_eq!(cpus.attach(CpuId(0)).unwrap_err(), AttachError::Taken(CpuId(0)));
        });
    });
    drop(me);
    assert_eq!(cpus.this(), CpuId::NONE);
    assert!(cpus.attach(CpuId(1)).is_ok());
}

#[test]
fn two_machines_in_a_process_do_not_see_each_other() {
    let (a, b) = (HostCpus::new(1), HostCpus::new(4));
    let _a = a.attach(CpuId(0)).unwrap();
    let b_me = b.attach(CpuId(3)).unwrap();
    assert_eq!((a.this(), b.this()), (CpuId(0), CpuId(3)));
    a.raise_ipi(CpuId(0));
    assert!(!b_me.take_ipi());
}

#[test]
fn an_ipi_that_was_sent_before_the_cpu_came_is_not_lost() {
    let cpus = HostCpus::new(1);
    cpus.raise_ipi(CpuId(0));
    assert!(cpus.attach(CpuId(0)).unwrap().wait_for_ipi(Duration::ZERO));
}
