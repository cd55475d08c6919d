//! The builder of PRP entries against the walker of the model.
// Not under Miri: safe and pure code, and many cases of it.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use dfly_nvme::model::walk;
use dfly_nvme::prp::{Builder, List, PrpError};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// A list in pages anywhere, that begins `skew` entries into its first.
struct Scattered {
    skew: usize,
    capacity: usize,
    memory: BTreeMap<u64, u64>,
}

impl List for Scattered {
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn addr(&self, index: usize) -> u64 {
        let (page, slot) = ((index + self.skew) / 512, (index + self.skew) % 512);
        // Later pages of the list lie lower.
        (1 << 40) - page as u64 * 3 * PAGE + slot as u64 * 8
    }
    fn set(&mut self, index: usize, entry: u64) {
        assert!(index < self.capacity);
        self.memory.insert(self.addr(index), entry);
    }
}

fn check(segments: &[(u64, u64)], skew: usize) {
    let mut list = Scattered { skew, capacity: 1 << 16, memory: BTreeMap::new() };
    let mut builder = Builder::new(&mut list, PAGE as u32);
    for &(addr, len) in segments {
        builder.push(addr, len).unwrap();
    }
    let prps = builder.finish();
    let total = segments.iter().map(|s| s.1).sum();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    walk(
        (prps.prp1, prps.prp2),
        total,
        PAGE,
        |at| list.memory.get(&at.0).copied(),
        |at, len| match seen.last_mut() {
            Some((start, n)) if *start + *n == at.0 => *n += len as u64,
            _ => seen.push((at.0, len as u64)),
        },
    )
    .unwrap();
    assert_eq!(seen, segments);
}

#[test]
fn every_offset_and_length_around_pages_and_list_pages() {
    for offset in (0..PAGE).step_by(516) {
        for pages in [1, 2, 3, 511, 512, 513, 514, 515, 1023, 1024, 1025, 1030] {
            for end in [1, 4, 2048, 4095, 4096] {
                let len = (pages - 1) * PAGE + end;
                for skew in [0, 1, 510, 511] {
                    check(&[(0x10_0000 + offset, len)], skew);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn scattered_memory_is_found_again(
        offset in 0_u64..1024, pages in prop::collection::vec(1_u64..700, 1..6), tail in 1_u64..=4096, skew in 0_usize..512,
    ) {
        let offset = offset * 4;
        let mut segments = Vec::new();
        for (i, &n) in pages.iter().enumerate() {
            let base = (i as u64 + 1) << 28;
            let start = if i == 0 { base + offset } else { base };
            let end = base + n * PAGE;
            let last = i + 1 == pages.len();
            segments.push((start, if last { end - PAGE + tail.max(offset + 1) - start } else { end - start }));
        }
        segments.retain(|s| s.1 > 0);
        check(&segments, skew);
    }
}

#[test]
fn what_cannot_be_described_is_refused() {
    let build = |segments: &[(u64, u64)], capacity| {
        let mut list = Scattered { skew: 0, capacity, memory: BTreeMap::new() };
        let mut builder = Builder::new(&mut list, PAGE as u32);
        segments.iter().try_for_each(|&(addr, len)| builder.push(addr, len))
    };
    assert_eq!(build(&[(0x1002, 4)], 8), Err(PrpError::Start(0x1002)));
    assert_eq!(build(&[(0x1000, 0x1000), (0x3004, 4)], 8), Err(PrpError::Joint(0x3004)));
    assert_eq!(build(&[(0x1000, 0x800), (0x3000, 4)], 8), Err(PrpError::End(0x1800)));
    assert_eq!(build(&[(u64::MAX - 3, 8)], 8), Err(PrpError::Overflow(u64::MAX - 3)));
    assert_eq!(build(&[(0, 9 * PAGE)], 8), Ok(()));
    assert_eq!(build(&[(0, 10 * PAGE)], 8), Err(PrpError::Full));
}
