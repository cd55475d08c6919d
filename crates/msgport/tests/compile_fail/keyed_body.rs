//! A body that may point into another's memory is not lent for writing outside its crate: a receiver that could
//! swap two bodies could complete one job and keep the memory through the other.

mod block {
    pub struct Request(());
    pub struct Key(());

    impl dfly_msgport::Body for Request {
        type Shared = ();
        type Key = Key;
        fn orphaned(&mut self) {}
    }
}

use block::Request;
use dfly_msgport::{Family, Job, Own};

fn steal_through_deref(a: &mut Job<Request>, b: &mut Job<Request>) {
    std::mem::swap(&mut **a, &mut **b);
}

fn steal_with_a_forged_key(a: &mut Job<Request>, b: &mut Own<Request>) {
    std::mem::swap(a.body_mut(block::Key(())), b.body_mut(block::Key(())));
}

fn steal_with_a_foreign_key(a: &mut Own<Request>) -> &mut Request {
    a.body_mut(())
}

fn write_a_frozen_parent(f: &mut Family<Request>) -> &mut Request {
    &mut **f
}

fn main() {}
