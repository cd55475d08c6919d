//! Devices from outside: what a user of the crate sees.

use crate::common::{pattern, polling};
use dfly_bio::*;

#[test]
fn what_was_written_is_read_in_both_completion_modes() {
    for mode in [Completion::Inline, Completion::Queued] {
        let disk = MemDisk::new(512, 4096).completing(mode);
        polling(&disk, |w| {
            let data = pattern(if cfg!(miri) { 4096 } else { 3 << 19 });
            write_at(&disk, w, 512 * 7, &data).unwrap();
            flush(&disk, w).unwrap();
            let mut back = vec![0; data.len()];
            read_at(&disk, w, 512 * 7, &mut back).unwrap();
            assert!(back == data);
        });
    }
}

#[test]
fn a_tool_reads_unaligned_edges() {
    let data = pattern(8192);
    let disk = MemDisk::from_bytes(512, &data).unwrap();
    polling(&disk, |w| {
        for (at, len) in [(0, 1), (511, 2), (513, 1000), (8191, 1), (8192, 0), (1, 8190)] {
            let mut back = vec![0; len];
            read_at(&disk, w, at as u64, &mut back).unwrap();
            assert_eq!(back, data[at..at + len]);
        }
        let e = read_at(&disk, w, 8000, &mut [0; 193]).unwrap_err();
        assert_eq!((e.failure, e.offset, e.len), (Failure::OutOfRange, 8000, 193));
        let e = read_at(&disk, w, u64::MAX, &mut [0; 2]).unwrap_err();
        assert_eq!(e.failure, Failure::OutOfRange);
        assert_eq!(write_at(&disk, w, 1, &[0; 512]).unwrap_err().failure, Failure::Misaligned);
    });
}

#[test]
fn memory_comes_back_at_the_same_address() {
    let disk = MemDisk::new(512, 64);
    let page = SharedBuf::alloc(4096, 4096).unwrap();
    let address = page.as_ptr();
    polling(&disk, |w| {
        let mut bio = Bio::new();
        bio.read(0, page.try_into_buf().unwrap());
        let mut bio = bio.call(&disk, w);
        bio.result().unwrap();
        let page = bio.take_buf().unwrap().into_shared().unwrap();
        assert_eq!(page.as_ptr(), address);
    });
}

#[test]
fn errors_name_operation_offset_and_length() {
    let disk = MemDisk::new(512, 8);
    polling(&disk, |w| {
        let mut bio = Bio::new();
        bio.read(4096, Buf::alloc(512, 512).unwrap());
        let bio = bio.call(&disk, w);
        assert_eq!(bio.result().unwrap_err().to_string(), "read of 512 bytes at 4096: out of range");
    });
}

#[cfg(all(feature = "std", unix))]
#[test]
#[cfg_attr(miri, ignore = "Miri has no files here")]
fn a_file_is_a_disk() {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let data = pattern(64 << 10);
    file.write_all(&data).unwrap();
    file.write_all(&[1; 100]).unwrap();
    for workers in [0, 2] {
        let disk =
            FileDiskOptions::new().access(Access::ReadWrite).workers(workers).open(file.path()).unwrap();
        assert_eq!(disk.limits().bytes(), data.len() as u64, "a partial block at the end is out of reach");
        let mut w = dfly_hal::ThreadWait::new();
        let mut back = vec![0; 1000];
        read_at(&disk, &mut w, 777, &mut back).unwrap();
        assert_eq!(back, data[777..1777]);
        write_at(&disk, &mut w, 4096, &[9; 512]).unwrap();
        flush(&disk, &mut w).unwrap();
        let mut bio = Bio::new();
        bio.write_zeroes(8192, 512);
        bio = bio.call(&disk, &mut w);
        bio.result().unwrap();
        read_at(&disk, &mut w, 4096 - 1, &mut back).unwrap();
        assert_eq!((back[0], back[1], back[512], back[513]), (data[4095], 9, 9, data[4608]));
        bio.write(4096, Buf::from(data[4096..8704].to_vec()));
        bio.call(&disk, &mut w).result().unwrap();
        write_at(&disk, &mut w, 8192, &data[8192..8704]).unwrap();
    }
    let disk = FileDisk::open(file.path()).unwrap();
    let e = write_at(&disk, &mut dfly_hal::ThreadWait::new(), 0, &[0; 512]).unwrap_err();
    assert_eq!(e.failure, Failure::WriteProtected);
}
