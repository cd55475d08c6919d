//! Attaching, and what is found.

use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Queueing};
use dfly_ahci::spec::{IdentifyError, text_of};
use dfly_ahci::{AttachError, Config, DiskKind, PortFailure, PortState, State, Stopped, Unusable};
use dfly_bio::{Access, Fua, Image, WriteCache};
use dfly_hal::fake;
use dfly_hal::{Clock, SpinWait};

use crate::bench::{Bench, bytes, disk, image, pattern, read};

#[test]
fn devices_of_every_kind_are_found_in_well_under_a_tenth_of_a_second() {
    let drives =
        vec![disk(512, 1 << 20), None, disk(4096, 1 << 20), Some(Drive::reader(image(1 << 20))), None, None];
    let bench = Bench::new(drives, Abilities { sss: true, bios: true, ..Default::default() });
    let before = bench.hal.now();
    let ahci = bench.attach(Config::default());
    let took = bench.hal.now().saturating_since(before);
    assert!(took < Duration::from_millis(100), "{took:?}");
    let kinds: Vec<_> =
        ahci.ports().map(|number| ahci.disk_info(number).map(|disk| (disk.kind, disk.blocks))).collect();
    let expected = [
        Some((DiskKind::Disk, 2048)),
        None,
        Some((DiskKind::Disk, 256)),
        Some((DiskKind::Disc, 512)),
        None,
        None,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(ahci.port(1).unwrap().state, PortState::Empty);
    let info = ahci.disk_info(0).unwrap();
    assert_eq!((text_of(&info.serial), text_of(&info.model)), (&b"MODEL-1"[..], &b"dfly AHCI model"[..]));
    assert_eq!((info.queue_depth, info.queueing, info.wwn), (32, true, Some(0x5000_5001_5002_5003)));
    for (port, block) in [(0, 512), (2, 4096), (3, 2048)] {
        let limits = ahci.disk(port).unwrap().limits();
        assert_eq!(limits.block_bytes, block);
        let bio = bench.call(&ahci, port, read(8192, 8192));
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(8192, 8192)), "port {port}");
    }
    let disc = ahci.disk(3).unwrap().limits();
    assert_eq!((disc.access, disc.write_cache), (Access::ReadOnly, WriteCache::None));
    assert!(ahci.port(9).is_none() && ahci.disk(1).is_none());
    drop(ahci);
    bench.is_clean();
}

#[test]
fn a_disk_says_what_it_can_do() {
    let mut old = Drive::disk(512, Image::new(1 << 20));
    (old.queueing, old.lba48, old.fua, old.trim, old.write_cache) =
        (Queueing::None, false, false, false, false);
    let mut some = Drive::disk(512, Image::new(1 << 20));
    (some.queueing, some.physical_shift) = (Queueing::Depth(4), 3);
    let bench = Bench::new(vec![Some(old), Some(some)], Abilities::default());
    let ahci = bench.attach(Config::default());
    let old = ahci.disk(0).unwrap().limits();
    assert_eq!((old.fua, old.discard, old.write_cache), (Fua::Unsupported, None, WriteCache::None));
    let some = ahci.disk(1).unwrap().limits();
    assert_eq!((some.fua, some.write_cache, some.optimal_bytes), (Fua::Native, WriteCache::Volatile, 4096));
    assert_eq!(some.discard.unwrap().granularity_bytes, 4096);
    assert_eq!(ahci.disk_info(1).unwrap().queue_depth, 4);
}

