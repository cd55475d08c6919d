//! Devices that come and go, and links that save power.

use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern};
use dfly_ahci::{Config, Interrupts, LinkPower, PortState, State};
use dfly_bio::Failure;

use crate::bench::{Bench, bytes, disk, flush, image, pattern, read, submit, write};

fn other() -> Drive {
    let mut drive = Drive::disk(512, image(2 << 20));
    drive.serial = *b"ANOTHER             ";
    drive
}

#[test]
fn a_disk_that_is_pulled_out_is_gone_and_everything_is_answered() {
    for interrupts in [Interrupts::None, Interrupts::One] {
        let bench = Bench::small();
        let ahci = bench.attach(Config { interrupts, ..Config::default() });
        let device = ahci.disk(0).unwrap();
        let (before, removed) = (ahci.changes(), ahci.stats().removed);
        bench.model.inject(Fault::Command(Pattern { times: 99, ..Pattern::NEXT }, Mistake::Drop));
        let pending = submit(&device, (0..50).map(|i| read(i * 512, 512)));
        assert!(bench.model.unplug(0).is_some());
        // Somebody may call the handler, or only poll.
        ahci.interrupt();
        for bio in bench.wait_all(&ahci, pending) {
            assert_eq!(bio.status(), Err(Failure::Gone));
        }
        assert_eq!(ahci.port(0).unwrap().state, PortState::Empty);
        assert!(ahci.disk(0).is_none() && ahci.changes() > before);
        assert_eq!((ahci.stats().removed, ahci.state()), (removed + 1, State::Live));
        assert_eq!(bench.wait(&ahci, flush().start(&device)).status(), Err(Failure::Gone));
        drop((ahci, device));
        bench.is_clean();
    }
}

#[test]
fn a_disk_that_is_plugged_in_is_found_and_another_one_is_another_disk() {
    let bench = Bench::new(vec![None, disk(512, 1 << 20)], Abilities::default());
    let ahci = bench.attach(Config { interrupts: Interrupts::One, ..Config::default() });
    assert!(ahci.disk(0).is_none());
    bench.model.plug(0, Drive::disk(512, image(1 << 20)));
    ahci.interrupt();
    bench.pass(&ahci, Duration::from_millis(20));
    assert_eq!(ahci.port(0).unwrap().state, PortState::Live);
    let first = ahci.disk(0).unwrap();
    assert_eq!(bytes(&bench.call(&ahci, 0, read(512, 512))), pattern(512, 512));

    bench.model.plug(0, other());
    ahci.interrupt();
    bench.pass(&ahci, Duration::from_millis(20));
    let second = ahci.disk(0).unwrap();
    assert_eq!((first.limits().blocks, second.limits().blocks), (2048, 4096));
    assert_eq!(
        bench.wait(&ahci, read(0, 512).start(&first)).status(),
        Err(Failure::Gone),
        "it is not that one"
    );
    assert_eq!(bench.wait(&ahci, read(0, 512).start(&second)).status(), Ok(()));
    // The same again keeps its place, and what was asked of it.
    bench.model.inject(Fault::Command(Pattern { port: Some(0), ..Pattern::NEXT }, Mistake::Delay(1 << 30)));
    let pending = submit(&second, (0..4).map(|i| read(i * 512, 512)));
    let drive = bench.model.unplug(0).unwrap();
    bench.model.plug(0, drive);
    ahci.interrupt();
    for bio in bench.wait_all(&ahci, pending) {
        assert_eq!(bio.status(), Ok(()));
    }
    assert_eq!(bench.wait(&ahci, read(0, 512).start(&second)).status(), Ok(()));
    drop((ahci, first, second));
    bench.is_clean();
}

#[test]
fn a_disk_that_is_pulled_out_at_any_moment_answers_everything_once() {
    // The command during which it happens, also those of recovery and of bringing up.
    for skip in 0..12 {
        for lost in [Mistake::Vanish, Mistake::Status(0x41, 0x40)] {
            let bench = Bench::small();
            let ahci = bench.attach(Config { io_timeout: Duration::from_secs(3), ..Config::default() });
            let device = ahci.disk(0).unwrap();
            bench.model.inject(Fault::Command(Pattern { skip: 3, ..Pattern::NEXT }, lost));
            bench.model.inject(Fault::Command(Pattern { skip, ..Pattern::NEXT }, Mistake::Vanish));
            let log = Pattern::of(dfly_ahci::spec::Command::READ_LOG_EXT);
            bench.model.inject(Fault::Command(log, Mistake::Vanish));
            let bios = (0..10).map(|i| if i == 5 { flush() } else { read(i * 512, 512) });
            for bio in bench.wait_all(&ahci, submit(&device, bios)) {
                assert!(
                    matches!(bio.status(), Ok(()) | Err(Failure::Gone | Failure::Media)),
                    "{skip}: {bio:?}"
                );
            }
            bench.pass(&ahci, Duration::from_millis(100));
            assert_eq!(ahci.port(0).unwrap().state, PortState::Empty);
            drop((ahci, device));
            bench.is_clean();
        }
    }
}

#[test]
fn a_dead_port_comes_back_when_something_is_plugged_in() {
    let bench = Bench::small();
    bench.model.inject(Fault::NoLink(0, 1000));
    let ahci = bench.attach(Config { attach_timeout: Duration::from_secs(60), ..Config::default() });
    assert!(matches!(ahci.port(0).unwrap().state, PortState::Dead(_)), "{:?}", ahci.port(0));
    bench.model.inject(Fault::NoLink(0, 0));
    bench.model.plug(0, other());
    bench.pass(&ahci, Duration::from_millis(50));
    assert_eq!(ahci.port(0).unwrap().state, PortState::Live);
    assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn links_save_power_and_wake_for_requests() {
    for (link_power, ipm) in [(LinkPower::Performance, 1), (LinkPower::Partial, 2), (LinkPower::Slumber, 6)] {
        for interrupts in [Interrupts::None, Interrupts::One] {
            let bench = Bench::small();
            let ahci = bench.attach(Config { link_power, interrupts, ..Config::default() });
            for i in 0..20_u64 {
                let bio = bench.call(&ahci, 0, write(i * 512, &[i as u8; 512]));
                assert_eq!(bio.status(), Ok(()));
                ahci.interrupt();
                bench.pass(&ahci, Duration::from_millis(2));
                // PxSSTS.IPM.
                let ssts = dfly_hal::regs::Window::read32(&*bench.model, 0x128);
                assert_eq!(ssts >> 8 & 0xf, ipm, "{link_power:?}");
            }
            assert_eq!(ahci.stats().recoveries, 0, "a link that sleeps is no link that is lost");
            assert!(bench.model.unplug(0).is_some());
            ahci.interrupt();
            let gone = submit(&ahci.disk(0).unwrap(), [read(0, 512)]);
            assert_eq!(bench.wait_all(&ahci, gone)[0].status(), Err(Failure::Gone));
            drop(ahci);
            bench.is_clean();
        }
    }
}
