//! `segments` against a plain reference.

use dfly_hal::dma::{Constraints, DevAddr, DmaError, Segment, Unmappable, segments};
use proptest::prelude::*;

/// Whether a list satisfies the constraints, read off their documentation.
fn is_valid(list: &[(u64, u64)], c: &Constraints) -> bool {
    list.len() <= usize::from(c.max_segments)
        && list.iter().enumerate().all(|(i, &(at, len))| {
            let last = at + len - 1;
            last <= c.addr_mask
                && len <= u64::from(c.max_segment)
                && at % u64::from(c.align) == 0
                && (i == 0 || at % u64::from(c.inner_align) == 0)
                && (i + 1 == list.len() || (last + 1) % u64::from(c.inner_align) == 0)
                && (c.boundary == 0 || at / c.boundary == last / c.boundary)
        })
}

/// The shortest valid list, found byte by byte: `best[i]` is the shortest list for the first `i` bytes.
fn reference(runs: &[(u64, u64)], c: &Constraints) -> Option<usize> {
    let bytes: Vec<u64> = runs.iter().flat_map(|&(at, len)| at..at + len).collect();
    let n = bytes.len();
    let mut best: Vec<Option<usize>> = vec![None; n + 1];
    best[0] = Some(0);
    for start in 0..n {
        let Some(so_far) = best[start] else { continue };
        for end in start + 1..=n {
            let (first, last) = (bytes[start], bytes[end - 1]);
            if last.checked_sub(first) != Some((end - start - 1) as u64) {
                break;
            }
            let piece = (first, (end - start) as u64);
            // Alone it is first and last; inside a list its ends count.
            let unlimited = Constraints { max_segments: u16::MAX, ..*c };
            let inner_start = start == 0 || first % u64::from(c.inner_align) == 0;
            let inner_end = end == n || (last + 1) % u64::from(c.inner_align) == 0;
            if is_valid(&[piece], &unlimited) && inner_start && inner_end {
                best[end] = Some(best[end].map_or(so_far + 1, |b| b.min(so_far + 1)));
            }
        }
    }
    best[n].filter(|&count| n > 0 && count <= usize::from(c.max_segments))
}

fn constraints() -> impl Strategy<Value = Constraints> {
    let powers = |n: u32| (0..n).prop_map(|p| 1_u32 << p);
    (
        powers(3),
        powers(4),
        prop_oneof![Just(0), (3..6_u32).prop_map(|p| 1_u64 << p)],
        1..40_u32,
        1..9_u16,
        any::<bool>(),
    )
        .prop_map(|(align, inner_align, boundary, max_segment, max_segments, small)| Constraints {
            addr_mask: if small { 127 } else { u64::MAX },
            align,
            inner_align,
            boundary,
            max_segment: max_segment.max(align).max(inner_align),
            max_segments,
            coherent: true,
        })
}

/// Runs in ascending order, sometimes touching, sometimes empty.
fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let grain = prop_oneof![Just(1_u64), Just(4), Just(8)];
    (grain, prop::collection::vec((0..4_u64, 0..6_u64), 1..6), 0..9_u64).prop_map(|(grain, steps, start)| {
        let mut at = start * grain;
        let mut runs = Vec::new();
        for (gap, len) in steps {
            at += gap.saturating_sub(1) * grain;
            runs.push((at, len * grain));
            at += len * grain;
        }
        runs
    })
}

