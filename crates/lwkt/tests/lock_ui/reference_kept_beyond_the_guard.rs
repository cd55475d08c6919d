use dfly_lwkt::lock::{Mtx, Spinlock};

fn main() {
    let spinlock = Spinlock::new(1);
    let guard = spinlock.lock_shared();
    let kept: &u32 = &guard;
    let whole = guard.try_upgrade();
    assert_eq!(*kept, 1);
    drop(whole);

    let mtx = Mtx::new(1);
    let mut guard = mtx.try_lock().unwrap();
    let kept = &mut *guard;
    let share = guard.downgrade();
    *kept = 2;
    drop(share);
}
