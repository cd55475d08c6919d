//! Every check of the project: `cargo xtask ci` runs them all, `cargo xtask <step>` runs one.
//!
//! A step installs the toolchains and programs that it needs, and fails where it cannot run.

mod build;
mod fuzz;
mod interleave;
mod machine;
mod mutations;
mod project;
mod qemu;
mod run;
mod source;
mod toolchain;
mod torture;
mod virt;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{project::Project, run::Tally};

/// The checks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Task {
    /// Run every check and print what each took
    Ci,
    /// Boot the kernel of examples/pc64 in QEMU, with disk images behind NVMe
    Qemu(qemu::Options),
    #[command(flatten)]
    Step(Step),
}

/// One check.
#[derive(Subcommand)]
enum Step {
    /// Sources and documents are plain ASCII
    Ascii,
    /// Relative links in documents lead to files
    Links,
    /// Unsafe code is only in the modules that are meant to have it
    Unsafe,
    /// rustfmt
    Fmt,
    /// clippy, warnings are errors
    Clippy,
    /// All tests with all features, and the libraries without any
    Test,
    /// The machine in QEMU keeps its promises, and its shell shows what it shows in a process
    Machine,
    /// The scheduler keeps its promises on aarch64 and riscv64, in QEMU
    Virt,
    /// rustdoc, warnings are errors
    Doc,
    /// Libraries and tools check with the oldest supported Rust
    Msrv,
    /// Libraries build for bare-metal targets
    Bare,
    /// The loom models of lock-free code
    Loom,
    /// Each patch in crates/*/mutations makes a loom model fail
    Mutations,
    /// Tests of the crates with unsafe code under Miri
    Miri,
    /// Storms of threads, tokens, locks, sleeps and interrupts against the scheduler, on the host and in QEMU
    Torture(torture::Options),
    /// Run each fuzz target for a short while, from the corpus that the project keeps
    Fuzz {
        /// How long to run each target
        #[arg(long, default_value_t = 30, value_name = "N")]
        seconds: u32,
    },
    /// Compare with peers in the same run; report the ratios beside their bars
    Bench {
        /// Fewer rounds, smaller files
        #[arg(long)]
        quick: bool,
    },
}

/// What `ci` runs: cheap checks first.
const CI: [(&str, Step); 17] = [
    ("ascii", Step::Ascii),
    ("links", Step::Links),
    ("unsafe", Step::Unsafe),
    ("fmt", Step::Fmt),
    ("clippy", Step::Clippy),
    ("test", Step::Test),
    ("machine", Step::Machine),
    ("virt", Step::Virt),
    ("doc", Step::Doc),
    ("msrv", Step::Msrv),
    ("bare", Step::Bare),
    ("loom", Step::Loom),
    ("mutations", Step::Mutations),
    ("miri", Step::Miri),
    ("torture", Step::Torture(torture::CI)),
    ("fuzz", Step::Fuzz { seconds: 15 }),
    ("bench", Step::Bench { quick: true }),
];

impl Step {
    fn run(&self, project: &Project, tests: &mut Tally) -> Result<()> {
        match self {
            Self::Ascii => source::ascii(project),
            Self::Links => source::links(project),
            Self::Unsafe => source::unsafe_code(project),
            Self::Fmt => build::fmt(project),
            Self::Clippy => build::clippy(project),
            Self::Test => build::test(project, tests),
            Self::Machine => machine::run(project, tests),
            Self::Virt => virt::run(project, tests),
            Self::Doc => build::doc(project),
            Self::Msrv => build::msrv(project),
            Self::Bare => build::bare(project),
            Self::Loom => interleave::loom(project, tests),
            Self::Mutations => mutations::run(project),
            Self::Miri => interleave::miri(project, tests),
            Self::Torture(options) => torture::run(project, options),
            Self::Fuzz { seconds } => fuzz::run(project, *seconds),
            Self::Bench { quick } => build::bench(project, *quick),
        }
    }
}

fn main() -> ExitCode {
    let project = Project::find();
    let passed = match Task::parse() {
        Task::Ci => ci(&project),
        Task::Qemu(options) => return boot(&project, &options),
        Task::Step(step) => step
            .run(&project, &mut Tally::default())
            .inspect_err(|error| eprintln!("error: {error:#}"))
            .is_ok(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the machine; its end is our exit status, and 2 says that it did not begin.
fn boot(project: &Project, options: &qemu::Options) -> ExitCode {
    match qemu::run(project, options) {
        Ok(end) => ExitCode::from(end as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs all steps, also after one failed, and ends with a table of them.
fn ci(project: &Project) -> bool {
    let (mut table, mut tests, mut failed) = (Vec::new(), Tally::default(), 0);
    let begin = Instant::now();
    for (name, step) in CI {
        println!("\n==== {name}");
        let (start, mut tally) = (Instant::now(), Tally::default());
        let result = step.run(project, &mut tally);
        let seconds = start.elapsed().as_secs_f32();
        let verdict = match &result {
            Ok(()) => String::from("ok"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        println!("==== {name}: {verdict} ({seconds:.1} s)");
        failed += usize::from(result.is_err());
        tests.add(tally);
        table.push((name, seconds, tally, verdict));
    }

    println!("\n{:10} {:>8}  {:24} result", "step", "seconds", "tests");
    for (name, seconds, tally, verdict) in table {
        println!("{name:10} {seconds:8.1}  {:24} {verdict}", tally.to_string());
    }
    println!("{:10} {:8.1}\n", "total", begin.elapsed().as_secs_f32());
    println!("tests: {} passed, {} failed, {} ignored", tests.passed, tests.failed, tests.ignored);
    println!("steps: {} passed, {failed} failed", CI.len() - failed);
    failed == 0
}
