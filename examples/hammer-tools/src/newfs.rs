//! `hammer newfs`: a new file system on files or devices.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use dfly_bio::{Access, BlockDevice, FileDiskOptions};
use dfly_hal::ThreadWait;
use dfly_hammer::format::{BOOT_AREA, MEMORY_LOG, Options, Plan};

use crate::cli::NewfsArgs;
use crate::progress::{self, Stdout};
use crate::text::{self, printable};

/// What is smaller is not for everyday use.
const USUAL_ROOT: u64 = 10 << 30;
const USUAL_UNDO: u64 = 512 << 20;

pub(crate) fn run(args: &NewfsArgs, out: &mut dyn Write) -> Result<()> {
    let mut wait = ThreadWait::new();
    let (mut devices, mut seen): (Vec<Arc<dyn BlockDevice>>, _) = (Vec::new(), Vec::new());
    for (number, path) in args.volumes.iter().enumerate() {
        let shown = printable(path.as_os_str().as_bytes()).to_string();
        let name = || format!("volume {shown}");
        let meta = std::fs::metadata(path).with_context(name)?;
        let kind = meta.file_type();
        ensure!(!kind.is_dir(), "{}: is a directory", name());
        let is_device = kind.is_block_device() || kind.is_char_device();
        ensure!(kind.is_file() || is_device, "{}: neither a file nor a device", name());
        ensure!(!seen.contains(&(meta.dev(), meta.ino())), "{}: given more than once", name());
        seen.push((meta.dev(), meta.ino()));
        let disk = FileDiskOptions::new().access(Access::ReadWrite).open(path).with_context(name)?;
        let bytes = disk.limits().bytes();
        let kind = if is_device { "DEVICE" } else { "REGFILE" };
        writeln!(out, "Volume {number} {kind:<7} {shown:<15} size {}", size(bytes))?;
        devices.push(Arc::new(disk));
    }
    let mut options = Options::new(args.label.as_bytes(), random_uuid()?, now_us()?);
    options.version = args.version;
    options.undo_bytes = args.undo_size;
    let plan = Plan::new(&devices, &options)?;
    let root = devices.first().map_or(0, |d| d.limits().bytes());
    let total = devices.iter().map(|d| d.limits().bytes()).sum::<u64>();
    if !args.force {
        ensure!(root >= USUAL_ROOT, "the first volume is smaller than 10 GiB, which -f allows");
        ensure!(plan.undo_bytes() >= USUAL_UNDO, "the FIFO is smaller than 512 MiB, which -f allows");
    }

    let bar = progress::bytes(None, Stdout::Unused);
    let written = plan.write(&mut wait, &mut |p| {
        bar.set_length(p.total_bytes);
        bar.set_position(p.done_bytes);
    });
    bar.finish_and_clear();
    written?;

    let volumes = args.volumes.len();
    writeln!(out, "---------------------------------------------")?;
    writeln!(out, "HAMMER version {}", args.version)?;
    writeln!(out, "{volumes} volume{} total size {}", if volumes == 1 { "" } else { "s" }, size(total))?;
    if let Some(path) = args.volumes.first() {
        writeln!(out, "root-volume:         {}", printable(path.as_os_str().as_bytes()))?;
    }
    writeln!(out, "boot-area-size:      {}", size(BOOT_AREA))?;
    writeln!(out, "memory-log-size:     {}", size(MEMORY_LOG))?;
    writeln!(out, "undo-buffer-size:    {}", size(plan.undo_bytes()))?;
    writeln!(out, "total-pre-allocated: {}", size(plan.preallocated_bytes()))?;
    writeln!(out, "fsid:                {}", text::uuid(&options.fsid))?;
    if root < USUAL_ROOT || plan.undo_bytes() < USUAL_UNDO {
        let note =
            "hammer: of this size it is good for tests only: space comes back in pieces of 8 MiB, by pruning";
        // Nothing can be done where even stderr is gone.
        let _ = writeln!(io::stderr(), "{note}");
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    text::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn now_us() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(u64::try_from(since.as_micros())?)
}

/// A random UUID (version 4), in the order of bytes of RFC 9562.
fn random_uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut uuid)).context("/dev/urandom")?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
