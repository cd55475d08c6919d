//! The tree of file systems. Source: mount(8), mount_hammer(8), umount(8), df(1), sync(8).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use dfly_bio::{BlockDevice, DiskServer, Reap};
use dfly_hammer::{Hammer, MountOptions};
use dfly_vfs::text::printable;
use dfly_vfs::{Call, Errno, Error, FileSystem, FsServer, Last, MountFlags, Mounted, StatFs};

use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const MOUNT: Command = Command {
    name: "mount",
    usage: &["", "-r [-o cache=bytes,port] [-t hammer] volume[:volume ...] directory"],
    about: "mount a HAMMER file system, or list what is mounted",
    run: mount,
};

fn mount(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("ro:t:", args)?;
    match args.operands {
        [] if args.is_empty() => {
            for mounted in ctx.mounts.list() {
                match mounted.statfs(&mut Call::new(ctx.w)) {
                    Ok(figures) => say!(ctx, "{} ({})", From(&mounted), Kind(&figures)),
                    Err(e) => ctx.complain(mounted.on(), e),
                }
            }
            Ok(())
        }
        [volumes, directory] => attach(ctx, &args, volumes, directory),
        _ => Err(Failure::Usage),
    }
}

fn attach(ctx: &mut Context<'_>, args: &Args<'_>, volumes: &[u8], directory: &[u8]) -> Outcome {
    if let Some(other) = args.values('t').find(|t| *t != b"hammer") {
        return Err(Failure::new(other, "file system is not available"));
    }
    let mut options = MountOptions::default();
    let mut read_only = args.has('r');
    let mut placed = Placed::Here;
    for option in args.values('o').flat_map(|list| list.split(|&b| b == b',')) {
        match option {
            b"ro" | b"rdonly" => read_only = true,
            b"port" => placed = Placed::BehindPorts,
            _ => {
                let cache = option.strip_prefix(b"cache=").and_then(bytes);
                options.cache_bytes = cache.ok_or_else(|| Failure::new(option, "option not supported"))?;
            }
        }
    }
    if !read_only {
        let why = Error::new(Errno::EROFS).because("only read-only mounts yet, use -r");
        return Err(Failure::new(volumes, why));
    }
    let (at, _) = ctx.find(directory, Last::Follow).map_err(|e| Failure::new(directory, e))?;
    let names: Vec<&[u8]> =
        volumes.split(|&b| b == b':').map(|n| n.strip_prefix(b"/dev/").unwrap_or(n)).collect();
    let mut devices = Vec::new();
    for name in &names {
        let disk = ctx.system.open_disk(name, ctx.w).map_err(|e| Failure::new(name, e))?;
        devices.push(match placed {
            Placed::Here => disk,
            Placed::BehindPorts => serve_disk(ctx, name, disk)?,
        });
    }
    let from = names.join(&b':');
    if ctx.mounted_from(&from).is_some() {
        return Err(Failure::new(&from, Errno::EBUSY));
    }
    let hammer = Arc::new(Hammer::mount(&devices, options, ctx.w).map_err(|e| Failure::new(volumes, e))?);
    let recovery = hammer.recovery();
    if recovery.crashed {
        let text = format_args!(
            "hammer: {}: was not unmounted: {} bytes undone in memory",
            printable(&from),
            recovery.undo_bytes
        );
        ctx.system.say(&text);
    }
    let on = ctx.absolute(directory);
    let figures = Arc::downgrade(&hammer);
    let fs = match placed {
        Placed::Here => hammer,
        Placed::BehindPorts => serve(ctx, &from, hammer)?,
    };
    let mounted = ctx.mounts.mount(&mut Call::new(ctx.w), &at, fs, &from, &on);
    mounted.map_err(|e| Failure::new(directory, e))?;
    ctx.hammers.push((from, figures));
    Ok(())
}

/// Where a file system and its disks run.
#[derive(Clone, Copy)]
enum Placed {
    /// In whichever thread calls them.
    Here,
    /// In threads of their own, behind message ports. They end when the file system is unmounted.
    BehindPorts,
}

/// Requests that a disk behind a port has at a time.
const REQUESTS_MAX: usize = 32;
/// Calls of a file system behind a port that are under way at a time.
const CALLS_MAX: usize = 8;

fn serve_disk(
    ctx: &Context<'_>,
    name: &[u8],
    disk: Arc<dyn BlockDevice>,
) -> Result<Arc<dyn BlockDevice>, Failure> {
    let (server, disk) = DiskServer::new(disk, REQUESTS_MAX, Reap::Elsewhere);
    let thread = alloc::format!("{} port", printable(name));
    ctx.system.spawn(&thread, Box::new(move |w| server.run(w))).map_err(|e| Failure::new(name, e))?;
    Ok(Arc::new(disk))
}

fn serve(ctx: &Context<'_>, from: &[u8], fs: Arc<dyn FileSystem>) -> Result<Arc<dyn FileSystem>, Failure> {
    let (server, fs) = FsServer::new(fs, CALLS_MAX);
    ctx.system.spawn("hammer port", Box::new(move |w| server.run(w))).map_err(|e| Failure::new(from, e))?;
    Ok(Arc::new(fs))
}

