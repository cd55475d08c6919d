//! Requests: slots, classes, memory, limits.

use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern, Queueing};
use dfly_ahci::{Config, State};
use dfly_bio::{Bio, Buf, BufVec, Failure, Image};
use dfly_hal::Clock;

use crate::bench::{Bench, bytes, disk, flush, image, pattern, read, submit, write};

#[test]
fn writes_reach_the_medium_with_fua_and_flush() {
    for queueing in [Queueing::Depth(32), Queueing::None] {
        let mut drive = Drive::disk(512, image(1 << 20));
        drive.queueing = queueing;
        let bench = Bench::new(vec![Some(drive)], Abilities::default());
        let ahci = bench.attach(Config::default());
        let data: Vec<u8> = (0..40960_u32).map(|i| (i / 7) as u8).collect();
        let mut bio = write(8192, &data);
        bio.fua();
        assert_eq!(bench.call(&ahci, 0, bio).status(), Ok(()));
        assert_eq!(bench.call(&ahci, 0, flush()).status(), Ok(()));
        let mut medium = vec![0; data.len()];
        assert!(bench.model.peek(0, 8192, &mut medium));
        assert_eq!(medium, data);
        let counts = bench.model.counts();
        assert_eq!((counts.fua, counts.flushes), (1, 1));
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn without_a_write_cache_a_flush_asks_nobody() {
    let mut drive = Drive::disk(512, Image::new(1 << 20));
    drive.write_cache = false;
    let bench = Bench::new(vec![Some(drive)], Abilities::default());
    let ahci = bench.attach(Config::default());
    assert_eq!(bench.call(&ahci, 0, flush()).status(), Ok(()));
    assert_eq!(bench.model.counts().flushes, 0);
}

#[test]
fn every_slot_fills_and_comes_round_and_a_batch_costs_two_writes() {
    for depth in [1, 2, 3, 5, 31, 32] {
        let mut drive = Drive::disk(512, image(4 << 20));
        drive.queueing = Queueing::Depth(depth);
        let bench = Bench::new(vec![Some(drive)], Abilities::default());
        let ahci = bench.attach(Config::default());
        let before = bench.model.counts();
        let pending = submit(&ahci.disk(0).unwrap(), (0..200).map(|i| read(i * 4096, 4096)));
        let mut done = 0;
        while done < 200 {
            let now = ahci.poll();
            assert!(now > 0 && now <= usize::from(depth), "{depth}: {now}");
            done += now;
        }
        for (i, p) in pending.into_iter().enumerate() {
            let bio = p.try_take().unwrap();
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 4096, 4096)));
        }
        let stats = ahci.stats();
        assert_eq!((stats.queued, stats.batches), (200, 200_u64.div_ceil(depth.into())));
        let writes = bench.model.counts().writes - before.writes;
        // PxSACT, PxCI; PxIS and IS.
        assert_eq!(writes, 4 * stats.batches, "{depth}");
        if depth == 32 {
            assert!(
                writes * 2 <= 3 * 200,
                "at most 1.5 register writes a command, and here {writes} for 200"
            );
        }
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn queued_and_other_commands_do_not_mix_and_keep_their_order() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    for round in 0..20_u64 {
        // The model counts it as misuse if classes mix.
        let bios = (0..30).map(|i| match i % 5 {
            0 => flush(),
            1 => write((round * 30 + i) * 512, &pattern((round * 30 + i) * 512, 512)),
            _ => read(i * 512, 512),
        });
        for bio in bench.wait_all(&ahci, submit(&device, bios)) {
            assert_eq!(bio.status(), Ok(()));
        }
    }
    assert_eq!(bench.model.counts().flushes, 120);
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn memory_at_every_even_offset_goes_whole_and_at_odd_ones_is_refused() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    let before = ahci.stats().issued;
    for lead in (2..=1024).step_by(2).chain([2048, 4094, 4096, 4098]) {
        // Pieces of even lengths, which together are whole blocks.
        let lens = [lead, 4096, 510, 8192 - (lead + 510) % 512];
        let mut parts = BufVec::with_capacity(lens.len()).unwrap();
        for len in lens {
            parts.push(Buf::alloc(len, 2).unwrap()).unwrap();
        }
        let total = parts.bytes();
        let mut bio = Bio::new();
        bio.read(1024, parts);
        let bio = bench.wait(&ahci, bio.start(&device));
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(1024, total)), "{lead}");
    }
    assert!(ahci.stats().issued > before);
    let mut parts = BufVec::with_capacity(2).unwrap();
    for len in [511, 513] {
        parts.push(Buf::alloc(len, 2).unwrap()).unwrap();
    }
    let mut bio = Bio::new();
    bio.read(0, parts);
    assert_eq!(bench.wait(&ahci, bio.start(&device)).status(), Err(Failure::Misaligned));
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn long_requests_are_split_and_come_back_whole() {
    for max in [4096, 8192, 64 << 10, 256 << 10] {
        let bench = Bench::small();
        let ahci = bench.attach(Config { max_transfer_bytes: max, ..Config::default() });
        let len = 3 << 20;
        let bio = bench.call(&ahci, 0, read(512, len));
        assert_eq!((bio.status(), bytes(&bio) == pattern(512, len)), (Ok(()), true));
        assert_eq!(ahci.stats().issued, (len as u64).div_ceil(max.into()));
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn what_lies_outside_is_refused_before_the_device_sees_it() {
    let bench =
        Bench::new(vec![disk(512, 1 << 20), Some(Drive::reader(image(1 << 20)))], Abilities::default());
    let ahci = bench.attach(Config::default());
    let before = bench.model.counts().commands;
    for (bio, failure) in [
        (read(1 << 20, 512), Failure::OutOfRange),
        (read((1 << 20) - 512, 1024), Failure::OutOfRange),
        (read(256, 512), Failure::Misaligned),
    ] {
        assert_eq!(bench.call(&ahci, 0, bio).status(), Err(failure));
    }
    assert_eq!(bench.call(&ahci, 1, write(0, &[0; 2048])).status(), Err(Failure::WriteProtected));
    assert_eq!(bench.call(&ahci, 1, read(512, 2048)).status(), Err(Failure::Misaligned));
    assert_eq!(bench.model.counts().commands, before);
}

#[test]
fn a_discard_trims_and_long_ones_are_split() {
    let bench = Bench::new(vec![Some(Drive::disk(512, image(40 << 20)))], Abilities::default());
    let ahci = bench.attach(Config::default());
    let mut bio = Bio::new();
    // More than an entry holds.
    bio.discard(1 << 20, 38 << 20);
    assert_eq!(bench.call(&ahci, 0, bio).status(), Ok(()));
    assert_eq!(bench.model.counts().trimmed, (38 << 20) / 512);
    let bio = bench.call(&ahci, 0, read((1 << 20) - 512, 1024));
    let mut expected = pattern((1 << 20) - 512, 1024);
    expected[512..].fill(0);
    assert_eq!(bytes(&bio), expected);
    let bio = bench.call(&ahci, 0, read((39 << 20) - 512, 1024));
    let mut expected = pattern((39 << 20) - 512, 1024);
    expected[..512].fill(0);
    assert_eq!(bytes(&bio), expected);
    drop(ahci);
    bench.is_clean();
}

#[test]
fn disks_of_every_age_and_sector_size_read_and_write() {
    for (block, lba48, queueing) in [
        (512, false, Queueing::None),
        (512, true, Queueing::None),
        (4096, true, Queueing::None),
        (4096, true, Queueing::Depth(8)),
        (65536, true, Queueing::Depth(32)),
    ] {
        let mut drive = Drive::disk(block, image(2 << 20));
        (drive.lba48, drive.queueing) = (lba48, queueing);
        let bench = Bench::new(vec![Some(drive)], Abilities::default());
        let ahci = bench.attach(Config::default());
        let data = vec![0x5a; 3 * block as usize];
        assert_eq!(bench.call(&ahci, 0, write(2 * u64::from(block), &data)).status(), Ok(()));
        let bio = bench.call(&ahci, 0, read(u64::from(block), 5 * block as usize));
        let mut expected = pattern(block.into(), 5 * block as usize);
        expected[block as usize..4 * block as usize].fill(0x5a);
        assert_eq!((bio.status(), bytes(&bio) == expected), (Ok(()), true), "{block}");
        drop(ahci);
        bench.is_clean();
    }
}

#[test]
fn a_request_that_waits_too_long_for_a_slot_times_out_and_nothing_stops() {
    let mut drive = Drive::disk(512, image(1 << 20));
    drive.queueing = Queueing::Depth(1);
    let bench = Bench::new(vec![Some(drive)], Abilities::default());
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Delay(400)));
    let first = read(0, 512).start(&device);
    let mut bio = read(512, 512);
    bio.deadline(bench.hal.now().saturating_add(Duration::from_millis(2)));
    let second = bio.start(&device);
    bench.hal.advance(Duration::from_millis(3));
    ahci.poll();
    assert_eq!(second.try_take().unwrap().status(), Err(Failure::Timeout));
    assert_eq!(bench.wait(&ahci, first).status(), Ok(()));
    assert_eq!((ahci.state(), ahci.stats().recoveries), (State::Live, 0));
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn a_driver_that_is_dropped_answers_what_is_under_way_and_what_waits() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    let all = Pattern { times: 100, ..Pattern::NEXT };
    bench.model.inject(Fault::Command(all, Mistake::Drop));
    let pending = submit(&device, (0..50).map(|i| read(i * 512, 512)));
    drop(ahci);
    for p in pending {
        assert_eq!(p.try_take().unwrap().status(), Err(Failure::Aborted));
    }
    let late = read(0, 512).start(&device);
    assert_eq!(late.try_take().unwrap().status(), Err(Failure::Gone));
    drop(device);
    bench.is_clean();
}
