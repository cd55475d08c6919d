//! A device that swapped the bodies of two jobs could complete one and keep a piece of memory of the other.

use dfly_bio::{BioBody, BioJob};
use dfly_msgport::Job;

fn device(a: BioJob, b: BioJob) {
    let (a, b): (Job<BioBody>, Job<BioBody>) = (a.into(), b.into());
    std::mem::swap(&mut *a, &mut *b);
}

fn main() {}
