//! What a request costs by itself: devices that do nothing, layers over them. Every row runs in one process, beside two
//! references, so ratios can be compared between machines and nanoseconds cannot.
#![expect(clippy::unwrap_used, reason = "a bench fails as a test does")]

use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dfly_bio::*;
use dfly_hal::sync::Lock;
use dfly_msgport::{Completions, Hook, HookRef, Job};

/// Completes inside `submit`.
struct Null;

impl BlockDevice for Null {
    fn limits(&self) -> Limits {
        Limits::new(512, 1 << 30)
    }
    fn submit(&self, batch: JobList) {
        batch.finish_all(Ok(()));
    }
}

/// Queues in `submit`, completes in `poll`.
struct Queued(Lock<JobList>);

impl BlockDevice for Queued {
    fn limits(&self) -> Limits {
        Limits::new(512, 1 << 30)
    }
    fn submit(&self, mut batch: JobList) {
        self.0.lock().append(&mut batch);
    }
    fn poll(&self) -> usize {
        let batch = std::mem::take(&mut *self.0.lock());
        let n = batch.len();
        batch.finish_all(Ok(()));
        n
    }
}

/// A linear layer with a hook, as a mapped table has.
struct Hooked<D> {
    lower: D,
    hook: Arc<dyn Hook<BioBody>>,
}

struct Table;

impl Hook<BioBody> for Table {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        Some(job)
    }
}

impl<D: BlockDevice> BlockDevice for Hooked<D> {
    fn limits(&self) -> Limits {
        self.lower.limits()
    }
    fn submit(&self, batch: JobList) {
        let mut out = JobList::new();
        for mut job in batch {
            match job.intercept(job.offset() + 4096, HookRef::from(self.hook.clone()), 0) {
                Ok(()) => out.push(job),
                Err(failure) => job.finish(Err(failure)),
            }
        }
        self.lower.submit(out);
    }
}

/// Completes inside `submit`, and takes a block at most.
struct Short;

impl BlockDevice for Short {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(512, 1 << 30);
        limits.max_bytes = 4096;
        limits
    }
    fn submit(&self, batch: JobList) {
        batch.finish_all(Ok(()));
    }
}

/// Sends a read of `len` bytes and takes it back from the waiter.
fn round_trip(c: &mut Criterion, name: &str, dev: &dyn BlockDevice, len: usize) {
    let mut kept = Some((Bio::new(), Buf::alloc(len, 4096).unwrap()));
    c.bench_function(name, |b| {
        b.iter(|| {
            let (mut bio, buf) = kept.take().unwrap();
            bio.read(8192, buf);
            let pending = bio.start(dev);
            while !pending.is_done() {
                dev.poll();
            }
            let mut bio = pending.try_take().unwrap();
            let buf = bio.take_buf().unwrap();
            kept = Some((bio, buf));
        });
    });
}

/// Sends 32 from a pool to a queue, polls once, and drops them home.
fn batch(c: &mut Criterion, name: &str, dev: &dyn BlockDevice) {
    let pool = BioPool::new(32);
    let done = Arc::new(Completions::new());
    let mut group = c.benchmark_group("batch of 32");
    group.throughput(Throughput::Elements(32));
    group.bench_function(name, |b| {
        b.iter(|| {
            let mut jobs = JobList::new();
            while let Some(mut bio) = pool.get() {
                bio.discard(8192, 512);
                jobs.push(bio.send_to(done.clone()));
            }
            dev.submit(jobs);
            dev.poll();
            done.drain().for_each(drop);
        });
    });
    group.finish();
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn request(c: &mut Criterion) {
    // References: what one allocated request, and one counted handle, cost here.
    c.bench_function("ref: box of a request", |b| b.iter(|| drop(black_box(Bio::new()))));
    let counted = Arc::new(Mutex::new(0));
    c.bench_function("ref: arc clone and drop", |b| b.iter(|| drop(black_box(counted.clone()))));

    let queued = || Queued(Lock::new(JobList::new()));
    let part = |lower: Box<dyn BlockDevice>| {
        let len = lower.limits().bytes() - 4096;
        Partition::new(lower, 4096, len).unwrap()
    };
    round_trip(c, "null, inline", &Null, 4096);
    round_trip(c, "null, queued", &queued(), 4096);
    batch(c, "null, queued", &queued());
    round_trip(c, "linear over null", &part(Box::new(Null)), 4096);
    batch(c, "linear over queued", &part(Box::new(queued())));
    let three = part(Box::new(part(Box::new(part(Box::new(Null))))));
    round_trip(c, "three linears over null", &three, 4096);
    round_trip(c, "linear with counted hook", &Hooked { lower: Null, hook: Arc::new(Table) }, 4096);
    let split = Split::new(Short, 8);
    round_trip(c, "splitter, not split", &split, 4096);
    round_trip(c, "splitter, split in two", &split, 8192);

    let waker = Waker::from(Arc::new(Nobody));
    let dev = queued();
    let mut kept = Some(Bio::new());
    c.bench_function("future, polled twice, null queued", |b| {
        b.iter(|| {
            let mut bio = kept.take().unwrap();
            bio.flush();
            let mut pending = pin!(bio.start(&dev));
            let mut cx = Context::from_waker(&waker);
            assert!(pending.as_mut().poll(&mut cx).is_pending());
            dev.poll();
            let Poll::Ready(bio) = pending.as_mut().poll(&mut cx) else { panic!("it is done") };
            kept = Some(bio);
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700));
    targets = request
}
criterion_main!(benches);
