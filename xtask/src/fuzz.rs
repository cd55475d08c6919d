//! The fuzz targets, built with libFuzzer's instrumentation and run from the corpus that the project keeps.
//!
//! The flags are those of `cargo fuzz`, which works in `fuzz/` as well; setting them here saves its installation.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    project::{Project, names},
    run::Run,
    toolchain,
};

const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1 \
    -Cdebug-assertions -Coverflow-checks";

/// An input that takes longer is a finding: bad input gets its error quickly.
const SLOWEST_INPUT_SECONDS: u32 = 5;

/// Memory in use above this is a finding.
const MOST_MEMORY_MIB: u32 = 2048;

pub(crate) fn run(project: &Project, seconds: u32) -> Result<()> {
    toolchain::toolchain("nightly", &[])?;
    let (fuzz, target_dir, host) =
        (project.root.join("fuzz"), project.target.join("fuzz"), toolchain::host("nightly")?);
    let targets = names(&fuzz.join("fuzz_targets"), |path| {
        path.extension().is_some_and(|e| e == "rs").then(|| path.file_stem())?
    })?;
    ensure!(!targets.is_empty(), "no fuzz target");

    project
        .cargo_of("nightly", "build --release --bins --manifest-path fuzz/Cargo.toml --target")
        .arg(&host)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &target_dir)
        .run()?;
    for target in targets {
        let binary = target_dir.join(&host).join("release").join(&target);
        fuzz_one(&binary, &fuzz.join("corpus").join(&target), &target_dir, seconds)
            .with_context(|| target)?;
    }
    Ok(())
}

/// New inputs go to the target directory, `kept` is only read.
fn fuzz_one(binary: &Path, kept: &Path, target_dir: &Path, seconds: u32) -> Result<()> {
    let inputs = fs::read_dir(kept).map(Iterator::count).unwrap_or(0);
    ensure!(inputs > 0, "no corpus in {}", kept.display());
    let name = binary.file_name().context("no name")?;
    let (found, crashes) = (target_dir.join("corpus").join(name), target_dir.join("crashes").join(name));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&crashes)?;
    let log = target_dir.join(name).with_extension("log");
    let ran = Run::new(binary)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SLOWEST_INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MOST_MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .words("-max_len=1024 -len_control=0 -print_final_stats=1 -verbosity=0")
        .arg(&found)
        .arg(kept)
        .run_logged(&log);
    let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if let Err(error) = ran {
        eprintln!("{log}");
        return Err(error);
    }
    let executed = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executed: usize = executed.context("no statistics")?.trim().parse()?;
    ensure!(executed > inputs, "{executed} inputs ran, of {inputs} in the corpus");
    println!("{}: {executed} inputs, no finding", name.display());
    Ok(())
}
