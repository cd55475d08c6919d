//! `hammer cp-out`: copies files and directories to the host.
//!
//! The names in a directory of the volume are not to be trusted. A path on the host is made only of names that `Name`
//! has checked, every directory on the way was made or seen to be a real one by this run, and nothing is opened that
//! could be a link: so no name on the volume leads out of the target.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use dfly_vfs::{Attr, Call, FileSystem, Kind, Last, Name, NodeId, Timestamp};
use indicatif::ProgressBar;

use crate::Incomplete;
use crate::cli::CopyArgs;
use crate::disk::Disk;
use crate::progress::{self, Stdout};
use crate::text::printable;
use crate::visit::{Visit, Visitor};

pub(crate) fn run(args: &CopyArgs) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let source = disk.find(&args.source, Last::Follow)?;
    let target = target_path(&args.source, &args.target)?;
    let total = (source.kind == Kind::Regular).then_some(source.size);
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    copy_tree(&mut disk, source, &target, existing, total)
}

/// Copies all of `source` to `target`, which is not there yet or an empty directory.
pub(crate) fn copy_tree<F: FileSystem>(
    disk: &mut Disk<F>,
    source: Attr,
    target: &Path,
    existing: Existing,
    total: Option<u64>,
) -> Result<()> {
    let bar = progress::bytes(total, Stdout::Unused);
    let mut copy = Copy { existing, bar, linked: HashMap::new() };
    let complete = copy.tree(disk, source, target);
    copy.bar.finish_and_clear();
    if complete { Ok(()) } else { Err(Incomplete.into()) }
}

/// Where `source` itself goes: into the target if that is a directory and the source has a name, else to it.
fn target_path(source: &OsStr, target: &Path) -> Result<PathBuf> {
    let Ok(metadata) = fs::metadata(target) else { return Ok(target.into()) };
    if !metadata.is_dir() {
        return Ok(target.into());
    }
    let path = source.as_bytes();
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let name = path.get(..end).and_then(|p| p.rsplit(|&b| b == b'/').next()).unwrap_or_default();
    // The way to the target may lead through links of the host: they are the user's own.
    let target = target.canonicalize().with_context(|| target.display().to_string())?;
    Ok(match Name::new(name) {
        Ok(name) => target.join(OsStr::from_bytes(name.as_bytes())),
        Err(_) => target,
    })
}

/// What happens to files of the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Keep,
    Replace,
}

struct Copy {
    existing: Existing,
    bar: ProgressBar,
    /// Where files with several names went.
    linked: HashMap<NodeId, PathBuf>,
}

/// A directory that is being filled.
enum Directory {
    /// Made by this run, which gives it its mode and time in the end.
    Made,
    /// It was there before.
    Found,
    /// It could not be made: what is in it is left out.
    Missing,
}

/// How a file came to the host.
enum Put {
    Copied,
    /// As one more name of a copy.
    Linked,
}

impl Copy {
    /// Copies everything. Returns whether nothing was left out.
    fn tree<F: FileSystem>(&mut self, disk: &mut Disk<F>, source: Attr, target: &Path) -> bool {
        let mut complete = true;
        let mut visitor = Visitor::new(source);
        let mut way: Vec<Directory> = Vec::new();
        while let Some(visit) = visitor.next(disk) {
            let inside = !matches!(way.last(), Some(Directory::Missing));
            let to = match visitor.path().strip_prefix(b"/").unwrap_or_default() {
                b"" => target.to_path_buf(),
                path => target.join(OsStr::from_bytes(path)),
            };
            let done = match visit {
                Visit::Node { attr, .. } if attr.kind == Kind::Directory => {
                    let made = if inside { self.directory(&to) } else { Ok(Directory::Missing) };
                    let (directory, done) = match made {
                        Ok(directory) => (directory, Ok(())),
                        Err(e) => (Directory::Missing, Err(e)),
                    };
                    way.push(directory);
                    done
                }
                Visit::Node { attr, .. } if inside => self.node(disk, &attr, &to),
                Visit::Node { .. } => Ok(()),
                Visit::Leave { attr } => match way.pop() {
                    Some(Directory::Made) => File::open(&to)
                        .and_then(|dir| finish(&dir, &attr))
                        .with_context(|| to.display().to_string()),
                    _ => Ok(()),
                },
                Visit::Failed { error } => {
                    Err(anyhow::Error::new(error).context(printable(visitor.path()).to_string()))
                }
            };
            if let Err(e) = done {
                complete = false;
                self.bar.suspend(|| crate::complain(&e));
            }
        }
        complete
    }

