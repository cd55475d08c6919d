//! Controllers and disks that are not as they should be.

use std::sync::Arc;
use std::time::Duration;

use dfly_bio::{Bio, Failure};
use dfly_hal::fake::FakeHal;
use dfly_hal::regs::Window;
use dfly_hal::{Clock, SpinWait};
use dfly_nvme::model::{Abilities, Fault, Mistake};
use dfly_nvme::queue::Broken;
use dfly_nvme::spec::{self, CAP, Cap, IdentifyWhat, Opcode};
use dfly_nvme::{AttachError, Config, Nvme, State, Stopped, Unusable};
use proptest::prelude::*;

use crate::bench::{Bench, TestModel, call, disk, pattern, read, wait};

/// Both halves of the capabilities read as `cap`.
fn capabilities(cap: Cap) -> [Fault; 2] {
    let bits = cap.into_bits();
    [
        Fault::Register { offset: CAP.offset(), value: bits as u32 },
        Fault::Register { offset: CAP.offset() + 4, value: (bits >> 32) as u32 },
    ]
}

/// Capabilities like those of the model.
fn sane() -> Cap {
    Cap::new().with_mqes_z(2047).with_cqr(true).with_to(15).with_css(1).with_mpsmax(4)
}

/// The bytes of Identify from `offset` on.
fn identify(what: IdentifyWhat, offset: u16, bytes: &[u8]) -> Vec<Fault> {
    let faults = bytes.iter().zip(offset..).map(|(&value, offset)| Fault::Identify { what, offset, value });
    faults.collect()
}

#[test]
fn attach_to_a_controller_with_absurd_registers_ends_in_an_error_in_time() {
    let line = |faults: &[Fault]| {
        let bench = Bench::small();
        let before = bench.hal.now();
        faults.iter().for_each(|&fault| bench.model.inject(fault));
        let error = bench.try_attach(Config::default()).err();
        let took = bench.hal.now().saturating_since(before);
        bench.is_clean();
        (error.map(|error| error.to_string()).unwrap_or_default(), took)
    };
    let cap = |cap: Cap| capabilities(cap).to_vec();
    let never_ready = |to: u8| [&cap(sane().with_to(to))[..], &[Fault::NeverReady]].concat();
    for (faults, message, longest_seconds) in [
        (vec![Fault::AllOnes], "no controller answers", 0),
        (cap(Cap::from_bits(u64::MAX)), "no controller answers", 0),
        (vec![Fault::NeverReady], "the controller did not start or stop in time (CSTS 0x0)", 20),
        // The time that it names is none: it has the shortest there is.
        (never_ready(0), "the controller did not start or stop in time (CSTS 0x0)", 2),
        (never_ready(255), "the controller did not start or stop in time (CSTS 0x0)", 300),
        (vec![Fault::FatalStatus], "the controller reported fatal status", 1),
        (cap(sane().with_css(0x80)), "the controller has no NVM command set", 0),
        (cap(sane().with_mqes_z(0)), "the controller's queues hold a single entry (CAP.MQES 0)", 0),
        (
            cap(sane().with_mpsmin(3).with_mpsmax(2)),
            "the controller's page sizes cannot be used (MPSMIN 3, MPSMAX 2)",
            0,
        ),
        (
            cap(sane().with_mpsmin(5).with_mpsmax(15)),
            "the controller's page sizes cannot be used (MPSMIN 5, MPSMAX 15)",
            0,
        ),
        // It wants pages of 8 KiB and does not take them.
        (cap(sane().with_mpsmin(1)), "the controller reported fatal status", 1),
        // Reads as ready whatever it is told.
        (
            vec![Fault::Register { offset: spec::CSTS.offset(), value: 1 }],
            "the controller did not start or stop in time (CSTS 0x1)",
            10,
        ),
    ] {
        let (error, took) = line(&faults);
        assert_eq!(error, message, "{faults:?}");
        assert!(took <= Duration::from_secs(longest_seconds), "{faults:?}: {took:?}");
    }
}

