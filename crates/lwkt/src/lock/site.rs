//! What a lock knows of itself, for whoever looks for a mistake.

use core::fmt;
use core::panic::Location;
use core::ptr;
// `core`'s atomics, not the facade's: nothing hangs on what they say, and loom need not look.
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A lock's name, where it was taken last, and how often somebody had to wait for it.
///
/// Callable from any context, and never blocks. What it says may be old by the time it is read.
pub struct Site {
    name: Option<&'static str>,
    taken_at: AtomicPtr<Location<'static>>,
    collisions: AtomicUsize,
}

impl Site {
    pub(crate) const fn new(name: Option<&'static str>) -> Self {
        Self { name, taken_at: AtomicPtr::new(ptr::null_mut()), collisions: AtomicUsize::new(0) }
    }

    /// The lock's name, if it has one.
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Where it was taken last, shared or exclusively; who has it now may be somebody else that shares it. `None` if
    /// never.
    pub fn taken_at(&self) -> Option<&'static Location<'static>> {
        let at = self.taken_at.load(Ordering::Relaxed);
        // SAFETY: it is null or was made of a `&'static Location`, which nobody ever writes to.
        unsafe { at.as_ref() }
    }

    /// How often it was found taken by somebody who wanted to wait for it. Wraps around.
    pub fn collisions(&self) -> usize {
        self.collisions.load(Ordering::Relaxed)
    }

    /// It was taken.
    #[inline]
    pub(crate) fn took(&self, at: &'static Location<'static>) {
        self.taken_at.store(ptr::from_ref(at).cast_mut(), Ordering::Relaxed);
    }

    /// It was found taken.
    pub(crate) fn collided(&self) {
        self.collisions.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Report { name: self.name, taken_at: self.taken_at() }.fmt(f)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("name", &self.name)
            .field("taken_at", &self.taken_at())
            .field("collisions", &self.collisions())
            .finish()
    }
}

/// `lock "names", last taken at src/main.rs:7:9`
pub(super) struct Report {
    pub(super) name: Option<&'static str>,
    pub(super) taken_at: Option<&'static Location<'static>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "lock \"{name}\"")?,
            None => f.write_str("a lock without a name")?,
        }
        match self.taken_at {
            Some(at) => write!(f, ", last taken at {at}"),
            None => f.write_str(", never taken"),
        }
    }
}
