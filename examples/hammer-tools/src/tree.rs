//! `hammer tree`: everything below a directory.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use dfly_vfs::{Attr, Call, Errno, Error, FileSystem, Kind, Last, NodeId};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::Incomplete;
use crate::cli::TreeArgs;
use crate::disk::Disk;
use crate::json;
use crate::progress::{self, Stdout};
use crate::text::{self, Names, printable};
use crate::visit::{Place, Visit, Visitor};

pub(crate) fn run(args: &TreeArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let root = disk.find(&args.root, Last::Follow)?;
    let visitor = Visitor::new(root);
    let complete = match args.json {
        true => {
            let hash =
                if args.sha256 { Hash::Sha256(progress::bytes(None, Stdout::Used)) } else { Hash::None };
            array(&mut disk, visitor, &hash, out)?
        }
        false => drawing(&mut disk, visitor, args.root.as_bytes(), out)?,
    };
    if complete { Ok(()) } else { Err(Incomplete.into()) }
}

/// Reports what is left out of the output.
fn complain(path: &[u8], e: anyhow::Error) {
    crate::complain(&e.context(printable(path).to_string()));
}

/// Draws the tree for people. Returns whether it is complete.
fn drawing(disk: &mut Disk, mut visitor: Visitor, root: &[u8], out: &mut dyn Write) -> Result<bool> {
    let names = Names::for_stdout();
    let mut complete = true;
    // For each directory on the way down: whether it was the last one in its own.
    let mut way: Vec<Place> = Vec::new();
    let (mut directories, mut files) = (0u64, 0u64);
    while let Some(visit) = visitor.next(disk) {
        match visit {
            Visit::Node { attr, last } => {
                for place in way.iter().skip(1) {
                    out.write_all(if *place == Place::Last { b"    " } else { b"|   " })?;
                }
                if way.is_empty() {
                    names.write(out, root)?;
                } else {
                    out.write_all(if last == Place::Last { b"`-- " } else { b"|-- " })?;
                    names.write(out, visitor.name())?;
                }
                if attr.kind == Kind::Symlink {
                    match disk.readlink(attr.node) {
                        Ok(target) => {
                            out.write_all(b" -> ")?;
                            names.write(out, &target)?;
                        }
                        Err(e) => {
                            complete = false;
                            complain(visitor.path(), e.into());
                        }
                    }
                }
                out.write_all(b"\n")?;
                if attr.kind == Kind::Directory {
                    way.push(last);
                    directories += 1;
                } else {
                    files += 1;
                }
            }
            Visit::Leave { .. } => {
                way.pop();
            }
            Visit::Failed { error } => {
                complete = false;
                complain(visitor.path(), error.into());
            }
        }
    }
    // Whatever is no directory is a file, as tree(1) counts.
    let directories = text::count(directories, "directory", "directories");
    writeln!(out, "\n{directories}, {}", text::count(files, "file", "files"))?;
    Ok(complete)
}

enum Hash {
    None,
    Sha256(ProgressBar),
}

/// Writes the tree as a JSON array, an object for each path. Returns whether it is complete.
fn array(disk: &mut Disk, mut visitor: Visitor, hash: &Hash, out: &mut dyn Write) -> Result<bool> {
    let mut complete = true;
    let mut before = "[\n";
    while let Some(visit) = visitor.next(disk) {
        match visit {
            Visit::Node { attr, .. } => {
                out.write_all(before.as_bytes())?;
                before = ",\n";
                if let Err(e) = object(disk, visitor.path(), &attr, hash, out)? {
                    complete = false;
                    complain(visitor.path(), e.into());
                }
            }
            Visit::Leave { .. } => {}
            Visit::Failed { error } => {
                complete = false;
                complain(visitor.path(), error.into());
            }
        }
    }
    out.write_all(if before == "[\n" { b"[]\n" } else { b"\n]\n" })?;
    Ok(complete)
}

/// Writes one object. The outer result is that of writing, the inner one that of reading the disk: what cannot be read
/// is `null`.
fn object(
    disk: &mut Disk,
    path: &[u8],
    attr: &Attr,
    hash: &Hash,
    out: &mut dyn Write,
) -> Result<dfly_vfs::Result<()>> {
    out.write_all(b"{\"path\": ")?;
    json::string(out, path)?;
    write!(out, ", \"type\": \"{}\", \"obj_id\": \"{:#018x}\"", text::kind(attr.kind), attr.fileid)?;
    write!(out, ", \"mode\": \"{:04o}\", \"uid\": {}, \"gid\": {}", attr.mode, attr.uid, attr.gid)?;
    write!(out, ", \"nlink\": {}, \"size\": {}, \"uflags\": {}", attr.nlink, attr.size, attr.flags.bits())?;
    let [mtime, ctime, atime] = [attr.mtime, attr.ctime, attr.atime].map(|t| t.as_micros());
    write!(out, ", \"mtime_us\": {mtime}, \"ctime_us\": {ctime}, \"atime_us\": {atime}")?;
    let mut read = Ok(());
    match (attr.kind, hash) {
        (Kind::CharDevice | Kind::BlockDevice, _) => {
            write!(out, ", \"rmajor\": {}, \"rminor\": {}", attr.rdev.major, attr.rdev.minor)?;
        }
        (Kind::Symlink, _) => {
            out.write_all(b", \"target\": ")?;
            match disk.readlink(attr.node) {
                Ok(target) => json::string(out, &target)?,
                Err(e) => {
                    read = Err(e);
                    out.write_all(b"null")?;
                }
            }
        }
        (Kind::Regular, Hash::Sha256(bar)) => {
            bar.set_message(printable(path).to_string());
            out.write_all(b", \"sha256\": ")?;
            match sha256(disk, attr.node, attr.size, bar) {
                Ok(hash) => write!(out, "\"{hash}\"")?,
                Err(e) => {
                    read = Err(e);
                    out.write_all(b"null")?;
                }
            }
        }
        _ => {}
    }
    out.write_all(b"}")?;
    Ok(read)
}

/// A longer file is hashed only if the volumes could hold its bytes: others are holes, and might take years.
const HASHED_ANYWAY: u64 = 64 << 30;

fn sha256(disk: &mut Disk, node: NodeId, size: u64, bar: &ProgressBar) -> dfly_vfs::Result<String> {
    if size > HASHED_ANYWAY.max(disk.size()) {
        return Err(Error::new(Errno::EFBIG).because("not hashed: sparse, and larger than its disk"));
    }
    let mut hash = Sha256::new();
    disk.fs.read(&mut Call::new(&mut disk.wait), node, 0, size, &mut |bytes| {
        hash.update(bytes);
        bar.inc(bytes.len() as u64);
        ControlFlow::Continue(())
    })?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
