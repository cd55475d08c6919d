//! Commands of the embedder's: pass-through, SAT, SMART.

use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern};
use dfly_ahci::sat::SatStatus;
use dfly_ahci::smart::{Attribute, Health};
use dfly_ahci::spec::{Command, Taskfile, Transport};
use dfly_ahci::{Config, PassError, PassThrough};
use dfly_hal::SpinWait;

use crate::bench::{Bench, disk, image, read, submit};

const IDENTIFY: [u8; 16] = [0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0];
const SECOND: Duration = Duration::from_secs(1);

fn plain(command: Command, transport: Transport) -> PassThrough {
    PassThrough { taskfile: Taskfile::plain(command), cdb: None, transport, timeout: SECOND }
}

#[test]
fn a_disk_says_how_it_is() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    let smart = ahci.smart(0, &mut SpinWait::new(&mut idle)).unwrap();
    assert_eq!(smart.health, Health::Good);
    let attributes: Vec<_> = smart.attributes().collect();
    let expected = [
        Attribute { id: 9, flags: 0x32, value: 100, worst: 100, raw: 12345, threshold: 1 },
        Attribute { id: 194, flags: 0x22, value: 64, worst: 50, raw: 36, threshold: 45 },
    ];
    assert_eq!(attributes, expected);
    drop(ahci);
    bench.is_clean();
}

#[test]
fn what_is_passed_through_runs_alone_between_requests() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    for round in 0..20_u64 {
        bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Delay(7 + round)));
        let pending = submit(&device, (0..40).map(|i| read(i * 512, 512)));
        let mut data = [0; 512];
        let w = &mut SpinWait::new(&mut idle);
        assert_eq!(ahci.sat(0, &IDENTIFY, &mut data, SECOND, w), SatStatus::Good);
        // The model's name, its bytes swapped.
        assert_eq!(&data[54..60], b"fdylA ");
        for bio in bench.wait_all(&ahci, pending) {
            assert_eq!(bio.status(), Ok(()));
        }
    }
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn what_a_device_refuses_says_how_and_the_port_goes_on() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    let w = &mut SpinWait::new(&mut idle);
    let unknown = plain(Command(0xff), Transport::None);
    match ahci.pass_through(0, unknown, &mut [], w) {
        Err(PassError::Failed(registers)) => assert_eq!((registers.status, registers.error), (0x51, 0x04)),
        other => panic!("{other:?}"),
    }
    let mut cdb = IDENTIFY;
    (cdb[1], cdb[2], cdb[14]) = (6, 0x20, 0xff);
    match ahci.sat(0, &cdb, &mut [], SECOND, w) {
        SatStatus::Check(sense) => {
            assert_eq!((&sense[..4], sense[11], sense[21]), (&[0x72, 11, 0, 0][..], 4, 0x51))
        }
        SatStatus::Good => panic!("an unknown command succeeds"),
    }
    cdb[14] = Command::CHECK_POWER_MODE.0;
    match ahci.sat(0, &cdb, &mut [], SECOND, w) {
        // Recovered, registers available: the count says that it is active.
        SatStatus::Check(sense) => assert_eq!((&sense[..4], sense[13]), (&[0x72, 1, 0, 0x1d][..], 0xff)),
        SatStatus::Good => panic!("the registers were wanted"),
    }
    assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn what_is_not_answered_times_out_and_the_port_goes_on() {
    let bench = Bench::small();
    let ahci = bench.attach(Config::default());
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    let w = &mut SpinWait::new(&mut idle);
    bench.model.inject(Fault::Command(Pattern::of(Command::CHECK_POWER_MODE), Mistake::Drop));
    let check = plain(Command::CHECK_POWER_MODE, Transport::None);
    assert_eq!(ahci.pass_through(0, check, &mut [], w), Err(PassError::Timeout));
    assert_eq!(ahci.pass_through(0, check, &mut [], w).map(|registers| registers.count), Ok(0xff));
    assert_eq!(bench.call(&ahci, 0, read(0, 512)).status(), Ok(()));
    bench.model.inject(Fault::Command(Pattern::of(Command::CHECK_POWER_MODE), Mistake::Vanish));
    assert!(matches!(ahci.pass_through(0, check, &mut [], w), Err(PassError::Timeout | PassError::Gone)));
    assert_eq!(ahci.pass_through(0, check, &mut [], w), Err(PassError::Gone));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn what_cannot_be_passed_through_is_refused() {
    let bench =
        Bench::new(vec![disk(512, 1 << 20), Some(Drive::reader(image(1 << 20))), None], Abilities::default());
    let ahci = bench.attach(Config::default());
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    let w = &mut SpinWait::new(&mut idle);
    let queued = plain(Command::READ_FPDMA_QUEUED, Transport::In);
    assert_eq!(ahci.pass_through(0, queued, &mut [0; 512], w), Err(PassError::Queued));
    let identify = plain(Command::IDENTIFY_DEVICE, Transport::In);
    for len in [0, 511, 4098] {
        let error = ahci.pass_through(0, identify, &mut vec![0; len], w);
        assert_eq!(error, Err(PassError::Length { len }));
    }
    assert_eq!(ahci.pass_through(2, identify, &mut [0; 512], w), Err(PassError::Gone));
    assert!(matches!(ahci.pass_through(1, identify, &mut [0; 512], w), Err(PassError::Failed(_))));
    assert!(matches!(ahci.sat(0, &[0; 16], &mut [], SECOND, w), SatStatus::Check(sense) if sense[2] == 0x24));
    assert_eq!(bench.call(&ahci, 1, read(0, 2048)).status(), Ok(()));
    drop(ahci);
    bench.is_clean();
}
