use dfly_lwkt::lock::{Lockmgr, Mtx, Spinlock};

fn main() {
    let spinlock = Spinlock::new(1);
    *spinlock.lock_shared() = 2;
    let mtx = Mtx::new(1);
    *mtx.try_lock_shared().unwrap() = 2;
    let lockmgr = Lockmgr::new(1);
    *lockmgr.try_shared().unwrap() = 2;
}
