//! What goes wrong.

use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern, QueueErrors, Queueing};
use dfly_ahci::spec::Command;
use dfly_ahci::{Config, PortState, State, Stopped};
use dfly_bio::Failure;
use dfly_hal::Clock;

use crate::bench::{Bench, bytes, disk, flush, image, pattern, read, submit, write};

const QUEUE_ERRORS: [QueueErrors; 3] = [QueueErrors::AllSent, QueueErrors::Unsent, QueueErrors::Finish];

#[test]
fn of_32_queued_requests_only_the_guilty_one_fails() {
    for queue_errors in QUEUE_ERRORS {
        for logs in [true, false] {
            for guilty in [0, 1, 13, 31] {
                let mut drive = Drive::disk(512, image(1 << 20));
                drive.logs = logs;
                let bench = Bench::new(vec![Some(drive)], Abilities { queue_errors, ..Default::default() });
                let ahci = bench.attach(Config::default());
                let at = 8 * guilty;
                bench.model.inject(Fault::Command(Pattern::at(at..at + 1), Mistake::Status(0x41, 0x40)));
                let before = bench.hal.now();
                let pending = submit(&ahci.disk(0).unwrap(), (0..32).map(|i| read(i * 4096, 4096)));
                let done = bench.wait_all(&ahci, pending);
                let took = bench.hal.now().saturating_since(before);
                for (i, bio) in done.iter().enumerate() {
                    if i as u64 == guilty {
                        assert_eq!(
                            bio.status(),
                            Err(Failure::Media),
                            "{i} of {guilty}, {queue_errors:?}, logs {logs} {:?}",
                            ahci.stats()
                        );
                    } else {
                        assert_eq!(bio.status(), Ok(()), "{i} of {guilty}, {queue_errors:?}, logs {logs}");
                        assert_eq!(bytes(bio), pattern(i as u64 * 4096, 4096));
                    }
                }
                assert!(took < Duration::from_millis(50), "{took:?}");
                assert_eq!((ahci.stats().errors, ahci.state()), (1, State::Live));
                drop(ahci);
                bench.is_clean();
            }
        }
    }
}

#[test]
fn every_error_of_a_command_that_is_not_queued_is_said_in_the_block_layers_words() {
    for (status, error, failure) in [
        (0x41, 0x40, Failure::Media),
        (0x41, 0x10, Failure::OutOfRange),
        (0x41, 0x04, Failure::Device),
        (0x61, 0x04, Failure::Device),
        (0x41, 0x00, Failure::Device),
    ] {
        let mut drive = Drive::disk(512, image(1 << 20));
        drive.queueing = Queueing::None;
        let bench = Bench::new(vec![Some(drive)], Abilities::default());
        let ahci = bench.attach(Config::default());
        bench
            .model
            .inject(Fault::Command(Pattern { skip: 2, ..Pattern::NEXT }, Mistake::Status(status, error)));
        let pending = submit(&ahci.disk(0).unwrap(), (0..6).map(|i| read(i * 512, 512)));
        let ended: Vec<_> = bench.wait_all(&ahci, pending).iter().map(|bio| bio.status()).collect();
        assert_eq!(ended, [Ok(()), Ok(()), Err(failure), Ok(()), Ok(()), Ok(())]);
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn a_flush_that_a_disk_does_not_know_is_unsupported() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let flushes = Pattern::of(Command::FLUSH_CACHE_EXT);
    bench.model.inject(Fault::Command(flushes, Mistake::Status(0x51, 0x04)));
    assert_eq!(bench.call(&ahci, 0, flush()).status(), Err(Failure::Unsupported));
    assert_eq!(bench.call(&ahci, 0, flush()).status(), Ok(()));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn a_checksum_on_the_wire_is_tried_again_and_not_for_ever() {
    for logs in [true, false] {
        for times in [1, 5, 6, u32::MAX] {
            let mut drive = Drive::disk(512, image(1 << 20));
            drive.logs = logs;
            let bench = Bench::new(vec![Some(drive)], Abilities::default());
            let ahci = bench.attach(Config::default());
            let pattern_of = Pattern { times, ..Pattern::at(3..4) };
            bench.model.inject(Fault::Command(pattern_of, Mistake::Status(0x41, 0x84)));
            let bio = bench.call(&ahci, 0, read(3 * 512, 512));
            let expected = if times <= 5 { Ok(()) } else { Err(Failure::Device) };
            assert_eq!(bio.status(), expected, "{times} times, logs {logs}");
            if times <= 5 {
                assert_eq!(bytes(&bio), pattern(3 * 512, 512));
            }
            assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()));
            drop(ahci);
            bench.is_clean();
        }
    }
}

