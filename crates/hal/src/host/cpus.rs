//! Threads that say which CPU they are.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

use crate::{CpuId, Cpus};

/// CPUs that are host threads.
///
/// A thread becomes a CPU by [`attach`](Self::attach) and stays it until the [`HostCpu`] is dropped. Nothing interrupts a
/// host thread, so an IPI is a flag and an unpark: the thread looks for it at points of its own choosing, with
/// [`HostCpu::take_ipi`] or [`HostCpu::wait_for_ipi`]. Several sets of CPUs may live in one process, as do two machines.
///
/// ```
/// use core::time::Duration;
/// use dfly_hal::{CpuId, Cpus, host::HostCpus};
/// let cpus = HostCpus::new(2);
/// let boot = cpus.attach(CpuId(0))?;
/// std::thread::scope(|s| {
///     s.spawn(|| {
///         let me = cpus.attach(CpuId(1)).unwrap();
///         assert!(me.wait_for_ipi(Duration::from_secs(10)));
///         cpus.raise_ipi(CpuId(0));
///     });
///     cpus.raise_ipi(CpuId(1));
///     assert!(boot.wait_for_ipi(Duration::from_secs(10)));
/// });
/// # Ok::<(), dfly_hal::host::AttachError>(())
/// ```
pub struct HostCpus {
    shared: Arc<Shared>,
}

struct Shared {
    cpus: Box<[Cpu]>,
}

#[derive(Default)]
struct Cpu {
    ipi: AtomicBool,
    /// Who is this CPU now.
    thread: Mutex<Option<Thread>>,
}

std::thread_local! {
    /// The CPUs that this thread is, one for each set that it is attached to.
    static THIS: RefCell<Vec<(Arc<Shared>, CpuId)>> = const { RefCell::new(Vec::new()) };
}

/// Why a thread could not become a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such CPU.
    #[error("{0} does not exist")]
    NoSuchCpu(CpuId),
    /// Another thread is this CPU.
    #[error("{0} is another thread already")]
    Taken(CpuId),
    /// This thread is a CPU of the set already, and a thread is only one.
    #[error("this thread is {0} already")]
    Attached(CpuId),
}

impl HostCpus {
    /// `count` CPUs, at least one; no thread is any of them yet.
    pub fn new(count: u32) -> Self {
        let cpus = (0..count.max(1)).map(|_| Cpu::default()).collect();
        Self { shared: Arc::new(Shared { cpus }) }
    }

    /// Makes the calling thread the CPU `id`.
    pub fn attach(&self, id: CpuId) -> Result<HostCpu, AttachError> {
        let cpu = self.shared.cpus.get(id.index()).ok_or(AttachError::NoSuchCpu(id))?;
        if self.this() != CpuId::NONE {
            return Err(AttachError::Attached(self.this()));
        }
        let mut thread = cpu.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return Err(AttachError::Taken(id));
        }
        *thread = Some(thread::current());
        THIS.with_borrow_mut(|this| this.push((self.shared.clone(), id)));
        Ok(HostCpu { shared: self.shared.clone(), id, _here: PhantomData })
    }
}

// SAFETY: a thread is the CPU that it attached to, host threads do not change under their feet, and no two threads are one
// CPU at a time (`Cpu::thread`). The count is that of a boxed slice.
unsafe impl Cpus for HostCpus {
    fn this(&self) -> CpuId {
        let find = |this: &RefCell<Vec<(Arc<Shared>, CpuId)>>| {
            let this = this.borrow();
            this.iter().find(|(set, _)| Arc::ptr_eq(set, &self.shared)).map(|&(_, id)| id)
        };
        // A thread that is ending is no CPU any more.
        THIS.try_with(find).ok().flatten().unwrap_or(CpuId::NONE)
    }

    fn count(&self) -> u32 {
        self.shared.cpus.len() as u32
    }

    fn raise_ipi(&self, to: CpuId) {
        let Some(cpu) = self.shared.cpus.get(to.index()) else { return };
        // Release: the handler sees what was written before (pairs with the Acquire in `take_ipi`).
        cpu.ipi.store(true, Ordering::Release);
        if let Some(thread) = &*cpu.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

/// The calling thread as a CPU of a [`HostCpus`], until it is dropped.
#[must_use = "the thread is this CPU until this is dropped"]
pub struct HostCpu {
    shared: Arc<Shared>,
    id: CpuId,
    // It speaks for the thread that made it.
    _here: PhantomData<*mut ()>,
}

impl HostCpu {
    /// Which CPU this is.
    pub fn id(&self) -> CpuId {
        self.id
    }

    /// Whether an IPI has come since the last call; several count as one.
    pub fn take_ipi(&self) -> bool {
        // Acquire: pairs with the Release in `raise_ipi`.
        self.shared.cpus.get(self.id.index()).is_some_and(|cpu| cpu.ipi.swap(false, Ordering::Acquire))
    }

    /// Parks until an IPI comes, and takes it; `false` if none came in time.
    pub fn wait_for_ipi(&self, timeout: Duration) -> bool {
        let deadline = super::now().saturating_add(timeout);
        while !self.take_ipi() {
            let left = deadline.saturating_since(super::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }
}

impl Drop for HostCpu {
    fn drop(&mut self) {
        // Ended threads have no list any more.
        let _ = THIS.try_with(|this| this.borrow_mut().retain(|(set, _)| !Arc::ptr_eq(set, &self.shared)));
        if let Some(cpu) = self.shared.cpus.get(self.id.index()) {
            *cpu.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl fmt::Debug for HostCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCpus").field("count", &self.count()).field("this", &self.this()).finish()
    }
}

impl fmt::Debug for HostCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostCpu").field(&self.id).finish()
    }
}
