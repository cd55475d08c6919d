//! Sets of CPUs behave as sets.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use dfly_hal::CpuId;
use dfly_lwkt::ipi::{AtomicCpuMask, CpuMask, MAX_CPUS};
use proptest::prelude::*;

fn cpus() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(0..MAX_CPUS as u32, 0..40)
}

fn mask(cpus: &BTreeSet<u32>) -> CpuMask {
    cpus.iter().copied().map(CpuId).collect()
}

fn set(mask: CpuMask) -> BTreeSet<u32> {
    mask.iter().map(|cpu| cpu.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mask_is_a_set(a in cpus(), b in cpus(), one in 0..2 * MAX_CPUS as u32) {
        let (x, y) = (mask(&a), mask(&b));
        prop_assert_eq!(set(x), a.clone());
        prop_assert_eq!(set(x | y), a.union(&b).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(set(x & y), a.intersection(&b).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(set(x - y), a.difference(&b).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(set(!x), (0..MAX_CPUS as u32).filter(|cpu| !a.contains(cpu)).collect::<BTreeSet<_>>());
        prop_assert_eq!(x.len() as usize, a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        let (mut x, mut a) = (x, a);
        let fits = (one as usize) < MAX_CPUS;
        prop_assert_eq!(x.insert(CpuId(one)), fits && a.insert(one));
        prop_assert_eq!(x.contains(CpuId(one)), fits);
        prop_assert_eq!(x.remove(CpuId(one)), fits);
        prop_assert_eq!(x.remove(CpuId(one)), false);
    }

    #[test]
    fn a_round_from_any_cpu_meets_each_once(a in cpus(), first in 0..MAX_CPUS as u32) {
        let round: Vec<u32> = mask(&a).iter_from(CpuId(first)).map(|cpu| cpu.0).collect();
        let expected: Vec<u32> = a.range(first..).chain(a.range(..first)).copied().collect();
        prop_assert_eq!(round, expected);
    }

    #[test]
    fn ranges_say_what_is_in_the_set(a in cpus()) {
        let text = mask(&a).to_string();
        let read: BTreeSet<u32> = text.split(',').filter(|part| !part.is_empty()).flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            first.parse::<u32>().unwrap()..=last.parse().unwrap()
        }).collect();
        prop_assert_eq!(read, a);
    }

    #[test]
    fn an_atomic_mask_is_the_same_set(a in cpus(), b in cpus()) {
        let atomic = AtomicCpuMask::new(mask(&a));
        for cpu in &b {
            prop_assert_eq!(atomic.insert(CpuId(*cpu), Ordering::AcqRel), !a.contains(cpu));
        }
        prop_assert_eq!(atomic.load(Ordering::Acquire), mask(&a) | mask(&b));
        for cpu in &b {
            prop_assert!(atomic.contains(CpuId(*cpu), Ordering::Acquire));
            prop_assert!(atomic.remove(CpuId(*cpu), Ordering::AcqRel));
        }
        prop_assert_eq!(set(atomic.load(Ordering::Acquire)), a.difference(&b).copied().collect::<BTreeSet<_>>());
    }
}

#[test]
fn the_text_of_a_mask_is_made_of_ranges() {
    let text = |cpus: &[u32]| cpus.iter().copied().map(CpuId).collect::<CpuMask>().to_string();
    assert_eq!(text(&[]), "");
    assert_eq!(text(&[5]), "5");
    assert_eq!(text(&[0, 1, 2, 3, 7]), "0-3,7");
    assert_eq!(text(&[62, 63, 64, 65, 254, 255]), "62-65,254-255");
    assert_eq!(CpuMask::first(1000).to_string(), "0-255");
    assert_eq!(format!("{:?}", CpuMask::first(2)), "CpuMask(0-1)");
}

#[test]
fn a_cpu_without_room_is_never_in_a_set() {
    let atomic = AtomicCpuMask::default();
    for cpu in [CpuId(256), CpuId::NONE] {
        assert!(CpuMask::of(cpu).is_empty());
        assert!(!atomic.insert(cpu, Ordering::Relaxed));
        assert!(!atomic.contains(cpu, Ordering::Relaxed));
    }
}
