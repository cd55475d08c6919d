//! Requests: depth, rings, memory, turns, deadlines.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use dfly_bio::{Bio, BlockDevice, Buf, BufVec, Failure, Image, JobList};
use dfly_hal::{Clock, CpuId};
use dfly_nvme::model::{Abilities, Disk, Fault, Mistake};
use dfly_nvme::{Config, State, Stopped};

use crate::bench::{Bench, bytes, call, disk, pattern, read, wait, write};

#[test]
fn writes_reach_the_medium_with_fua_and_flush() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let data: Vec<u8> = (0..40960_u32).map(|i| (i / 7) as u8).collect();
    let mut bio = write(8192, &data);
    bio.fua();
    assert_eq!(call(&nvme, 1, bio).status(), Ok(()));
    let mut flush = Bio::new();
    flush.flush();
    assert_eq!(call(&nvme, 1, flush).status(), Ok(()));
    let mut medium = vec![0; data.len()];
    assert!(bench.model.peek(1, 8192, &mut medium));
    assert_eq!(medium, data);
    let counts = bench.model.counts();
    assert_eq!((counts.fua, counts.flushes), (1, 1));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn without_a_write_cache_a_flush_asks_nobody() {
    let bench = Bench::new(vec![disk(512, 1 << 20)], Abilities { vwc: 0, ..Default::default() });
    let nvme = bench.attach(Config::default());
    let mut flush = Bio::new();
    flush.flush();
    assert_eq!(call(&nvme, 1, flush).status(), Ok(()));
    assert_eq!(bench.model.counts().flushes, 0);
}

#[test]
fn two_hundred_requests_pass_a_ring_of_63_with_four_doorbells() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    // Straight to the queue: a splitter hands on as it gets children.
    let mut batch = JobList::new();
    let mut pending = Vec::new();
    for i in 0..200_u64 {
        let (job, p) = read(i * 4096, 4096).waitable();
        batch.push(job);
        pending.push(p);
    }
    device.submit(batch);
    assert_eq!(bench.model.counts().sq_doorbells, 1);
    let mut done = 0;
    while done < 200 {
        let now = nvme.poll();
        assert!(now > 0 && now <= 63);
        done += now;
    }
    assert_eq!(bench.model.counts().sq_doorbells, 4);
    for (i, p) in pending.into_iter().enumerate() {
        let bio = p.try_take().unwrap();
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 4096, 4096)));
    }
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn rings_of_every_small_size_and_stride_wrap() {
    for depth in [2, 3, 4, 5, 7, 63, 64] {
        let bench =
            Bench::new(vec![disk(512, 1 << 20)], Abilities { dstrd: depth as u8 % 5, ..Default::default() });
        let nvme = bench.attach(Config { queue_depth: depth, ..Config::default() });
        for i in 0..300_u64 {
            let at = i % 200 * 512;
            let bio = call(&nvme, 1, read(at, 512));
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(at, 512)), "{depth} {i}");
        }
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn identifiers_wrap_at_65536_uses() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 2, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    let mut bio = read(0, 512);
    for _ in 0..66_000 {
        let buf = bio.take_buf().unwrap();
        bio.read(512, buf);
        bio = wait(&nvme, bio.start(&device));
        assert_eq!(bio.status(), Ok(()));
    }
    assert_eq!((nvme.state(), nvme.stats().completed), (State::Live, 66_000));
}

