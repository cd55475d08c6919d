//! `hammer stat`: all about one path.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use dfly_hammer::{ObjectId, View};
use dfly_vfs::{Kind, Last};

use crate::cli::PathArgs;
use crate::disk::Disk;
use crate::text::{self, printable};

pub(crate) fn run(args: &PathArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let attr = disk.find(&args.path, Last::Keep)?;
    let id = ObjectId::from(attr.node);
    let row = |out: &mut dyn Write, key: &str, value: &dyn Display| writeln!(out, "{key:>8}  {value}");
    row(out, "path", &printable(args.path.as_bytes()))?;
    if attr.kind == Kind::Symlink {
        let target = disk.readlink(attr.node).with_context(|| args.path.display().to_string())?;
        row(out, "target", &printable(&target))?;
    }
    row(out, "type", &text::kind(attr.kind))?;
    row(out, "object", &format_args!("{:#018x}", attr.fileid))?;
    row(out, "pfs", &format_args!("{:05}", id.pfs))?;
    row(
        out,
        "as of",
        match &id.view {
            View::Current => &"now",
            View::AsOf(tid) => tid,
        },
    )?;
    row(out, "mode", &format_args!("{:04o} {}", attr.mode, text::mode(&attr)))?;
    row(out, "owner", &format_args!("{}:{}", attr.uid, attr.gid))?;
    row(out, "flags", &text::flags(attr.flags))?;
    row(out, "links", &attr.nlink)?;
    match attr.kind {
        Kind::CharDevice | Kind::BlockDevice => {
            row(out, "device", &format_args!("{}, {}", attr.rdev.major, attr.rdev.minor))?;
        }
        _ => row(out, "size", &attr.size)?,
    }
    row(out, "modified", &text::exact_date(attr.mtime))?;
    row(out, "changed", &text::exact_date(attr.ctime))?;
    row(out, "accessed", &text::exact_date(attr.atime))?;
    Ok(())
}
