//! `stat`: all that is known of a node, on one line. Source: stat(1).

use alloc::vec::Vec;

use dfly_vfs::text::{date, mode, printable};
use dfly_vfs::{Attr, Last, Timestamp};

use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const STAT: Command = Command {
    name: "stat",
    usage: &["[-L] file ...", "-r [-L] file ..."],
    about: "what is known of files; -r: as numbers",
    run,
};

fn run(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("Lr", args)?;
    if args.operands.is_empty() {
        return Err(Failure::Usage);
    }
    let last = if args.has('L') { Last::Follow } else { Last::Keep };
    ctx.each(args.operands, |ctx, path| {
        let (_, attr) = ctx.find(path, last)?;
        if args.has('r') {
            raw(ctx, path, &attr)
        } else {
            human(ctx, path, &attr)
        }
        Ok(())
    });
    Ok(())
}

/// dev ino mode nlink uid gid rdev size "atime" "mtime" "ctime" blksize blocks flags name.
fn human(ctx: &mut Context<'_>, path: &[u8], a: &Attr) {
    say!(
        ctx,
        "{} {} {} {} {} {} {},{} {} \"{}\" \"{}\" \"{}\" {} {} {:#x} {}",
        a.fsid,
        a.fileid,
        mode(a),
        a.nlink,
        a.uid,
        a.gid,
        a.rdev.major,
        a.rdev.minor,
        a.size,
        date(a.atime),
        date(a.mtime),
        date(a.ctime),
        a.io_bytes,
        blocks(a),
        a.flags.bits(),
        printable(path),
    );
}

/// The same in numbers, with microseconds: st_dev st_ino st_mode st_nlink st_uid st_gid st_rdev st_size st_atime st_mtime
/// st_ctime st_blksize st_blocks st_flags name. The device of a device is `major,minor`, the times are `seconds.micros`.
fn raw(ctx: &mut Context<'_>, path: &[u8], a: &Attr) {
    let time = |t: Timestamp| {
        let (seconds, micros) = t.split();
        alloc::format!("{seconds}.{micros:06}")
    };
    say!(
        ctx,
        "{} {} 0{:o} {} {} {} {},{} {} {} {} {} {} {} {} {}",
        a.fsid,
        a.fileid,
        a.kind.mode_bits() | u32::from(a.mode),
        a.nlink,
        a.uid,
        a.gid,
        a.rdev.major,
        a.rdev.minor,
        a.size,
        time(a.atime),
        time(a.mtime),
        time(a.ctime),
        a.io_bytes,
        blocks(a),
        a.flags.bits(),
        printable(path),
    );
}

/// `st_blocks`: of 512 bytes.
fn blocks(a: &Attr) -> u64 {
    a.bytes.div_ceil(512)
}
