//! A job is completed once, what is under way is not written by its originator, and only at rest is it sent.

use dfly_msgport::{Body, Family, Job, Own};

struct Msg(u32);

impl Body for Msg {
    type Shared = ();
    type Key = ();
    fn orphaned(&mut self) {}
}

fn complete_twice(job: Job<Msg>) {
    job.complete();
    job.complete();
}

fn write_while_under_way(mut own: Own<Msg>) {
    let (job, pending) = own.waitable();
    own.0 = 1;
    drop((job, pending));
}

fn redirect_somebody_elses_completion(job: Job<Msg>) {
    let (mine, pending) = job.waitable();
    drop((mine, pending));
}

fn write_a_frozen_parent(family: &mut Family<Msg>) {
    family.0 = 1;
}

fn keep_a_reference(job: Job<Msg>) -> u32 {
    let inside = &job.0;
    job.complete();
    *inside
}

fn main() {}