#[test]
fn scattered_memory_goes_whole_where_pages_allow_and_in_pieces_where_not() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let scattered = |lens: &[(usize, usize)]| {
        let mut parts = BufVec::with_capacity(lens.len()).unwrap();
        for &(len, align) in lens {
            parts.push(Buf::alloc(len, align).unwrap()).unwrap();
        }
        let mut bio = Bio::new();
        bio.read(1024, parts);
        bio
    };
    let bio = call(&nvme, 1, scattered(&[(4096, 4096), (8192, 4096), (4096, 4096), (512, 4096)]));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(1024, 16896)));
    assert_eq!(bench.model.counts().commands, 1);
    let bio = call(&nvme, 1, scattered(&[(512, 4096), (1024, 4096), (4096, 4096)]));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(1024, 5632)));
    assert_eq!(bench.model.counts().commands, 4);
    // Half a block in each: no command can say that.
    let bio = call(&nvme, 1, scattered(&[(256, 4096), (256, 4096)]));
    assert_eq!(bio.status(), Err(Failure::TooLong));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn status_codes_are_told_apart() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    for (sct, sc, failure) in [
        (2, 0x81, Failure::Media),
        (2, 0x82, Failure::Integrity),
        (0, 0x20, Failure::WriteProtected),
        (0, 0x81, Failure::NoSpace),
        (1, 0x00, Failure::Device),
        (7, 0x00, Failure::Device),
    ] {
        bench.model.inject(Fault::Io(Mistake::Status(sct, sc)));
        assert_eq!(call(&nvme, 1, read(0, 512)).status(), Err(failure));
    }
    assert_eq!((nvme.state(), nvme.stats().errors), (State::Live, 6));
    assert_eq!(call(&nvme, 1, read(0, 512)).status(), Ok(()));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn every_queue_is_filled_to_its_depth_with_one_doorbell() {
    for depth in [2, 33, 64] {
        let bench = Bench::with_cpus(4, vec![disk(512, 1 << 20)], Abilities::default());
        let nvme = bench.attach(Config { queue_depth: depth, ..Config::default() });
        let each = usize::from(nvme.info().queue_depth);
        assert_eq!((nvme.info().queues, each), (4, usize::from(depth) - 1));
        let device = nvme.namespace(1).unwrap();
        let mut pending = Vec::new();
        for cpu in 0..4 {
            let _here = bench.hal.attach(CpuId(cpu)).unwrap();
            let mut batch = JobList::new();
            for _ in 0..each {
                let (job, p) = read(pending.len() as u64 * 4096, 4096).waitable();
                batch.push(job);
                pending.push(p);
            }
            device.submit(batch);
        }
        assert_eq!(nvme.stats().submitted, 4 * each as u64, "all at once");
        assert_eq!(bench.model.counts().sq_doorbells, 4);
        assert_eq!(nvme.poll(), 4 * each);
        for (i, p) in pending.into_iter().enumerate() {
            let bio = p.try_take().unwrap();
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 4096, 4096)));
        }
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn memory_at_every_offset_in_a_page_and_of_every_length_around_pages() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let memory = Vec::leak(vec![0; 20 * 4096]);
    let skip = memory.as_ptr().align_offset(4096);
    let mut memory = Some(&mut memory[skip..]);
    let mut round = 0;
    for offset in (0..4096).step_by(4) {
        round += 1;
        let len = [512, 3584, 4096, 4608, 8192, 12288, 16384 + 512][round % 7];
        let at = (round * 512) as u64;
        // The memory goes into the request and comes back from it.
        let all = memory.take().unwrap();
        let start = all.as_mut_ptr();
        let mut bio = Bio::new();
        bio.read(at, Buf::from_static(&mut all[offset..offset + len]));
        let bio = call(&nvme, 1, bio);
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(at, len)), "offset {offset}, {len} bytes");
        drop(bio);
        // SAFETY: the request is gone, and with it the only reference into the memory, which was never freed.
        memory = Some(unsafe { std::slice::from_raw_parts_mut(start, 19 * 4096) });
    }
    for offset in [1, 2, 3] {
        let all = memory.take().unwrap();
        let mut bio = Bio::new();
        let (now, later) = all.split_at_mut(4096);
        bio.read(0, Buf::from_static(&mut now[offset..offset + 512]));
        assert_eq!(call(&nvme, 1, bio).status(), Err(Failure::Misaligned));
        memory = Some(later);
    }
    drop(nvme);
    bench.is_clean();
}

#[test]
fn transfers_whose_prp_lists_go_on_in_further_pages() {
    let bench = Bench::new(vec![disk(4096, 12 << 20)], Abilities { mdts: 0, ..Default::default() });
    let config = Config { queue_depth: 4, max_transfer_bytes: 8 << 20, ..Config::default() };
    let nvme = bench.attach(config);
    assert_eq!(nvme.info().max_transfer_bytes, 8 << 20);
    // A page of a list has 512 entries, of which the last leads on.
    for pages in [512, 513, 514, 515, 1024, 1025, 1026, 2048] {
        let before = bench.model.counts().commands;
        let bio = call(&nvme, 1, read(8192, pages * 4096));
        assert_eq!(bio.status(), Ok(()), "{pages}");
        assert!(bytes(&bio) == pattern(8192, pages * 4096), "{pages}");
        let data = pattern(pages as u64, pages * 4096);
        assert_eq!(call(&nvme, 1, write(8192, &data)).status(), Ok(()));
        let mut medium = vec![0; data.len()];
        assert!(bench.model.peek(1, 8192, &mut medium) && medium == data, "{pages}");
        let original = pattern(8192, pages * 4096);
        assert_eq!(call(&nvme, 1, write(8192, &original)).status(), Ok(()));
        assert_eq!(bench.model.counts().commands - before, 3);
    }
    drop(nvme);
    bench.is_clean();
}

