//! Torture on host threads: `cargo run --release -p dfly-torture --example torture -- --seconds 60 --cpus 2`.

use std::process::exit;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use clap::Parser;
use dfly_hal::{CpuId, ThreadWait, block_on, host};
use dfly_lwkt::host::Machine;
use dfly_lwkt::{Config, Priority, Spec};
use dfly_torture::{Plan, report, torture};

/// Storms against the scheduler.
#[derive(Parser)]
struct Options {
    /// For how long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many CPUs, which are host threads
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// What decides about orders; another one each time if not given
    #[arg(long)]
    seed: Option<u64>,
}

/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let Options { seconds, cpus, seed } = Options::parse();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let plan =
        Plan { seed: seed.unwrap_or_else(now), time: Duration::from_secs(seconds), patience: PATIENCE };
    // Refused if somebody has done it.
    dfly_lwkt::enable_preemption()?;
    // SAFETY: the storms' threads lend no thread-local while they wait, and this process keeps no address of one in them.
    let config = unsafe { Config::default().threads_may_move() };
    let machine = Machine::start(cpus, config)?;
    let scheduler = machine.scheduler();
    let spec = Spec::new("torture").priority(Priority::MAX);
    let mut main = scheduler.spawn(CpuId(0), spec, move |cx| {
        if let Err(why) = torture(cx, &plan, &mut |line| println!("{line}")) {
            println!("FAILED: {why}");
            exit(1);
        }
    })?;
    // Its CPU may be stuck, too.
    let deadline = host::now().saturating_add(plan.time + 20 * PATIENCE);
    match block_on(&mut ThreadWait::new(), &mut main, Some(deadline)) {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(anyhow!("seed {}: it does not end\n{}", plan.seed, report(scheduler))),
    }
}
