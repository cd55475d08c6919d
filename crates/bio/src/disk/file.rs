//! [`FileDisk`]: a file or a block special file of the host.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::vec::Vec;

use crate::{Access, BioJob, BlockDevice, Failure, Fua, JobList, Limits, Op, RangeLimits, WriteCache};

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// How a [`FileDisk`] is opened.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct FileDiskOptions {
    access: Access,
    block_bytes: u32,
    workers: usize,
}

impl FileDiskOptions {
    /// Read-only, blocks of 512 bytes, no workers.
    pub const fn new() -> Self {
        Self { access: Access::ReadOnly, block_bytes: 512, workers: 0 }
    }

    /// Whether it may be written.
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Bytes of a block. A last partial block of the file is out of reach.
    pub const fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// How many threads do the work. With none, `submit` does it on the caller's thread.
    pub const fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// Opens `path`. The size is where its end is, which works for block special files too.
    pub fn open(self, path: impl AsRef<Path>) -> io::Result<FileDisk> {
        let write = self.access == Access::ReadWrite;
        FileDisk::from_file(File::options().read(true).write(write).open(path)?, self)
    }
}

impl Default for FileDiskOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A file of the host as a disk (Unix).
///
/// Without workers a job is done by `pread`/`pwrite` on the thread that submits it: that thread blocks for as long as
/// the host's page cache and disk take, and jobs do not overlap; the simplest and, for cached files, the fastest. With
/// workers `submit` only queues. A flush is `fdatasync`; a FUA write is a write and an `fdatasync`. Discard is not
/// supported. Dropping the disk ends what still waits as [`Failure::Aborted`].
#[derive(Debug)]
pub struct FileDisk {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    limits: Limits,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: JobList,
    closed: bool,
}

impl FileDisk {
    /// Opens `path` read-only, with the default options.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        FileDiskOptions::new().open(path)
    }

    /// A disk over an open file. [`FileDiskOptions::access`] must be what `file` allows.
    pub fn from_file(file: File, options: FileDiskOptions) -> io::Result<Self> {
        use std::io::Seek;
        let block = options.block_bytes.max(1);
        let bytes = (&file).seek(io::SeekFrom::End(0))?;
        let mut limits = Limits::new(block, bytes / u64::from(block));
        limits.access = options.access;
        limits.write_cache = WriteCache::Volatile;
        limits.fua = Fua::Native;
        limits.write_zeroes = Some(RangeLimits { granularity_bytes: block, max_bytes: 1 << 30 });
        let shared = Arc::new(Shared { file, limits, queue: Mutex::default(), wake: Condvar::new() });
        let mut disk = Self { shared, workers: Vec::new() };
        for _ in 0..options.workers {
            let shared = disk.shared.clone();
            let worker = std::thread::Builder::new().name("filedisk".into()).spawn(move || shared.work())?;
            disk.workers.push(worker);
        }
        Ok(disk)
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = queue.jobs.pop() {
                drop(queue);
                self.serve(job);
                queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            } else if queue.closed {
                return;
            } else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn serve(&self, mut job: BioJob) {
        let status = self.limits.check(&job).and_then(|()| self.transfer(&mut job).map_err(failure_of));
        job.finish(status);
    }

    fn transfer(&self, job: &mut BioJob) -> io::Result<()> {
        let mut at = job.offset();
        match job.op() {
            Op::Read => {
                for run in job.data_mut().ok_or(io::ErrorKind::Unsupported)? {
                    self.file.read_exact_at(run, at)?;
                    at += run.len() as u64;
                }
            }
            Op::Write => {
                for run in job.data() {
                    self.file.write_all_at(run, at)?;
                    at += run.len() as u64;
                }
            }
            Op::WriteZeroes => {
                let mut rest = job.len();
                while rest != 0 {
                    let now = ZEROES.get(..usize::try_from(rest).unwrap_or(usize::MAX)).unwrap_or(&ZEROES);
                    self.file.write_all_at(now, at)?;
                    at += now.len() as u64;
                    rest -= now.len() as u64;
                }
            }
            Op::Flush => return self.file.sync_data(),
            Op::Discard => return Err(io::ErrorKind::Unsupported.into()),
        }
        if job.is_fua() && job.op().is_write() { self.file.sync_data() } else { Ok(()) }
    }
}

fn failure_of(e: io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => Failure::OutOfRange,
        io::ErrorKind::Unsupported => Failure::Unsupported,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoSpace,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::WriteProtected,
        io::ErrorKind::TimedOut => Failure::Timeout,
        io::ErrorKind::OutOfMemory => Failure::NoMemory,
        // EIO has no kind of its own.
        _ if e.raw_os_error() == Some(5) => Failure::Media,
        _ => Failure::Device,
    }
}

impl BlockDevice for FileDisk {
    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn submit(&self, mut batch: JobList) {
        if self.workers.is_empty() {
            return batch.for_each(|job| self.shared.serve(job));
        }
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).jobs.append(&mut batch);
        self.shared.wake.notify_all();
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        self.shared.wake.notify_all();
        left.finish_all(Err(Failure::Aborted));
        for worker in self.workers.drain(..) {
            // A worker that panicked in somebody's sink is gone already. One that drops the disk from its own sink
            // cannot wait for itself.
            if worker.thread().id() != std::thread::current().id() {
                let _ = worker.join();
            }
        }
    }
}
