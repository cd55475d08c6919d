//! Completions that announce themselves, and such that do not.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use dfly_hal::fake::{self, FakeHal};
use dfly_hal::{Clock, CpuId, SpinWait, ThreadWait, block_on};
use dfly_nvme::model::{Abilities, Fault, Mistake, Model};
use dfly_nvme::{Config, Interrupts, Nvme, State, Stopped};

use crate::bench::{Bench, TestNvme, bytes, disk, pattern, read};

const PIN: Config = with(Interrupts::Pin);

const fn with(interrupts: Interrupts) -> Config {
    Config {
        interrupts,
        queue_depth: 64,
        max_queues: 64,
        max_namespaces: 16,
        max_transfer_bytes: 128 << 10,
        io_timeout: Duration::from_secs(30),
        admin_timeout: Duration::from_secs(60),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the driver has a reason to be polled; `waker` hears of the next one.
fn has_work(nvme: &TestNvme, waker: &Waker) -> bool {
    pin!(nvme.work()).poll(&mut Context::from_waker(waker)).is_ready()
}

#[test]
fn an_interrupt_wakes_the_reaper_and_a_masked_pin_is_unmasked_by_poll() {
    let bench = Bench::small();
    let nvme = bench.attach(PIN);
    let device = nvme.namespace(1).unwrap();
    let pending = read(0, 512).start(&device);
    assert_eq!(bench.interrupts(), [0]);
    nvme.interrupt();
    let second = read(512, 512).start(&device);
    assert_eq!(bench.interrupts(), [], "masked");
    block_on(&mut ThreadWait::new(), nvme.work(), None).unwrap();
    assert_eq!(nvme.poll(), 2);
    assert!(pending.is_done() && second.is_done());
    let third = read(512, 512).start(&device);
    assert_eq!(bench.interrupts(), [0]);
    // What arrives between the reaping and the unmasking announces itself: a pin is a level.
    nvme.interrupt();
    let accesses = bench.model.accesses();
    assert_eq!(nvme.poll(), 1);
    assert_eq!(bench.model.accesses() - accesses, 2, "the completion doorbell, and the mask");
    nvme.poll();
    assert_eq!(bench.model.accesses() - accesses, 2, "nothing was masked, so nothing is unmasked");
    drop((third, device, nvme));
    bench.is_clean();
}

#[test]
fn nothing_is_announced_by_the_pin_while_nobody_can_answer() {
    for (config, announced) in [(PIN, &[0_u16][..]), (Config::default(), &[])] {
        let bench = Bench::small();
        let nvme = bench.attach(config);
        assert_eq!(bench.interrupts(), [], "attach polls");
        let pending = read(0, 512).start(&nvme.namespace(1).unwrap());
        assert_eq!(bench.interrupts(), announced);
        nvme.poll();
        assert!(pending.is_done());
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn each_queue_announces_on_its_own_vector_as_far_as_there_are_any() {
    for (vectors, expected) in [(5, [1, 2, 3, 4]), (3, [1, 2, 1, 2]), (2, [1; 4]), (1, [0; 4]), (0, [0; 4])] {
        let bench = Bench::with_cpus(4, vec![disk(512, 1 << 20)], Abilities::default());
        let nvme = bench.attach(with(Interrupts::Message { vectors }));
        assert_eq!(nvme.info().queues, 4);
        assert!(bench.interrupts().iter().all(|&vector| vector == 0), "admin completions");
        let device = nvme.namespace(1).unwrap();
        for (cpu, vector) in expected.into_iter().enumerate() {
            let here = bench.hal.attach(CpuId(cpu as u32)).unwrap();
            let pending = read(cpu as u64 * 512, 512).start(&device);
            assert_eq!(bench.interrupts(), [vector], "{vectors} vectors, CPU {cpu}");
            // Whichever vector it was, and wherever it is reaped.
            nvme.interrupt();
            assert!(has_work(&nvme, Waker::noop()));
            drop(here);
            assert_eq!(nvme.poll(), 1);
            let bio = pending.try_take().unwrap();
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(cpu as u64 * 512, 512)));
        }
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn more_vectors_than_the_controller_has_is_an_error_of_attach() {
    let abilities = Abilities { vectors: 2, ..Default::default() };
    let bench = Bench::with_cpus(2, vec![disk(512, 1 << 20)], abilities);
    let error = bench.try_attach(with(Interrupts::Message { vectors: 3 })).err().unwrap();
    assert_eq!(error.to_string(), "Create I/O Completion Queue failed: status 1/08");
    bench.is_clean();
}

#[test]
fn a_lost_interrupt_costs_a_second() {
    let bench = Bench::small();
    let nvme = bench.attach(with(Interrupts::Message { vectors: 2 }));
    bench.interrupts();
    bench.model.inject(Fault::Io(Mistake::Silent));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    while has_work(&nvme, &waker) {
        nvme.poll();
    }
    let pending = read(0, 512).start(&nvme.namespace(1).unwrap());
    assert_eq!(bench.interrupts(), []);
    while has_work(&nvme, &waker) {}
    let before = bell.rung();
    bench.hal.advance(Duration::from_millis(999));
    assert!(!has_work(&nvme, &waker) && bell.rung() == before);
    bench.hal.advance(Duration::from_millis(1));
    assert_eq!(bell.rung(), before + 1);
    assert!(has_work(&nvme, &waker));
    assert_eq!(nvme.poll(), 1);
    assert_eq!(pending.try_take().unwrap().status(), Ok(()));
    assert_eq!(nvme.state(), State::Live);
    drop(nvme);
    bench.is_clean();
}

#[test]
fn a_thousand_interrupts_do_not_set_a_thousand_timers() {
    let bench = Bench::small();
    let nvme = bench.attach(with(Interrupts::Message { vectors: 2 }));
    let device = nvme.namespace(1).unwrap();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    // One is under way all the time, and as many others complete as there are interrupts.
    bench.model.inject(Fault::Io(Mistake::Drop));
    let slow = read(0, 512).start(&device);
    for _ in 0..1000 {
        let quick = read(512, 512).start(&device);
        nvme.interrupt();
        while has_work(&nvme, &waker) {
            nvme.poll();
        }
        assert!(quick.is_done());
    }
    let before = bell.rung();
    bench.hal.advance(Duration::from_secs(1));
    assert!(bell.rung() - before <= 2, "{} timers", bell.rung() - before);
    drop((nvme, device));
    assert!(slow.is_done());
    bench.is_clean();
}

#[test]
fn another_reaper_gets_a_timer_of_its_own() {
    let bench = Bench::small();
    let nvme = bench.attach(with(Interrupts::Message { vectors: 2 }));
    bench.model.inject(Fault::Io(Mistake::Silent));
    let pending = read(0, 512).start(&nvme.namespace(1).unwrap());
    let (first, second) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    for bell in [&first, &second] {
        while has_work(&nvme, &bell.clone().into()) {}
    }
    // Who only looks does not take the timer away.
    assert!(!has_work(&nvme, Waker::noop()));
    bench.hal.advance(Duration::from_secs(1));
    assert_eq!(second.rung(), 1);
    nvme.poll();
    assert!(pending.is_done());
}

#[test]
fn the_reaper_learns_that_the_controller_is_dead() {
    let bench = Bench::small();
    let nvme = bench.attach(with(Interrupts::Message { vectors: 2 }));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    while has_work(&nvme, &waker) {
        nvme.poll();
    }
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    nvme.detach(&mut SpinWait::new(&mut idle)).unwrap();
    assert!(bell.rung() > 0);
    assert!(has_work(&nvme, &waker), "once");
    assert_eq!(nvme.state(), State::Dead(Stopped::Detached));
    assert!(!has_work(&nvme, &waker), "and not for ever");
}

type Shared = Nvme<Arc<FakeHal>, Model<Arc<FakeHal>>>;

/// As on a machine: the handler runs wherever the device announces itself, a thread reaps, others submit and wait.
#[test]
fn two_cpus_at_depth_32_and_a_reaper_thread_driven_by_interrupts() {
    let mut config = fake::Config::default();
    config.cpus = 2;
    let hal = Arc::new(FakeHal::with(config));
    let handler: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let called = handler.clone();
    let model = Model::new(hal.clone(), vec![disk(512, 1 << 20)]).interrupting(Box::new(move |_vector| {
        // Interrupts of an attach find nobody yet.
        if let Some(nvme) = called.get().and_then(Weak::upgrade) {
            nvme.interrupt();
        }
    }));
    let mut idle = || {
        hal.advance_to_next();
    };
    let config = with(Interrupts::Message { vectors: 3 });
    let nvme = Arc::new(Nvme::attach(model, hal.clone(), config, &mut SpinWait::new(&mut idle)).unwrap());
    assert!(handler.set(Arc::downgrade(&nvme)).is_ok());
    let device = nvme.namespace(1).unwrap();
    std::thread::scope(|scope| {
        let reaper = scope.spawn(|| {
            let w = &mut ThreadWait::new();
            while !matches!(nvme.state(), State::Dead(_)) {
                block_on(w, nvme.work(), None).unwrap();
                nvme.poll();
            }
        });
        let submitters: Vec<_> = (0..2_u32)
            .map(|cpu| {
                let (hal, device) = (hal.clone(), device.clone());
                scope.spawn(move || {
                    let _here = hal.attach(CpuId(cpu)).unwrap();
                    let w = &mut ThreadWait::new();
                    let mut seen = BTreeSet::new();
                    for round in 0..8_u64 {
                        let at = |i: u64| (round * 64 + u64::from(cpu) * 32 + i) * 2048;
                        let pending: Vec<_> = (0..32).map(|i| read(at(i), 2048).start(&device)).collect();
                        for (i, pending) in pending.into_iter().enumerate() {
                            let bio = pending.wait(w);
                            assert_eq!(bio.status(), Ok(()));
                            assert_eq!(bytes(&bio), pattern(at(i as u64), 2048));
                            seen.insert(at(i as u64));
                        }
                    }
                    seen.len()
                })
            })
            .collect();
        let read: usize = submitters.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(read, 512, "the whole image");
        let mut idle = || {
            hal.advance_to_next();
        };
        nvme.detach(&mut SpinWait::new(&mut idle)).unwrap();
        reaper.join().unwrap();
    });
    assert_eq!(nvme.stats().completed, 512);
    assert!(hal.now().as_nanos() < 10_000_000_000, "no deadline was needed");
    assert_eq!(hal.faults(), []);
}
