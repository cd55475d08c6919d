//! The shell on the golden images: everything that their manifests say comes out of it.

mod session;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dfly_golden::{Golden, IMAGES};
use session::{Session, boot_time, disks, vkernel, without_kernel_messages};

/// The images whose manifest has no list of what a read-only mount shows.
const NOT_LISTED: &[&str] = &["btree-deep", "crash-in-recovery-1", "hugefile"];

/// From nothing to the shell.
const LONGEST_BOOT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        let listed: Vec<&str> = IMAGES.iter().copied().filter(|image| !NOT_LISTED.contains(image)).collect();
        suite.each("the shell shows what the manifest says", &listed, facts);
        suite.each("the shell shows what the manifest says, by AHCI", &["basic", "multivol"], facts_by_ahci);
        suite.each(
            "the shell shows what the manifest says, behind ports",
            &["basic", "multivol"],
            facts_behind_ports,
        );
        suite.test("a line that is missing or different is noticed", differences);
        suite.test("the machine boots in no time", boot);
    })
}

fn facts(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let views = manifest.views();
    ensure!(!views.is_empty());
    let session = Session::new(&disks(&manifest, "nvme"), &views);
    let output = vkernel("nvme", &golden.volumes(image)?, &session.script())?;
    session.check(&without_kernel_messages(&output))
}

fn facts_by_ahci(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let views = manifest.views();
    let session = Session::new(&disks(&manifest, "ahci"), &views);
    let output = vkernel("ahci", &golden.volumes(image)?, &session.script())?;
    session.check(&without_kernel_messages(&output))
}

/// The file system and each of its disks in threads of their own.
fn facts_behind_ports(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let views = manifest.views();
    let session = Session::new(&disks(&manifest, "nvme"), &views);
    let script = session.script();
    let behind_ports = script.replace("mount -r ", "mount -r -o port ");
    ensure!(behind_ports != script, "nothing is mounted");
    let output = vkernel("nvme", &golden.volumes(image)?, &behind_ports)?;
    session.check(&without_kernel_messages(&output))
}

fn differences(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("history")?;
    let views = manifest.views();
    let session = Session::new(&disks(&manifest, "nvme"), &views);
    let output = vkernel("nvme", &golden.volumes("history")?, &session.script())?;
    let lines = without_kernel_messages(&output);
    session.check(&lines)?;
    for (number, line) in lines.iter().enumerate() {
        let mut changed = lines.clone();
        changed.remove(number);
        ensure!(session.check(&changed).is_err(), "without line {number}: {}", line.escape_ascii());
        // What the manifest does not know may be anything.
        if line.ends_with(b" ..") || line.starts_with(b"total ") {
            continue;
        }
        let mut other = line.to_vec();
        other.extend(b"x");
        changed.insert(number, &other);
        ensure!(session.check(&changed).is_err(), "line {number}: {}", other.escape_ascii());
    }
    Ok(())
}

fn boot(golden: &Golden) -> Result<()> {
    let start = Instant::now();
    let output = vkernel("nvme", &golden.volumes("multivol")?, "true\n")?;
    let (all, boot) = (start.elapsed(), boot_time(&output).context("no kernel message")?);
    println!("start to end of the process {} ms, boot to shell {} us", all.as_millis(), boot.as_micros());
    ensure!(all < LONGEST_BOOT, "start, boot, shell and shutdown took {all:?}");
    Ok(())
}
