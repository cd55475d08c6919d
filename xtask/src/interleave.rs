//! Steps that look at orders of execution: loom's models and Miri.

use anyhow::{Result, ensure};

use crate::{
    project::Project,
    run::{Run, Tally},
    toolchain,
};

/// The crates with unsafe code.
const WITH_UNSAFE: &str = "-p dfly-hal -p dfly-msgport -p dfly-bio";

/// What they have besides counters, whose figures Miri changes: it lets weak exchanges fail now and then.
const FEATURES: &str = "std,dfly-hal/fake,dfly-hal/conformance";

/// Runs every model: the test binaries `tests/loom*.rs` of any crate.
pub(crate) fn loom(project: &Project, tests: &mut Tally) -> Result<()> {
    let mut found = false;
    for folder in project.crates()? {
        for test in project.loom_tests(&folder)? {
            found = true;
            loom_cargo(project, project.cargo(&format!("test --release -p dfly-{folder} --test {test}")))
                .run_tests(tests)?;
        }
    }
    ensure!(found, "no crate has a test named loom*");
    Ok(())
}

/// Sets a cargo command to build for loom, in a target directory of its own, fast to compile, with assertions.
pub(crate) fn loom_cargo(project: &Project, cargo: Run) -> Run {
    cargo
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_PREEMPTIONS", LOOM_MAX_PREEMPTIONS)
        .env("CARGO_TARGET_DIR", project.target.join("loom"))
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
}

/// How often a model may switch away from a thread that could go on: two find nearly every bug, and three take
/// minutes.
pub(crate) const LOOM_MAX_PREEMPTIONS: &str = "2";

pub(crate) fn miri(project: &Project, tests: &mut Tally) -> Result<()> {
    toolchain::toolchain("nightly", &["miri", "rust-src"])?;
    project
        .cargo_of("nightly", &format!("miri test --tests --no-fail-fast --features {FEATURES} {WITH_UNSAFE}"))
        .run_tests(tests)
}
