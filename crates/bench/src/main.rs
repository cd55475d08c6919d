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

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::harness::Effort;

/// Compare with peers in the same run.
#[derive(Parser)]
#[command(name = "dfly-bench")]
struct Arguments {
    /// Fewer rounds, smaller files
    #[arg(long)]
    quick: bool,
    /// This part alone
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Crc,
    Locks,
    Tokens,
    Sleep,
    Ipi,
    Ports,
    Read,
}

fn main() -> Result<()> {
    let Arguments { quick, only } = Arguments::parse();
    let effort = if quick { Effort::Quick } else { Effort::Full };
    harness::stay_on_one_cpu();
    for &part in Part::value_variants() {
        match part {
            _ if only.is_some_and(|only| only != part) => {}
            Part::Crc => crc::bench(effort),
            Part::Locks => locks::bench(effort),
            Part::Tokens => tokens::bench(effort)?,
            Part::Sleep => sleep::bench(effort)?,
            Part::Ipi => ipi::bench(effort),
            Part::Ports => ports::bench(effort)?,
            Part::Read => read::bench(effort)?,
        }
    }
    Ok(())
}
