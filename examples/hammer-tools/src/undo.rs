//! `hammer undo`: earlier versions of a file, and what changed between them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dfly_hammer::namekey::NameHash;
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::{ObjectId, Tid, View};
use dfly_vfs::{Call, Errno, FileSystem, Kind, Last, NodeId, Timestamp};
use similar::TextDiff;

use crate::cli::{Moment, UndoArgs};
use crate::disk::Disk;
use crate::text::{self, printable};

/// Larger versions are not compared: both are held in memory.
const DIFF_MAX_BYTES: u64 = 256 << 20;

/// What a file was like from a transaction on.
#[derive(Clone, Copy)]
struct Version {
    tid: Tid,
    seconds: u32,
    size: u64,
}

pub(crate) fn run(args: &UndoArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let (object, is_live) = find(&mut disk, &args.path)?;
    let versions = versions(&mut disk, object)?;
    let shown = printable(args.path.as_bytes()).to_string();
    ensure!(!versions.is_empty(), "{shown}: no version is left");
    ensure!(args.transaction.len() <= 2, "more than two versions");

    let chosen: Vec<usize> = match args.transaction.as_slice() {
        _ if args.all => (0..versions.len()).collect(),
        [] => vec![usize::from(is_live)],
        given => {
            given.iter().map(|m| index_of(&versions, *m)).collect::<Result<_>>().context(shown.clone())?
        }
    };
    if let Some(last) = chosen.iter().find(|i| **i >= versions.len()) {
        bail!(
            "{shown}: there is no version {last}: {} kept",
            text::count(versions.len() as u64, "is", "are")
        );
    }
    if args.diff || args.reverse_diff {
        return diffs(args, &mut disk, object, &versions, &chosen, out);
    }
    for &index in &chosen {
        let version = versions[index];
        if args.info {
            let date = text::date(Timestamp::from_micros(i64::from(version.seconds) * 1_000_000));
            writeln!(out, "{index:04}  {}  {date}  {}", version.tid, version.size)?;
            continue;
        }
        let node = at(object, version.tid);
        match target(args, index) {
            Some(path) => {
                let name = || path.display().to_string();
                let mut file = std::io::BufWriter::new(std::fs::File::create_new(&path).with_context(name)?);
                read(&mut disk, node, &mut file).and_then(|()| Ok(file.flush()?)).with_context(name)?;
            }
            None => {
                if args.all {
                    writeln!(out, "==> {shown} {index:04} {} <==", version.tid)?;
                }
                read(&mut disk, node, out)?;
            }
        }
    }
    Ok(())
}

fn at(object: ObjectId, tid: Tid) -> NodeId {
    ObjectId { view: View::AsOf(tid), ..object }.into()
}

/// Where a version goes, if not to stdout.
fn target(args: &UndoArgs, index: usize) -> Option<PathBuf> {
    let path = args.output.as_ref()?;
    if !args.all {
        return Some(path.clone());
    }
    let mut name = path.clone().into_os_string();
    name.push(format!(".{index:04}"));
    Some(name.into())
}

/// The file that a path leads to, or led to last, and whether it is there now.
fn find(disk: &mut Disk, path: &std::ffi::OsStr) -> Result<(ObjectId, bool)> {
    let found = disk.find(path, Last::Follow);
    let (attr, is_live) = match found {
        Ok(attr) => (attr, true),
        Err(e) if e.downcast_ref::<dfly_vfs::Error>().is_some_and(|e| e.errno() == Errno::ENOENT) => {
            (find_removed(disk, path).transpose().unwrap_or(Err(e))?, false)
        }
        Err(e) => return Err(e),
    };
    ensure!(attr.kind == Kind::Regular, "{}: no regular file", printable(path.as_bytes()));
    let object = ObjectId::from(attr.node);
    Ok((object, is_live && object.view == View::Current))
}

