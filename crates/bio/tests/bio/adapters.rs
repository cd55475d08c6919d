//! Tracer, fault injector, power cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use dfly_bio::*;
use dfly_hal::{Clock, Instant};
use proptest::prelude::*;

use crate::common::{Held, cases, pattern, polling};

/// A clock that a test sets.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
    fn wake_at(&self, _: Instant, waker: &Waker) {
        waker.wake_by_ref();
    }
}

fn buf(len: usize, byte: u8) -> Buf {
    Buf::from(vec![byte; len])
}

/// Sends what `prepare` prepares, and says how it ended.
fn send(dev: &dyn BlockDevice, prepare: impl FnOnce(&mut Bio) -> &mut Bio) -> Status {
    let mut bio = Bio::new();
    prepare(&mut bio);
    polling(dev, |w| bio.call(dev, w)).status()
}

fn write(dev: &dyn BlockDevice, block: u64, byte: u8) -> Status {
    send(dev, |b| b.write(block * 512, buf(512, byte)))
}

fn first_byte(image: &Image, block: u64) -> u8 {
    let mut byte = [0];
    image.read(block * 512, &mut byte);
    byte[0]
}

#[test]
fn a_trace_has_every_request_with_its_latency() {
    let clock = Arc::new(Hand::default());
    let held = Arc::new(Held::default());
    let tracer = Tracer::new(held.clone(), clock.clone(), 2);
    let mut pending = Vec::new();
    for i in 0..3u64 {
        clock.0.store(100 * i, Ordering::Relaxed);
        let mut bio = Bio::new();
        bio.write(512 * i, buf(512, 1));
        pending.push(bio.start(&tracer));
    }
    assert_eq!((tracer.stats().in_flight, tracer.stats().batches), (3, 3));
    clock.0.store(1000, Ordering::Relaxed);
    for status in [Ok(()), Err(Failure::Media), Ok(())] {
        held.pop().unwrap().finish(status);
    }
    let stats = tracer.stats();
    assert_eq!((stats.in_flight, stats.max_in_flight, stats.overwritten), (0, 3, 1));
    assert_eq!((stats.writes.requests, stats.writes.failed, stats.writes.bytes), (3, 1, 1024));
    assert_eq!(stats.writes.total_latency, Duration::from_nanos(1000 + 900 + 800));
    assert_eq!(stats.writes.max_latency, Duration::from_nanos(1000));
    let records = tracer.drain();
    assert_eq!(records.len(), 2, "the oldest went");
    assert_eq!((records[0].offset, records[0].status), (512, Err(Failure::Media)));
    assert_eq!((records[1].submitted.as_nanos(), records[1].latency), (200, Duration::from_nanos(800)));
    assert!(pending.into_iter().all(|p| p.is_done()));
}

#[test]
fn a_fault_happens_to_the_match_that_was_named() {
    let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
    let bad = Rule::always(Fault::Fail(Failure::Media)).on(Op::Write).within(1024..2048);
    disk.add(bad.after(1).times(1));
    assert_eq!(write(&disk, 0, 1), Ok(()));
    assert_eq!(write(&disk, 2, 1), Ok(()), "the first match is skipped");
    assert_eq!(send(&disk, |b| b.read(1024, buf(512, 0))), Ok(()));
    assert_eq!(write(&disk, 3, 1), Err(Failure::Media));
    assert_eq!(write(&disk, 3, 1), Ok(()), "once only");
    let stats = disk.stats();
    assert_eq!((stats.requests, stats.faults), (5, 1));
}

#[test]
fn a_lost_acknowledgement_leaves_the_write_on_the_medium() {
    let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
    disk.add(Rule::always(Fault::FailAfter(Failure::Timeout)));
    assert_eq!(write(&disk, 5, 9), Err(Failure::Timeout));
    assert_eq!(first_byte(&disk.lower().image(), 5), 9);
}

#[test]
fn what_hangs_is_answered_when_released_and_when_the_device_goes() {
    let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
    disk.add(Rule::always(Fault::Hang));
    let start = || {
        let mut bio = Bio::new();
        bio.write(0, buf(512, 1));
        bio.start(&disk)
    };
    let pending = start();
    assert!(!pending.is_done());
    assert_eq!(disk.stats().hanging, 1);
    assert_eq!(disk.release(Err(Failure::Timeout)), 1);
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Timeout));
    let pending = start();
    drop(disk);
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Orphaned));
}

