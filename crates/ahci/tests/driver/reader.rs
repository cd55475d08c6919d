//! Readers of discs.

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern};
use dfly_ahci::spec::Command;
use dfly_ahci::{Config, PortState, Unusable};
use dfly_bio::{Failure, Image};

use crate::bench::{Bench, bytes, image, pattern, read, submit};

#[test]
fn a_disc_is_read_and_what_fails_is_asked_about() {
    let bench = Bench::new(vec![Some(Drive::reader(image(4 << 20)))], Abilities::default());
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    let done = bench.wait_all(&ahci, submit(&device, (0..100).map(|i| read(i * 8192, 8192))));
    for (i, bio) in done.iter().enumerate() {
        assert_eq!((bio.status(), bytes(bio)), (Ok(()), pattern(i as u64 * 8192, 8192)));
    }
    // It says that something failed, and when it is asked, nothing.
    bench.model.inject(Fault::Command(Pattern { skip: 1, ..Pattern::NEXT }, Mistake::Status(0x51, 0x30)));
    let done = bench.wait_all(&ahci, submit(&device, (0..3).map(|i| read(i * 2048, 2048))));
    let ended: Vec<_> = done.iter().map(|bio| bio.status()).collect();
    assert_eq!(ended, [Ok(()), Err(Failure::Device), Ok(())]);
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn a_reset_that_a_reader_tells_of_costs_no_request() {
    let bench = Bench::new(vec![Some(Drive::reader(image(4 << 20)))], Abilities::default());
    let ahci = bench.attach(Config::default());
    let device = ahci.disk(0).unwrap();
    bench.model.inject(Fault::Command(Pattern::NEXT, Mistake::Interface));
    let done = bench.wait_all(&ahci, submit(&device, (0..3).map(|i| read(i * 2048, 2048))));
    assert!(done.iter().all(|bio| bio.status() == Ok(())));
    assert_eq!(bench.wait(&ahci, read(0, 2048).start(&device)).status(), Ok(()), "it is the same disc");
    drop((ahci, device));
    bench.is_clean();
}

#[test]
fn a_reader_without_a_disc_is_no_disk() {
    let bench = Bench::new(vec![Some(Drive::reader(Image::new(0)))], Abilities::default());
    let ahci = bench.attach(Config::default());
    let state = ahci.port(0).unwrap().state;
    assert_eq!(state, PortState::Unusable(Unusable::NoMedium { key: 2, asc: 0x3a }));
    bench.model.plug(0, Drive::reader(image(1 << 20)));
    bench.pass(&ahci, std::time::Duration::from_millis(50));
    assert_eq!(bench.call(&ahci, 0, read(0, 2048)).status(), Ok(()));
    drop(ahci);
    bench.is_clean();
}

#[test]
fn a_reader_that_refuses_to_say_what_it_is() {
    let bench = Bench::new(vec![Some(Drive::reader(image(1 << 20)))], Abilities::default());
    let identify = Pattern { times: 9, ..Pattern::of(Command::IDENTIFY_PACKET_DEVICE) };
    bench.model.inject(Fault::Command(identify, Mistake::Status(0x51, 0x04)));
    let ahci = bench.attach(Config::default());
    let state = ahci.port(0).unwrap().state;
    assert_eq!(state, PortState::Unusable(Unusable::Refused { status: 0x51, error: 0x04 }));
    drop(ahci);
    bench.is_clean();
}
