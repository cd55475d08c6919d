//! Bytes that a device looks at do not outlive its hold on the job.

use dfly_bio::BioJob;

fn device(mut job: BioJob) {
    let bytes = job.data_mut().and_then(|mut runs| runs.next());
    job.finish(Ok(()));
    bytes.map(|b| b[0] = 1);
}

fn main() {}
