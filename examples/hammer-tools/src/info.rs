//! `hammer info`: the file system as a whole.

use std::io::Write;

use anyhow::{Context, Result};
use dfly_hammer::ondisk::BIG_BLOCK_SIZE;
use dfly_vfs::Timestamp;

use crate::cli::InfoArgs;
use crate::disk::Disk;
use crate::text::{self, printable};

pub(crate) fn run(args: &InfoArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let header = disk.fs.header();
    writeln!(out, "label      {}", printable(header.label()))?;
    writeln!(out, "fsid       {}", text::uuid(&header.vol_fsid))?;
    writeln!(out, "version    {}", header.vol_version.get())?;
    let big_blocks = |n: i64| text::size(n.saturating_mul(BIG_BLOCK_SIZE as i64));
    let (all, free) = (header.vol0_stat_bigblocks.get(), header.vol0_stat_freebigblocks.get());
    writeln!(out, "size       {}  {all} big-blocks", big_blocks(all))?;
    writeln!(out, "free       {}  {free} big-blocks", big_blocks(free))?;
    writeln!(out, "inodes     {}", header.vol0_stat_inodes.get())?;
    writeln!(out, "last TID   {:#018x}", header.vol0_next_tid.get())?;
    let recovery = disk.fs.recovery();
    if recovery.crashed {
        writeln!(
            out,
            "state      not unmounted; shown after {} UNDO records of {} bytes, applied in memory",
            recovery.undo_records, recovery.undo_bytes
        )?;
        if recovery.redo_pending {
            writeln!(out, "           {} REDO records are left for a writable mount", recovery.redo_records)?;
        }
    } else {
        writeln!(out, "state      clean")?;
    }
    for volume in disk.fs.volume_headers() {
        let (start, end) = (volume.vol_buf_beg.get(), volume.vol_buf_end.get());
        writeln!(
            out,
            "volume {:<3} {}  buffers {start:#x} to {end:#x}",
            volume.vol_no.get(),
            text::size(end.saturating_sub(start))
        )?;
    }
    let all = disk.fs.pseudo_file_systems(&mut disk.wait).context("pseudo file systems")?;
    for pfs in &all {
        let role = match (pfs.is_deleted(), pfs.is_slave()) {
            (true, _) => "destroyed".into(),
            (false, true) => format!("slave, synced to {}", pfs.synced()),
            (false, false) => String::from("master"),
        };
        let uuid = text::uuid(&pfs.data.unique_uuid);
        writeln!(out, "PFS {:05}  {role}  {uuid}  {}", pfs.id, printable(pfs.label()))?;
        if pfs.is_deleted() {
            continue;
        }
        for snapshot in disk.fs.snapshots(&mut disk.wait, pfs.id).context("snapshots")? {
            let made = Timestamp::from_micros(snapshot.data.ts.get() as i64);
            let label = printable(snapshot.label());
            writeln!(out, "  snapshot {}  {}  {label}", snapshot.tid(), text::date(made))?;
        }
    }
    Ok(())
}
