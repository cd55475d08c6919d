//! Space is given out by the rules of the format, and comes back behind a fence.

use std::vec::Vec;

use super::{Bench, fresh};
use crate::error::Error;
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, Offset, Zone};

fn take(bench: &mut Bench, zone: Zone, len: usize) -> Result<Offset, Error> {
    bench.run(|op, w| {
        op.open_reserve();
        op.allocate(w, zone, len)
    })
}

/// Fact sheet 1.3: measured with the original.
#[test]
fn small_records_fill_buffers_in_units_of_16_bytes() {
    let mut bench = Bench::open(fresh(7, 64 << 20)).unwrap();
    let within: Vec<u64> = [1, 16, 17, 8191, 8192]
        .map(|len| take(&mut bench, Zone::SMALL_DATA, len).unwrap().in_big_block())
        .to_vec();
    assert_eq!(within, [0, 0x10, 0x20, 0x40, 0x4000]);
    let large: Vec<u64> = [16384, 65536, 65536]
        .map(|len| take(&mut bench, Zone::LARGE_DATA, len).unwrap().in_big_block())
        .to_vec();
    assert_eq!(large, [0, 0x4000, 0x14000], "large ones are aligned to a buffer only");
}

#[test]
fn a_full_disk_says_so_and_takes_again_what_was_freed_when_it_is_safe() {
    let mut bench = Bench::open(fresh(7, 64 << 20)).unwrap();
    let free = bench.engine().figures.free_big_blocks as usize;
    let per_block = (BIG_BLOCK_SIZE / 65536) as usize;
    let mut all = Vec::new();
    while let Ok(at) = take(&mut bench, Zone::LARGE_DATA, 65536) {
        all.push(at);
    }
    assert_eq!(all.len(), free * per_block);
    assert_eq!(bench.engine().figures.free_big_blocks, 0);
    assert_eq!(take(&mut bench, Zone::LARGE_DATA, 16), Err(Error::NoSpace));
    bench.sync().unwrap();

    let block = |at: &Offset| at.0 / BIG_BLOCK_SIZE;
    let first = block(&all[0]);
    for at in all.iter().filter(|at| block(at) == first) {
        bench.run(|op, w| op.free(w, *at, 65536)).unwrap();
    }
    assert_eq!(bench.engine().figures.free_big_blocks, 1);
    assert_eq!(bench.engine().fences.len(), 1);
    assert_eq!(take(&mut bench, Zone::LARGE_DATA, 65536), Err(Error::NoSpace), "it is fenced");
    bench.commit().unwrap();
    assert_eq!(take(&mut bench, Zone::LARGE_DATA, 65536), Err(Error::NoSpace), "a crash can undo the group");
    bench.sync().unwrap();
    assert_eq!(bench.engine().fences.len(), 0);
    assert_eq!(
        take(&mut bench, Zone::SMALL_DATA, 32).map(|at| block(&at.in_zone(Zone::LARGE_DATA))),
        Ok(first)
    );
    assert_eq!(take(&mut bench, Zone::LARGE_DATA, 65536), Err(Error::NoSpace), "another zone has it");
}

#[test]
fn the_last_big_blocks_are_for_removals() {
    let mut bench = Bench::open(fresh(7, 128 << 20)).unwrap();
    let large = |bench: &mut Bench| bench.run(|op, w| op.allocate(w, Zone::LARGE_DATA, 65536));
    while large(&mut bench).is_ok() {}
    assert_eq!(bench.engine().figures.free_big_blocks, 2);
    let small = bench.run(|op, w| op.allocate(w, Zone::META, 128));
    assert!(small.is_ok(), "there is room in a big-block that was begun");
    assert!(take(&mut bench, Zone::SMALL_DATA, 16).is_ok());
}

#[test]
fn fences_fall_without_a_sync_when_two_more_groups_are_committed() {
    let mut bench = Bench::open(fresh(7, 64 << 20)).unwrap();
    let at = take(&mut bench, Zone::LARGE_DATA, 65536).unwrap();
    bench.sync().unwrap();
    bench.run(|op, w| op.free(w, at, 65536)).unwrap();
    for left in [1, 1, 0] {
        take(&mut bench, Zone::META, 16).unwrap();
        bench.commit().unwrap();
        assert_eq!(bench.engine().fences.len(), left);
    }
}

#[test]
fn what_was_not_taken_cannot_be_freed() {
    let mut bench = Bench::open(fresh(7, 64 << 20)).unwrap();
    let at = take(&mut bench, Zone::LARGE_DATA, BUFFER_SIZE).unwrap();
    for (at, len) in
        [(at, 2 * BUFFER_SIZE), (at.in_zone(Zone::META), 16), (Offset(at.0 + BIG_BLOCK_SIZE), 16)]
    {
        let freed = bench.run(|op, w| op.free(w, at, len));
        assert!(matches!(freed, Err(Error::Corrupt { .. })), "{at}");
    }
    for len in [0, 65537] {
        assert!(matches!(take(&mut bench, Zone::META, len), Err(Error::Corrupt { .. })));
    }
}