#[test]
fn namespaces_take_turns_at_a_full_queue() {
    // Two are the hard case for whoever moves on before he has sent.
    for namespaces in [2, 3] {
        let disks = (0..namespaces).map(|_| disk(512, 1 << 20)).collect();
        let bench = Bench::new(disks, Abilities::default());
        // Room for one command.
        let nvme = bench.attach(Config { queue_depth: 2, ..Config::default() });
        let mut pending: Vec<Vec<_>> = Vec::new();
        for nsid in 1..=namespaces {
            let mut batch = JobList::new();
            let mut mine = Vec::new();
            for i in 0..20_u64 {
                let (job, p) = read(i * 512, 512).waitable();
                batch.push(job);
                mine.push(p);
            }
            nvme.namespace(nsid).unwrap().submit(batch);
            pending.push(mine);
        }
        for served in 1..=20 * namespaces as usize {
            assert_eq!(nvme.poll(), 1);
            let done = pending.iter().map(|of| of.iter().filter(|p| p.is_done()).count());
            let done: Vec<_> = done.collect();
            assert_eq!(done.iter().sum::<usize>(), served);
            let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
            assert!(most - least <= 1, "{done:?}");
        }
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn what_is_parked_is_late_at_its_own_deadline_and_the_controller_goes_on() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 2, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Io(Mistake::Drop));
    let in_time = |ms| bench.hal.now().saturating_add(Duration::from_millis(ms));
    let slow = read(0, 512).start(&device);
    let mut parked = Vec::new();
    for ms in [500, 100_000, 20, 1700] {
        let mut bio = read(512, 512);
        bio.deadline(in_time(ms));
        parked.push(bio.start(&device));
    }
    let mut late = read(512, 512);
    late.deadline(bench.hal.now());
    assert_eq!(late.start(&device).try_take().unwrap().status(), Err(Failure::Timeout));
    let has_work = || pin!(nvme.work()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    // After a second the controller was looked at, and the alarm set anew.
    for (step, answered) in [(19, 0), (1, 1), (479, 0), (1, 1), (500, 0), (699, 0), (1, 1), (100, 0)] {
        bench.hal.advance(Duration::from_millis(step));
        if answered > 0 {
            assert!(has_work(), "the reaper is told at that time");
        }
        assert_eq!(nvme.poll(), answered);
    }
    let states: Vec<_> = parked.iter().map(|p| p.is_done()).collect();
    assert_eq!(states, [true, false, true, true]);
    for parked in [parked.remove(3), parked.remove(2), parked.remove(0)] {
        assert_eq!(parked.try_take().unwrap().status(), Err(Failure::Timeout));
    }
    assert_eq!((nvme.state(), nvme.stats().submitted), (State::Live, 1));
    // The one under way is another matter: the controller had 30 seconds.
    bench.hal.advance(Duration::from_secs(30));
    nvme.poll();
    assert_eq!(slow.try_take().unwrap().status(), Err(Failure::Timeout));
    assert_eq!(nvme.state(), State::Dead(Stopped::Timeout));
    assert_eq!(parked.remove(0).try_take().unwrap().status(), Err(Failure::Aborted));
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn out_of_dma_memory_requests_wait_for_each_other() {
    let mut config = dfly_hal::fake::Config::default();
    // The rings of one queue of 64 and what a few requests need.
    config.budget = 200 << 10;
    let bench = Bench::with_hal(config, vec![disk(512, 4 << 20)], Abilities::default());
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    let pending: Vec<_> = (0..20).map(|i| read(i * 65536, 65536).start(&device)).collect();
    assert!(nvme.stats().submitted < 20, "{:?}", nvme.stats());
    for (i, p) in pending.into_iter().enumerate() {
        let bio = wait(&nvme, p);
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 65536, 65536)));
    }
    // What does not fit alone never will.
    let mut bio = Bio::new();
    bio.read(0, Buf::alloc(128 << 10, 4096).unwrap());
    let status = call(&nvme, 1, bio).status();
    assert!(matches!(status, Ok(()) | Err(Failure::NoMemory)), "{status:?}");
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn a_disk_of_one_block_is_a_disk() {
    let one = |shift: u8| Disk { block_shift: shift, medium: Box::new(Image::new(1 << shift)) };
    let bench = Bench::new(vec![one(9), one(12), one(16)], Abilities::default());
    let nvme = bench.attach(Config::default());
    for (nsid, len) in [(1, 512), (2, 4096), (3, 65536)] {
        assert_eq!(call(&nvme, nsid, read(0, len)).status(), Ok(()));
        assert_eq!(call(&nvme, nsid, read(len as u64, len)).status(), Err(Failure::OutOfRange));
        assert_eq!(call(&nvme, nsid, read(0, 2 * len)).status(), Err(Failure::OutOfRange));
        assert_eq!(call(&nvme, nsid, read(0, 0)).status(), Ok(()));
    }
    drop(nvme);
    bench.is_clean();
}
