use std::rc::Rc;

use dfly_lwkt::lock::{Detached, Mtx};

fn sent<T: Send>(_: T) {}

fn main() {
    let mtx = Mtx::new(1);
    sent(mtx.try_lock().unwrap().detach());
    let mtx = Mtx::new(Rc::new(1));
    let detached: Detached<'_, Rc<u32>> = mtx.try_lock().unwrap().detach();
    sent(detached);
    sent(mtx.acquire());
}
