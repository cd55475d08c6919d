//! Interrupts: acknowledged by the handler, reaped by `poll`, and none is missed.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use dfly_ahci::model::{Abilities, Fault, Mistake, Model, Pattern};
use dfly_ahci::spec::{Command, PortInterrupts};
use dfly_ahci::{Ahci, Config, Interrupts};
use dfly_hal::SpinWait;
use dfly_hal::fake::FakeHal;

use crate::bench::{Bench, TestAhci, disk, flush, read, submit};

struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const CONFIG: Config = Config {
    max_transfer_bytes: 64 << 10,
    io_timeout: Duration::from_secs(30),
    flush_timeout: Duration::from_secs(60),
    attach_timeout: Duration::from_secs(30),
    interrupts: Interrupts::One,
    link_power: dfly_ahci::LinkPower::Performance,
};

#[test]
fn an_interrupt_wakes_the_reaper_who_finds_everything() {
    let bench = Bench::small();
    let ahci = bench.attach(CONFIG);
    let device = ahci.disk(0).unwrap();
    let woken = Arc::new(Woken(AtomicU64::new(0)));
    let waker = Waker::from(woken.clone());
    let cx = &mut Context::from_waker(&waker);
    ahci.interrupt();
    while pin!(ahci.work()).poll(cx).is_ready() {
        ahci.poll();
        ahci.interrupt();
        if !bench.model.pin() {
            break;
        }
    }
    while pin!(ahci.work()).poll(cx).is_ready() {}
    bench.interrupts();
    let (commands, woken_before) = (320, woken.0.load(Ordering::Relaxed));
    let mut raised = 0;
    for _ in 0..10 {
        let pending = submit(&device, (0..32).map(|i| read(i * 512, 512)));
        let now = bench.interrupts();
        assert_eq!(now, 1, "a batch that completes at once is announced once");
        raised += now;
        assert!(bench.model.pin());
        assert!(ahci.interrupt() && !bench.model.pin(), "acknowledged");
        assert!(!ahci.interrupt(), "the next one is somebody else's");
        assert!(pin!(ahci.work()).poll(cx).is_ready());
        assert_eq!(ahci.poll(), 32);
        assert!(pending.iter().all(|p| p.is_done()));
        assert!(pin!(ahci.work()).poll(cx).is_pending());
    }
    assert_eq!(woken.0.load(Ordering::Relaxed) - woken_before, 10);
    assert!(raised * 10 <= 3 * commands, "{raised} interrupts for {commands} commands");
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn register_writes_and_interrupts_of_a_command_at_depth_32() {
    let bench = Bench::small();
    let ahci = bench.attach(CONFIG);
    let device = ahci.disk(0).unwrap();
    while ahci.interrupt() {
        ahci.poll();
    }
    bench.interrupts();
    let before = bench.model.counts();
    for _ in 0..100 {
        let pending = submit(&device, (0..32).map(|i| read(i * 4096, 4096)));
        while bench.model.pin() {
            ahci.interrupt();
        }
        ahci.poll();
        assert!(pending.iter().all(|p| p.is_done()));
    }
    let after = bench.model.counts();
    let (writes, reads) = (after.writes - before.writes, after.reads - before.reads);
    let raised = bench.interrupts();
    println!("3200 commands at depth 32: {writes} register writes, {reads} reads, {raised} interrupts");
    assert!(writes * 2 <= 3 * 3200, "{writes} writes");
    assert!(raised * 10 <= 3 * 3200, "{raised} interrupts");
}

#[test]
fn a_completion_between_the_reaping_and_the_next_interrupt_is_announced() {
    // Commands that complete at every possible register access after they were issued.
    for delay in 1..40 {
        let bench = Bench::small();
        let ahci = bench.attach(CONFIG);
        let device = ahci.disk(0).unwrap();
        while ahci.interrupt() {
            ahci.poll();
        }
        for (skip, delay) in [(0, delay), (0, delay + 1), (0, 2 * delay)] {
            bench.model.inject(Fault::Command(Pattern { skip, ..Pattern::NEXT }, Mistake::Delay(delay)));
        }
        let pending = submit(&device, (0..3).map(|i| read(i * 512, 512)));
        // Only what is announced is acted upon; somebody else's interrupts let time go by.
        for _ in 0..400 {
            if ahci.interrupt() {
                ahci.poll();
            }
        }
        assert!(pending.iter().all(|p| p.is_done()), "delay {delay}");
        drop((ahci, device));
        bench.is_clean();
    }
}

#[test]
fn a_lost_interrupt_costs_a_second() {
    for bio in [read(0, 512), flush()] {
        let bench = Bench::small();
        let ahci = bench.attach(CONFIG);
        let device = ahci.disk(0).unwrap();
        while ahci.interrupt() {
            ahci.poll();
        }
        bench.interrupts();
        let command = if bio.is_empty() {
            Pattern::of(dfly_ahci::spec::Command::FLUSH_CACHE_EXT)
        } else {
            Pattern::NEXT
        };
        bench.model.inject(Fault::Command(command, Mistake::Silent));
        let waker = Waker::noop();
        let cx = &mut Context::from_waker(waker);
        while pin!(ahci.work()).poll(cx).is_ready() {
            ahci.poll();
        }
        let pending = bio.start(&device);
        assert_eq!(bench.interrupts(), 0);
        assert!(pin!(ahci.work()).poll(cx).is_pending());
        bench.hal.advance(Duration::from_millis(1001));
        assert!(pin!(ahci.work()).poll(cx).is_ready());
        ahci.poll();
        assert_eq!(pending.try_take().unwrap().status(), Ok(()));
        drop((ahci, device));
        bench.is_clean();
    }
}

#[test]
fn what_a_handler_noted_before_a_reset_is_no_reason_for_another() {
    // The handler runs at once, in the middle of whatever the driver does.
    for settling in [0, 1, 2, 5] {
        let hal = Arc::new(FakeHal::new());
        let driver: Arc<OnceLock<Weak<TestAhci>>> = Arc::default();
        let (wake, abilities) = (driver.clone(), Abilities { settling, ..Abilities::default() });
        let model = Model::with(hal.clone(), vec![disk(512, 1 << 20)], abilities);
        let model = Arc::new(model.interrupting(Box::new(move || {
            if let Some(ahci) = wake.get().and_then(Weak::upgrade) {
                ahci.interrupt();
            }
        })));
        let mut idle = || {
            hal.advance_to_next();
        };
        let ahci = Ahci::attach(model.clone(), hal.clone(), CONFIG, &mut SpinWait::new(&mut idle));
        let ahci = Arc::new(ahci.unwrap());
        driver.set(Arc::downgrade(&ahci)).unwrap();
        let device = ahci.disk(0).unwrap();
        let log = Pattern::of(Command::READ_LOG_EXT);
        for (pattern, mistake) in [
            (Pattern { skip: 2, ..Pattern::NEXT }, Mistake::Interface),
            (Pattern { skip: 9, ..Pattern::NEXT }, Mistake::Status(0x41, 0x84)),
            (log, Mistake::Status(0x51, 0x04)),
            (Pattern { skip: 20, ..Pattern::NEXT }, Mistake::Status(0x41, 0x84)),
        ] {
            model.inject(Fault::Command(pattern, mistake));
        }
        for _ in 0..5 {
            let pending = submit(&device, (0..8).map(|i| read(i * 512, 512)));
            for _ in 0..1000 {
                hal.advance(Duration::from_micros(500));
                ahci.poll();
            }
            for pending in pending {
                assert_eq!(pending.try_take().unwrap().status(), Ok(()));
            }
        }
        let stats = ahci.stats();
        assert_eq!((stats.recoveries, stats.link_changes, stats.errors), (3, 0, 0), "{settling}: {stats:?}");
        drop((device, ahci));
        assert_eq!(hal.faults(), []);
        assert_eq!(model.counts().misuse, 0);
    }
}

#[test]
fn interrupts_for_no_reason_do_no_harm() {
    let bench = Bench::new(vec![disk(512, 1 << 20), None], Abilities::default());
    let ahci = bench.attach(CONFIG);
    for bit in 0..32 {
        for port in [0, 1] {
            bench.model.inject(Fault::Spurious(port, PortInterrupts::from_bits(1 << bit)));
            for _ in 0..4 {
                ahci.interrupt();
                ahci.poll();
            }
            bench.pass(&ahci, Duration::from_millis(80));
        }
        assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()), "bit {bit}");
    }
    drop(ahci);
    bench.is_clean();
}