#[test]
fn a_delay_lasts_so_many_polls() {
    let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
    disk.add(Rule::always(Fault::Delay { polls: 2 }).times(1));
    let mut bio = Bio::new();
    bio.flush();
    let pending = bio.start(&disk);
    for delayed in [1, 1, 0] {
        disk.poll();
        assert_eq!((disk.stats().delayed, pending.is_done()), (delayed, delayed == 0));
    }
}

#[test]
fn corruption_flips_bits_of_a_read_or_of_the_medium_and_never_of_the_writers_memory() {
    let ones = |image: &Image| {
        let mut all = vec![0; 512];
        image.read(0, &mut all);
        all.iter().map(|b| b.count_ones()).sum::<u32>()
    };
    let disk = FaultInjector::new(MemDisk::new(512, 64), 42);
    disk.add(Rule::always(Fault::Corrupt { bits: 3 }));
    let mut bio = Bio::new();
    let mut list = BufVec::with_capacity(2).unwrap();
    list.push(buf(500, 0)).unwrap();
    list.push(buf(12, 0)).unwrap();
    bio.read(0, list);
    let bio = polling(&disk, |w| bio.call(&disk, w));
    bio.result().unwrap();
    let flipped: u32 = bio.bytes().flatten().map(|b| b.count_ones()).sum();
    assert!(flipped == 3 || flipped == 1, "{flipped}");
    assert_eq!(ones(&disk.lower().image()), 0);

    let mut bio = Bio::new();
    bio.write(0, buf(512, 0));
    let bio = polling(&disk, |w| bio.call(&disk, w));
    bio.result().unwrap();
    assert!(bio.bytes().flatten().all(|&b| b == 0));
    assert!(ones(&disk.lower().image()) > 0);
}

#[test]
fn a_torn_write_leaves_its_first_blocks() {
    for status in [Ok(()), Err(Failure::Gone)] {
        let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
        disk.add(Rule::always(Fault::Torn { bytes: 1500, status }).on(Op::Write));
        assert_eq!(send(&disk, |b| b.write(0, buf(2048, 4))), status);
        let image = disk.lower().image();
        assert_eq!([0, 1, 2, 3].map(|block| first_byte(&image, block)), [4, 4, 0, 0]);
    }
}

#[test]
fn a_vanished_device_comes_back() {
    let disk = FaultInjector::new(MemDisk::new(512, 64), 1);
    disk.add(Rule::always(Fault::Vanish { requests: 3 }).after(1).times(1));
    let got: Vec<bool> = (0..6).map(|_| write(&disk, 0, 1) == Err(Failure::Gone)).collect();
    assert_eq!(got, [false, true, true, true, false, false]);
    disk.add(Rule::always(Fault::Vanish { requests: u32::MAX }));
    assert_eq!((0..9).map(|_| write(&disk, 0, 1)).filter(|s| s.is_err()).count(), 9);
    disk.clear();
    assert_eq!(write(&disk, 0, 1), Ok(()));
}

