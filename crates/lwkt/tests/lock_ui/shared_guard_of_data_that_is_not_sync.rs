use std::cell::Cell;

use dfly_lwkt::lock::{Lockmgr, Mtx, Spinlock};

fn main() {
    let spinlock = Spinlock::new(Cell::new(1));
    spinlock.lock().set(2);
    let _ = spinlock.lock_shared();
    let _ = spinlock.lock().downgrade();
    let mtx = Mtx::new(Cell::new(1));
    let _ = mtx.try_lock_shared();
    let _ = mtx.acquire_shared();
    let _ = mtx.try_lock().unwrap().downgrade();
    let lockmgr = Lockmgr::new(Cell::new(1));
    let _ = lockmgr.try_shared();
}
