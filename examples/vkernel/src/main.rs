//! The command `vkernel`: boots the kernel in this process.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser;
use dfly_lwkt::host::name_overflows;
use kernel::{Session, Verdict};
use vkernel::{Adapter, Drive, Vkernel, console, exit_on_panic, restore_terminal, tour};

/// Boots the dfly kernel in this process: its CPUs are threads, its disks are files behind models of NVMe
/// controllers and AHCI adapters.
///
/// Without --nvme or --ahci its disk is a small HAMMER file system in memory, and it shows you round.
///
/// Exit codes: 0 the session ended well; 1 a command of the script failed, or the machine did not boot; 2 wrong usage;
/// 101 the kernel panicked.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Disk images, each behind a controller of its own: nvme0, nvme1, ... They are only read
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    nvme: Vec<PathBuf>,
    /// Disk images, each behind an AHCI adapter of its own: ahci0, ahci1, ... They are only read
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    ahci: Vec<PathBuf>,
    /// How many CPUs the machine has
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Run the commands of this file (-: of the standard input) instead of a shell, and end with their verdict
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// A shell instead of the tour where there is no --nvme or --ahci
    #[arg(long, conflicts_with_all = ["nvme", "ahci", "script"])]
    shell: bool,
}

fn main() -> ExitCode {
    exit_on_panic();
    if let Err(error) = name_overflows() {
        eprintln!("vkernel: whose stack overflows will not be said: {error}");
    }
    let verdict = run(&Args::parse());
    restore_terminal();
    match verdict {
        Ok(Verdict::Success) => ExitCode::SUCCESS,
        Ok(Verdict::Failure) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vkernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Verdict> {
    let drives = match args.nvme.as_slice() {
        [] if args.ahci.is_empty() => vec![Drive::volume(tour::disk()?)],
        images => images.iter().map(|path| open(path, Drive::open)).collect::<Result<_>>()?,
    };
    let adapters = args.ahci.iter().map(|path| open(path, Adapter::open)).collect::<Result<_>>()?;
    let tour = args.nvme.is_empty() && args.ahci.is_empty() && !args.shell && args.script.is_none();
    let terminal = if tour { tour::console()? } else { console()? };
    let session = match &args.script {
        Some(file) => Session::Script(script(file)?),
        None => Session::Interactive,
    };
    let machine = Vkernel { cpus: args.cpus, drives, adapters, terminal: Arc::new(terminal), session };
    Ok(machine.boot()?.join())
}

fn open<T>(path: &Path, open: fn(&Path) -> io::Result<T>) -> Result<T> {
    open(path).with_context(|| path.display().to_string())
}

fn script(file: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    if file.as_os_str() == "-" {
        io::stdin().lock().read_to_end(&mut text).context("the standard input")?;
    } else {
        text = fs::read(file).with_context(|| file.display().to_string())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