#[test]
fn chance_is_repeated_by_its_seed() {
    let run = |seed| {
        let disk = FaultInjector::new(MemDisk::new(512, 64), seed);
        disk.add(Rule::always(Fault::Fail(Failure::Media)).with_chance(1 << 15));
        (0..64).map(|_| write(&disk, 0, 1).is_err()).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let failed = run(7).iter().filter(|&&f| f).count();
    assert!((16..48).contains(&failed), "{failed} of 64");
}

#[test]
fn after_a_cut_everything_fails_and_only_what_was_flushed_is_certain() {
    let disk = PowerCut::new(MemDisk::new(512, 64), Cut::AtWrite(3));
    write(&disk, 0, 1).unwrap();
    send(&disk, |b| b.flush()).unwrap();
    write(&disk, 1, 2).unwrap();
    send(&disk, |b| b.write(1024, buf(512, 3)).fua()).unwrap();
    assert_eq!((disk.stats().writes, disk.stats().unflushed), (3, 1));
    assert_eq!(write(&disk, 3, 4), Err(Failure::Gone));
    assert!(disk.is_cut());
    assert_eq!(send(&disk, |b| b.read(0, buf(512, 0))), Err(Failure::Gone));
    let blocks = |image: Image| [0, 1, 2, 3].map(|b| first_byte(&image, b));
    assert_eq!(blocks(disk.durable().unwrap()), [1, 0, 3, 0]);
    assert_eq!(blocks(disk.survivors(|_| Keep::All).unwrap()), [1, 2, 3, 4]);
    let late = disk.survivors(|w| if w.is_completed() { Keep::Nothing } else { Keep::All });
    assert_eq!(blocks(late.unwrap()), [1, 0, 3, 4]);
    assert_eq!(first_byte(&disk.lower().image(), 3), 0, "the write at the cut never got to the live disk");
}

#[test]
fn a_cut_at_a_flush_makes_nothing_durable() {
    let disk = PowerCut::new(MemDisk::new(512, 64), Cut::AtFlush(1));
    send(&disk, |b| b.flush()).unwrap();
    write(&disk, 0, 1).unwrap();
    assert_eq!(send(&disk, |b| b.flush()), Err(Failure::Gone));
    assert_eq!(first_byte(&disk.durable().unwrap(), 0), 0);
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_submitted() {
    let disk = PowerCut::over(Arc::new(Held::default()), Image::new(512 << 20), Cut::Never);
    let held = disk.lower().clone();
    let start = |prepare: &dyn Fn(&mut Bio) -> &mut Bio| {
        let mut bio = Bio::new();
        prepare(&mut bio);
        bio.start(&disk)
    };
    let before = start(&|b| b.write(0, buf(512, 1)));
    held.pop().unwrap().finish(Ok(()));
    let during = start(&|b| b.write(512, buf(512, 2)));
    let flush = start(&|b| b.flush());
    held.pop().unwrap().finish(Ok(()));
    held.pop().unwrap().finish(Ok(()));
    assert!(before.is_done() && during.is_done() && flush.is_done());
    let image = disk.durable().unwrap();
    assert_eq!((first_byte(&image, 0), first_byte(&image, 1)), (1, 0));
    // A failed write is undecided until the next flush.
    let failed = start(&|b| b.write(0, buf(512, 9)));
    held.pop().unwrap().finish(Err(Failure::Media));
    assert_eq!(first_byte(&disk.survivors(|_| Keep::All).unwrap(), 0), 9);
    let flush = start(&|b| b.flush());
    held.pop().unwrap().finish(Ok(()));
    assert!(failed.is_done() && flush.is_done());
    assert_eq!(first_byte(&disk.survivors(|_| Keep::All).unwrap(), 0), 1);
    // What was under way at the cut fails, though the device below says otherwise.
    let late = start(&|b| b.write(0, buf(512, 7)));
    disk.cut_now();
    held.pop().unwrap().finish(Ok(()));
    assert_eq!(late.try_take().unwrap().status(), Err(Failure::Gone));
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, blocks: u64 },
    Fua { at: u64, blocks: u64 },
    Zero { at: u64, blocks: u64 },
    Flush,
}

const BLOCKS: u64 = 8;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..BLOCKS, 1..4u64).prop_map(|(at, n)| (at, n.min(BLOCKS - at)));
    let step = prop_oneof![
        6 => range.clone().prop_map(|(at, blocks)| Step::Write { at, blocks }),
        1 => range.clone().prop_map(|(at, blocks)| Step::Fua { at, blocks }),
        1 => range.prop_map(|(at, blocks)| Step::Zero { at, blocks }),
        2 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(cases(300, 3))]

    /// The model keeps, for each block, the set of values that a cut may leave.
    #[test]
    fn survivors_are_what_the_model_allows(steps in steps(), cut in 0..20u64, at_flush: bool, seeds: [u64; 4]) {
        let cut = if at_flush { Cut::AtFlush(cut / 4) } else { Cut::AtWrite(cut) };
        let disk = PowerCut::new(MemDisk::new(512, BLOCKS), cut);
        // Possible values of each block; the last one is what a read would give.
        let mut may = vec![vec![0u8]; BLOCKS as usize];
        for (i, step) in steps.iter().enumerate() {
            let value = i as u8 + 1;
            let (status, at, blocks, value) = match *step {
                Step::Write { at, blocks } => {
                    let data = buf(512 * blocks as usize, value);
                    (send(&disk, |b| b.write(at * 512, data)), at, blocks, value)
                }
                Step::Fua { at, blocks } => {
                    let data = buf(512 * blocks as usize, value);
                    (send(&disk, |b| b.write(at * 512, data).fua()), at, blocks, value)
                }
                Step::Zero { at, blocks } => {
                    (send(&disk, |b| b.write_zeroes(at * 512, blocks * 512)), at, blocks, 0)
                }
                Step::Flush => (send(&disk, |b| b.flush()), 0, 0, 0),
            };
            for set in &mut may[at as usize..(at + blocks) as usize] {
                match step {
                    Step::Fua { .. } if status.is_ok() => *set = vec![value],
                    _ => set.push(value),
                }
            }
            if status.is_err() {
                prop_assert_eq!(status, Err(Failure::Gone));
                break;
            }
            if let Step::Flush = step {
                may.iter_mut().for_each(|set| *set = vec![*set.last().unwrap()]);
            }
        }
        // Even the power cut of a long run leaves one of the allowed values in each block, untorn.
        for seed in seeds {
            let image = disk.survivor_disk(seed).unwrap().image();
            for (block, set) in may.iter().enumerate() {
                let mut bytes = [0; 512];
                image.read(block as u64 * 512, &mut bytes);
                prop_assert!(bytes.iter().all(|&b| b == bytes[0]));
                prop_assert!(set.contains(&bytes[0]), "block {} has {}, not one of {:?}", block, bytes[0], set);
            }
        }
        let all = disk.survivors(|_| Keep::All).unwrap();
        for (block, set) in may.iter().enumerate() {
            prop_assert_eq!(Some(&first_byte(&all, block as u64)), set.last());
        }
    }
}