/// A number of bytes, with the suffixes of strtonum(3)'s friends: `k`, `m`, `g`.
fn bytes(text: &[u8]) -> Option<usize> {
    let (digits, shift) = match text {
        [digits @ .., b'k' | b'K'] => (digits, 10),
        [digits @ .., b'm' | b'M'] => (digits, 20),
        [digits @ .., b'g' | b'G'] => (digits, 30),
        digits => (digits, 0),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse::<usize>().ok()?.checked_mul(1 << shift)
}

pub(super) const UMOUNT: Command = Command {
    name: "umount",
    usage: &["directory | volume ...", "-a"],
    about: "unmount file systems",
    run: umount,
};

fn umount(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("a", args)?;
    if args.has('a') != args.operands.is_empty() {
        return Err(Failure::Usage);
    }
    if args.has('a') {
        all(ctx);
    }
    ctx.each(args.operands, |ctx, what| {
        let volume = what.strip_prefix(b"/dev/").unwrap_or(what);
        let at = match ctx.mounted_from(volume) {
            Some(mounted) => mounted.place(),
            None => ctx.find(what, Last::Follow)?.0,
        };
        ctx.mounts.unmount(&mut Call::new(ctx.w), at).map(drop)
    });
    Ok(())
}

/// Unmounts everything but the root, what was mounted last first.
pub(in crate::shell) fn all(ctx: &mut Context<'_>) {
    let mut mounts = ctx.mounts.list();
    while let Some(mounted) = mounts.pop().filter(|_| !mounts.is_empty()) {
        let on = mounted.on().to_vec();
        let at = mounted.place();
        drop(mounted);
        if let Err(e) = ctx.mounts.unmount(&mut Call::new(ctx.w), at) {
            ctx.complain(&on, e);
        }
    }
}

pub(super) const DF: Command =
    Command { name: "df", usage: &["[-ik] [file ...]"], about: "how full file systems are", run: df };

fn df(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("ik", args)?;
    let mut mounts = Vec::new();
    ctx.each(args.operands, |ctx, path| {
        mounts.push(ctx.find(path, Last::Follow)?.0.mounted);
        Ok(())
    });
    if args.operands.is_empty() {
        mounts = ctx.mounts.list();
    }
    let (unit, title) = if args.has('k') { (1024, "1K-blocks") } else { (512, "512-blocks") };
    let inodes = if args.has('i') { "  iused   ifree" } else { "" };
    say!(
        ctx,
        "{:<15} {title:>12} {:>10} {:>10} {:>8}{inodes}  Mounted on",
        "Filesystem",
        "Used",
        "Avail",
        "Capacity"
    );
    for mounted in mounts {
        let f = match mounted.statfs(&mut Call::new(ctx.w)) {
            Ok(figures) => figures,
            Err(e) => {
                ctx.complain(mounted.on(), e);
                continue;
            }
        };
        let blocks = |n: u64| u128::from(n) * u128::from(f.block_bytes) / unit;
        let used = blocks(f.blocks.saturating_sub(f.blocks_free));
        let available = blocks(f.blocks_available);
        // Of what can be had at all, rounded up, as df(1) has it.
        let percent = (used * 100).div_ceil((used + available).max(1));
        let from = alloc::format!("{}", printable(mounted.from()));
        ctx.out.text(format_args!(
            "{from:<15} {:>12} {used:>10} {available:>10} {percent:>7}%",
            blocks(f.blocks)
        ));
        if args.has('i') {
            let used = f.files.saturating_sub(f.files_free);
            ctx.out.text(format_args!(" {used:>6} {:>7}", f.files_free));
        }
        say!(ctx, "  {}", printable(mounted.on()));
    }
    Ok(())
}

pub(super) const SYNC: Command =
    Command { name: "sync", usage: &[""], about: "make everything written safe from a power cut", run: sync };

fn sync(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    for mounted in ctx.mounts.list() {
        if let Err(e) = mounted.sync(&mut Call::new(ctx.w)) {
            ctx.complain(mounted.on(), e);
        }
    }
    Ok(())
}

/// `nvme0 on /mnt`
struct From<'a>(&'a Mounted);

impl fmt::Display for From<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", printable(self.0.from()), printable(self.0.on()))
    }
}

/// `hammer, noatime, read-only`
struct Kind<'a>(&'a StatFs);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.type_name)?;
        for (flag, name) in [(MountFlags::NO_ATIME, "noatime"), (MountFlags::READ_ONLY, "read-only")] {
            if self.0.flags.contains(flag) {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(bytes(b"4096"), Some(4096));
        assert_eq!(bytes(b"64k"), Some(64 << 10));
        assert_eq!(bytes(b"2M"), Some(2 << 20));
        assert_eq!(bytes(b"1g"), Some(1 << 30));
        for text in ["", "k", "-1", "+1", "1.5m", "1t", "99999999999999999999", "18446744073709551615g"] {
            assert_eq!(bytes(text.as_bytes()), None, "{text}");
        }
    }
}
