//! The command `hammer-image`: writes a HAMMER disk image.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use dfly_hammer_image::{Format, demo, pack};

/// Writes a HAMMER disk image: a small demonstration, or a copy of a directory.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Files of the volumes, separated by colons; what they hold is lost.
    #[arg(value_name = "OUT[:OUT...]")]
    out: String,
    /// Packs this directory instead of the demonstration.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Size of each volume, with suffix K, M, G or T. Without it the directory fits.
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// Size of the UNDO FIFO, a multiple of 8M.
    #[arg(long, default_value = "8M", value_parser = size)]
    fifo: u64,
    /// Version of the file system.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=7))]
    fs_version: u32,
    /// Label of the file system.
    #[arg(long, default_value = "DEMO")]
    label: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let paths: Vec<&str> = args.out.split(':').collect();
    let needed = match &args.from {
        Some(directory) => (64 << 20) + args.fifo + bytes_below(directory)? * 17 / 16,
        None => 64 << 20,
    };
    let size = args.size.unwrap_or_else(|| needed.next_multiple_of(8 << 20));
    let format = Format {
        version: args.fs_version,
        label: args.label,
        volumes: vec![size; paths.len()],
        fifo_bytes: args.fifo,
        ..Format::default()
    };
    let fs = match &args.from {
        Some(directory) => pack(format, directory).with_context(|| directory.display().to_string())?,
        None => demo(format),
    };
    fs.finish()?.write_files(&paths).with_context(|| args.out.clone())?;
    Ok(())
}

/// Reads a size with an optional suffix.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// About how many bytes the objects below a directory take.
fn bytes_below(directory: &std::path::Path) -> anyhow::Result<u64> {
    let mut total = 0;
    let mut todo = vec![directory.to_path_buf()];
    while let Some(path) = todo.pop() {
        for entry in path.read_dir().with_context(|| path.display().to_string())? {
            let entry = entry?;
            let meta = entry.metadata()?;
            // Inode, name, their elements, and the last block.
            total +=
                meta.len().next_multiple_of(if meta.len() < 1 << 20 { 16 << 10 } else { 64 << 10 }) + 1024;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(total)
}
