//! Torture of the scheduler, on host threads and on the machine in QEMU: `crates/torture`.

use std::{
    env,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};

use crate::{project::Project, qemu, toolchain};

/// Storms against the scheduler.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long it takes: half of it on the host, half in QEMU
    #[arg(long, default_value_t = 2, value_name = "N")]
    minutes: u32,
    /// In QEMU only
    #[arg(long, conflicts_with = "host")]
    qemu: bool,
    /// On the host only
    #[arg(long)]
    host: bool,
    /// What decides about orders; another one each time if not given
    #[arg(long)]
    seed: Option<u64>,
}

/// What `ci` does.
pub(crate) const CI: Options = Options { minutes: 2, qemu: false, host: false, seed: None };

/// How many CPUs there are, for half of the time each.
const CPUS: [u32; 2] = [2, 4];

pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seed = options.seed.unwrap_or_else(now);
    let places = if options.qemu || options.host { 1 } else { 2 };
    let seconds = (options.minutes.max(1) * 60) / places / CPUS.len() as u32;
    if !options.qemu {
        for cpus in CPUS {
            let words = format!("--seconds {seconds} --cpus {cpus} --seed {seed}");
            project.cargo(&format!("run --release -p dfly-torture --example torture -- {words}")).run()?;
        }
    }
    if !options.host {
        toolchain::program("qemu-system-x86_64", "qemu-system-x86")?;
        qemu::build(project)?;
        for cpus in CPUS {
            machine(cpus, seconds, seed)?;
        }
    }
    Ok(())
}

fn machine(cpus: u32, seconds: u32, seed: u64) -> Result<()> {
    // It watches itself; this is for a machine that is stuck as a whole.
    let limit = 2 * seconds + 300;
    let status = Command::new(env::current_exe()?)
        .args(["qemu", "--cpus", &cpus.to_string(), "--timeout", &limit.to_string()])
        .args(["--append", &format!("torture={seconds} seed={seed}")])
        .status()?;
    ensure!(status.success(), "torture of {cpus} CPUs in QEMU, seed {seed}: {status}");
    Ok(())
}
