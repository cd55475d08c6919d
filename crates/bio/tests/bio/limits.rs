//! Limits: checks that never overflow, stacking, shifting.

use dfly_bio::*;
use proptest::prelude::*;

use crate::common::{cases, for_ever};

fn job_of(op: u8, at: u64, len: u64) -> BioJob {
    let mut bio = Bio::new();
    let data = || Buf::alloc((len % 5000) as usize, 1).unwrap();
    match op % 5 {
        0 => bio.read(at, data()),
        1 => bio.write(at, data()),
        2 => bio.flush(),
        3 => bio.discard(at, len),
        _ => bio.write_zeroes(at, len),
    };
    bio.detached()
}

/// Offsets near every edge that matters.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..10_000u64, (0..10_000u64).prop_map(|n| u64::MAX - n), Just(1 << 63)]
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let sizes = (any::<u32>(), extreme(), extreme(), any::<u32>());
    (sizes, any::<u32>(), extreme(), proptest::option::of((any::<u32>(), extreme())), any::<[bool; 3]>())
        .prop_map(|((block, blocks, max, segments), align, boundary, range, [ro, cache, fua])| {
            let mut l = Limits::new(block % 9000, blocks);
            // Even what `new` would not make.
            l.block_bytes = block % 9000;
            l.max_bytes = max;
            l.max_segments = segments % 4;
            l.mem_align = align % 5;
            l.boundary_bytes = boundary;
            l.discard =
                range.map(|(granularity_bytes, max_bytes)| RangeLimits { granularity_bytes, max_bytes });
            l.write_zeroes = l.discard;
            l.access = if ro { Access::ReadOnly } else { Access::ReadWrite };
            l.write_cache = if cache { WriteCache::Volatile } else { WriteCache::None };
            l.fua = if fua { Fua::Unsupported } else { Fua::Native };
            l
        })
}

proptest! {
    #![proptest_config(cases(2000, 4))]

    /// Overflow would panic here: tests check arithmetic.
    #[test]
    fn a_check_is_total(l in any_limits(), m in any_limits(), op: u8, at in extreme(), len in extreme()) {
        let job = job_of(op, at, len);
        let fits = l.fitting(&job);
        prop_assert!(fits <= job.len());
        if l.check(&job).is_ok() {
            let end = u128::from(job.offset()) + u128::from(job.len());
            prop_assert!(end <= u128::from(l.blocks) * u128::from(l.block_bytes));
            prop_assert_eq!(fits, job.len());
        }
        // What two devices take, one stacked over the other takes, and the other way round, but for the size.
        let both = l.stack(&m);
        if both.check(&job).is_ok() {
            prop_assert_eq!(m.admit_but_range(&job), Ok(()));
        }
        let _ = l.shifted(at);
        let _ = l.bytes();
    }

    #[test]
    fn a_cut_at_a_shifted_boundary_is_no_crossing_below(start in 0..64u64, at in 0..256u64, boundary in 1..16u64) {
        let mut lower = Limits::new(1, 1 << 20);
        lower.boundary_bytes = boundary;
        let upper = lower.shifted(start);
        let mut bio = Bio::new();
        bio.read(at, Buf::alloc(64, 1).unwrap());
        let n = upper.fitting(&bio.detached());
        prop_assert!(n > 0);
        let (first, last) = (start + at, start + at + n - 1);
        prop_assert_eq!(first / boundary, last / boundary);
    }
}

trait ButRange {
    fn admit_but_range(&self, job: &BioJob) -> Status;
}

impl ButRange for Limits {
    /// The check of a device of the same kind that is as large as can be.
    fn admit_but_range(&self, job: &BioJob) -> Status {
        let mut l = *self;
        l.blocks = u64::MAX;
        l.check(job)
    }
}

#[test]
fn every_refusal_has_its_name() {
    let mut l = Limits::new(512, 16);
    l.max_bytes = 4096;
    l.boundary_bytes = 4096;
    l.max_segments = 2;
    let check = |l: &Limits, prepare: &dyn Fn(&mut Bio) -> &mut Bio| {
        let mut bio = Bio::new();
        prepare(&mut bio);
        l.check(&bio.detached())
    };
    let buf = |len| Buf::alloc(len, 4096).unwrap();
    assert_eq!(check(&l, &|b| b.read(0, buf(4096))), Ok(()));
    assert_eq!(check(&l, &|b| b.read(512, buf(4096))), Err(Failure::TooLong));
    assert_eq!(check(&l, &|b| b.read(0, buf(8192))), Err(Failure::TooLong));
    assert_eq!(check(&l, &|b| b.read(7680, buf(1024))), Err(Failure::OutOfRange));
    assert_eq!(check(&l, &|b| b.read(u64::MAX - 511, buf(512))), Err(Failure::OutOfRange));
    assert_eq!(check(&l, &|b| b.read(1, buf(512))), Err(Failure::Misaligned));
    assert_eq!(check(&l, &|b| b.read(0, buf(513))), Err(Failure::Misaligned));
    assert_eq!(check(&l, &|b| b.discard(0, 512)), Err(Failure::Unsupported));
    assert_eq!(check(&l, &|b| b.write_zeroes(0, 512)), Err(Failure::Unsupported));
    assert_eq!(check(&l, &|b| b.flush()), Ok(()));
    let three = || {
        let mut list = BufVec::with_capacity(3).unwrap();
        (0..3).for_each(|_| list.push(buf(512)).unwrap());
        list
    };
    assert_eq!(check(&l, &|b| b.write(0, three())), Err(Failure::TooLong));
    l.mem_align = 8192;
    let odd = || {
        let mut list = BufVec::with_capacity(2).unwrap();
        list.push(Buf::alloc(512, 8192).unwrap()).unwrap();
        list.push(misaligned()).unwrap();
        list
    };
    assert_eq!(check(&l, &|b| b.write(0, odd())), Err(Failure::Misaligned));
    l.fua = Fua::Unsupported;
    assert_eq!(check(&l, &|b| b.write(0, buf(512)).fua()), Err(Failure::Unsupported));
    l.access = Access::ReadOnly;
    assert_eq!(check(&l, &|b| b.write(0, buf(512))), Err(Failure::WriteProtected));
}

/// 512 bytes that fit no alignment above one.
fn misaligned() -> Buf {
    let bytes = for_ever(vec![0; 513]);
    let start = usize::from(bytes.as_ptr().addr().is_multiple_of(2));
    Buf::from_static(&mut bytes[start..start + 512])
}

#[test]
fn a_failure_survives_its_code() {
    for f in Failure::ALL {
        let mut bio = Bio::new();
        bio.flush();
        let (job, pending) = bio.waitable();
        // The verdict of children travels as a code.
        job.carve().fail(f);
        assert_eq!(pending.try_take().unwrap().status(), Err(f));
    }
}
