//! The shell on the golden images: everything that their manifests say comes out of it.

mod session;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use dfly_golden::Golden;
use session::{IMAGES, Session, disks, without_kernel_messages};

fn main() -> ExitCode {
    dfly_golden::run(|suite| suite.each("the shell shows what the manifest says", IMAGES, facts))
}

fn facts(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let views = manifest.views();
    ensure!(!views.is_empty());
    let session = Session::new(&disks(&manifest), &views);
    let output = session::vkernel(&golden.volumes(image)?, &session.script())?;
    session.check(&without_kernel_messages(&output))
}
