//! What a message carries must be able to change threads.

use dfly_msgport::{Body, Fifo, Handle, Own};
use std::cell::Cell;
use std::rc::Rc;

struct Local(Rc<u32>);

impl Body for Local {
    type Shared = ();
    type Key = ();
    fn orphaned(&mut self) {}
}

struct SharedCell;

impl Body for SharedCell {
    type Shared = Cell<u32>;
    type Key = ();
    fn orphaned(&mut self) {}
}

struct NotSync(Cell<u32>);

impl Body for NotSync {
    type Shared = ();
    type Key = ();
    fn orphaned(&mut self) {}
}

fn share<T: Sync>(_: &T) {}

fn share_what_is_not_sync(own: &Own<NotSync>, list: &Fifo<Own<NotSync>>) {
    share(own);
    share(list);
}

struct Mine;

impl Handle for Mine {
    type Body = NotSync;
}

fn main() {}
