//! `hammer cat`: the bytes of a file.

use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use dfly_vfs::{Call, FileSystem, Last};

use crate::cli::CatArgs;
use crate::disk::Disk;
use crate::progress::{self, Stdout};

pub(crate) fn run(args: &CatArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let file = disk.find(&args.path, Last::Follow)?;
    let length = args.length.unwrap_or(u64::MAX).min(file.size.saturating_sub(args.offset));
    let bar = progress::bytes(Some(length), Stdout::Used);
    let mut written: io::Result<()> = Ok(());
    let read = disk.fs.read(&mut Call::new(&mut disk.wait), file.node, args.offset, length, &mut |bytes| {
        bar.inc(bytes.len() as u64);
        written = out.write_all(bytes);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    written?;
    read.with_context(|| args.path.display().to_string())?;
    Ok(())
}
