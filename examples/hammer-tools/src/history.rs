//! `hammer history`: which transactions changed a path.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::{Tid, Version};
use dfly_vfs::{Last, Timestamp};

use crate::cli::PathArgs;
use crate::disk::Disk;
use crate::text;

pub(crate) fn run(args: &PathArgs, out: &mut dyn Write) -> Result<()> {
    let mut disk = Disk::mount(&args.volumes)?;
    let attr = disk.find(&args.path, Last::Keep)?;
    let mut changes: BTreeMap<Tid, Change> = BTreeMap::new();
    disk.fs
        .versions(&mut disk.wait, attr.node, &mut |version| {
            let kind = Records::of(&version);
            let made = changes.entry(version.created).or_default();
            made.seconds = made.seconds.max(version.created_s);
            made.count(kind).made += 1;
            if let Some(tid) = version.deleted {
                let ended = changes.entry(tid).or_default();
                ended.seconds = ended.seconds.max(version.deleted_s);
                ended.count(kind).ended += 1;
            }
        })
        .with_context(|| args.path.display().to_string())?;
    for (tid, change) in &changes {
        let date = text::date(Timestamp::from_micros(i64::from(change.seconds) * 1_000_000));
        writeln!(out, "{tid}  {date}  {}", change.words())?;
    }
    Ok(())
}

/// The records that a transaction made and ended.
#[derive(Default)]
struct Change {
    seconds: u32,
    inode: Count,
    data: Count,
    entries: Count,
    others: Count,
}

#[derive(Clone, Copy, Default)]
struct Count {
    made: u64,
    ended: u64,
}

#[derive(Clone, Copy)]
enum Records {
    Inode,
    Data,
    Entries,
    Others,
}

impl Records {
    fn of(version: &Version) -> Self {
        match version.rec_type {
            RecType::INODE => Self::Inode,
            RecType::DATA | RecType::DB => Self::Data,
            RecType::DIRENTRY => Self::Entries,
            _ => Self::Others,
        }
    }
}

impl Change {
    fn count(&mut self, records: Records) -> &mut Count {
        match records {
            Records::Inode => &mut self.inode,
            Records::Data => &mut self.data,
            Records::Entries => &mut self.entries,
            Records::Others => &mut self.others,
        }
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        match self.inode {
            Count { made: 0, ended: 0 } => {}
            Count { ended: 0, .. } => words.push("made".into()),
            Count { made: 0, .. } => words.push("removed".into()),
            _ => words.push("attributes".into()),
        }
        for (what, Count { made, ended }) in
            [("block", self.data), ("name", self.entries), ("other record", self.others)]
        {
            for (verb, n) in [("+", made), ("-", ended)] {
                if n > 0 {
                    words.push(format!("{verb}{n} {what}{}", if n == 1 { "" } else { "s" }));
                }
            }
        }
        words.join(", ")
    }
}
