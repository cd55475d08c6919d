//! The scheduler on the machines `virt` of QEMU's other architectures: `examples/virt`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    project::Project,
    run::{Run, Tally},
    toolchain,
};

/// What the image is built for.
pub(crate) const TARGETS: [&str; 2] = ["aarch64-unknown-none", "riscv64gc-unknown-none-elf"];

/// Arguments of QEMU, its exit status, and what the machine says.
const TRIES: [(&str, i32, &str); 6] = [
    ("-smp 1", 0, "every CPU has left the scheduler: ok"),
    ("-smp 2", 0, "every CPU has left the scheduler: ok"),
    ("-cpu max -smp 4", 0, "every CPU has left the scheduler: ok"),
    ("-append end=panic", 101, "src/selftest.rs:"),
    ("-append end=fault", 102, "address 0xf000000000"),
    ("-append end=overflow", 101, "(greedy) on cpu1 has overflowed its stack"),
];

/// Longer than any of them takes on a busy host.
const LIMIT: Duration = Duration::from_secs(120);

/// Sets a cargo command to work on the image, which is a workspace of its own: in its folder, where cargo finds how to boot.
pub(crate) fn in_workspace(project: &Project, cargo: Run) -> Run {
    cargo
        .dir(&project.root.join("examples/virt"))
        .env("CARGO_TARGET_DIR", project.target.join("virt"))
        .without_env("RUSTFLAGS")
}

/// Boots both machines.
pub(crate) fn run(project: &Project, tests: &mut Tally) -> Result<()> {
    toolchain::program("qemu-system-aarch64", "qemu-system-arm")?;
    toolchain::program("qemu-system-riscv64", "qemu-system-misc")?;
    toolchain::bare_targets()?;
    for target in TARGETS {
        in_workspace(project, project.cargo(&format!("build --release --target {target}"))).text()?;
        for (words, status, text) in TRIES {
            // QEMU's riscv64 of this age has no better CPU than its usual one.
            let words =
                if target.starts_with("riscv") { words.replace("-cpu max ", "") } else { words.into() };
            let cargo = project.cargo(&format!("run --quiet --release --target {target} -- {words}"));
            let ended = in_workspace(project, cargo).run_within(LIMIT)?;
            let is_right = ended.code == Some(status) && ended.stdout.contains(text);
            ensure!(
                is_right,
                "virt, {target} {words}: status {:?}, not {status}, or no `{text}`:\n{}",
                ended.code,
                ended.stdout
            );
            println!("virt, {target} {words}: ok");
            tests.passed += 1;
        }
    }
    Ok(())
}
