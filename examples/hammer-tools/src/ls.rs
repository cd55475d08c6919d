//! `hammer ls`: the names in a directory.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::{Context, Result};
use dfly_vfs::{Attr, Call, FIRST_COOKIE, FileSystem, Kind, Last, NodeId};

use crate::Incomplete;
use crate::cli::LsArgs;
use crate::disk::Disk;
use crate::text::{self, Names, printable};

/// Entries that are read at once.
const BATCH: usize = 512;

pub(crate) fn run(args: &LsArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let mut list = Listing { long: args.long, names: Names::for_stdout(), complete: true, out };
    // What is listed in full is a link itself, as ls(1) has it.
    let last = if args.long { Last::Keep } else { Last::Follow };
    let found = disk.find(&args.path, last)?;
    if found.kind != Kind::Directory {
        let path = std::os::unix::ffi::OsStrExt::as_bytes(args.path.as_os_str());
        list.line(&mut disk, path, &found)?;
    } else if args.unsorted {
        let mut cookie = Some(FIRST_COOKIE);
        while let Some(at) = cookie {
            let entries =
                read(&mut disk, &found, at, BATCH).with_context(|| args.path.display().to_string())?;
            cookie = entries.next;
            list.entries(&mut disk, &entries.found)?;
        }
    } else {
        let mut entries = read(&mut disk, &found, FIRST_COOKIE, usize::MAX)
            .with_context(|| args.path.display().to_string())?;
        entries.found.sort_unstable();
        list.entries(&mut disk, &entries.found)?;
    }
    if list.complete { Ok(()) } else { Err(Incomplete.into()) }
}

struct Entries {
    found: Vec<(Vec<u8>, NodeId)>,
    /// Where to go on, if there is more.
    next: Option<u64>,
}

fn read(disk: &mut Disk, dir: &Attr, cookie: u64, most: usize) -> dfly_vfs::Result<Entries> {
    let mut entries = Entries { found: Vec::new(), next: None };
    disk.fs.readdir(&mut Call::new(&mut disk.wait), dir.node, cookie, &mut |e| {
        entries.found.push((e.name.to_vec(), e.node));
        if entries.found.len() < most {
            return ControlFlow::Continue(());
        }
        entries.next = Some(e.next);
        ControlFlow::Break(())
    })?;
    Ok(entries)
}

struct Listing<'a> {
    long: bool,
    names: Names,
    complete: bool,
    out: &'a mut dyn Write,
}

impl Listing<'_> {
    fn entries(&mut self, disk: &mut Disk, entries: &[(Vec<u8>, NodeId)]) -> Result<()> {
        for (name, node) in entries {
            if !self.long {
                self.names.write(self.out, name)?;
                self.out.write_all(b"\n")?;
                continue;
            }
            match disk.attr(*node) {
                Ok(attr) => self.line(disk, name, &attr)?,
                Err(e) => self.complain(name, e),
            }
        }
        Ok(())
    }

    fn line(&mut self, disk: &mut Disk, name: &[u8], attr: &Attr) -> Result<()> {
        if self.long {
            let size = match attr.kind {
                Kind::CharDevice | Kind::BlockDevice => format!("{}, {}", attr.rdev.major, attr.rdev.minor),
                _ => attr.size.to_string(),
            };
            let (mode, date) = (text::mode(attr), text::date(attr.mtime));
            write!(self.out, "{mode} {:>3} {:>5} {:>5} {size:>10} {date} ", attr.nlink, attr.uid, attr.gid)?;
        }
        self.names.write(self.out, name)?;
        if self.long && attr.kind == Kind::Symlink {
            match disk.readlink(attr.node) {
                Ok(target) => {
                    self.out.write_all(b" -> ")?;
                    self.names.write(self.out, &target)?;
                }
                Err(e) => self.complain(name, e),
            }
        }
        Ok(self.out.write_all(b"\n")?)
    }

    fn complain(&mut self, name: &[u8], e: dfly_vfs::Error) {
        self.complete = false;
        crate::complain(&anyhow::Error::new(e).context(printable(name)));
    }
}