#[test]
fn a_swallowed_command_times_out_alone_and_the_others_are_issued_again() {
    let bench = Bench::small();
    let ahci = bench.attach(Config { io_timeout: Duration::from_secs(2), ..Config::default() });
    bench.model.inject(Fault::Command(Pattern { skip: 3, ..Pattern::NEXT }, Mistake::Drop));
    let device = ahci.disk(0).unwrap();
    let before = bench.hal.now();
    let mut bios: Vec<_> = (0..8).map(|i| read(i * 512, 512)).collect();
    bios[5].deadline(before.saturating_add(Duration::from_secs(9)));
    let done = bench.wait_all(&ahci, submit(&device, bios));
    let took = bench.hal.now().saturating_since(before);
    for (i, bio) in done.iter().enumerate() {
        let expected = if i == 3 { Err(Failure::Timeout) } else { Ok(()) };
        assert_eq!(bio.status(), expected, "{i}");
    }
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2200), "{took:?}");
    let stats = ahci.stats();
    assert_eq!((stats.timeouts, stats.resets, stats.inserted, stats.removed), (1, 1, 1, 0));
    assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()), "the same device goes on");
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn a_swallowed_flush_times_out_and_the_disk_goes_on() {
    let bench = Bench::small();
    let ahci = bench.attach(Config { flush_timeout: Duration::from_secs(3), ..Config::default() });
    bench.model.inject(Fault::Command(Pattern::of(Command::FLUSH_CACHE_EXT), Mistake::Drop));
    let device = ahci.disk(0).unwrap();
    let done = bench.wait_all(&ahci, submit(&device, [read(0, 512), flush(), read(512, 512)]));
    let ended: Vec<_> = done.iter().map(|bio| bio.status()).collect();
    assert_eq!(ended, [Ok(()), Err(Failure::Timeout), Ok(())]);
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn an_interface_that_fails_is_reset_and_what_was_under_way_is_issued_again() {
    for mistake in [Mistake::Interface, Mistake::HostBus] {
        for queueing in [Queueing::Depth(32), Queueing::None] {
            for times in [1, 3, u32::MAX] {
                let mut drive = Drive::disk(512, image(1 << 20));
                drive.queueing = queueing;
                let bench = Bench::new(vec![Some(drive)], Abilities::default());
                let ahci = bench.attach(Config::default());
                bench.model.inject(Fault::Command(Pattern { skip: 2, times, ..Pattern::NEXT }, mistake));
                let pending = submit(&ahci.disk(0).unwrap(), (0..4).map(|i| read(i * 512, 512)));
                let failed =
                    bench.wait_all(&ahci, pending).iter().filter(|bio| bio.status().is_err()).count();
                let context = format!("{mistake:?} {queueing:?} {times}");
                assert_eq!(failed == 0, times != u32::MAX, "{context}: {failed}");
                assert_eq!(ahci.state(), State::Live, "{context}");
                drop(ahci);
                bench.is_clean();
            }
        }
    }
}

#[test]
fn a_command_that_completes_twice_completes_once() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    bench.model.inject(Fault::Command(Pattern { times: 20, ..Pattern::NEXT }, Mistake::Duplicate));
    let device = ahci.disk(0).unwrap();
    for round in 0..10_u64 {
        let pending = submit(&device, (0..4).map(|i| read((round + i) * 512, 512)));
        for bio in bench.wait_all(&ahci, pending) {
            assert_eq!(bio.status(), Ok(()));
        }
    }
    drop((ahci, device));
    assert_eq!(bench.hal.faults(), []);
    assert!(bench.hal.leaks().is_empty());
}

#[test]
fn commands_that_complete_late_and_out_of_order() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    for delay in [40, 3, 25, 1, 10] {
        bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Delay(delay)));
    }
    let pending = submit(&ahci.disk(0).unwrap(), (0..40).map(|i| read(i * 1024, 1024)));
    for (i, bio) in bench.wait_all(&ahci, pending).iter().enumerate() {
        assert_eq!((bio.status(), bytes(bio)), (Ok(()), pattern(i as u64 * 1024, 1024)));
    }
    drop(ahci);
    bench.is_clean();
}

#[test]
fn data_that_a_device_gets_wrong_arrives_as_it_is() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Corrupt));
    let bio = bench.call(&ahci, 0, read(0, 512));
    assert_eq!(bio.status(), Ok(()));
    assert_ne!(bytes(&bio), pattern(0, 512), "no driver can know");
}

