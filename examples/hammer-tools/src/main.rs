//! The `hammer` command: lists, reads and examines HAMMER disks on the host, today's contents and yesterday's.
//!
//! One file per subcommand; `disk` mounts, `visit` walks trees, `text` knows how things are written.
#![forbid(unsafe_code)]

mod cat;
mod cli;
mod copy;
mod disk;
mod fsck;
mod history;
mod info;
mod json;
mod ls;
mod newfs;
mod progress;
mod salvage;
mod show;
mod stat;
mod text;
mod tree;
mod undo;
mod visit;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// Some of what was asked for could not be done, and each of it has been reported.
#[derive(Debug)]
pub(crate) struct Incomplete;

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("incomplete")
    }
}

impl std::error::Error for Incomplete {}

fn main() -> ExitCode {
    // clap exits with 2 for wrong usage.
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            if !e.is::<Incomplete>() {
                complain(&e);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let out = &mut io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = match cli.command {
        Command::Ls(args) => ls::run(&args, out),
        Command::Tree(args) => tree::run(&args, out),
        Command::Cat(args) => cat::run(&args, out),
        Command::CpOut(args) => copy::run(&args),
        Command::Stat(args) => stat::run(&args, out),
        Command::Show(args) => show::run(&args, out),
        Command::History(args) => history::run(&args, out),
        Command::Info(args) => info::run(&args, out),
        Command::Newfs(args) => newfs::run(&args, out),
        Command::Salvage(args) => salvage::run(&args),
        Command::Undo(args) => undo::run(&args, out),
        // Its exit codes are those of fsck(8).
        Command::Fsck(args) => return Ok(fsck::run(&args, out)),
    };
    // What was found before an error is worth printing.
    let flushed = out.flush();
    done?;
    flushed?;
    Ok(ExitCode::SUCCESS)
}

/// Reports an error, all of its causes on one line.
pub(crate) fn complain(e: &anyhow::Error) {
    // Nothing can be done where even stderr is gone.
    let _ = writeln!(io::stderr(), "hammer: {}", text::printable(format!("{e:#}").as_bytes()));
}

/// Whether whoever reads our output has seen enough.
fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