#[test]
fn doorbells_as_far_apart_as_can_be() {
    let bench = Bench::new(vec![disk(512, 1 << 20)], Abilities { dstrd: 15, ..Default::default() });
    let nvme = bench.attach(Config::default());
    assert_eq!(call(&nvme, 1, read(0, 4096)).status(), Ok(()));
    drop(nvme);
    bench.is_clean();
    // Where they are not, nobody hears them.
    let bench = Bench::small();
    capabilities(sane().with_dstrd(15)).into_iter().for_each(|fault| bench.model.inject(fault));
    let nvme = bench.attach(Config::default());
    let pending = read(0, 4096).start(&nvme.namespace(1).unwrap());
    bench.hal.advance(Duration::from_secs(30));
    nvme.poll();
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Timeout));
    assert_eq!(nvme.state(), State::Dead(Stopped::Timeout));
}

#[test]
fn an_admin_command_that_is_not_answered_as_it_should_be_fails_the_attach() {
    const ADMIN: [u8; 4] = [
        Opcode::ADMIN_IDENTIFY,
        Opcode::ADMIN_SET_FEATURES,
        Opcode::ADMIN_CREATE_CQ,
        Opcode::ADMIN_CREATE_SQ,
    ];
    for opcode in ADMIN {
        for mistake in [
            Mistake::UnknownCid,
            Mistake::Duplicate,
            Mistake::WrongQueue,
            Mistake::BadHead,
            Mistake::Status(0, 6),
            Mistake::Drop,
            Mistake::Nothing,
        ] {
            let bench = Bench::small();
            let before = bench.hal.now();
            bench.model.inject(Fault::Admin(opcode, mistake));
            let error = bench.try_attach(Config::default()).err();
            let what = format!("{opcode:#x} {mistake:?}: {error:?}");
            match mistake {
                // Nobody looks any more after the last command.
                Mistake::Duplicate if opcode == Opcode::ADMIN_CREATE_SQ => assert_eq!(error, None, "{what}"),
                Mistake::UnknownCid | Mistake::Duplicate => {
                    let broken = Some(AttachError::Broken(Broken::UnknownCommand { cid: 0 }));
                    assert_eq!(error.map(without_numbers), broken, "{what}");
                }
                Mistake::WrongQueue => {
                    let broken = AttachError::Broken(Broken::WrongQueue { sqid: 1, qid: 0 });
                    assert_eq!(error, Some(broken), "{what}");
                }
                Mistake::BadHead => {
                    let broken = Some(AttachError::Broken(Broken::BadHead { sqhd: 0, head: 0, tail: 0 }));
                    assert_eq!(error.map(without_numbers), broken, "{what}");
                }
                Mistake::Status(..) => {
                    let message = format!("{} failed: status 0/06 INTERNAL", Opcode::admin_name(opcode));
                    assert_eq!(error.unwrap().to_string(), message);
                }
                Mistake::Drop => {
                    assert_eq!(error, Some(AttachError::AdminTimeout { opcode }), "{what}");
                    let took = bench.hal.now().saturating_since(before);
                    assert!(took >= Duration::from_secs(60) && took < Duration::from_secs(61), "{took:?}");
                }
                // Success, and nothing was done: noticed where it matters.
                _ => match opcode {
                    Opcode::ADMIN_IDENTIFY => {
                        assert_eq!(error, Some(AttachError::EntrySizes { sqes: 0, cqes: 0 }));
                    }
                    Opcode::ADMIN_CREATE_CQ => {
                        assert!(matches!(error, Some(AttachError::Refused { .. })), "{what}");
                    }
                    _ => assert_eq!(error, None, "{what}"),
                },
            }
            assert_eq!((bench.hal.faults(), bench.hal.leaks().is_empty()), (vec![], true), "{what}");
        }
    }
}

