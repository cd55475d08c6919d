//! How the short lock keeps its thread on its CPU.

use core::marker::PhantomData;
use core::panic::Location;
// `core`'s atomic, not the facade's: this is set-up state of the machine, and loom's have no place in a static.
use core::sync::atomic::{AtomicPtr, Ordering};

/// How the embedding kernel keeps a thread from being preempted. Both functions nest and never block. Interrupt handlers
/// may come here, too, through code that is for any context: what they disable they enable before they return.
#[derive(Debug)]
pub struct PreemptionHooks {
    /// The calling thread is not preempted from here on. It is told the place of who wants that: whoever takes a lock. So
    /// a scheduler can name it if the thread blocks meanwhile.
    pub disable: fn(&'static Location<'static>),
    /// Undoes one `disable` of the same thread.
    pub enable: fn(),
}

/// Preemption hooks have been registered before; the first ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("preemption hooks are registered already")]
pub struct AlreadyRegistered;

static HOOKS: AtomicPtr<PreemptionHooks> = AtomicPtr::new(core::ptr::null_mut());

/// Registers how [`Lock`](super::Lock) disables preemption: once, for the whole machine, usually by the scheduler at
/// boot. Without it a lock disables nothing, which is right where nothing preempts: early boot, a polling kernel, a
/// host process.
///
/// A lock that is held at this moment is not disturbed: each guard undoes what it did itself.
///
/// ```
/// use dfly_hal::sync::{PreemptionHooks, register_preemption};
/// # use core::panic::Location;
/// fn enter(_: &'static Location<'static>) { /* the CPU's critical-section count += 1 */ }
/// fn leave() { /* count -= 1, and switch if somebody asked for it meanwhile */ }
/// register_preemption(&PreemptionHooks { disable: enter, enable: leave })?;
/// # Ok::<(), dfly_hal::sync::AlreadyRegistered>(())
/// ```
pub fn register_preemption(hooks: &'static PreemptionHooks) -> Result<(), AlreadyRegistered> {
    let new = core::ptr::from_ref(hooks).cast_mut();
    // Release: whoever sees the pointer sees what it points to (pairs with the Acquire load in `disable`).
    match HOOKS.compare_exchange(core::ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(_) => Err(AlreadyRegistered),
    }
}

/// Preemption of the calling thread is disabled while this lives: for the few instructions of a lock-free step that
/// others spin for. [`Lock`](super::Lock) does it by itself. It nests; thread context only; never block meanwhile.
///
/// It remembers who disabled it, so that hooks registered meanwhile are not called for it. It stays on its thread.
#[derive(Debug)]
pub struct NoPreemption {
    hooks: Option<&'static PreemptionHooks>,
    _here: PhantomData<*mut ()>,
}

impl NoPreemption {
    /// Disables preemption, if anybody [registered](register_preemption) how, in the name of the caller.
    #[inline]
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "a guard is taken, not defaulted")]
    pub fn new() -> Self {
        // SAFETY: the pointer is null or came from a `&'static PreemptionHooks` in `register_preemption`.
        let hooks = unsafe { HOOKS.load(Ordering::Acquire).as_ref() };
        if let Some(hooks) = hooks {
            (hooks.disable)(Location::caller());
        }
        Self { hooks, _here: PhantomData }
    }
}

impl Drop for NoPreemption {
    #[inline]
    fn drop(&mut self) {
        if let Some(hooks) = self.hooks {
            (hooks.enable)();
        }
    }
}
