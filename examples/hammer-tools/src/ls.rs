//! `hammer ls`: the names in a directory.

use std::io::Write;

use anyhow::{Context, Result};
use dfly_vfs::{Attr, FIRST_COOKIE, Kind, Last, NodeId};

use crate::Incomplete;
use crate::cli::LsArgs;
use crate::disk::{BATCH, Disk};
use crate::text::{self, Names, printable};

pub(crate) fn run(args: &LsArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let mut list = Listing { long: args.long, names: Names::for_stdout(), complete: true, out };
    // What is listed in full is a link itself, as ls(1) has it.
    let last = if args.long { Last::Keep } else { Last::Follow };
    let found = disk.find(&args.path, last)?;
    if found.kind != Kind::Directory {
        let path = std::os::unix::ffi::OsStrExt::as_bytes(args.path.as_os_str());
        list.line(&mut disk, path, &found)?;
    } else {
        // Sorting needs all of them at once.
        let most = if args.unsorted { BATCH } else { usize::MAX };
        let mut cookie = Some(FIRST_COOKIE);
        while let Some(at) = cookie {
            let mut entries = disk.entries(found.node, at, most);
            if !args.unsorted {
                entries.found.sort_unstable();
            }
            list.entries(&mut disk, &entries.found)?;
            cookie = entries.next.with_context(|| args.path.display().to_string())?;
        }
    }
    if list.complete { Ok(()) } else { Err(Incomplete.into()) }
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
            write!(self.out, "{} ", text::long(attr))?;
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
        crate::complain(&anyhow::Error::new(e).context(printable(name).to_string()));
    }
}
