//! Only the crate has the key to a request's body.

use dfly_bio::{BioBody, BioJob, BioKey};
use dfly_msgport::Job;

fn device(job: BioJob) {
    let mut job: Job<BioBody> = job.into();
    job.body_mut(BioKey(()));
}

fn main() {}
