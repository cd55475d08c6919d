//! The golden sessions on the other platform, `examples/pc64` in QEMU: the same facts, and the same words as here.
//!
//! `cargo xtask machine` runs it. `DFLY_XTASK` names the program that boots QEMU by `qemu`.

mod session;

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dfly_golden::Golden;
use session::{Session, boot_time, disks, vkernel, without_kernel_messages};

/// Something of everything: QEMU takes its time.
const IMAGES: &[&str] = &["basic", "history", "pfs", "multivol"];

/// The same through another driver.
const BY_AHCI: &[&str] = &["basic", "multivol"];

/// A machine that takes longer is ended.
const LONGEST: Duration = Duration::from_secs(240);
/// Boot to shell, by the kernel's clock.
const LONGEST_BOOT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.test("pc64 boots in no time", boot);
        suite.each("pc64 shows what the manifest says, as vkernel does", IMAGES, facts);
        suite.each("pc64 shows what the manifest says by AHCI, as vkernel does", BY_AHCI, facts_by_ahci);
    })
}

fn boot(golden: &Golden) -> Result<()> {
    let start = Instant::now();
    let output = pc64("nvme", &golden.volumes("multivol")?, "true\n")?;
    let (all, boot) = (start.elapsed(), boot_time(&output).context("no kernel message")?);
    // Cargo, which looks whether the kernel is built, and QEMU with its firmware are in the first.
    println!("start to end of QEMU {} ms, boot to shell {} ms", all.as_millis(), boot.as_millis());
    ensure!(boot < LONGEST_BOOT, "boot to shell took {boot:?}");
    Ok(())
}

fn facts(golden: &Golden, image: &str) -> Result<()> {
    facts_by("nvme", golden, image)
}

fn facts_by_ahci(golden: &Golden, image: &str) -> Result<()> {
    facts_by("ahci", golden, image)
}

fn facts_by(kind: &str, golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let views = manifest.views();
    let session = Session::new(&disks(&manifest, kind), &views);
    let volumes = golden.volumes(image)?;

    let output = pc64(kind, &volumes, &session.script())?;
    let lines = without_kernel_messages(&output);
    session.check(&lines)?;

    let here = vkernel(kind, &volumes, &session.script())?;
    let here = without_kernel_messages(&here);
    for (number, (there, here)) in lines.iter().zip(&here).enumerate() {
        ensure!(
            there == here,
            "line {}:\npc64    {}\nvkernel {}",
            number + 1,
            there.escape_ascii(),
            here.escape_ascii()
        );
    }
    ensure!(lines.len() == here.len(), "{} lines on pc64, {} here", lines.len(), here.len());
    Ok(())
}

/// Runs `script` in QEMU with disks of that kind, which must end well, and returns what came over the serial line.
fn pc64(kind: &str, volumes: &[PathBuf], script: &str) -> Result<Vec<u8>> {
    let Some(xtask) = env::var_os("DFLY_XTASK") else {
        bail!("DFLY_XTASK names no program to boot QEMU with: run `cargo xtask machine`");
    };
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(script.as_bytes())?;
    let mut command = Command::new(xtask);
    command.arg("qemu").arg(format!("--{kind}")).args(volumes).arg("--script").arg(file.path());
    command.arg("--timeout").arg(LONGEST.as_secs().to_string());
    let output = command.output()?;
    let last = output.stdout.rsplit(|&b| b == b'\n').take(8).map(|l| l.escape_ascii().to_string());
    let last: Vec<_> = last.collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}:\n{stderr}\nthe last lines, backwards:\n{}",
        output.status,
        last.join("\n")
    );
    Ok(output.stdout)
}