/// Looks for a name in what its directory held before any entry with a fitting key was removed, the latest first.
fn find_removed(disk: &mut Disk, path: &std::ffi::OsStr) -> Result<Option<dfly_vfs::Attr>> {
    let path = Path::new(path);
    let (Some(name), parent) = (path.file_name(), path.parent().unwrap_or(Path::new(""))) else {
        return Ok(None);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new("/") } else { parent };
    let dir = disk.find(parent.as_os_str(), Last::Follow)?;
    let keys = [NameHash::Alg0, NameHash::Alg1].map(|hash| hash.keys(name.as_bytes()));
    let mut ends = Vec::new();
    disk.fs.versions(&mut disk.wait, dir.node, &mut |version| {
        let fits = version.rec_type == RecType::DIRENTRY && keys.iter().any(|k| k.contains(&version.key));
        ends.extend(version.deleted.filter(|_| fits));
    })?;
    ends.sort_unstable();
    ends.dedup();
    for end in ends.into_iter().rev() {
        let mut then: Vec<u8> = parent.as_os_str().as_bytes().to_vec();
        then.extend_from_slice(format!("/@@{:#018x}/", end.0.saturating_sub(1)).as_bytes());
        then.extend_from_slice(name.as_bytes());
        match disk.find(&OsString::from_vec(then), Last::Follow) {
            Ok(attr) => return Ok(Some(attr)),
            Err(e) if e.downcast_ref::<dfly_vfs::Error>().is_some_and(|e| e.errno() == Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The versions of a file that can still be read, the newest first.
fn versions(disk: &mut Disk, object: ObjectId) -> Result<Vec<Version>> {
    let mut times: BTreeMap<Tid, u32> = BTreeMap::new();
    disk.fs.versions(&mut disk.wait, object.into(), &mut |version| {
        // Of an attribute, a length, or contents; a hole that was cut shows in the inode.
        if matches!(version.rec_type, RecType::INODE | RecType::DATA | RecType::DB) {
            let seconds = times.entry(version.created).or_default();
            *seconds = (*seconds).max(version.created_s);
        }
    })?;
    let mut all = Vec::new();
    for (&tid, &seconds) in times.iter().rev() {
        // One that was pruned in part has no inode.
        match disk.attr(at(object, tid)) {
            Ok(attr) if attr.kind == Kind::Regular => all.push(Version { tid, seconds, size: attr.size }),
            _ => {}
        }
    }
    Ok(all)
}

fn index_of(versions: &[Version], moment: Moment) -> Result<usize> {
    match moment {
        Moment::Index(index) => Ok(index),
        Moment::AsOf(tid) => {
            versions.iter().position(|v| v.tid <= tid).with_context(|| format!("not there yet as of {tid}"))
        }
    }
}

fn read(disk: &mut Disk, node: NodeId, out: &mut dyn Write) -> Result<()> {
    let mut written = Ok(());
    let size = disk.attr(node)?.size;
    disk.fs.read(&mut Call::new(&mut disk.wait), node, 0, size, &mut |bytes| {
        written = out.write_all(bytes);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(written?)
}

/// Unified diffs: of each chosen version to the next newer one, or between two.
fn diffs(
    args: &UndoArgs,
    disk: &mut Disk,
    object: ObjectId,
    versions: &[Version],
    chosen: &[usize],
    out: &mut dyn Write,
) -> Result<()> {
    let pairs: Vec<(usize, usize)> = match (args.transaction.len(), chosen) {
        (2, &[a, b]) => vec![(a, b)],
        _ => chosen.iter().filter_map(|&i| Some((i, i.checked_sub(1)?))).collect(),
    };
    ensure!(!pairs.is_empty(), "there is no newer version to compare with");
    for (older, newer) in pairs {
        let (from, to) = if args.reverse_diff { (newer, older) } else { (older, newer) };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (index, bytes) in [(from, &mut a), (to, &mut b)] {
            ensure!(versions[index].size <= DIFF_MAX_BYTES, "version {index} is too large for a diff");
            read(disk, at(object, versions[index].tid), bytes)?;
        }
        let name = |index: usize| format!("{}@@{}", printable(args.path.as_bytes()), versions[index].tid);
        let mut text = Vec::new();
        let is_binary = |bytes: &[u8]| bytes.iter().take(8192).any(|b| *b == 0);
        if is_binary(&a) || is_binary(&b) {
            if a != b {
                writeln!(text, "Binary files {} and {} differ", name(from), name(to))?;
            }
        } else {
            TextDiff::from_lines(&a[..], &b[..])
                .unified_diff()
                .header(&name(from), &name(to))
                .to_writer(&mut text)?;
        }
        match target(args, older) {
            Some(path) => std::fs::File::create_new(&path)
                .and_then(|mut file| file.write_all(&text))
                .with_context(|| path.display().to_string())?,
            None => out.write_all(&text)?,
        }
    }
    Ok(())
}
