//! DragonFly's locks.
//!
//! | lock | DragonFly's name | may block? | from an interrupt? | recursion | order |
//! |---|---|---|---|---|---|
//! | [`Spinlock`] | `spin_lock`, `spin_lock_shared` | spins | only `try_*` | no | who waits to write before who comes to read |
//! | [`UpdateLock`] | `spin_lock_update`, `spin_access_start` | spins | no | no | a reader writes nothing, and looks again |
//! | [`Serializer`] | `lwkt_serialize_*` | yes | no, its thread: `handler_*` | no | arrival |
//! | [`Mtx`] | `mtx_lock`, `mtx_lock_sh`, `mtx_link` | yes | no | by the guard | arrival |
//! | [`Lockmgr`] | `lockmgr` | yes | no | by the guard | arrival, who upgrades first |
//!
//! Which one? A few instructions, no call of somebody else's code: a spinlock. A device and the handler of its interrupt:
//! a serializer. Data that is held while its holder sleeps: a mtx. The same with upgrades, cancelled waits or waits that
//! fail: lockmgr. Broad protection that may be given up where its thread blocks: a token, which is no lock.
//!
//! ```
//! use dfly_hal::ThreadWait;
//! use dfly_lwkt::lock::Mtx;
//!
//! static NAMES: Mtx<[&str; 2]> = Mtx::named("names", ["a", "b"]);
//! let mut w = ThreadWait::new();             // or an LWKT thread's `Cx`
//!
//! let names = NAMES.lock_shared(&mut w);
//! let more = names.again();                  // never waits, even with a writer in the queue
//! assert_eq!(more[1], "b");
//! drop((names, more));
//! NAMES.lock(&mut w)[1] = "c";
//! ```
//!
//! # What holds for all of them
//!
//! - **The data is inside.** A shared guard gives `&T` and wants `T: Sync`, an exclusive one gives `&mut T`.
//! - **The guard owns the lock**, not its thread. To take a lock again that one has, one asks the guard (`again`); asking
//!   the lock waits for oneself. Guards stay on their thread; [`ExclusiveGuard::detach`] makes one that may leave.
//! - **Forgetting** a guard or a future is safe: the lock stays taken, or stays with the forgotten place in its queue.
//! - **A wait can be given up** by a deadline, by dropping its future, by an abort. What it had been given by then goes on
//!   to the next in the queue, and nothing is lost.
//! - **Nothing is allocated.** A waiter's node is in its pinned future.
//! - **Blocking takes `w: &mut dyn Wait`**, so that a thread that blocks here gives up its tokens, and the compiler knows.
//!   There is no trait over these locks: behind `&self` it could not say so.
//! - **A lock tells where it was taken** ([`Site`]): an error, the report of a spinlock that does not come free, and
//!   `Debug` name the lock and that place.
//!
//! A spinlock keeps its thread from being preempted; the others disable nothing while they are held. A thread that
//! blocks with a spinlock held is a mistake, which the scheduler does not look for: whoever wants the lock next spins.
//!
//! Not here: the spinning flavour of mtx (take a [`Spinlock`]).

mod acquire;
mod error;
mod guard;
mod lockmgr;
mod mtx;
mod rw;
mod serializer;
mod site;
mod spin;
mod update;

pub use acquire::{Acquire, Exclusive, Mode, Shared};
pub use error::{Cause, LockError, NotUpgraded};
pub use guard::{Detached, ExclusiveGuard, SharedGuard};
pub use lockmgr::{Lockmgr, Request, Upgraded};
pub use mtx::Mtx;
pub use rw::{Holders, Status};
pub use serializer::{NotRun, Serializer, SerializerGuard};
pub use site::Site;
pub use spin::{SpinGuard, SpinSharedGuard, Spinlock};
pub use update::{UpdateGuard, UpdateLock};

/// A function that is `const`, except under loom, whose atomics are made at run time.
macro_rules! const_fn {
    ($(#[$attr:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attr])*
        $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$attr])*
        $vis fn $($rest)*
    };
}
pub(crate) use const_fn;