    fn directory(&self, to: &Path) -> Result<Directory> {
        let name = || to.display().to_string();
        match fs::create_dir(to) {
            Ok(()) => return Ok(Directory::Made),
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).with_context(name),
            Err(_) => {}
        }
        if !fs::symlink_metadata(to).with_context(name)?.is_dir() {
            bail!("{}: exists and is no directory", name());
        }
        let is_empty = fs::read_dir(to).with_context(name)?.next().is_none();
        if self.existing == Existing::Keep && !is_empty {
            bail!("{}: exists and is not empty (--force copies into it)", name());
        }
        Ok(Directory::Found)
    }

    fn node<F: FileSystem>(&mut self, disk: &mut Disk<F>, attr: &Attr, to: &Path) -> Result<()> {
        self.bar.set_message(printable(to.as_os_str().as_bytes()).to_string());
        if !matches!(attr.kind, Kind::Regular | Kind::Symlink) {
            let what = crate::text::kind(attr.kind);
            let notice = anyhow::anyhow!("left out: neither file nor directory nor link ({what})");
            self.bar.suspend(|| crate::complain(&notice.context(to.display().to_string())));
            return Ok(());
        }
        let done = match self.existing {
            Existing::Keep => self.put(disk, attr, to),
            // What is to be replaced stays until all of the new file is there.
            Existing::Replace => {
                let beside = to.with_file_name(format!(".hammer-cp-out.{}", std::process::id()));
                self.put(disk, attr, &beside).and_then(|put| {
                    let renamed = fs::rename(&beside, to);
                    // A rename between two names of one file does nothing, and leaves both.
                    let _ = fs::remove_file(&beside);
                    renamed.map(|()| put).map_err(Into::into)
                })
            }
        };
        if let Ok(Put::Copied) = done
            && attr.kind == Kind::Regular
            && attr.nlink > 1
        {
            self.linked.insert(attr.node, to.into());
        }
        done.map(drop).with_context(|| to.display().to_string())
    }

    /// Puts a file or a link where nothing is yet.
    fn put<F: FileSystem>(&mut self, disk: &mut Disk<F>, attr: &Attr, to: &Path) -> Result<Put> {
        if attr.kind == Kind::Symlink {
            let target = disk.readlink(attr.node)?;
            symlink(OsStr::from_bytes(&target), to)?;
            return Ok(Put::Copied);
        }
        match self.linked.get(&attr.node).map(|first| fs::hard_link(first, to)) {
            Some(Ok(())) => return Ok(Put::Linked),
            Some(Err(e)) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e.into()),
            // The host allows fewer names of one file, or none: another copy is made, and gets the names that follow.
            Some(Err(_)) | None => {}
        }
        self.file(disk, attr, to)?;
        Ok(Put::Copied)
    }

    /// Copies a file's bytes to a file that is not there yet. What is a hole stays one.
    fn file<F: FileSystem>(&mut self, disk: &mut Disk<F>, attr: &Attr, to: &Path) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        let copied = self.contents(disk, attr, &file).and_then(|()| Ok(finish(&file, attr)?));
        if copied.is_err() {
            // Half a file could be taken for a whole one.
            let _ = fs::remove_file(to);
        }
        copied
    }

    fn contents<F: FileSystem>(&mut self, disk: &mut Disk<F>, attr: &Attr, file: &File) -> Result<()> {
        let mut at = 0;
        while let Some(data) = disk.fs.next_data(&mut Call::new(&mut disk.wait), attr.node, at)? {
            let mut to = data.start;
            let mut written: io::Result<()> = Ok(());
            let length = data.end.saturating_sub(data.start);
            disk.fs.read(&mut Call::new(&mut disk.wait), attr.node, data.start, length, &mut |bytes| {
                written = file.write_all_at(bytes, to);
                to += bytes.len() as u64;
                self.bar.inc(bytes.len() as u64);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            written?;
            if data.end <= at {
                break;
            }
            at = data.end;
        }
        Ok(file.set_len(attr.size)?)
    }
}

/// Gives a copy the mode and the times of the original. Without its owner it must not have the power to act as one: the
/// set-id bits are left out.
fn finish(file: &File, attr: &Attr) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(u32::from(attr.mode & 0o1777)))?;
    file.set_times(FileTimes::new().set_accessed(moment(attr.atime)).set_modified(moment(attr.mtime)))
}

fn moment(t: Timestamp) -> SystemTime {
    let distance = Duration::from_micros(t.as_micros().unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let moment = if t.as_micros() < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    moment.unwrap_or(epoch)
}
