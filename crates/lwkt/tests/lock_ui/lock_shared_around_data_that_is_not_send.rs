use std::rc::Rc;

use dfly_lwkt::lock::{Mtx, Serializer, Spinlock, UpdateLock};

fn main() {
    fn shared<T: Sync>(_: &T) {}
    shared(&Spinlock::new(Rc::new(1)));
    shared(&Mtx::new(Rc::new(1)));
    shared(&Serializer::new(Rc::new(1)));
    // Its readers need no lock.
    shared(&UpdateLock::new(std::cell::Cell::new(1)));
}
