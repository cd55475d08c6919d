//! How things are written for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use dfly_vfs::Kind;
pub(crate) use dfly_vfs::text::{date, exact_date, flags, long, mode, printable};

/// How to write names to stdout: made printable on a terminal, as they are elsewhere.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    Printable,
    AsTheyAre,
}

impl Names {
    pub(crate) fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Printable } else { Self::AsTheyAre }
    }

    pub(crate) fn write(self, out: &mut dyn io::Write, name: &[u8]) -> io::Result<()> {
        match self {
            Self::Printable => write!(out, "{}", printable(name)),
            Self::AsTheyAre => out.write_all(name),
        }
    }
}

/// The kind of a node, in the manifests' word.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "dir",
        Kind::Regular => "file",
        Kind::Symlink => "lnk",
        Kind::Fifo => "fifo",
        Kind::CharDevice => "chr",
        Kind::BlockDevice => "blk",
        Kind::Socket => "sock",
        _ => "unknown",
    }
}

/// A number of things: `1 file`, `2 files`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A size as DragonFly's `hammer` writes it: in the unit of which there is at least a half.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let unit = (1..UNITS.len()).take_while(|unit| bytes >= 1 << (10 * unit - 1)).last().unwrap_or(0);
    format!("{:6.2}{}", bytes as f64 / (1i64 << (10 * unit)) as f64, UNITS[unit])
}

/// A UUID as it lies on the disk, in text.
pub(crate) fn uuid(b: &[u8; 16]) -> String {
    let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = b;
    let mut text = format!("{a3:02x}{a2:02x}{a1:02x}{a0:02x}-{b1:02x}{b0:02x}-{c1:02x}{c0:02x}-");
    for (i, byte) in rest.iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if i == 2 { "-" } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_change_their_unit_at_a_half() {
        assert_eq!(size(0), "  0.00B");
        assert_eq!(size(262_144), "256.00KB");
        assert_eq!(size(556_000), "  0.53MB");
        assert_eq!(size(384 << 20), "384.00MB");
        assert_eq!(size(512 << 20), "  0.50GB");
    }

    #[test]
    fn uuids_have_three_little_endian_fields() {
        let fstype = dfly_hammer::ondisk::volume::FSTYPE;
        assert_eq!(uuid(&fstype), "61dc63ac-6e38-11dc-8513-01301bb8a9f5");
    }
}
