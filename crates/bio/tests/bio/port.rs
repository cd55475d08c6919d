//! A device in a thread of its own, and the device that stands for it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use dfly_bio::*;
use dfly_hal::ThreadWait;
use dfly_msgport::{Job, SpinPort};

use crate::common::pattern;

const SOME: usize = if cfg!(miri) { 6 } else { 200 };

fn start(device: impl BlockDevice + 'static, in_flight_max: usize, reap: Reap) -> (JoinHandle<()>, PortDisk) {
    let (server, disk) = DiskServer::new(device, in_flight_max, reap);
    (thread::spawn(move || server.run(&mut ThreadWait::new())), disk)
}

fn read(at: u64) -> Bio {
    let mut bio = Bio::new();
    bio.read(at, Buf::alloc(512, 512).unwrap());
    bio
}

/// Notes the most jobs that it had at a time.
struct Gauge<D> {
    lower: D,
    now: AtomicUsize,
    most: &'static AtomicUsize,
}

impl<D: BlockDevice> BlockDevice for Gauge<D> {
    fn limits(&self) -> Limits {
        self.lower.limits()
    }
    fn submit(&self, batch: JobList) {
        let now = self.now.fetch_add(batch.len(), SeqCst) + batch.len();
        self.most.fetch_max(now, SeqCst);
        self.lower.submit(batch);
    }
    fn poll(&self) -> usize {
        let done = self.lower.poll();
        self.now.fetch_sub(done, SeqCst);
        done
    }
}

#[test]
fn nothing_above_notices_that_the_device_is_elsewhere() {
    for (mode, reap) in [(Completion::Inline, Reap::Elsewhere), (Completion::Queued, Reap::Here)] {
        let (server, disk) = start(MemDisk::new(512, 4096).completing(mode), 4, reap);
        assert_eq!(disk.limits().blocks, 4096);
        let w = &mut ThreadWait::new();
        let part = Partition::new(disk.clone(), 512 * 8, 512 * 1024).unwrap();
        let data = pattern(512 * if cfg!(miri) { 3 } else { 40 });
        write_at(&part, w, 512, &data).unwrap();
        flush(&part, w).unwrap();
        let mut back = vec![0; data.len()];
        read_at(&disk, w, 512 * 9, &mut back).unwrap();
        assert!(back == data);
        let past = read(512 * 4096).call(&disk, w);
        assert_eq!(past.status(), Err(Failure::OutOfRange));
        assert_eq!((past.offset(), past.len()), (512 * 4096, 512));
        drop((part, disk));
        server.join().unwrap();
    }
}

#[test]
fn the_device_has_no_more_at_a_time_than_was_said() {
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let disk = MemDisk::new(512, 4096).completing(Completion::Queued);
    let (server, disk) = start(Gauge { lower: disk, now: AtomicUsize::new(0), most: &MOST }, 3, Reap::Here);
    let w = &mut ThreadWait::new();
    let sent: Vec<_> = (0..SOME).map(|n| read(512 * n as u64).start(&disk)).collect();
    for pending in sent {
        pending.wait(w).result().unwrap();
    }
    assert!((1..=3).contains(&MOST.load(SeqCst)));
    assert_eq!(disk.port().stats().received, SOME as u64);
    drop(disk);
    server.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "opens a file")]
fn a_device_that_others_reap_is_waited_for_when_it_is_full() {
    // The host's threads complete.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pattern(512 * 64)).unwrap();
    let device = FileDiskOptions::new().workers(2).open(file.path()).unwrap();
    let (server, disk) = start(device, 2, Reap::Elsewhere);
    let w = &mut ThreadWait::new();
    let sent: Vec<_> = (0..SOME).map(|n| read(512 * (n % 64) as u64).start(&disk)).collect();
    for (n, pending) in sent.into_iter().enumerate() {
        let bio = pending.wait(w);
        bio.result().unwrap();
        assert!(bio.bytes().flatten().eq(&pattern(512 * 64)[512 * (n % 64)..][..512]));
    }
    drop(disk);
    server.join().unwrap();
}

#[test]
fn what_stands_in_the_port_is_aborted_at_once_and_urgent_requests_pass() {
    // Nobody serves yet.
    let (server, disk) = DiskServer::new(MemDisk::new(512, 64), 1, Reap::Elsewhere);
    let mut urgent = read(512);
    urgent.priority(Priority::Urgent);
    let (first, second, urgent) = (read(0).start(&disk), read(1024).start(&disk), urgent.start(&disk));
    first.abort(disk.port());
    let first = first.try_take().unwrap();
    assert_eq!(first.status(), Err(Failure::Aborted));
    // The memory is back, too.
    assert_eq!({ first }.take_buf().unwrap().len(), 512);
    let server = thread::spawn(move || server.run(&mut ThreadWait::new()));
    let w = &mut ThreadWait::new();
    second.wait(w).result().unwrap();
    assert!(urgent.is_done(), "it was served before");
    urgent.wait(w).result().unwrap();
    drop(disk);
    server.join().unwrap();
}

#[test]
fn a_server_that_dies_or_never_ran_leaves_nobody_waiting() {
    let (server, disk) = DiskServer::new(MemDisk::new(512, 64), 1, Reap::Elsewhere);
    let sent = read(0).start(&disk);
    drop(server);
    assert_eq!(sent.try_take().unwrap().status(), Err(Failure::Gone));

    struct Broken;
    impl BlockDevice for Broken {
        fn limits(&self) -> Limits {
            Limits::new(512, 64)
        }
        fn submit(&self, _: JobList) {
            panic!("a defect");
        }
    }
    let (server, disk) = start(Broken, 1, Reap::Elsewhere);
    let w = &mut ThreadWait::new();
    let [one, two] = [0, 512].map(|at| read(at).start(&disk));
    assert_eq!(one.wait(w).status(), Err(Failure::Orphaned), "dropped with the batch");
    assert_eq!(two.wait(w).status(), Err(Failure::Gone));
    assert!(server.join().is_err());
    assert_eq!(read(0).call(&disk, w).status(), Err(Failure::Gone));
}

#[test]
fn closing_ends_the_server_after_what_its_device_has() {
    let disk = MemDisk::new(512, 64).completing(Completion::Queued);
    let (server, disk) = start(disk, 8, Reap::Here);
    let w = &mut ThreadWait::new();
    let sent = [0, 512, 1024].map(|at| read(at).start(&disk));
    disk.close();
    server.join().unwrap();
    for pending in sent {
        // Taken by the server or still in the port.
        assert!(matches!(pending.wait(w).status(), Ok(()) | Err(Failure::Gone)));
    }
}

#[test]
fn a_request_with_no_frame_left_is_told_so() {
    let (server, disk) = start(MemDisk::new(512, 64), 1, Reap::Elsewhere);
    let (mut job, pending) = read(0).waitable();
    for _ in 0..MAX_DEPTH {
        job.remap(0).unwrap();
    }
    disk.submit(job.into());
    assert_eq!(pending.wait(&mut ThreadWait::new()).status(), Err(Failure::TooDeep));
    drop(disk);
    server.join().unwrap();
}

/// A request is a message, so it can be sent to any port.
#[test]
fn a_disk_can_be_served_by_hand() {
    let port = SpinPort::<BioBody>::new();
    let disk = MemDisk::from_bytes(512, &pattern(4096)).unwrap();
    let (job, pending) = read(0).waitable();
    Job::from(job).forward(&port);
    let mut receiver = port.receiver();
    disk.submit(receiver.get_up_to(9).map(BioJob::from).collect());
    assert!(pending.try_take().unwrap().bytes().flatten().eq(&pattern(512)));
}
