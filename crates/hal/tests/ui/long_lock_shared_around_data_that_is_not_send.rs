use std::rc::Rc;

use dfly_hal::sync::WaitLock;

fn main() {
    fn shared<T: Sync>(_: T) {}
    shared(WaitLock::new(Rc::new(1)));
}
