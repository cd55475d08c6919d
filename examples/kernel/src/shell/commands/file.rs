//! Files and directories. Source: cat(1), md5(1) (which is sha256 too), readlink(1), mkdir(1), rmdir(1).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::ops::ControlFlow;

use dfly_vfs::text::printable;
use dfly_vfs::{Call, Errno, Error, Last, Parent, Place, Result, Walk};
use sha2::{Digest, Sha256};

use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const CAT: Command =
    Command { name: "cat", usage: &["file ..."], about: "write files out", run: cat };

fn cat(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = some(Args::parse("", args)?)?;
    // The terminal is slow, and a file system's page should not wait for it: so this one copies.
    let mut part = vec![0; 64 << 10];
    ctx.each(args.operands, |ctx, path| {
        let file = ctx.open(path)?;
        let mut at = 0;
        loop {
            let len = file.read_at(ctx.w, at, &mut part)?;
            if len == 0 {
                return Ok(());
            }
            ctx.out.bytes(part.get(..len).unwrap_or_default());
            at += len as u64;
        }
    });
    Ok(())
}

pub(super) const SHA256: Command =
    Command { name: "sha256", usage: &["[-qr] file ..."], about: "the SHA-256 of files", run: sha256 };

fn sha256(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = some(Args::parse("qr", args)?)?;
    ctx.each(args.operands, |ctx, path| {
        let mut sum = Sha256::new();
        let file = ctx.open(path)?;
        file.read(ctx.w, 0, u64::MAX, &mut |part| {
            sum.update(part);
            ControlFlow::Continue(())
        })?;
        let mut hex = String::with_capacity(64);
        for byte in sum.finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        match (args.has('q'), args.has('r')) {
            (true, _) => say!(ctx, "{hex}"),
            (false, true) => say!(ctx, "{hex} {}", printable(path)),
            (false, false) => say!(ctx, "SHA256 ({}) = {hex}", printable(path)),
        }
        Ok(())
    });
    Ok(())
}

pub(super) const READLINK: Command = Command {
    name: "readlink",
    usage: &["[-n] file ..."],
    about: "where symbolic links point",
    run: readlink,
};

fn readlink(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = some(Args::parse("n", args)?)?;
    ctx.each(args.operands, |ctx, path| {
        let (place, _) = ctx.find(path, Last::Keep)?;
        let target = place.readlink(&mut Call::new(ctx.w))?;
        ctx.out.text(format_args!("{}", printable(&target)));
        ctx.out.bytes(if args.has('n') { b"" } else { b"\n" });
        Ok(())
    });
    Ok(())
}

pub(super) const MKDIR: Command =
    Command { name: "mkdir", usage: &["[-p] directory ..."], about: "make directories", run: mkdir };

fn mkdir(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = some(Args::parse("p", args)?)?;
    ctx.each(args.operands, |ctx, path| {
        if !args.has('p') {
            return make(ctx, path);
        }
        // Every directory on the way, from the left: what is there already is fine if it is one.
        let ends = path.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let path = path.get(..end).unwrap_or_default();
            if path.iter().all(|&b| b == b'/') {
                continue;
            }
            match ctx.find(path, Last::Follow) {
                Ok((_, attr)) => attr.check_search(&dfly_vfs::Cred::ROOT)?,
                Err(e) if e == Errno::ENOENT => make(ctx, path)?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    });
    Ok(())
}

fn make(ctx: &mut Context<'_>, path: &[u8]) -> Result<()> {
    let (dir, name) = parent(ctx, path)?;
    dir.at(ctx.w).nmkdir(name.name.as_name(), 0o755)?;
    Ok(())
}

pub(super) const RMDIR: Command =
    Command { name: "rmdir", usage: &["directory ..."], about: "remove empty directories", run: rmdir };

fn rmdir(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = some(Args::parse("", args)?)?;
    ctx.each(args.operands, |ctx, path| {
        let (dir, name) = parent(ctx, path)?;
        let (mounted, name) = (&dir.mounted, name.name.as_name());
        let victim = mounted.nresolve(&mut Call::new(ctx.w), dir.node, name)?;
        let victim = Place { mounted: mounted.clone(), node: victim.node };
        if ctx.mounts.mounted_on(&victim).is_some() || victim == ctx.cwd {
            return Err(Error::new(Errno::EBUSY));
        }
        dir.at(ctx.w).nrmdir(name)
    });
    Ok(())
}

fn parent(ctx: &mut Context<'_>, path: &[u8]) -> Result<(Place, Parent)> {
    ctx.mounts.walk_parent(&mut Call::new(ctx.w), &ctx.cwd, path, &Walk::default())
}

/// There is no standard input to read instead of files.
fn some(args: Args<'_>) -> core::result::Result<Args<'_>, Failure> {
    if args.operands.is_empty() { Err(Failure::Usage) } else { Ok(args) }
}