#[test]
fn an_engine_that_does_not_stop_costs_an_adapter_reset_and_no_request() {
    let bench = Bench::new(vec![disk(512, 1 << 20), disk(512, 1 << 20)], Abilities::default());
    let ahci = bench.attach(Config { io_timeout: Duration::from_secs(2), ..Config::default() });
    bench.model.inject(Fault::StuckEngine(0));
    let at = |port, lbas| Pattern { port: Some(port), ..Pattern::at(lbas) };
    bench.model.inject(Fault::Command(Pattern { times: 1, ..at(1, 0..1) }, Mistake::Delay(1 << 20)));
    bench.model.inject(Fault::Command(at(0, 2..3), Mistake::Status(0x41, 0x40)));
    let mut pending = submit(&ahci.disk(1).unwrap(), (0..4).map(|i| read(i * 512, 512)));
    pending.extend(submit(&ahci.disk(0).unwrap(), (0..4).map(|i| read(i * 512, 512))));
    let done = bench.wait_all(&ahci, pending);
    let failed = done.iter().filter(|bio| bio.status().is_err()).count();
    assert_eq!((failed, done[6].status()), (1, Err(Failure::Media)));
    assert_eq!((ahci.state(), bench.model.counts().hba_resets), (State::Live, 2));
    for port in [0, 1] {
        assert_eq!(ahci.port(port).unwrap().state, PortState::Live);
        assert_eq!(bench.call(&ahci, port, read(64 * 512, 512)).status(), Ok(()));
    }
    drop(ahci);
    bench.is_clean();
}

#[test]
fn an_adapter_that_does_not_end_its_reset_is_answered_for_and_its_memory_is_given_up() {
    let bench = Bench::small();
    let ahci = bench.attach(Config { io_timeout: Duration::from_secs(2), ..Config::default() });
    bench.model.inject(Fault::StuckEngine(0));
    bench.model.inject(Fault::StuckReset);
    bench.model.inject(Fault::Command(Pattern { times: 50, ..Pattern::NEXT }, Mistake::Drop));
    let pending = submit(&ahci.disk(0).unwrap(), (0..40).map(|i| read(i * 512, 512)));
    let done = bench.wait_all(&ahci, pending);
    let lost = done.iter().filter(|bio| bio.status() == Err(Failure::Lost)).count();
    assert_eq!((lost, ahci.state()), (32, State::Dead(Stopped::Stuck)));
    assert!(done.iter().all(|bio| bio.status().is_err()));
    drop(ahci);
    assert_eq!(bench.hal.faults(), []);
    assert_eq!(bench.hal.leaks().mappings.len(), 32, "the adapter may write there for ever");
}

#[test]
fn a_device_that_stays_busy_is_given_up_and_comes_back_when_it_is_plugged_in_again() {
    let bench = Bench::small();
    let ahci = bench.attach(Config { io_timeout: Duration::from_secs(2), ..Config::default() });
    let device = ahci.disk(0).unwrap();
    bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Drop));
    bench.model.inject(Fault::StuckBusy(0));
    let done = bench.wait_all(&ahci, submit(&device, (0..4).map(|i| read(i * 512, 512))));
    assert!(done.iter().all(|bio| bio.status().is_err()));
    bench.pass(&ahci, Duration::from_secs(60));
    assert!(matches!(ahci.port(0).unwrap().state, PortState::Dead(_)), "{:?}", ahci.port(0));
    assert_eq!(bench.wait(&ahci, read(0, 512).start(&device)).status(), Err(Failure::Gone));
    assert!(ahci.disk(0).is_none());
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn an_adapter_that_vanishes_at_any_register_access_answers_everything_once() {
    for after in (0..60).chain([100, 200, 400]) {
        let bench = Bench::small();
        let ahci = bench.attach(Config::default());
        bench.model.inject(Fault::AllOnesAfter(after));
        let device = ahci.disk(0).unwrap();
        let mut pending = submit(&device, (0..10).map(|i| read(i * 512, 512)));
        ahci.poll();
        pending.extend(submit(&device, [flush(), write(0, &[1; 512])]));
        let done = bench.wait_all(&ahci, pending);
        for bio in &done {
            assert!(matches!(bio.status(), Ok(()) | Err(Failure::Gone)), "{after}: {:?}", bio.status());
        }
        bench.pass(&ahci, Duration::from_millis(10));
        drop((ahci, device));
        assert_eq!(bench.hal.faults(), []);
        assert!(bench.hal.leaks().is_empty(), "{after}");
    }
}
