//! What a session showed, against the manifest.

use anyhow::{Context as _, Result, bail, ensure};
use dfly_golden::{Entry, Kind};
use dfly_vfs::Timestamp;
use dfly_vfs::text::date;

use super::{Session, Shows, Step};

impl Session<'_> {
    /// Whether `lines`, all that the shell wrote, say what the manifest says.
    pub(crate) fn check(&self, lines: &[&[u8]]) -> Result<()> {
        let mut lines = Lines(lines.iter());
        for Step { command, path, shows } in &self.steps {
            lines.take(shows, path).with_context(|| command.clone())?;
        }
        let more = lines.0.len();
        ensure!(more == 0, "{more} lines more: {}", lines.next()?);
        Ok(())
    }
}

/// Lines that are still to be compared.
struct Lines<'a>(std::slice::Iter<'a, &'a [u8]>);

impl Lines<'_> {
    fn next(&mut self) -> Result<&str> {
        let line = self.0.next().context("the output ends")?;
        str::from_utf8(line).with_context(|| line.escape_ascii().to_string())
    }

    fn take(&mut self, shows: &Shows<'_>, path: &str) -> Result<()> {
        match shows {
            Shows::Nothing => Ok(()),
            Shows::Attributes(entry) => attributes(self.next()?, entry, path),
            Shows::Hash(hash) => same(self.next()?, &format!("SHA256 ({path}) = {hash}")),
            Shows::Target(target) => same(self.next()?, &printable(target)),
            Shows::Listing(directory, children) => self.listing(directory, children),
        }
    }

    fn listing(&mut self, directory: &Entry, children: &[(&str, &Entry)]) -> Result<()> {
        let total = self.next()?;
        ensure!(total.strip_prefix("total ").is_some_and(|n| n.parse::<u64>().is_ok()), "{total}");
        // What is above the directory of a view is not in the manifest.
        let mut entries = vec![(".", Some(directory)), ("..", None)];
        entries.extend(children.iter().map(|&(name, entry)| (name, Some(entry))));
        entries.sort_unstable_by_key(|&(name, _)| name.as_bytes());
        for (name, entry) in entries {
            let line = self.next()?;
            match entry {
                Some(entry) => same(line, &format!("{} {}", long(entry), named(name, entry)))?,
                None => ensure!(line.starts_with('d') && line.ends_with(" .."), "{line}"),
            }
        }
        Ok(())
    }
}

fn same(found: &str, expected: &str) -> Result<()> {
    ensure!(found == expected, "\n got {found}\nwant {expected}");
    Ok(())
}

/// dev ino mode nlink uid gid rdev size atime mtime ctime blksize blocks flags name
fn attributes(line: &str, e: &Entry, path: &str) -> Result<()> {
    let fields: Vec<&str> = line.splitn(15, ' ').collect();
    let &[dev, ino, mode, nlink, uid, gid, rdev, size, atime, mtime, ctime, blksize, blocks, flags, name] =
        fields.as_slice()
    else {
        bail!("not the fields of stat -r: {line}");
    };
    // The manifest says nothing of these.
    for number in [dev, blksize, blocks] {
        ensure!(number.parse::<u64>().is_ok(), "{number} in {line}");
    }
    let time = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let facts = [
        (ino, e.obj_id.to_string()),
        (mode, format!("{:#o}", type_bits(e.kind) | u32::from(e.mode)).replace("0o", "0")),
        (nlink, e.nlink.to_string()),
        (uid, e.uid.to_string()),
        (gid, e.gid.to_string()),
        (rdev, format!("{},{}", e.rmajor.unwrap_or(0), e.rminor.unwrap_or(0))),
        (size, e.size.to_string()),
        (atime, time(e.atime_us)),
        (mtime, time(e.mtime_us)),
        (ctime, time(e.ctime_us)),
        (flags, e.uflags.to_string()),
        (name, path.into()),
    ];
    facts.iter().try_for_each(|(found, expected)| same(found, expected)).with_context(|| line.to_owned())
}

/// A line of `ls -l` up to the name.
fn long(e: &Entry) -> String {
    let size = match e.kind {
        Kind::CharDevice | Kind::BlockDevice => {
            format!("{:>4}, {:>4}", e.rmajor.unwrap_or(0), e.rminor.unwrap_or(0))
        }
        _ => format!("{:>10}", e.size),
    };
    let date = date(Timestamp::from_micros(e.mtime_us as i64));
    format!("{} {:>3} {:>5} {:>5} {size} {date}", permissions(e), e.nlink, e.uid, e.gid)
}

fn named(name: &str, e: &Entry) -> String {
    let target = e.target.as_deref().map(|target| format!(" -> {}", printable(target)));
    format!("{}{}", printable(name), target.unwrap_or_default())
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::BlockDevice => 0o060_000,
        Kind::Regular => 0o100_000,
        Kind::Symlink => 0o120_000,
    }
}

/// `drwxr-sr-t`
fn permissions(e: &Entry) -> String {
    let kind = match e.kind {
        Kind::Fifo => 'p',
        Kind::CharDevice => 'c',
        Kind::Directory => 'd',
        Kind::BlockDevice => 'b',
        Kind::Regular => '-',
        Kind::Symlink => 'l',
    };
    let mut text: Vec<char> =
        (0..9).map(|bit| if e.mode >> (8 - bit) & 1 == 1 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect();
    for (bit, at, letter) in [(0o4000, 2, 's'), (0o2000, 5, 's'), (0o1000, 8, 't')] {
        if e.mode & bit != 0 {
            text[at] = if text[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    std::iter::once(kind).chain(text).collect()
}

/// As the shell shows names: what could act on a terminal is written as its bytes.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| {
        let mut bytes = [0; 4];
        c.encode_utf8(&mut bytes).bytes().map(|b| format!("\\x{b:02x}")).collect::<String>()
    };
    text.chars().map(|c| if c.is_control() { escape(c) } else { c.into() }).collect()
}
