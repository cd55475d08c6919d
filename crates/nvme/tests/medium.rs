//! What the model keeps its bytes on: files of the host, overlays, media that fail.
// Not under Miri: files of the host.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::sync::Arc;

use dfly_bio::{Access, Bio, BlockDevice, Buf, Failure, Image};
use dfly_hal::{SpinWait, fake::FakeHal};
use dfly_nvme::model::{Disk, FileMedium, Medium, Model, Overlay};
use dfly_nvme::{Config, Nvme};

type TestNvme = Nvme<Arc<FakeHal>, Model<Arc<FakeHal>>>;

fn attach(medium: impl Medium + 'static) -> (TestNvme, Arc<dyn BlockDevice>) {
    let hal = Arc::new(FakeHal::new());
    let model = Model::new(hal.clone(), vec![Disk::new(512, medium)]);
    let mut idle = || {
        hal.advance_to_next();
    };
    let nvme = Nvme::attach(model, hal.clone(), Config::default(), &mut SpinWait::new(&mut idle)).unwrap();
    let disk = nvme.namespace(1).unwrap();
    (nvme, disk)
}

fn call(nvme: &TestNvme, disk: &Arc<dyn BlockDevice>, bio: Bio) -> Bio {
    let mut poll = || {
        nvme.poll();
    };
    bio.call(disk, &mut SpinWait::new(&mut poll))
}

fn read(at: u64, len: usize) -> Bio {
    let mut bio = Bio::new();
    bio.read(at, Buf::alloc(len, 4096).unwrap());
    bio
}

fn write(at: u64, byte: u8, len: usize) -> Bio {
    let mut buf = Buf::alloc(len, 4096).unwrap();
    buf.fill(byte);
    let mut bio = Bio::new();
    bio.write(at, buf);
    bio
}

fn bytes(bio: &Bio) -> Vec<u8> {
    bio.bytes().flatten().copied().collect()
}

#[test]
fn a_file_of_sixteen_gigabytes_with_holes_is_read_and_written_where_it_is() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    file.as_file().set_len(16 << 30).unwrap();
    let (nvme, disk) = attach(FileMedium::open(file.path(), Access::ReadWrite).unwrap());
    assert_eq!(disk.limits().blocks, 32 << 20);
    let far = (16 << 30) - 4096;
    assert_eq!(call(&nvme, &disk, write(far, 9, 4096)).status(), Ok(()));
    let mut flush = Bio::new();
    flush.flush();
    assert_eq!(call(&nvme, &disk, flush).status(), Ok(()));
    for (at, byte) in [(4096, 7), (1 << 30, 0), (far, 9)] {
        let bio = call(&nvme, &disk, read(at, 4096));
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), vec![byte; 4096]));
    }
    assert_eq!(call(&nvme, &disk, read(16 << 30, 512)).status(), Err(Failure::OutOfRange));
    let mut medium = FileMedium::open(file.path(), Access::ReadOnly).unwrap();
    let mut end = [0; 4096];
    medium.read(far, &mut end).unwrap();
    assert_eq!(end, [9; 4096]);
}

#[test]
fn a_file_opened_for_reading_is_a_write_protected_namespace() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let (nvme, disk) = attach(FileMedium::open(file.path(), Access::ReadOnly).unwrap());
    assert_eq!(disk.limits().access, Access::ReadOnly);
    assert_eq!(call(&nvme, &disk, write(0, 9, 512)).status(), Err(Failure::WriteProtected));
    assert_eq!(bytes(&call(&nvme, &disk, read(0, 8192))), [7; 8192]);
}

#[test]
fn an_overlay_takes_writes_and_leaves_its_base_alone() {
    // Not whole chunks.
    let len = (200 << 10) + 512;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; len]).unwrap();
    let base = FileMedium::open(file.path(), Access::ReadOnly).unwrap();
    let (nvme, disk) = attach(Overlay::new(base));
    assert_eq!(disk.limits().access, Access::ReadWrite);
    let mut expected = vec![7; len];
    for (at, n, byte) in [(512, 1024, 1), ((64 << 10) - 512, 1024, 2), (len - 512, 512, 3)] {
        assert_eq!(call(&nvme, &disk, write(at as u64, byte, n)).status(), Ok(()));
        expected[at..at + n].fill(byte);
    }
    assert_eq!(bytes(&call(&nvme, &disk, read(0, len))), expected);
    assert_eq!(std::fs::read(file.path()).unwrap(), vec![7; len]);
    let mut overlay = Overlay::new(Image::new(1 << 30));
    overlay.write(1 << 20, &[1]).unwrap();
    assert_eq!(overlay.resident_bytes(), 64 << 10);
}

/// Fails as it is told.
struct Broken(Failure);

impl Medium for Broken {
    fn size_bytes(&self) -> u64 {
        1 << 20
    }
    fn read(&mut self, _at: u64, _to: &mut [u8]) -> Result<(), Failure> {
        Err(self.0)
    }
    fn write(&mut self, _at: u64, _from: &[u8]) -> Result<(), Failure> {
        Err(self.0)
    }
    fn flush(&mut self) -> Result<(), Failure> {
        Err(self.0)
    }
}

#[test]
fn what_a_medium_fails_with_arrives_by_way_of_a_status_code() {
    for (failure, seen) in [
        (Failure::Media, Failure::Media),
        (Failure::Device, Failure::Media),
        (Failure::NoSpace, Failure::NoSpace),
        (Failure::WriteProtected, Failure::WriteProtected),
    ] {
        let (nvme, disk) = attach(Broken(failure));
        let mut flush = Bio::new();
        flush.flush();
        for bio in [read(0, 512), write(0, 1, 512), flush] {
            assert_eq!(call(&nvme, &disk, bio).status(), Err(seen));
        }
    }
}

#[test]
fn a_file_that_became_shorter_is_a_medium_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let (nvme, disk) = attach(FileMedium::open(file.path(), Access::ReadOnly).unwrap());
    file.as_file().set_len(4096).unwrap();
    assert_eq!(call(&nvme, &disk, read(4096, 512)).status(), Err(Failure::Media));
    assert_eq!(call(&nvme, &disk, read(0, 512)).status(), Ok(()));
}