fn without_numbers(error: AttachError) -> AttachError {
    match error {
        AttachError::Broken(Broken::UnknownCommand { .. }) => {
            AttachError::Broken(Broken::UnknownCommand { cid: 0 })
        }
        AttachError::Broken(Broken::BadHead { .. }) => {
            AttachError::Broken(Broken::BadHead { sqhd: 0, head: 0, tail: 0 })
        }
        other => other,
    }
}

/// A machine on which each look at a register takes a while.
struct Slow(Arc<FakeHal>, Arc<TestModel>);

impl Window for Slow {
    fn read32(&self, offset: usize) -> u32 {
        self.0.advance(Duration::from_millis(400));
        self.1.read32(offset)
    }
    fn write32(&self, offset: usize, value: u32) {
        self.0.advance(Duration::from_millis(400));
        self.1.write32(offset, value);
    }
}

#[test]
fn admin_commands_that_each_take_long_take_no_longer_together() {
    let bench = Bench::new((0..64).map(|_| disk(512, 4096)).collect(), Abilities::default());
    let before = bench.hal.now();
    let window = Slow(bench.hal.clone(), bench.model.clone());
    let mut idle = || ();
    // Two doorbells for each: less than a second, and there are seventy.
    let config = Config { admin_timeout: Duration::from_secs(10), ..Config::default() };
    let attached = Nvme::attach(window, bench.hal.clone(), config, &mut SpinWait::new(&mut idle));
    assert_eq!(attached.err(), Some(AttachError::AdminTimeout { opcode: Opcode::ADMIN_IDENTIFY }));
    assert!(bench.hal.now().saturating_since(before) < Duration::from_secs(25));
    bench.is_clean();
}

