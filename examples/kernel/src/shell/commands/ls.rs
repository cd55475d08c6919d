//! `ls`: names, and what they stand for. Source: ls(1).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use dfly_vfs::text::{long, printable};
use dfly_vfs::{Attr, Errno, FileSystem, Kind, Last, PATH_MAX, Place, Result};

use crate::shell::context::{Command, Context, Outcome, say};
use crate::shell::options::Args;

pub(super) const LS: Command =
    Command { name: "ls", usage: &["[-1AaRdil] [file ...]"], about: "list directories", run };

fn run(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("1AaRdil", args)?;
    let here = [b".".to_vec()];
    let mut operands = if args.operands.is_empty() { here.to_vec() } else { args.operands.to_vec() };
    operands.sort_unstable();
    // Whoever asks for a link's own attributes means the link.
    let last = if args.has('l') || args.has('d') { Last::Keep } else { Last::Follow };
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    ctx.each(&operands, |ctx, path| {
        let found = match ctx.find(path, last) {
            // A link that leads nowhere is still a name.
            Err(e) if e == Errno::ENOENT => ctx.find(path, Last::Keep)?,
            found => found?,
        };
        let dir = found.1.kind == Kind::Directory && !args.has('d');
        let entry = Entry { name: path.to_vec(), place: found.0, attr: Some(found.1) };
        if dir {
            dirs.push(entry)
        } else {
            files.push(entry)
        }
        Ok(())
    });
    for file in &files {
        line(ctx, &args, b"", file);
    }
    // Those that are still to be listed; the last one is next.
    let mut next: Vec<Level> = dirs.into_iter().rev().map(|dir| Level { dir, above: 0 }).collect();
    let headers = operands.len() > 1;
    let mut first = files.is_empty();
    // The directories below an operand that were listed. In a damaged tree a directory may have many names, and to list it
    // under each of them could take for ever.
    let mut listed = BTreeSet::new();
    while let Some(Level { dir, above }) = next.pop() {
        if above == 0 {
            listed.clear();
        }
        let file_system = core::ptr::from_ref::<dyn FileSystem>(&*dir.place.mounted).addr();
        if !listed.insert((file_system, dir.place.node)) {
            ctx.complain(&dir.name, "directory is listed already");
            continue;
        }
        if !first {
            ctx.out.bytes(b"\n");
        }
        if headers || above > 0 {
            say!(ctx, "{}:", printable(&dir.name));
        }
        first = false;
        let below = list(ctx, &args, &dir);
        next.extend(below.into_iter().rev().map(|dir| Level { dir, above: above + 1 }));
    }
    Ok(())
}

struct Level {
    dir: Entry,
    /// How many directories stand above it that are listed too.
    above: usize,
}

struct Entry {
    name: Vec<u8>,
    place: Place,
    attr: Option<Attr>,
}

/// Lists one directory, and returns the directories in it if those are to be listed too.
fn list(ctx: &mut Context<'_>, args: &Args<'_>, dir: &Entry) -> Vec<Entry> {
    let (found, result) = ctx.entries(&dir.place);
    if let Err(e) = result {
        ctx.complain(&dir.name, e);
    }
    let shown = |name: &[u8]| match name {
        b"." | b".." => args.has('a'),
        _ => args.has('a') || args.has('A') || !name.starts_with(b"."),
    };
    let need_attr = args.has('l') || args.has('i') || args.has('R');
    let mut entries = Vec::new();
    for (name, place) in found.into_iter().filter(|(name, _)| shown(name)) {
        let place = match name.as_slice() {
            // Across the edge of a mount only a walk finds the way.
            b".." => up(ctx, &dir.place).unwrap_or(place),
            _ => place,
        };
        let attr = match need_attr.then(|| ctx.attr(&place)).transpose() {
            Ok(attr) => attr,
            Err(e) => {
                ctx.complain(&join(&dir.name, &name), e);
                continue;
            }
        };
        entries.push(Entry { name, place, attr });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if args.has('l') {
        let bytes = entries.iter().filter_map(|e| e.attr).fold(0u64, |sum, a| sum.saturating_add(a.bytes));
        say!(ctx, "total {}", bytes.div_ceil(512));
    }
    for entry in &entries {
        line(ctx, args, &dir.name, entry);
    }
    if !args.has('R') {
        return Vec::new();
    }
    entries
        .retain(|e| e.attr.is_some_and(|a| a.kind == Kind::Directory) && e.name != b"." && e.name != b"..");
    for entry in &mut entries {
        entry.name = join(&dir.name, &entry.name);
    }
    // A tree can be deeper than a path can say, and a damaged one is.
    entries.retain(|e| {
        let fits = e.name.len() < PATH_MAX;
        if !fits {
            ctx.complain(&e.name, Errno::ENAMETOOLONG);
        }
        fits
    });
    entries
}

fn up(ctx: &mut Context<'_>, dir: &Place) -> Result<Place> {
    let c = &mut dfly_vfs::Call::new(ctx.w);
    Ok(ctx.mounts.walk(c, dir, b"..", &dfly_vfs::Walk::default())?.0)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let between: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, between, name].concat()
}

fn line(ctx: &mut Context<'_>, args: &Args<'_>, dir: &[u8], entry: &Entry) {
    if let Some(attr) = &entry.attr {
        if args.has('i') {
            ctx.out.text(format_args!("{} ", attr.fileid));
        }
        if args.has('l') {
            ctx.out.text(format_args!("{} ", long(attr)));
        }
    }
    ctx.out.text(format_args!("{}", printable(&entry.name)));
    if args.has('l') && entry.attr.is_some_and(|a| a.kind == Kind::Symlink) {
        match entry.place.readlink(&mut dfly_vfs::Call::new(ctx.w)) {
            Ok(target) => ctx.out.text(format_args!(" -> {}", printable(&target))),
            Err(e) => {
                let path = if dir.is_empty() { entry.name.clone() } else { join(dir, &entry.name) };
                ctx.complain(&path, e);
                return;
            }
        }
    }
    ctx.out.bytes(b"\n");
}
