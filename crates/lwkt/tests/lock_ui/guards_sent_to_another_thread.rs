use dfly_lwkt::lock::{Mtx, Serializer, Spinlock, UpdateLock};

fn sent<T: Send>(_: T) {}

fn main() {
    let spinlock = Spinlock::new(1);
    sent(spinlock.lock());
    sent(spinlock.lock_shared());
    let update = UpdateLock::new(1);
    sent(update.update());
    let serializer = Serializer::new(1);
    sent(serializer.try_enter().unwrap());
    let mtx = Mtx::new(1);
    sent(mtx.try_lock().unwrap());
    sent(mtx.try_lock_shared().unwrap());
}
