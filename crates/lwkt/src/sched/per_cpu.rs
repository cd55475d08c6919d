//! Data of which each CPU has its own.

use alloc::boxed::Box;
use core::{fmt, ptr};

use dfly_hal::CpuId;
use dfly_hal::sync::cell::UnsafeCell;

use crate::sched::critical::Crit;
use crate::sched::scheduler::Scheduler;

/// One `T` for each CPU of a scheduler, of which a thread sees that of its CPU, without locks or atomic operations: D8
/// of the house plan.
///
/// It is shown to one thread at a time, which is in a critical section. So what changes in it is a `Cell`, a `RefCell` or the
/// like; `T` need not be `Sync`.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use core::cell::Cell;
/// use std::sync::Arc;
/// # use dfly_hal::{CpuId, ThreadWait};
/// use dfly_lwkt::{Config, PerCpu, host::Machine};
///
/// let machine = Machine::start(2, Config::default())?;
/// let packets = Arc::new(PerCpu::new(machine.scheduler(), |_| Cell::new(0_u64)));
/// for cpu in [CpuId(0), CpuId(1), CpuId(1)] {
///     let packets = packets.clone();
///     let reader = machine.scheduler().spawn(cpu, "reader".into(), move |cx| {
///         let section = cx.critical();
///         let mine = packets.with(&section);
///         mine.set(mine.get() + 1);
///     })?;
///     reader.join(&mut ThreadWait::new())?;
/// }
/// # while Arc::strong_count(&packets) > 1 {}
/// let packets = Arc::into_inner(packets).into_iter().flat_map(PerCpu::into_values);
/// assert_eq!(packets.map(Cell::into_inner).collect::<Vec<_>>(), [1, 2]);
/// # }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct PerCpu<T> {
    scheduler: &'static Scheduler,
    values: Box<[Own<T>]>,
}

/// On a line of its own: no CPU waits for what another one does to its value.
#[repr(align(128))]
struct Own<T>(UnsafeCell<T>);

// SAFETY: a value is lent to threads of one CPU only, each of which is in a critical section as long as it has it, so
// one after the other; so it is sent. Who owns all of this reaches the others.
unsafe impl<T: Send> Sync for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// Makes a value for each CPU. Allocates.
    pub fn new(scheduler: &'static Scheduler, mut value: impl FnMut(CpuId) -> T) -> Self {
        let cpus = (0..scheduler.cpu_count()).map(|id| CpuId(id as u32));
        Self { scheduler, values: cpus.map(|id| Own(UnsafeCell::new(value(id)))).collect() }
    }

    /// The value of the CPU that the thread is on, for as long as it stays there undisturbed.
    ///
    /// # Panics
    /// If the thread is one of another scheduler.
    #[inline]
    #[track_caller]
    pub fn with<'c>(&'c self, section: &'c Crit<'_>) -> &'c T {
        let cpu = section.on();
        let mine = self.values.get(cpu.id().index()).filter(|_| ptr::eq(cpu.scheduler(), self.scheduler));
        let Some(mine) = mine else { foreign() };
        // SAFETY: the section is of a thread that runs on this CPU of this scheduler, and nothing else does before it ends.
        // Who has `&mut self` borrows nothing of it to anybody here.
        mine.0.with(|value| unsafe { &*value })
    }

    /// The value of a CPU, if there is one: `&mut self` proves that no thread has it.
    pub fn get_mut(&mut self, cpu: CpuId) -> Option<&mut T> {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.values.get_mut(cpu.index()).map(|own| own.0.with_mut(|value| unsafe { &mut *value }))
    }

    /// All values, in the order of the CPUs.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.values.into_iter().map(|own| own.0.into_inner())
    }
}

#[cold]
#[track_caller]
fn foreign() -> ! {
    panic!("a value of each CPU of one scheduler was asked for by a thread of another one")
}

impl<T> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu").field("cpus", &self.values.len()).finish_non_exhaustive()
    }
}