#[test]
fn disks_that_cannot_be_used_are_named_with_the_reason_and_the_others_work() {
    const NS: IdentifyWhat = IdentifyWhat::NAMESPACE;
    let lbaf = |ms: u16, lbads: u8| [&ms.to_le_bytes()[..], &[lbads]].concat();
    for (faults, why, message) in [
        (identify(NS, 0, &[0; 8]), Unusable::Inactive, "it has no blocks"),
        (
            identify(NS, 128, &lbaf(0, 8)),
            Unusable::BlockSize { shift: 8 },
            "blocks of 2^8 bytes are not supported",
        ),
        (
            identify(NS, 128, &lbaf(0, 17)),
            Unusable::BlockSize { shift: 17 },
            "blocks of 2^17 bytes are not supported",
        ),
        (
            identify(NS, 128, &lbaf(0, 0)),
            Unusable::BlockSize { shift: 0 },
            "blocks of 2^0 bytes are not supported",
        ),
        (
            identify(NS, 128, &lbaf(0, 255)),
            Unusable::BlockSize { shift: 255 },
            "blocks of 2^255 bytes are not supported",
        ),
        // A block is longer than a command may be.
        (
            [identify(NS, 128, &lbaf(0, 16)), identify(IdentifyWhat::CONTROLLER, 77, &[3])].concat(),
            Unusable::BlockSize { shift: 16 },
            "blocks of 2^16 bytes are not supported",
        ),
        (
            identify(NS, 128, &lbaf(8, 9)),
            Unusable::Metadata { bytes: 8 },
            "blocks with 8 bytes of metadata are not supported",
        ),
        (
            identify(NS, 0, &[0xff; 8]),
            Unusable::Size { blocks: u64::MAX },
            "18446744073709551615 blocks are more than can be",
        ),
        // A format that there is not.
        (
            identify(NS, 26, &[0x6f]),
            Unusable::BlockSize { shift: 0 },
            "blocks of 2^0 bytes are not supported",
        ),
    ] {
        let bench = Bench::small();
        faults.iter().for_each(|&fault| bench.model.inject(fault));
        let nvme = bench.attach(Config::default());
        assert!(nvme.namespaces().is_empty() && nvme.namespace(1).is_none());
        let [skipped] = nvme.skipped() else { panic!("{:?}", nvme.skipped()) };
        assert_eq!((skipped.nsid, skipped.why, nvme.info().namespaces_skipped), (1, why, 1));
        assert_eq!(skipped.to_string(), format!("namespace 1 is not used: {message}"));
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn what_identify_does_not_write_is_not_taken_from_the_answer_before() {
    let bench = Bench::new(vec![disk(512, 1 << 20), disk(512, 1 << 20)], Abilities::default());
    // The controller, the list and the first namespace as they should be; of the second, success and no byte.
    for mistake in [Mistake::Silent, Mistake::Silent, Mistake::Silent, Mistake::Nothing] {
        bench.model.inject(Fault::Admin(Opcode::ADMIN_IDENTIFY, mistake));
    }
    let nvme = bench.attach(Config::default());
    assert!(nvme.namespace(1).is_some() && nvme.namespace(2).is_none());
    let [skipped] = nvme.skipped() else { panic!("{:?}", nvme.skipped()) };
    assert_eq!((skipped.nsid, skipped.why), (2, Unusable::Inactive));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn a_namespace_that_claims_more_than_it_has_fails_its_requests() {
    let bench = Bench::small();
    let claims = (1_u64 << 40).to_le_bytes();
    identify(IdentifyWhat::NAMESPACE, 0, &claims).into_iter().for_each(|fault| bench.model.inject(fault));
    let nvme = bench.attach(Config::default());
    assert_eq!(call(&nvme, 1, read(1 << 30, 512)).status(), Err(Failure::OutOfRange));
    assert_eq!(call(&nvme, 1, read(0, 512)).status(), Ok(()));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn a_list_of_namespaces_that_does_not_rise_is_read_as_far_as_it_does() {
    const LIST: IdentifyWhat = IdentifyWhat::ACTIVE_NAMESPACES;
    for (list, used) in [
        (&[2_u32, 3, 3, 1][..], &[2_u32, 3][..]),
        (&[0, 1], &[]),
        (&[u32::MAX, 1], &[]),
        (&[0xffff_fffe], &[]),
        (&[1, 3, 0, 2], &[1, 3]),
    ] {
        let bench = Bench::new((0..3).map(|_| disk(512, 4096)).collect(), Abilities::default());
        let bytes: Vec<u8> = list.iter().flat_map(|nsid| nsid.to_le_bytes()).collect();
        identify(LIST, 0, &bytes).into_iter().for_each(|fault| bench.model.inject(fault));
        let nvme = bench.attach(Config::default());
        let nsids: Vec<_> = nvme.namespaces().iter().map(|info| info.nsid).collect();
        assert_eq!(nsids, used, "{list:?}");
        drop(nvme);
        bench.is_clean();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn garbage_in_what_identify_answers_is_an_error_or_a_namespace(
        garbage in prop::collection::vec((0_u8..3, 0_u16..600, any::<u8>()), 0..60),
        cap in any::<u64>(), version in any::<u32>(), lie in 0..4,
    ) {
        let bench = Bench::small();
        for &(what, offset, value) in &garbage {
            bench.model.inject(Fault::Identify { what: IdentifyWhat(what), offset, value });
        }
        match lie {
            0 => capabilities(Cap::from_bits(cap).with_css(1)).into_iter().for_each(|fault| bench.model.inject(fault)),
            1 => bench.model.inject(Fault::Register { offset: spec::VS.offset(), value: version }),
            _ => {}
        }
        let config = Config { queue_depth: 8, max_namespaces: 40, ..Config::default() };
        if let Ok(nvme) = bench.try_attach(config) {
            for info in nvme.namespaces() {
                let device = nvme.namespace(info.nsid).unwrap();
                let pending = read(0, 1 << info.block_shift).start(&device);
                bench.hal.advance(Duration::from_secs(30));
                nvme.poll();
                bench.hal.advance(Duration::from_secs(200));
                nvme.poll();
                prop_assert!(pending.is_done());
            }
        }
        prop_assert_eq!(bench.hal.faults(), []);
        prop_assert!(bench.hal.leaks().is_empty());
    }
}

#[test]
fn a_controller_that_vanishes_at_any_access_of_an_attach_is_gone() {
    let mut accesses = 0;
    loop {
        let bench = Bench::small();
        bench.model.inject(Fault::AllOnesAfter(accesses));
        let attached = bench.try_attach(Config::default());
        match attached {
            Ok(nvme) => {
                drop(nvme);
                bench.is_clean();
                break;
            }
            Err(error) => {
                // A half of a register that was read before and one that was read after do not look like all ones.
                let absurd = matches!(error, AttachError::PageSize { .. });
                assert!(error == AttachError::Gone || absurd, "after {accesses}: {error:?}");
                bench.is_clean();
            }
        }
        accesses += 1;
    }
    assert!(accesses > 20, "{accesses}");
}

#[test]
fn a_controller_that_vanishes_at_any_access_in_flight_answers_everything_once() {
    for accesses in 0..40 {
        let bench = Bench::small();
        let nvme = bench.attach(Config { queue_depth: 4, ..Config::default() });
        let device = nvme.namespace(1).unwrap();
        bench.model.inject(Fault::AllOnesAfter(accesses));
        let mut pending = Vec::new();
        for round in 0..8 {
            pending.extend((0..5).map(|i| read(i * 512, 512).start(&device)));
            if round % 2 == 0 {
                nvme.poll();
            }
        }
        for _ in 0..20 {
            bench.hal.advance(Duration::from_secs(1));
            nvme.poll();
        }
        let mut gone = 0;
        for pending in pending {
            let bio = pending.try_take().unwrap();
            match bio.status() {
                Ok(()) => assert_eq!(bio.bytes().next().unwrap(), pattern(bio.offset(), 512)),
                Err(Failure::Gone) => gone += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(gone == 0 || nvme.state() == State::Dead(Stopped::Gone), "after {accesses}");
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn every_mistake_with_a_request_is_answered_once() {
    for (mistake, statuses, why) in [
        (Mistake::UnknownCid, &[Err(Failure::Aborted)][..], Some("UnknownCommand")),
        (Mistake::Duplicate, &[Ok(())], Some("UnknownCommand")),
        (Mistake::WrongQueue, &[Err(Failure::Aborted)], Some("WrongQueue")),
        (Mistake::BadHead, &[Err(Failure::Aborted)], Some("BadHead")),
        (Mistake::Drop, &[Err(Failure::Timeout)], Some("Timeout")),
        (Mistake::Status(0, 0x80), &[Err(Failure::OutOfRange)], None),
        (Mistake::Status(2, 0x81), &[Err(Failure::Media)], None),
        (Mistake::Status(7, 0xff), &[Err(Failure::Device)], None),
        (Mistake::Nothing, &[Ok(())], None),
        (Mistake::Silent, &[Ok(())], None),
    ] {
        for op in 0..3 {
            let bench = Bench::small();
            let nvme = bench.attach(Config::default());
            bench.model.inject(Fault::Io(mistake));
            let mut bio = match op {
                0 => read(0, 512),
                1 => crate::bench::write(0, &[1; 512]),
                _ => Bio::new(),
            };
            if op == 2 {
                bio.flush();
            }
            let pending = bio.start(&nvme.namespace(1).unwrap());
            for seconds in [0, 29, 2] {
                bench.hal.advance(Duration::from_secs(seconds));
                nvme.poll();
            }
            let status = pending.try_take().unwrap().status();
            assert!(statuses.contains(&status), "{mistake:?} {op}: {status:?}");
            match why {
                Some(why) => {
                    let state = format!("{:?}", nvme.state());
                    assert!(state.starts_with("Dead") && state.contains(why), "{mistake:?}: {state}");
                    assert_eq!(call(&nvme, 1, read(0, 512)).status(), Err(Failure::Gone));
                }
                None => assert_eq!(call(&nvme, 1, read(0, 512)).status(), Ok(())),
            }
            drop(nvme);
            bench.is_clean();
        }
    }
}

#[test]
fn a_controller_that_never_says_what_it_has_read_fails_requests_and_not_memory() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 8, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    (0..100).for_each(|_| bench.model.inject(Fault::Io(Mistake::OldHead)));
    let statuses: Vec<_> = (0..20).map(|_| wait(&nvme, read(0, 512).start(&device)).status()).collect();
    assert_eq!(statuses[..7], [Ok(()); 7]);
    assert!(statuses[7..].iter().all(|&status| status == Err(Failure::Device)), "{statuses:?}");
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn an_unknown_or_repeated_completion_stops_the_controller_and_answers_everything() {
    for mistake in [Mistake::UnknownCid, Mistake::Duplicate, Mistake::WrongQueue, Mistake::BadHead] {
        let bench = Bench::small();
        let nvme = bench.attach(Config::default());
        let device = nvme.namespace(1).unwrap();
        bench.model.inject(Fault::Io(mistake));
        let pending: Vec<_> = (0..4).map(|i| read(i * 512, 512).start(&device)).collect();
        for pending in pending {
            let status = wait(&nvme, pending).status();
            assert!(matches!(status, Ok(()) | Err(Failure::Aborted)), "{status:?}");
        }
        assert!(matches!(nvme.state(), State::Dead(Stopped::Broken(_))), "{:?}", nvme.state());
        assert_eq!(call(&nvme, 1, read(0, 512)).status(), Err(Failure::Gone));
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn a_swallowed_request_times_out_and_its_neighbours_are_answered() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Io(Mistake::Drop));
    bench.model.inject(Fault::Io(Mistake::Drop));
    let mut first = read(0, 512);
    first.deadline(bench.hal.now().saturating_add(Duration::from_secs(2)));
    let first = first.start(&device);
    let second = read(512, 512).start(&device);
    assert_eq!(nvme.poll(), 0);
    bench.hal.advance(Duration::from_millis(1900));
    assert_eq!(nvme.poll(), 0);
    bench.hal.advance(Duration::from_millis(200));
    assert_eq!(nvme.poll(), 2);
    assert_eq!(wait(&nvme, first).status(), Err(Failure::Timeout));
    assert_eq!(wait(&nvme, second).status(), Err(Failure::Aborted));
    assert_eq!(nvme.state(), State::Dead(Stopped::Timeout));
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn removal_and_fatal_status_are_noticed_within_a_second() {
    for (fault, why, failure) in [
        (Fault::AllOnes, Stopped::Gone, Failure::Gone),
        (Fault::FatalStatus, Stopped::Fatal, Failure::Aborted),
    ] {
        let bench = Bench::small();
        let nvme = bench.attach(Config::default());
        let device = nvme.namespace(1).unwrap();
        bench.model.inject(fault);
        let pending = read(0, 512).start(&device);
        bench.hal.advance(Duration::from_secs(1));
        nvme.poll();
        assert_eq!(wait(&nvme, pending).status(), Err(failure));
        assert_eq!(nvme.state(), State::Dead(why));
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn a_controller_that_cannot_be_stopped_keeps_the_memory_and_the_request_is_answered() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Stuck);
    let mut bio = read(0, 512);
    bio.deadline(bench.hal.now().saturating_add(Duration::from_secs(1)));
    let pending = bio.start(&device);
    bench.hal.advance(Duration::from_secs(1));
    nvme.poll();
    assert_eq!(nvme.state(), State::Stopping(Stopped::Timeout));
    // CAP.TO is 7.5 s.
    bench.hal.advance(Duration::from_secs(8));
    nvme.poll();
    let mut bio = wait(&nvme, pending);
    assert_eq!(bio.status(), Err(Failure::Lost));
    assert!(bio.take_buf().is_none());
    drop((nvme, device));
    assert!(!bench.hal.leaks().is_empty(), "the controller may still use its memory");
    assert_eq!(bench.hal.faults(), []);
}
