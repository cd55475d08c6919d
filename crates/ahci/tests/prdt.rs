//! The builder of PRDTs against the walker that the model uses: every offset, every length class, tables of every size.
#![cfg(not(miri))]

use dfly_ahci::model::walk;
use dfly_ahci::prdt::{Builder, PrdtError, Table};
use dfly_ahci::spec::Prd;
use proptest::prelude::*;

struct Entries {
    room: usize,
    entries: Vec<Prd>,
}

impl Table for Entries {
    fn capacity(&self) -> usize {
        self.room
    }
    fn set(&mut self, index: usize, entry: Prd) {
        assert_eq!(index, self.entries.len(), "entries are written once, in order");
        assert!(index < self.room);
        self.entries.push(entry);
    }
}

fn build(room: usize, segments: &[(u64, u64)]) -> Result<Vec<Prd>, PrdtError> {
    let mut table = Entries { room, entries: Vec::new() };
    let mut builder = Builder::new(&mut table);
    segments.iter().try_for_each(|&(addr, len)| builder.push(addr, len))?;
    let used = builder.finish();
    assert_eq!(usize::from(used), table.entries.len());
    Ok(table.entries)
}

/// The same memory as runs that do not touch.
fn joined(runs: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (addr, len) in runs.into_iter().filter(|&(_, len)| len > 0) {
        match all.last_mut() {
            Some((start, before)) if *start + *before == addr => *before += len,
            _ => all.push((addr, len)),
        }
    }
    all
}

/// A length: a word, a sector, a page, around what an entry holds, several entries.
fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=16_u64,
        Just(512),
        Just(4096),
        4000..=5000_u64,
        (Prd::MAX_BYTES as u64 - 4)..=(Prd::MAX_BYTES as u64 + 4),
        (3 * Prd::MAX_BYTES as u64 - 4)..=(3 * Prd::MAX_BYTES as u64 + 4),
    ]
}

/// Segments: some begin where the one before ends.
fn segments() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let segment = (any::<bool>(), 0..1_u64 << 40, len());
    prop::collection::vec(segment, 0..12).prop_map(|parts| {
        let mut end = 0;
        parts
            .into_iter()
            .map(|(touches, at, len)| {
                let at = if touches { end } else { at };
                end = at + len;
                (at, len)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn the_adapter_walks_the_bytes_that_were_pushed(segments in segments(), room in 0..40_usize) {
        let is_odd = |&(addr, len): &(u64, u64)| addr % 2 != 0 || len % 2 != 0;
        match build(room, &segments) {
            Ok(entries) => {
                prop_assert!(!segments.iter().any(is_odd));
                let total: u64 = segments.iter().map(|&(_, len)| len).sum();
                let mut runs = Vec::new();
                let fetch = |index: u16| entries.get(usize::from(index)).copied();
                let walked = walk(entries.len() as u16, u64::MAX, fetch, |at, len| runs.push((at.0, len as u64)));
                prop_assert_eq!(walked, Ok(total));
                prop_assert_eq!(joined(runs), joined(segments));
            }
            Err(PrdtError::Odd { addr, len }) => prop_assert!(segments.contains(&(addr, len)) && is_odd(&(addr, len))),
            Err(PrdtError::Full) => {
                // With as few entries as can be, there are too many.
                let needed: u64 = joined(segments).iter().map(|(_, len)| len.div_ceil(Prd::MAX_BYTES.into())).sum();
                prop_assert!(needed > room as u64, "{needed} entries into {room}");
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_shorter_transfer_walks_the_front(segments in segments(), len in 0..20_000_000_u64) {
        let even: Vec<_> = segments.iter().map(|&(addr, len)| (addr & !1, (len + 1) & !1)).collect();
        let entries = build(100, &even).unwrap();
        let total: u64 = even.iter().map(|&(_, len)| len).sum();
        let mut seen = 0;
        let fetch = |index: u16| entries.get(usize::from(index)).copied();
        let walked = walk(entries.len() as u16, len, fetch, |_, len| seen += len as u64);
        prop_assert_eq!(walked, Ok(total.min(len)));
        prop_assert_eq!(seen, total.min(len));
    }
}

#[test]
fn every_offset_in_a_page_and_every_length_to_three_of_them() {
    for offset in 0..4096 {
        for len in [1, 2, 3, 511, 512, 513, 4094, 4095, 4096, 4097, 12288] {
            let built = build(8, &[(0x10_0000 + offset, len)]);
            if (offset | len) % 2 == 0 {
                assert_eq!(built.unwrap(), [Prd::new(0x10_0000 + offset, len as u32)]);
            } else {
                assert!(built.is_err());
            }
        }
    }
}

#[test]
fn memory_to_the_end_of_the_address_space_and_beyond() {
    assert_eq!(build(1, &[(u64::MAX - 511, 512)]).unwrap().len(), 1);
    assert_eq!(build(1, &[(u64::MAX - 509, 512)]), Err(PrdtError::Overflow(u64::MAX - 509)));
}
