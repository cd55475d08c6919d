//! The serializer: one at a time in a device, its interrupt handler included.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::ptr;

use dfly_hal::Wait;
use dfly_hal::sync::atomic::{AtomicBool, Ordering};
use dfly_hal::sync::hint;
use dfly_hal::sync::{WaitGuard, WaitLock};

use super::const_fn;
use super::site::Site;

/// So often an adaptive enter looks before it sleeps.
const LOOKS: u32 = 4096;

/// A gate in front of a device: its driver enters it, and the thread of its interrupt enters it to run the handler.
///
/// - Held across sleep. Handed over in order of arrival. Not recursive: entering twice waits for oneself.
/// - Thread context only, and not with a spinlock held. The interrupt itself does not enter: it wakes its thread, which
///   [calls the handler](Self::handler_call).
/// - The handler can be [disabled](Self::handler_disable), which does not nest.
///
/// ```
/// use dfly_hal::ThreadWait;
/// use dfly_lwkt::lock::{NotRun, Serializer};
///
/// static NIC: Serializer<u32> = Serializer::named("nic", 0);
/// let mut w = ThreadWait::new();
/// let mut nic = NIC.enter(&mut w);
/// assert_eq!(NIC.handler_try(|_| ()), Err(NotRun::Busy));
/// NIC.handler_disable();                                   // says the driver, which stops its device
/// *nic = 7;
/// drop(nic);
/// assert_eq!(NIC.handler_call(&mut w, |nic| *nic), Err(NotRun::Disabled));
/// ```
pub struct Serializer<T: ?Sized> {
    handler_disabled: AtomicBool,
    site: Site,
    lock: WaitLock<T>,
}

/// Why a handler was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRun {
    /// The handler is disabled.
    #[error("the handler is disabled")]
    Disabled,
    /// Somebody is in the serializer.
    #[error("somebody is in the serializer")]
    Busy,
}

impl<T> Serializer<T> {
    const_fn! {
        /// A free serializer around `data`, without a name, its handler enabled.
        pub fn new(data: T) -> Self {
            Self { handler_disabled: AtomicBool::new(false), site: Site::new(None), lock: WaitLock::new(data) }
        }
    }

    const_fn! {
        /// A free serializer around `data`, its handler enabled.
        pub fn named(name: &'static str, data: T) -> Self {
            Self { handler_disabled: AtomicBool::new(false), site: Site::new(Some(name)), lock: WaitLock::new(data) }
        }
    }

    /// The data, with the serializer taken apart.
    pub fn into_inner(self) -> T {
        self.lock.into_inner()
    }
}

