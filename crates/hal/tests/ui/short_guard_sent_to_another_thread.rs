use dfly_hal::sync::Lock;

fn main() {
    let lock = Lock::new(1);
    let guard = lock.lock();
    std::thread::scope(|s| {
        s.spawn(move || drop(guard));
    });
}
