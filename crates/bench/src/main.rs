//! Cost beside peers: `cargo xtask bench`. Every contender of a group runs in every round, so that what disturbs the
//! machine disturbs all of them, and what is reported are ratios. Nothing here fails because of a time.

mod crc;
mod harness;
mod ipi;
mod locks;
mod ports;
mod read;
mod sleep;
mod tokens;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::harness::Effort;

/// Compare with peers in the same run.
#[derive(Parser)]
#[command(name = "dfly-bench")]
struct Arguments {
    /// Fewer rounds, smaller files
    #[arg(long)]
    quick: bool,
    /// One part: crc, locks, ipi, ports, tokens, sleep or read
    only: Option<String>,
}

/// A part by its name.
type Part = (&'static str, fn(Effort) -> Result<()>);

fn main() -> Result<()> {
    let Arguments { quick, only } = Arguments::parse();
    let effort = if quick { Effort::Quick } else { Effort::Full };
    let parts: [Part; 7] = [
        ("crc", |effort| Ok(crc::bench(effort))),
        ("locks", |effort| Ok(locks::bench(effort))),
        ("ipi", |effort| Ok(ipi::bench(effort))),
        ("ports", |effort| Ok(ports::bench(effort))),
        ("tokens", tokens::bench),
        ("sleep", sleep::bench),
        ("read", read::bench),
    ];
    harness::stay_on_one_cpu();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    ensure!(parts.iter().any(|(name, _)| wanted(name)), "no such part");
    parts.into_iter().filter(|(name, _)| wanted(name)).try_for_each(|(_, bench)| bench(effort))
}