impl<T: ?Sized> Serializer<T> {
    /// Enters, blocking through `w` until it is its turn. Dropping the guard exits.
    #[inline]
    #[track_caller]
    pub fn enter(&self, w: &mut dyn Wait) -> SerializerGuard<'_, T> {
        if let Some(guard) = self.try_enter() {
            return guard;
        }
        self.site.collided();
        self.entered(self.lock.lock(w), Location::caller())
    }

    /// Enters if nobody is in. Never waits.
    #[inline]
    #[track_caller]
    pub fn try_enter(&self) -> Option<SerializerGuard<'_, T>> {
        let at = Location::caller();
        self.lock.try_lock().map(|guard| self.entered(guard, at))
    }

    /// Enters; looks 4096 times before it blocks through `w`. For a holder that is expected to leave soon.
    #[track_caller]
    pub fn adaptive_enter(&self, w: &mut dyn Wait) -> SerializerGuard<'_, T> {
        for _ in 0..LOOKS {
            if let Some(guard) = self.try_enter() {
                return guard;
            }
            hint::spin_loop();
        }
        self.enter(w)
    }

    /// Enters all, the first one first. All who enter several name them in the same order.
    ///
    /// # Panics
    /// If one is named twice: it would wait for itself.
    #[track_caller]
    pub fn enter_all<'a, const N: usize>(
        all: [&'a Self; N],
        w: &mut dyn Wait,
    ) -> [SerializerGuard<'a, T>; N] {
        let mut rest = all.as_slice();
        while let Some((first, others)) = rest.split_first() {
            assert!(!others.iter().any(|other| ptr::eq(*first, *other)), "entered twice: {}", first.site);
            rest = others;
        }
        let at = Location::caller();
        all.map(|one| {
            let guard = one.enter(w);
            one.site.took(at);
            guard
        })
    }

    /// Enters all if nobody is in any of them; else in none.
    #[track_caller]
    pub fn try_enter_all<const N: usize>(all: [&Self; N]) -> Option<[SerializerGuard<'_, T>; N]> {
        let at = Location::caller();
        let mut free = true;
        let guards = all.map(|one| {
            let guard = if free { one.try_enter() } else { None };
            match guard {
                Some(_) => one.site.took(at),
                None => free = false,
            }
            guard
        });
        let entered = |guard| match guard {
            Some(guard) => guard,
            None => unreachable!("all of them were free"),
        };
        free.then(|| guards.map(entered))
    }

    /// The handler does not run from now on. It may be running, unless the caller is in the serializer; enter and exit
    /// to have seen its end.
    pub fn handler_disable(&self) {
        // Relaxed: who has entered since sees it by the order of the serializer.
        self.handler_disabled.store(true, Ordering::Relaxed);
    }

    /// The handler may run again. Doing so twice is doing so once.
    pub fn handler_enable(&self) {
        self.handler_disabled.store(false, Ordering::Relaxed);
    }

    /// The handler does not run.
    pub fn handler_is_disabled(&self) -> bool {
        self.handler_disabled.load(Ordering::Relaxed)
    }

    /// Enters, blocking through `w`, and runs `handler`, unless it is disabled by then: by the thread of the device's
    /// interrupt.
    ///
    /// # Errors
    /// [`NotRun::Disabled`].
    #[track_caller]
    pub fn handler_call<R>(&self, w: &mut dyn Wait, handler: impl FnOnce(&mut T) -> R) -> Result<R, NotRun> {
        if self.handler_is_disabled() {
            return Err(NotRun::Disabled);
        }
        self.run(self.enter(w), handler)
    }

    /// Runs `handler` if it is enabled and nobody is in.
    ///
    /// # Errors
    /// [`NotRun`].
    #[track_caller]
    pub fn handler_try<R>(&self, handler: impl FnOnce(&mut T) -> R) -> Result<R, NotRun> {
        if self.handler_is_disabled() {
            return Err(NotRun::Disabled);
        }
        self.run(self.try_enter().ok_or(NotRun::Busy)?, handler)
    }

    fn run<R>(
        &self,
        mut guard: SerializerGuard<'_, T>,
        handler: impl FnOnce(&mut T) -> R,
    ) -> Result<R, NotRun> {
        // Again: it may have been disabled by who was in before.
        if self.handler_is_disabled() { Err(NotRun::Disabled) } else { Ok(handler(&mut guard)) }
    }

    /// The data, without entering: `&mut self` proves that nobody is in.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    /// Its name, and where it was entered.
    pub fn site(&self) -> &Site {
        &self.site
    }

    #[inline]
    fn entered<'a>(&self, inner: WaitGuard<'a, T>, at: &'static Location<'static>) -> SerializerGuard<'a, T> {
        self.site.took(at);
        SerializerGuard { inner, _here: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for Serializer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serializer")
            .field("handler_disabled", &self.handler_is_disabled())
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl<T: Default> Default for Serializer<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Being in a [`Serializer`]. It stays on its thread.
#[must_use = "the serializer is exited where the guard is dropped"]
pub struct SerializerGuard<'a, T: ?Sized> {
    inner: WaitGuard<'a, T>,
    _here: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for SerializerGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for SerializerGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SerializerGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