#[test]
fn different_seeds_leave_different_disks_and_torn_writes_among_them() {
    let disk = PowerCut::new(MemDisk::new(512, 64), Cut::Never).tearing_at(128);
    for i in 0..8 {
        send(&disk, |b| b.write(i * 1024, buf(1024, i as u8 + 1))).unwrap();
    }
    let images: Vec<Image> = (0..16).map(|seed| disk.survivor_disk(seed).unwrap().image()).collect();
    let distinct = images.iter().enumerate().filter(|(i, image)| !images[..*i].contains(image)).count();
    assert!(distinct > 12, "{distinct}");
    let torn = images.iter().any(|image| {
        (0..16).any(|block| {
            let mut bytes = [0; 512];
            image.read(block * 512, &mut bytes);
            bytes.iter().any(|b| *b != bytes[0])
        })
    });
    assert!(torn);
    assert_eq!(images[3], disk.survivor_disk(3).unwrap().image(), "a seed repeats its disk");
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without unsafe code")]
fn an_image_shares_memory_until_it_is_written() {
    let disk = MemDisk::from_bytes(512, &pattern(300_000)).unwrap();
    assert_eq!(disk.limits().bytes(), 299_520, "whole blocks");
    let before = disk.image();
    write(&disk, 0, 1).unwrap();
    let after = disk.image();
    assert_eq!((first_byte(&before, 0), first_byte(&after, 0)), (0, 1));
    let mut a = vec![0; 300_000];
    before.read(0, &mut a);
    assert!(a == pattern(300_000));
    assert!(before != after);
    send(&disk, |b| b.discard(0, 299_520)).unwrap();
    assert_eq!(disk.image().resident_bytes(), 65_536, "whole chunks are given back");
    assert!(Image::new(300_000) != disk.image(), "the last partial block is out of reach");
    let huge = MemDisk::new(4096, u64::MAX / 4096);
    send(&huge, |b| b.write((u64::MAX / 4096 - 1) * 4096, buf(4096, 1))).unwrap();
    send(&huge, |b| b.write_zeroes(0, u64::MAX / 4096 * 4096)).unwrap();
    assert_eq!(huge.image(), Image::new(u64::MAX / 4096 * 4096));
}
