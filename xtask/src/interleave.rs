//! Steps that look at orders of execution: loom's models and Miri.

use std::{fs, thread};

use anyhow::{Result, bail, ensure};

use crate::{
    project::Project,
    run::{Run, Tally},
    toolchain,
};

/// The crates with unsafe code, and what they have besides counters, whose figures Miri changes: it lets weak exchanges fail
/// now and then.
const WITH_UNSAFE: [(&str, &str); 6] = [
    ("dfly-ahci", "std,fake"),
    ("dfly-bio", "std,dfly-hal/fake,dfly-hal/conformance"),
    ("dfly-hal", "std,dfly-hal/fake,dfly-hal/conformance"),
    ("dfly-lwkt", "std,trace"),
    ("dfly-msgport", "std,dfly-hal/fake,dfly-hal/conformance"),
    ("dfly-nvme", "std,fake"),
];

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

/// Miri uses one CPU for a test binary, so the crates run side by side.
pub(crate) fn miri(project: &Project, tests: &mut Tally) -> Result<()> {
    toolchain::toolchain("nightly", &["miri", "rust-src"])?;
    project.cargo_of("nightly", "miri setup").run()?;
    let logs = project.target.join("miri-logs");
    fs::create_dir_all(&logs)?;
    let test = &|(package, features): (&'static str, &'static str)| {
        let words = format!("miri test --tests --no-fail-fast --features {features} -p {package}");
        let log = logs.join(package);
        (project.cargo_of("nightly", &words).run_logged(&log), log)
    };
    let ended = thread::scope(|scope| {
        let running = WITH_UNSAFE.map(|package| scope.spawn(move || test(package)));
        running.map(|package| package.join())
    });
    let mut failed = Vec::new();
    for ((package, _), ended) in WITH_UNSAFE.into_iter().zip(ended) {
        let Ok((result, log)) = ended else { bail!("the thread for {package} panicked") };
        let before = tests.total();
        for line in fs::read_to_string(log)?.lines() {
            println!("{line}");
            tests.read(line);
        }
        if result.is_err() || tests.total() == before {
            failed.push(package);
        }
    }
    ensure!(failed.is_empty(), "failed, or without any test: {}", failed.join(", "));
    Ok(())
}
