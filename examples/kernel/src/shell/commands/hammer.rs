//! `hammer`: what a HAMMER file system remembers. Source: hammer(8).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hammer::{Hammer, Tid};
use dfly_vfs::text::{date, printable};
use dfly_vfs::{Attr, Errno, Error, Last, Result, Timestamp};

use crate::shell::context::{Command, Context, Failure, Outcome, say};

pub(super) const HAMMER: Command = Command {
    name: "hammer",
    usage: &["history path ...", "snapls [directory]"],
    about: "what a HAMMER file system remembers",
    run,
};

fn run(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    match args {
        [what, paths @ ..] if what == b"history" && !paths.is_empty() => {
            ctx.each(paths, |ctx, path| history(ctx, path, paths.len()));
        }
        [what] if what == b"snapls" => ctx.each(&[b".".to_vec()], snapshots),
        [what, path @ ..] if path.len() == 1 && what == b"snapls" => ctx.each(path, snapshots),
        _ => return Err(Failure::Usage),
    }
    Ok(())
}

/// The transactions that made or ended a record of what is at `path`: `path@@transaction` shows each.
fn history(ctx: &mut Context<'_>, path: &[u8], paths: usize) -> Result<()> {
    let (hammer, attr) = find(ctx, path)?;
    let mut changes: BTreeMap<Tid, u32> = BTreeMap::new();
    hammer.versions(ctx.w, attr.node, &mut |version| {
        let ended = version.deleted.map(|tid| (tid, version.deleted_s));
        for (tid, seconds) in ended.into_iter().chain([(version.created, version.created_s)]) {
            let known = changes.entry(tid).or_default();
            *known = seconds.max(*known);
        }
    })?;
    if paths > 1 {
        say!(ctx, "{}:", printable(path));
    }
    for (tid, seconds) in changes {
        say!(ctx, "{tid}  {}", date(Timestamp::from_micros(i64::from(seconds) * 1_000_000)));
    }
    Ok(())
}

/// The snapshots of all pseudo file systems.
fn snapshots(ctx: &mut Context<'_>, path: &[u8]) -> Result<()> {
    let (hammer, _) = find(ctx, path)?;
    for pfs in hammer.pseudo_file_systems(ctx.w)?.iter().filter(|pfs| !pfs.is_deleted()) {
        say!(ctx, "PFS {:05}  {}", pfs.id, printable(pfs.label()));
        for snapshot in hammer.snapshots(ctx.w, pfs.id)? {
            let made = Timestamp::from_micros(i64::try_from(snapshot.data.ts.get()).unwrap_or(i64::MAX));
            say!(ctx, "{}  {}  {}", snapshot.tid(), date(made), printable(snapshot.label()));
        }
    }
    Ok(())
}

/// What is at `path`, and the file system that it is in.
fn find(ctx: &mut Context<'_>, path: &[u8]) -> Result<(Arc<Hammer>, Attr)> {
    let (place, attr) = ctx.find(path, Last::Keep)?;
    let hammer = ctx.hammers.iter().find(|(from, _)| from == place.mounted.from());
    let hammer = hammer.and_then(|(_, hammer)| hammer.upgrade());
    Ok((hammer.ok_or(Error::new(Errno::EOPNOTSUPP).because("not on a HAMMER file system"))?, attr))
}
