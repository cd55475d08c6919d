use dfly_lwkt::lock::UpdateLock;

fn main() {
    let lock = UpdateLock::new(1);
    *lock.update() = 2;
    lock.read(|n| *n = 3);
}
