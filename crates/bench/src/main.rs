//! Cost beside peers: `cargo xtask bench`. Every contender of a group runs in every round, so that what disturbs the
//! machine disturbs all of them, and what is reported are ratios. Nothing here fails because of a time.

mod crc;
mod harness;
mod ipi;
mod locks;
mod read;
mod tokens;

use anyhow::Result;
use clap::Parser;

use crate::harness::Effort;

/// Compare with peers in the same run.
#[derive(Parser)]
#[command(name = "dfly-bench")]
struct Arguments {
    /// Fewer rounds, smaller files
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let effort = if Arguments::parse().quick { Effort::Quick } else { Effort::Full };
    harness::stay_on_one_cpu();
    crc::bench(effort);
    locks::bench(effort);
    tokens::bench(effort)?;
    ipi::bench(effort);
    read::bench(effort)
}
