//! Names and attributes as the field's commands write them: for shells, tools and logs.
//!
//! All of these write themselves as they are formatted and allocate nothing. Where nothing else is said, width and fill of
//! a format are not applied: they write themselves whole.

use core::fmt::{self, Display, Formatter};

use crate::{Attr, FileFlags, Kind, Timestamp};

/// `bytes` as text that cannot do anything to a terminal: control characters and what is no UTF-8 as `\xNN`.
///
/// ```
/// assert_eq!(dfly_vfs::text::printable(b"tab\t \xc3\xaf \xff").to_string(), "tab\\x09 \u{ef} \\xff");
/// ```
pub fn printable(bytes: &[u8]) -> impl Display + '_ {
    fn escape(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
        bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
    }
    from_fn(move |f| {
        for chunk in bytes.utf8_chunks() {
            // Runs of what needs no escape go out in one piece.
            for run in chunk.valid().split_inclusive(char::is_control) {
                let plain = run.trim_end_matches(char::is_control);
                f.write_str(plain)?;
                escape(f, run.as_bytes().get(plain.len()..).unwrap_or_default())?;
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    })
}

/// Permissions as ls(1) writes them: `drwxr-sr-t`.
pub fn mode(attr: &Attr) -> impl Display + use<> {
    let (kind, mode) = (attr.kind, attr.mode);
    let kind = match kind {
        Kind::Directory => 'd',
        Kind::Regular => '-',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Unknown => '?',
    };
    from_fn(move |f| {
        write!(f, "{kind}")?;
        // For each class: its three bits, the bit that changes its `x`, and the letter for that.
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = mode >> shift;
            let read = if bits & 4 != 0 { 'r' } else { '-' };
            let write = if bits & 2 != 0 { 'w' } else { '-' };
            let execute = match (bits & 1 != 0, mode & special != 0) {
                (true, true) => letter,
                (false, true) => letter.to_ascii_uppercase(),
                (true, false) => 'x',
                (false, false) => '-',
            };
            write!(f, "{read}{write}{execute}")?;
        }
        Ok(())
    })
}

/// A node as `ls -l` writes it, up to its name: mode, links, owner and group by number, size or device number, date.
pub fn long(attr: &Attr) -> impl Display + use<> {
    let attr = *attr;
    from_fn(move |f| {
        write!(f, "{} {:>3} {:>5} {:>5} ", mode(&attr), attr.nlink, attr.uid, attr.gid)?;
        match attr.kind {
            Kind::CharDevice | Kind::BlockDevice => {
                write!(f, "{:>4}, {:>4}", attr.rdev.major, attr.rdev.minor)?;
            }
            _ => write!(f, "{:>10}", attr.size)?,
        }
        write!(f, " {}", date(attr.mtime))
    })
}

/// File flags by short names after those of chflags(1), `-` for none; bits without a name in hexadecimal.
pub fn flags(flags: FileFlags) -> impl Display {
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
    from_fn(move |f| {
        let mut rest = flags;
        let mut between = "";
        for (flag, name) in NAMES.iter().filter(|(flag, _)| flags.contains(*flag)) {
            rest = rest.difference(*flag);
            write!(f, "{between}{name}")?;
            between = ",";
        }
        match (rest.is_empty(), flags.is_empty()) {
            (false, _) => write!(f, "{between}{:#x}", rest.bits()),
            (true, true) => f.write_str("-"),
            (true, false) => Ok(()),
        }
    })
}

/// A moment in UTC, to the second: `2020-09-13 12:26:40`.
pub fn date(t: Timestamp) -> impl Display {
    from_fn(move |f| {
        let (seconds, _) = t.split();
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    })
}

/// A moment in UTC, to the microsecond: `2020-09-13 12:26:40.000000 UTC`.
pub fn exact_date(t: Timestamp) -> impl Display {
    from_fn(move |f| write!(f, "{}.{:06} UTC", date(t), t.split().1))
}

/// What writes itself by a closure.
struct FromFn<F>(F);

fn from_fn<F: Fn(&mut Formatter<'_>) -> fmt::Result>(write: F) -> FromFn<F> {
    FromFn(write)
}

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for FromFn<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    #[test]
    fn nothing_reaches_the_terminal_that_could_act_on_it() {
        assert_eq!(printable(b"plain \xc3\xaf").to_string(), "plain \u{ef}");
        assert_eq!(printable(b"\x1b[2J\n\xff\xc2\x9b").to_string(), "\\x1b[2J\\x0a\\xff\\xc2\\x9b");
        assert_eq!(printable(b"\n\n\na").to_string(), "\\x0a\\x0a\\x0aa");
    }

    proptest! {
        #[test]
        fn any_bytes_become_printable_text(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = printable(&bytes).to_string();
            prop_assert!(!text.contains(char::is_control));
            let back: String = text.split("\\x").map(|part| part.get(2..).unwrap_or_default()).collect();
            prop_assert!(back.len() <= bytes.len());
        }
    }

    #[test]
    fn modes_look_as_ls_shows_them() {
        let show = |kind, mode| {
            let mut attr = Attr::new(NodeId([0; 3]), kind);
            attr.mode = mode;
            super::mode(&attr).to_string()
        };
        assert_eq!(show(Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(show(Kind::Regular, 0o4755), "-rwsr-xr-x");
        assert_eq!(show(Kind::Regular, 0o7000), "---S--S--T");
        assert_eq!(show(Kind::Symlink, 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn a_long_line_has_fixed_columns() {
        let mut attr = Attr::new(NodeId([0; 3]), Kind::Regular);
        (attr.mode, attr.nlink, attr.uid, attr.gid, attr.size) = (0o644, 2, 1000, 0, 12345);
        assert_eq!(long(&attr).to_string(), "-rw-r--r--   2  1000     0      12345 1970-01-01 00:00:00");
        attr.kind = Kind::CharDevice;
        attr.rdev = crate::DeviceNumber { major: 14, minor: 3 };
        assert_eq!(long(&attr).to_string(), "crw-r--r--   2  1000     0   14,    3 1970-01-01 00:00:00");
    }

    #[test]
    fn dates_follow_the_calendar() {
        let show = |s: i64| date(Timestamp::from_micros(s * 1_000_000)).to_string();
        assert_eq!(show(0), "1970-01-01 00:00:00");
        assert_eq!(show(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(show(1_600_000_000), "2020-09-13 12:26:40");
        assert_eq!(show(4_102_444_800), "2100-01-01 00:00:00");
        assert_eq!(show(-1), "1969-12-31 23:59:59");
        assert_eq!(exact_date(Timestamp::from_micros(-1)).to_string(), "1969-12-31 23:59:59.999999 UTC");
        // Any number is some date.
        let _ = date(Timestamp::from_micros(i64::MIN)).to_string();
        let _ = date(Timestamp::from_micros(i64::MAX)).to_string();
    }

    #[test]
    fn flags_have_names() {
        assert_eq!(flags(FileFlags::empty()).to_string(), "-");
        assert_eq!(flags(FileFlags::UF_NODUMP | FileFlags::SF_IMMUTABLE).to_string(), "schg,nodump");
        assert_eq!(flags(FileFlags::from_bits_retain(0x20 | 0x40)).to_string(), "nohistory,0x20");
        assert_eq!(flags(FileFlags::from_bits_retain(0x20)).to_string(), "0x20");
    }
}