#[test]
fn an_adapter_with_few_slots_and_short_addresses() {
    let mut config = fake::Config::default();
    config.budget = 64 << 20;
    for ncs_z in [0, 1, 3, 30] {
        let abilities = Abilities { ncs_z, s64a: false, settling: 0, ..Default::default() };
        let bench = Bench::with_hal(config, vec![disk(512, 1 << 20)], abilities);
        let ahci = bench.attach(Config::default());
        for i in 0..10_u64 {
            let bio = bench.call(&ahci, 0, read(i * 1024, 1024));
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i * 1024, 1024)), "{ncs_z}");
        }
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn blocks_that_are_longer_than_a_command_are_no_disk() {
    let bench = Bench::new(vec![disk(65536, 1 << 20)], Abilities::default());
    let ahci = bench.attach(Config { max_transfer_bytes: 32 << 10, ..Config::default() });
    assert_eq!(ahci.port(0).unwrap().state, PortState::Unusable(Unusable::BlockBytes { bytes: 65536 }));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn nothing_interrupts_while_it_is_attached() {
    let bench = Bench::small();
    bench.model.inject(Fault::NoLink(0, 1));
    let ahci = bench.attach(Config { interrupts: dfly_ahci::Interrupts::One, ..Config::default() });
    // At the end, for what was not acknowledged; the handler may be there by then.
    assert!(bench.interrupts() <= 1);
    drop(ahci);
    bench.is_clean();
}

#[test]
fn what_is_no_adapter_is_not_attached() {
    let bench = Bench::small();
    bench.model.inject(Fault::AllOnes);
    assert_eq!(bench.try_attach(Config::default()).err(), Some(AttachError::Gone));
    let bench = Bench::small();
    bench.model.inject(Fault::StuckReset);
    assert!(matches!(bench.try_attach(Config::default()).err(), Some(AttachError::NotReset { .. })));
    let bench = Bench::small();
    bench.model.inject(Fault::Register { offset: 0x0c, value: 0 });
    assert_eq!(bench.try_attach(Config::default()).err(), Some(AttachError::NoPorts));
    bench.is_clean();
}

#[test]
fn a_port_that_does_not_come_up_leaves_the_others_alone() {
    for (fault, state) in [
        (Fault::StuckBusy(1), PortState::Dead(PortFailure::Busy)),
        (Fault::NoLink(1, u32::MAX), PortState::Dead(PortFailure::NoLink)),
        (
            Fault::Identify { port: 1, word: 60, value: 1 },
            PortState::Unusable(Unusable::Identify(IdentifyError::Checksum)),
        ),
    ] {
        let bench = Bench::new(vec![disk(512, 1 << 20), disk(512, 1 << 20)], Abilities::default());
        bench.model.inject(fault.clone());
        let ahci = bench.attach(Config { attach_timeout: Duration::from_secs(200), ..Config::default() });
        let found = ahci.port(1).unwrap().state;
        let dead = matches!((found, state), (PortState::Dead(_), PortState::Dead(_)));
        assert!(found == state || dead, "{fault:?}: {found:?}");
        assert!(ahci.disk(1).is_none());
        let bio = bench.call(&ahci, 0, read(0, 4096));
        assert_eq!((bio.status(), ahci.state()), (Ok(()), State::Live), "{fault:?}");
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn a_link_that_comes_up_at_the_second_attempt() {
    for times in 1..=3 {
        let bench = Bench::small();
        bench.model.inject(Fault::NoLink(0, times));
        let ahci = bench.attach(Config::default());
        assert_eq!(ahci.port(0).unwrap().state, PortState::Live, "{times}");
        assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()));
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn an_adapter_that_vanishes_while_it_is_attached() {
    let bench = Bench::small();
    drop(bench.attach(Config::default()));
    let accesses = bench.model.accesses();
    for after in 0..accesses {
        let bench = Bench::small();
        bench.model.inject(Fault::AllOnesAfter(after));
        match bench.try_attach(Config::default()) {
            Ok(ahci) => drop(ahci),
            Err(error) => assert!(matches!(error, AttachError::Gone), "{after}: {error}"),
        }
        bench.is_clean();
    }
}

#[test]
fn detaching_flushes_and_ends_in_order() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    let pending = read(0, 512).start(&device);
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    assert_eq!(ahci.detach(&mut SpinWait::new(&mut idle)), Ok(()));
    assert_eq!(pending.try_take().unwrap().status(), Ok(()));
    assert_eq!((ahci.state(), bench.model.counts().flushes), (State::Dead(Stopped::Detached), 1));
    assert_eq!(ahci.detach(&mut SpinWait::new(&mut idle)), Err(Stopped::Detached));
    assert!(bench.wait(&ahci, read(0, 512).start(&device)).status().is_err());
    drop((ahci, device));
    bench.is_clean();
}
