//! `hammer salvage`: what can still be read of a damaged file system, as files of the host.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use dfly_hal::ThreadWait;
use dfly_hammer::salvage::{Event, Options, Salvage};
use dfly_vfs::{FileSystem, Kind};
use indicatif::ProgressBar;

use crate::Incomplete;
use crate::cli::SalvageArgs;
use crate::copy::{Existing, copy_tree};
use crate::disk::{Disk, names, open_volumes};
use crate::progress::{self, Stdout};
use crate::text::{count, printable};
use crate::visit::{Visit, Visitor};

pub(crate) fn run(args: &SalvageArgs) -> Result<()> {
    let target = args.target.as_path();
    ensure!(is_free(target)?, "{}: is there, and not an empty directory", target.display());
    let devices = open_volumes(&args.volumes)?;
    let mut wait = ThreadWait::new();
    let bar = progress::count("records", Stdout::Unused);
    let fs = Salvage::open(&devices, &Options::default(), &mut wait, &mut |event| tell(&bar, args, event));
    bar.finish_and_clear();
    let fs = fs.with_context(|| names(&args.volumes))?;
    let report = fs.report();
    if !report.tree_is_whole {
        let found = count(report.records, "record", "records");
        let looked = count(report.leaves, "leaf", "leaves");
        crate::complain(&anyhow!("the tree is broken: {found} found in {looked}, some may be out of date"));
    }
    if report.left_out > 0 {
        crate::complain(&anyhow!("{} did not fit into memory", count(report.left_out, "record", "records")));
    }
    ensure!(report.records > 0, "{}: nothing was found", names(&args.volumes));
    let mut disk = Disk { fs, wait };
    let root = disk.attr(disk.fs.root())?;
    let copied = copy_tree(&mut disk, root, target, Existing::Keep, None);
    let whole = say_what_is_lost(&mut disk)?;
    copied?;
    if report.tree_is_whole && report.left_out == 0 && whole { Ok(()) } else { Err(Incomplete.into()) }
}

fn is_free(target: &Path) -> Result<bool> {
    match std::fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        Err(e) => Err(e).with_context(|| target.display().to_string()),
    }
}

fn tell(bar: &ProgressBar, args: &SalvageArgs, event: Event) {
    match event {
        Event::Progress(report) => bar.set_position(report.leaves),
        Event::HeaderIgnored(index) => {
            let name = args.volumes.volumes.0.get(index).map(|p| p.display().to_string()).unwrap_or_default();
            bar.suspend(|| crate::complain(&anyhow!("volume {name}: the header is broken, and not used")));
        }
        Event::UndoIgnored(e) => {
            let e = anyhow::Error::new(e).context("the UNDO log is broken, and not used");
            bar.suspend(|| crate::complain(&e));
        }
        _ => {}
    }
}

/// Names each file that has bytes which are lost, and each object without its inode. Returns whether there is none.
fn say_what_is_lost(disk: &mut Disk<Salvage>) -> Result<bool> {
    let root = disk.attr(disk.fs.root())?;
    let mut visitor = Visitor::new(root);
    let mut whole = true;
    while let Some(visit) = visitor.next(disk) {
        let Visit::Node { attr, .. } = visit else { continue };
        let path = || printable(visitor.path()).to_string();
        if !disk.fs.has_inode(&mut disk.wait, attr.node) {
            whole = false;
            crate::complain(&anyhow!("{}: its attributes are lost", path()));
        }
        if attr.kind != Kind::Regular {
            continue;
        }
        for Range { start, end } in disk.fs.lost(&mut disk.wait, attr.node) {
            whole = false;
            crate::complain(&anyhow!("{}: bytes {start} to {end} are lost, and zero in the copy", path()));
        }
    }
    Ok(whole)
}
