//! Locks that nobody else wants: bar L8.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_hal::ThreadWait;
use dfly_hal::sync::{Lock, WaitLock};
use dfly_lwkt::lock::{Lockmgr, Mtx, Request, Serializer, Spinlock, UpdateLock};

use crate::harness::{Bar, Effort, Group, Unit};

/// An operation of the table is so many pairs, so that calling it weighs nothing.
const PAIRS: u32 = 100;

fn pairs(mut pair: impl FnMut()) -> impl FnMut() {
    move || (0..PAIRS).for_each(|_| pair())
}

pub(crate) fn bench(effort: Effort) {
    exclusive(effort);
    shared(effort);
}

fn exclusive(effort: Effort) {
    let wait = Request::wait();
    let (std_mutex, spin_mutex) = (std::sync::Mutex::new(0), spin::Mutex::<_>::new(0));
    let (pl_mutex, pl_rwlock) = (parking_lot::Mutex::new(0), parking_lot::RwLock::new(0));
    let (lock, long) = (Lock::new(0), WaitLock::new(0));
    let (spinlock, serializer) = (Spinlock::new(0), Serializer::new(0));
    let (mtx, lockmgr) = (Mtx::new(0), Lockmgr::new(0));
    let [mut w1, mut w2, mut w3, mut w4] = [(); 4].map(|()| ThreadWait::new());

    let mut group = Group::new(format!("{PAIRS} x lock, add, unlock, uncontended"), Unit::Operation);
    group.add("std Mutex", pairs(|| *std_mutex.lock().unwrap_or_else(|e| e.into_inner()) += 1));
    group.add("parking_lot Mutex", pairs(|| *pl_mutex.lock() += 1));
    let write = group.add("parking_lot RwLock, write", pairs(|| *pl_rwlock.write() += 1));
    let spin = group.add("spin Mutex", pairs(|| *spin_mutex.lock() += 1));
    group.add("hal Lock", pairs(|| *lock.lock() += 1));
    group.add("hal WaitLock", pairs(|| *long.lock(&mut w1) += 1));
    let ours = group.add("Spinlock", pairs(|| *spinlock.lock() += 1));
    group.ratio(ours, spin, Bar::TimeAtMost(1.05), "L8");
    let ours = group.add("Mtx", pairs(|| *mtx.lock(&mut w2) += 1));
    group.ratio(ours, write, Bar::TimeAtMost(1.0), "L8");
    let lockmgr = || {
        if let Ok(mut n) = lockmgr.exclusive(wait, &mut w3) {
            *n += 1;
        }
    };
    let ours = group.add("Lockmgr", pairs(lockmgr));
    group.ratio(ours, write, Bar::TimeAtMost(1.0), "L8");
    let ours = group.add("Serializer", pairs(|| *serializer.enter(&mut w4) += 1));
    group.ratio(ours, write, Bar::None, "no bar");
    group.run(effort);
}

fn shared(effort: Effort) {
    let wait = Request::wait();
    let (std_rwlock, spin_rwlock) = (std::sync::RwLock::new(0), spin::RwLock::<_>::new(0));
    let pl_rwlock = parking_lot::RwLock::new(0);
    let (spinlock, update) = (Spinlock::new(0), UpdateLock::new(AtomicU64::new(0)));
    let (mtx, lockmgr) = (Mtx::new(0), Lockmgr::new(0));
    let [mut w1, mut w2] = [(); 2].map(|()| ThreadWait::new());
    let [mut a, mut b, mut c, mut d, mut e, mut f] = [0_u64; 6];

    let mut group = Group::new(format!("{PAIRS} x lock shared, read, unlock, uncontended"), Unit::Operation);
    group.add("std RwLock", pairs(|| a += *std_rwlock.read().unwrap_or_else(|e| e.into_inner())));
    let read = group.add("parking_lot RwLock", pairs(|| b += *pl_rwlock.read()));
    group.add("spin RwLock", pairs(|| c += *spin_rwlock.read()));
    let ours = group.add("Spinlock", pairs(|| d += *spinlock.lock_shared()));
    group.ratio(ours, read, Bar::TimeAtMost(1.0), "L8");
    let ours = group.add("Mtx", pairs(|| e += *mtx.lock_shared(&mut w1)));
    group.ratio(ours, read, Bar::TimeAtMost(1.0), "L8");
    let ours = group.add("Lockmgr", pairs(|| f += lockmgr.shared(wait, &mut w2).map_or(0, |n| *n)));
    group.ratio(ours, read, Bar::TimeAtMost(1.0), "L8");
    let ours = group.add("UpdateLock, read", pairs(|| _ = update.read(|n| n.load(Relaxed))));
    group.ratio(ours, read, Bar::None, "no bar");
    group.run(effort);
}
