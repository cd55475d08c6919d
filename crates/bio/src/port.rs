//! A block device behind a port: [`DiskServer`] runs it in a thread of its own, and a [`PortDisk`] is the device for
//! everybody else. A request is a message already, so nothing is converted, copied or allocated on the way.

use alloc::sync::Arc;
use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use dfly_hal::sync::Lock;
use dfly_hal::{Wait, block_on};
use dfly_msgport::{Event, Hook, Job, List, SpinPort};

use crate::{BioBody, BioJob, BlockDevice, JobList, Limits};

/// Who calls [`BlockDevice::poll`] of the device behind the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// The server, whenever something is under way: for a device that nobody else polls. Between two looks it lets
    /// others run.
    Here,
    /// Somebody else, or the device completes by itself: an interrupt thread, workers, inline.
    Elsewhere,
}

/// Runs a block device for those who hold its [`PortDisk`].
///
/// At most so many requests are in the device at a time as it is made for; the others stand in the port, urgent ones
/// first, where they can be [aborted](crate::PendingBio::abort) or [withdrawn](dfly_msgport::Pending::withdraw). Order is
/// as with any device: none, but a flush covers what completed before it was submitted.
///
/// ```
/// use dfly_bio::{DiskServer, MemDisk, Reap, read_at, write_at};
/// use dfly_hal::ThreadWait;
///
/// let (server, disk) = DiskServer::new(MemDisk::new(512, 64), 8, Reap::Elsewhere);
/// let server = std::thread::spawn(move || server.run(&mut ThreadWait::new()));
///
/// let w = &mut ThreadWait::new();
/// write_at(&disk, w, 1024, &[7; 512])?;
/// let mut back = [0; 512];
/// read_at(&disk, w, 1024, &mut back)?;
/// assert_eq!(back, [7; 512]);
///
/// drop(disk);                     // the last one: the server ends
/// server.join().unwrap();
/// # Ok::<(), dfly_bio::BioError>(())
/// ```
pub struct DiskServer<D> {
    device: D,
    reap: Reap,
    shared: Arc<Shared>,
}

/// The device that a [`DiskServer`] runs, for everybody else. Cloning it is cheap; when the last clone goes, the server
/// ends, and what still stands in the port comes back as [`Failure::Gone`](crate::Failure::Gone).
///
/// `submit` takes one short lock for each request. Should the server die, what stands in the port and what comes later
/// is [`Failure::Gone`](crate::Failure::Gone); what its device has, the device answers, or its end.
#[derive(Clone)]
pub struct PortDisk(Arc<Client>);

struct Client(Arc<Shared>);

struct Shared {
    port: SpinPort<BioBody>,
    limits: Limits,
    in_flight_max: usize,
    flow: Lock<Flow>,
}

/// How many requests the device has.
#[derive(Default)]
struct Flow {
    in_flight: usize,
    /// The server waits until there are fewer.
    waker: Option<Waker>,
}

impl<D: BlockDevice> DiskServer<D> {
    /// A server for `device`, which is to have `in_flight_max` requests at a time (at least one), and the device for
    /// others. One frame of each request is taken, as by any layer that intercepts ([`MAX_DEPTH`](crate::MAX_DEPTH)).
    pub fn new(device: D, in_flight_max: usize, reap: Reap) -> (Self, PortDisk) {
        let shared = Arc::new(Shared {
            port: SpinPort::new(),
            limits: device.limits(),
            in_flight_max: in_flight_max.max(1),
            flow: Lock::default(),
        });
        let client = PortDisk(Arc::new(Client(shared.clone())));
        (Self { device, reap, shared }, client)
    }