fn cut(runs: &[(u64, u64)], c: &Constraints) -> Result<Vec<(u64, u64)>, DmaError> {
    let runs = runs.iter().map(|&(at, len)| (DevAddr(at), len));
    Ok(segments(runs, c)?.map(|Segment { addr, len }| (addr.0, len.into())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 4000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn segments_are_the_shortest_valid_list_or_an_error(runs in runs(), c in constraints()) {
        match (cut(&runs, &c), reference(&runs, &c)) {
            (Ok(list), Some(shortest)) => {
                prop_assert!(is_valid(&list, &c), "{list:?}");
                let flat = |list: &[(u64, u64)]| list.iter().flat_map(|&(at, len)| at..at + len).collect::<Vec<_>>();
                prop_assert_eq!(flat(&list), flat(&runs));
                prop_assert_eq!(list.len(), shortest);
            }
            (Err(_), None) => {}
            (got, expected) => prop_assert!(false, "{got:?}, expected a list of {expected:?}"),
        }
    }

    #[test]
    fn no_input_panics(
        runs in prop::collection::vec((any::<u64>(), any::<u64>()), 0..5),
        (addr_mask, align, inner_align, boundary) in any::<(u64, u32, u32, u64)>(),
        (max_segment, max_segments) in (any::<u32>(), 0..50_u16),
        bits in prop::array::uniform4(0..32_u32),
    ) {
        let wild = Constraints { addr_mask, align, inner_align, boundary, max_segment, max_segments, coherent: true };
        let tame = Constraints {
            addr_mask: u64::MAX >> bits[0],
            align: 1 << bits[1],
            inner_align: 1 << bits[2],
            boundary: (1 << bits[3]) << bits[0],
            ..wild
        };
        for c in [wild, tame] {
            if let Ok(list) = cut(&runs, &c) {
                prop_assert!(is_valid(&list, &c));
            }
        }
    }
}

const PRP: Constraints =
    Constraints { align: 4, inner_align: 4096, max_segment: 4096, max_segments: 4, ..Constraints::ANY };

#[test]
fn a_prp_list_starts_anywhere_and_goes_on_by_pages() {
    assert_eq!(cut(&[(0x1ffc, 0x2004)], &PRP), Ok(vec![(0x1ffc, 4), (0x2000, 0x1000), (0x3000, 0x1000)]));
}

#[test]
fn buffers_that_do_not_meet_at_pages_are_no_prp_list() {
    let heap = [(0x1000, 0x800), (0x9000, 0x1000)];
    assert_eq!(cut(&heap, &PRP), Err(Unmappable::InnerMisaligned(DevAddr(0x1800)).into()));
    let crooked = [(0x1000, 0x1000), (0x9004, 0x1000)];
    assert_eq!(cut(&crooked, &PRP), Err(Unmappable::InnerMisaligned(DevAddr(0x9004)).into()));
}

#[test]
fn the_last_byte_of_the_address_space_can_be_mapped() {
    let top = [(u64::MAX - 0xfff, 0x1000)];
    assert_eq!(cut(&top, &Constraints::ANY), Ok(top.to_vec()));
    let beyond = [(u64::MAX - 0xfff, 0x1001)];
    assert_eq!(
        cut(&beyond, &Constraints::ANY),
        Err(Unmappable::Unreachable(DevAddr(u64::MAX - 0xfff)).into())
    );
}

#[test]
fn an_address_above_the_mask_is_unreachable() {
    let c = Constraints { addr_mask: u32::MAX.into(), ..Constraints::ANY };
    assert_eq!(cut(&[(0xffff_f000, 0x1000)], &c), Ok(vec![(0xffff_f000, 0x1000)]));
    assert_eq!(cut(&[(0xffff_f000, 0x1001)], &c), Err(Unmappable::Unreachable(DevAddr(0xffff_f000)).into()));
}

#[test]
fn no_memory_is_no_list() {
    assert_eq!(cut(&[], &Constraints::ANY), Err(DmaError::Empty));
    assert_eq!(cut(&[(4096, 0)], &Constraints::ANY), Err(DmaError::Empty));
}

#[test]
fn an_endless_run_for_a_device_of_small_segments_is_refused_quickly() {
    let c = Constraints { max_segment: 1, ..Constraints::ANY };
    assert_eq!(cut(&[(0, u64::MAX)], &c), Err(Unmappable::TooManySegments(u16::MAX).into()));
}
