//! What several test files use.

use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;

use dfly_bio::*;
use dfly_hal::SpinWait;
use proptest::prelude::ProptestConfig;

/// A waiter that polls `dev` between two looks.
pub(crate) fn polling<R>(dev: &dyn BlockDevice, f: impl FnOnce(&mut SpinWait<'_>) -> R) -> R {
    let mut poll = || {
        dev.poll();
    };
    f(&mut SpinWait::new(&mut poll))
}

/// So many cases, and so many under Miri, which is slow and has no files to keep failures in.
pub(crate) fn cases(cases: u32, in_miri: u32) -> ProptestConfig {
    if cfg!(miri) {
        ProptestConfig { cases: in_miri, failure_persistence: None, ..Default::default() }
    } else {
        ProptestConfig { cases, ..Default::default() }
    }
}

/// Bytes that differ from block to block.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251 + i / 4096) as u8).collect()
}

pub(crate) fn page(len: usize, byte: u8) -> SharedBuf {
    let mut page = SharedBuf::alloc(len, 4096).unwrap();
    page.get_mut().unwrap().fill(byte);
    page
}

/// Memory that is never freed, and still known to somebody, so that Miri does not call it a leak.
pub(crate) fn for_ever(bytes: Vec<u8>) -> &'static mut [u8] {
    static KEPT: Mutex<Vec<AtomicPtr<u8>>> = Mutex::new(Vec::new());
    let bytes = Box::leak(bytes.into_boxed_slice());
    KEPT.lock().unwrap().push(AtomicPtr::new(bytes.as_mut_ptr()));
    bytes
}

/// What a [`Spy`] saw of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) op: Op,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) segments: Vec<(usize, usize)>,
}

/// A device that notes what comes down, segments' addresses included.
pub(crate) struct Spy<D> {
    pub(crate) lower: D,
    pub(crate) seen: Mutex<Vec<Seen>>,
}

impl<D> Spy<D> {
    pub(crate) fn new(lower: D) -> Self {
        Self { lower, seen: Mutex::new(Vec::with_capacity(64)) }
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl<D: BlockDevice> BlockDevice for Spy<D> {
    fn limits(&self) -> Limits {
        self.lower.limits()
    }

    fn submit(&self, batch: JobList) {
        let batch = batch
            .inspect(|job| {
                self.seen.lock().unwrap().push(Seen {
                    op: job.op(),
                    offset: job.offset(),
                    len: job.len(),
                    segments: job.segments().map(|s| (s.ptr.addr().get(), s.len)).collect(),
                });
            })
            .collect();
        self.lower.submit(batch);
    }

    fn poll(&self) -> usize {
        self.lower.poll()
    }
}

/// A device that takes jobs and keeps them until it is told.
#[derive(Default)]
pub(crate) struct Held(pub(crate) Mutex<JobList>);

impl Held {
    pub(crate) fn pop(&self) -> Option<BioJob> {
        self.0.lock().unwrap().pop()
    }
}

impl BlockDevice for Held {
    fn limits(&self) -> Limits {
        Limits::new(512, 1 << 20)
    }

    fn submit(&self, mut batch: JobList) {
        self.0.lock().unwrap().append(&mut batch);
    }
}
