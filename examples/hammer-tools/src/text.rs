//! How things are written for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use dfly_vfs::{Attr, FileFlags, Kind, Timestamp};

/// `bytes` as text that cannot do anything to a terminal: control characters and what is no UTF-8 as `\xNN`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, byte: u8| {
        let _ = write!(text, "\\x{byte:02x}");
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                c.to_string().bytes().for_each(|b| escape(&mut text, b));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|&b| escape(&mut text, b));
    }
    text
}

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
            Self::Printable => out.write_all(printable(name).as_bytes()),
            Self::AsTheyAre => out.write_all(name),
        }
    }
}

/// Permissions as ls(1) writes them: `drwxr-sr-t`.
pub(crate) fn mode(attr: &Attr) -> String {
    let kind = match attr.kind {
        Kind::Directory => 'd',
        Kind::Regular => '-',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        _ => '?',
    };
    let mut text = String::from(kind);
    // For each class: its three bits, the bit that changes its `x`, and the letter for that.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = attr.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, attr.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
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

/// File flags by short names after those of chflags(1), `-` for none; bits without a name in hexadecimal.
pub(crate) fn flags(flags: FileFlags) -> String {
    const NAMES: [(FileFlags, &str); 15] = [
        (FileFlags::SF_ARCHIVED, "arch"),
        (FileFlags::SF_IMMUTABLE, "schg"),
        (FileFlags::SF_APPEND, "sappnd"),
        (FileFlags::SF_NOUNLINK, "sunlnk"),
        (FileFlags::SF_NOHISTORY, "snohistory"),
        (FileFlags::SF_NOCACHE, "noscache"),
        (FileFlags::SF_XLINK, "sxlink"),
        (FileFlags::UF_NODUMP, "nodump"),
        (FileFlags::UF_IMMUTABLE, "uchg"),
        (FileFlags::UF_APPEND, "uappnd"),
        (FileFlags::UF_OPAQUE, "opaque"),
        (FileFlags::UF_NOUNLINK, "uunlnk"),
        (FileFlags::UF_NOHISTORY, "nohistory"),
        (FileFlags::UF_CACHE, "cache"),
        (FileFlags::UF_XLINK, "xlink"),
    ];
    let named = NAMES.iter().filter(|(flag, _)| flags.contains(*flag));
    let rest = NAMES.iter().fold(flags, |left, (flag, _)| left.difference(*flag));
    let mut words: Vec<String> = named.map(|(_, name)| (*name).into()).collect();
    if !rest.is_empty() {
        words.push(format!("{:#x}", rest.bits()));
    }
    if words.is_empty() { "-".into() } else { words.join(",") }
}

/// A number of things: `1 file`, `2 files`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A moment in UTC, to the second: `2020-09-13 12:26:40`.
pub(crate) fn date(t: Timestamp) -> String {
    let (seconds, _) = t.split();
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A moment in UTC, to the microsecond.
pub(crate) fn exact_date(t: Timestamp) -> String {
    format!("{}.{:06} UTC", date(t), t.split().1)
}

/// Year, month and day of the day `days` after 1970-01-01, by the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years are counted from March, so that the leap day is a year's last; 400 years have always the same length.
    const DAYS_TO_EPOCH: i64 = 719_468; // from 0000-03-01
    const ERA_DAYS: i64 = 146_097;
    let shifted = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March have 153 days, and so have the next five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
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
    use dfly_vfs::NodeId;

    #[test]
    fn nothing_reaches_the_terminal_that_could_act_on_it() {
        assert_eq!(printable(b"plain \xc3\xaf"), "plain \u{ef}");
        assert_eq!(printable(b"\x1b[2J\n\xff\xc2\x9b"), "\\x1b[2J\\x0a\\xff\\xc2\\x9b");
    }

    #[test]
    fn modes_look_as_ls_shows_them() {
        let show = |kind, mode| {
            let mut attr = Attr::new(NodeId([0; 3]), kind);
            attr.mode = mode;
            super::mode(&attr)
        };
        assert_eq!(show(Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(show(Kind::Regular, 0o4755), "-rwsr-xr-x");
        assert_eq!(show(Kind::Regular, 0o7000), "---S--S--T");
        assert_eq!(show(Kind::Symlink, 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn dates_follow_the_calendar() {
        let show = |s: i64| date(Timestamp::from_micros(s * 1_000_000));
        assert_eq!(show(0), "1970-01-01 00:00:00");
        assert_eq!(show(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(show(1_600_000_000), "2020-09-13 12:26:40");
        assert_eq!(show(4_102_444_800), "2100-01-01 00:00:00");
        assert_eq!(show(-1), "1969-12-31 23:59:59");
        assert_eq!(exact_date(Timestamp::from_micros(-1)), "1969-12-31 23:59:59.999999 UTC");
        // Any number is some date.
        date(Timestamp::from_micros(i64::MIN));
        date(Timestamp::from_micros(i64::MAX));
    }

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

    #[test]
    fn flags_have_names() {
        assert_eq!(flags(FileFlags::empty()), "-");
        assert_eq!(flags(FileFlags::UF_NODUMP | FileFlags::SF_IMMUTABLE), "schg,nodump");
        assert_eq!(flags(FileFlags::from_bits_retain(0x20 | 0x40)), "nohistory,0x20");
    }
}