    /// Serves until the last [`PortDisk`] is gone or one is [closed](PortDisk::close), and what the device has is back.
    /// Blocks. Allocates nothing.
    pub fn run(self, w: &mut (impl Wait + ?Sized)) {
        let mut receiver = self.shared.port.receiver();
        loop {
            self.wait_below(self.shared.in_flight_max, w);
            let in_flight = self.shared.flow.lock().in_flight;
            let room = self.shared.in_flight_max.saturating_sub(in_flight);
            if self.reap == Reap::Here && in_flight > 0 {
                let jobs = receiver.get_up_to(room);
                let idle = jobs.is_empty();
                self.submit(jobs);
                if self.device.poll() == 0 && idle {
                    let_others_run(w);
                }
                continue;
            }
            match block_on(w, receiver.next(), None) {
                Ok(Event::Arrived(job)) => {
                    let mut jobs = List::from(job);
                    jobs.append(&mut receiver.get_up_to(room.saturating_sub(1)));
                    self.submit(jobs);
                }
                Ok(Event::Closed) => break,
                // Nothing is kept here. A waiter without a deadline that gives up is asked again.
                Ok(Event::Recall) | Err(_) => {}
            }
        }
        self.wait_below(1, w);
    }

    fn submit(&self, jobs: List<BioBody>) {
        let mut batch = JobList::new();
        for mut job in jobs.map(BioJob::from) {
            let hook: Arc<dyn Hook<BioBody>> = self.shared.clone();
            match job.intercept(job.offset(), hook, 0) {
                Ok(()) => batch.push(job),
                Err(failure) => job.finish(Err(failure)),
            }
        }
        if !batch.is_empty() {
            self.shared.flow.lock().in_flight += batch.len();
            self.device.submit(batch);
        }
    }

    /// Waits until the device has fewer than `count` requests.
    fn wait_below(&self, count: usize, w: &mut (impl Wait + ?Sized)) {
        while self.shared.flow.lock().in_flight >= count {
            match self.reap {
                Reap::Here => {
                    if self.device.poll() == 0 {
                        let_others_run(w);
                    }
                }
                Reap::Elsewhere => _ = block_on(w, poll_fn(|cx| self.shared.poll_below(count, cx)), None),
            }
        }
    }
}

impl Shared {
    fn poll_below(&self, count: usize, cx: &mut Context<'_>) -> Poll<()> {
        // To clone and to drop a waker is foreign code: not under the lock.
        let waker = cx.waker().clone();
        let old = {
            let mut flow = self.flow.lock();
            if flow.in_flight < count {
                return Poll::Ready(());
            }
            flow.waker.replace(waker)
        };
        drop(old);
        Poll::Pending
    }
}

impl Hook<BioBody> for Shared {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        let waker = {
            let mut flow = self.flow.lock();
            flow.in_flight = flow.in_flight.saturating_sub(1);
            flow.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(job)
    }
}

impl PortDisk {
    /// Ends the server. What stands in the port, and what comes later, comes back as
    /// [`Failure::Gone`](crate::Failure::Gone).
    pub fn close(&self) {
        self.port().close();
    }

    /// The port, to abort what stands in it, and for its [statistics](SpinPort::stats).
    pub fn port(&self) -> &SpinPort<BioBody> {
        &self.0.0.port
    }
}

impl BlockDevice for PortDisk {
    fn limits(&self) -> Limits {
        self.0.0.limits
    }

    fn submit(&self, batch: JobList) {
        batch.for_each(|job| Job::from(job).forward(self.port()));
    }
}

impl<D> Drop for DiskServer<D> {
    fn drop(&mut self) {
        // One that never ran leaves nobody waiting either.
        self.shared.port.close();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.port.close();
    }
}

/// Gives the processor away once, if the waiter can.
fn let_others_run(w: &mut (impl Wait + ?Sized)) {
    let mut looked = false;
    let once = poll_fn(|cx| {
        if looked {
            return Poll::Ready(());
        }
        looked = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    // Without a deadline; should it give up, others ran as well.
    _ = w.wait(pin!(once), None);
}

impl<D: fmt::Debug> fmt::Debug for DiskServer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskServer").field("device", &self.device).finish_non_exhaustive()
    }
}

impl fmt::Debug for PortDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortDisk").field("port", self.port()).finish_non_exhaustive()
    }
}
