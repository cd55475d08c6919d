//! What can be asked for.

use std::ffi::{OsStr, OsString};
use std::num::ParseIntError;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use dfly_hammer::{Key, Tid};

/// Makes, reads and examines HAMMER file systems of DragonFly BSD, versions 1 to 7. Only `newfs` writes to a volume.
///
/// VOLS are all volumes of one file system, in any order: VOL[:VOL...].
///
/// A path may lead to another time or pseudo file system: /@@0x0000000100018080/etc is /etc as of that transaction,
/// etc/motd@@0x0000000100018080 a file of then, /@@-1:00001 the root of pseudo file system 1 today.
#[derive(Parser)]
#[command(name = "hammer", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List a directory
    Ls(LsArgs),
    /// List everything below a directory
    Tree(TreeArgs),
    /// Print a file
    Cat(CatArgs),
    /// Copy a file or a directory with all below it out to the host
    CpOut(CopyArgs),
    /// Show all about one path
    Stat(PathArgs),
    /// Show the B-tree with checksum verdicts, as DragonFly's `hammer show` does
    Show(ShowArgs),
    /// List the transactions that changed a path
    History(PathArgs),
    /// Show the volumes, free space, pseudo file systems and snapshots
    Info(InfoArgs),
    /// Make a new file system, as DragonFly's `newfs_hammer` does; what the volumes hold is lost
    Newfs(NewfsArgs),
    /// Check that everything on the volumes is as it should be; nothing is repaired
    Fsck(FsckArgs),
    /// Copy everything readable of a damaged file system out to the host
    Salvage(SalvageArgs),
    /// Print an earlier version of a file, or what changed since, after DragonFly's undo(1)
    Undo(UndoArgs),
}

#[derive(Args)]
pub(crate) struct LsArgs {
    /// One line for each name, with mode, links, owner, group, size and time
    #[arg(short, long)]
    pub(crate) long: bool,
    /// In the order of the directory, as it is read
    #[arg(short = 'U', long)]
    pub(crate) unsorted: bool,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// What to list
    #[arg(default_value = "/")]
    pub(crate) path: OsString,
}

#[derive(Args)]
pub(crate) struct TreeArgs {
    /// One JSON array, with an object for each path
    #[arg(long)]
    pub(crate) json: bool,
    /// With the SHA-256 of each regular file
    #[arg(long, requires = "json")]
    pub(crate) sha256: bool,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// Where to begin
    #[arg(default_value = "/")]
    pub(crate) root: OsString,
}

#[derive(Args)]
pub(crate) struct CatArgs {
    /// The first byte to print
    #[arg(long, default_value_t = 0, value_name = "BYTES", value_parser = number)]
    pub(crate) offset: u64,
    /// How many bytes to print at most
    #[arg(long, value_name = "BYTES", value_parser = number)]
    pub(crate) length: Option<u64>,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// The file
    pub(crate) path: OsString,
}

#[derive(Args)]
pub(crate) struct CopyArgs {
    /// Replace files that exist, and copy into directories that exist
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// What to copy
    pub(crate) source: OsString,
    /// Where to; inside of it, if it is a directory
    pub(crate) target: PathBuf,
}

#[derive(Args)]
pub(crate) struct PathArgs {
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// The path; if it leads to a symbolic link, that link itself
    pub(crate) path: OsString,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// Begin at this key, marking what matches it: as many of its fields as you like, in hexadecimal
    #[arg(value_name = "LO:OBJ:RT:KEY:TID", value_parser = Search::parse)]
    pub(crate) search: Option<Search>,
}

#[derive(Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
}

#[derive(Args)]
pub(crate) struct NewfsArgs {
    /// Label of the file system, at most 63 bytes
    #[arg(short = 'L', long)]
    pub(crate) label: OsString,
    /// Version of the file system, 1 to 7
    #[arg(short = 'V', long, default_value_t = 7)]
    pub(crate) version: u32,
    /// Size of the UNDO/REDO FIFO: a multiple of 16 KiB with a suffix k, m, g or t, which is rounded up to 8 MiB. At most
    /// 1g, and less than 512m only with -f. Without it a thousandth of the first volume, but 512m at least
    #[arg(short, long, value_parser = suffixed)]
    pub(crate) undo_size: Option<u64>,
    /// Allow sizes that are only good for tests: a first volume below 10 GiB, a FIFO below 512 MiB
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The volumes, by their numbers: the first one is the root volume
    #[arg(value_name = "VOLS", required = true, num_args = 1..)]
    pub(crate) volumes: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct FsckArgs {
    /// One JSON object with all findings, notes included
    #[arg(long)]
    pub(crate) json: bool,
    /// Notes, too: what is legal but worth knowing, such as space that nobody uses
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Without the checksums of file data, and without those parts of the tables that describe nothing
    #[arg(short, long)]
    pub(crate) quick: bool,
    /// How much memory to compare with; with less the tree is read more often
    #[arg(short, long, value_name = "MIB")]
    pub(crate) memory: Option<usize>,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
}

#[derive(Args)]
pub(crate) struct SalvageArgs {
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// Where to: a directory that is empty, or not there yet
    #[arg(value_name = "DIR")]
    pub(crate) target: PathBuf,
}

#[derive(Args)]
pub(crate) struct UndoArgs {
    /// All versions, the newest first
    #[arg(short, long)]
    pub(crate) all: bool,
    /// A unified diff from the version to the next newer one, or from the first -t to the second
    #[arg(short, long)]
    pub(crate) diff: bool,
    /// The same diff in the other direction: what would undo the change
    #[arg(short = 'D', long, conflicts_with = "diff")]
    pub(crate) reverse_diff: bool,
    /// Index, transaction, date and size of the version instead of its contents
    #[arg(short, long, conflicts_with_all = ["diff", "reverse_diff"])]
    pub(crate) info: bool,
    /// Write to this file instead of stdout; with -a, to one file for each version, with .NNNN behind the name
    #[arg(short, long, value_name = "FILE", conflicts_with = "info")]
    pub(crate) output: Option<PathBuf>,
    /// Which version: its index (0 is the newest), or a transaction (0x...) that it was there at. Without it the one before
    /// the newest; of a file that was removed, the last one
    #[arg(short, long, value_name = "INDEX|TID", conflicts_with = "all", value_parser = Moment::parse)]
    pub(crate) transaction: Vec<Moment>,
    #[command(flatten)]
    pub(crate) volumes: VolumeArgs,
    /// The file; it may have been removed
    pub(crate) path: OsString,
}

/// A version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Counted from the newest.
    Index(usize),
    /// What was there as of a transaction.
    AsOf(Tid),
}

impl Moment {
    fn parse(text: &str) -> Result<Self, ParseIntError> {
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).map(|t| Self::AsOf(Tid(t))),
            None => text.parse().map(Self::Index),
        }
    }
}

#[derive(Args)]
pub(crate) struct VolumeArgs {
    /// All volumes of the file system
    #[arg(value_name = "VOLS", value_parser = OsStringValueParser::new().try_map(volume_paths))]
    pub(crate) volumes: Volumes,
}

/// The files or devices that hold the volumes.
#[derive(Clone)]
pub(crate) struct Volumes(pub(crate) Vec<PathBuf>);

fn volume_paths(list: OsString) -> Result<Volumes, &'static str> {
    // A file may have a colon in its name.
    if Path::new(&list).exists() {
        return Ok(Volumes(vec![list.into()]));
    }
    let names = list.as_bytes().split(|&b| b == b':');
    if names.clone().any(<[u8]>::is_empty) {
        return Err("a volume without a name");
    }
    Ok(Volumes(names.map(|name| OsStr::from_bytes(name).into()).collect()))
}

/// A number of bytes, decimal or with `0x`.
fn number(text: &str) -> Result<u64, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

/// A size as `newfs_hammer` takes it: a number with a unit, in all a multiple of 16 KiB.
fn suffixed(text: &str) -> Result<u64, String> {
    let unit = text.chars().next_back().and_then(|c| "kmgt".find(c.to_ascii_lowercase()));
    let unit = unit.ok_or("a suffix k, m, g or t is missing")?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|e| format!("{e}"))?;
    let bytes = number.checked_mul(1 << (10 * (unit + 1))).ok_or("too large")?;
    if bytes.is_multiple_of(16 << 10) { Ok(bytes) } else { Err("not a multiple of 16k".into()) }
}

/// Where to begin to show a tree: the first fields of a key.
#[derive(Clone)]
pub(crate) struct Search {
    /// The argument as it was given.
    pub(crate) text: String,
    /// The fields; those not given are zero.
    pub(crate) key: Key,
    /// How many were given, 1 to 5.
    pub(crate) fields: usize,
}

impl Search {
    fn parse(text: &str) -> Result<Self, String> {
        let mut key = Key { localization: 0, obj_id: 0, rec_type: 0, key: 0, create_tid: Tid::ZERO };
        let mut fields = 0;
        for field in text.split(':') {
            fields += 1;
            let digits = field.strip_prefix("0x").unwrap_or(field);
            let value = u64::from_str_radix(digits, 16).map_err(|e| format!("field {fields}: {e}"))?;
            let too_large = || format!("field {fields}: {field} is too large");
            match fields {
                1 => key.localization = u32::try_from(value).map_err(|_| too_large())?,
                2 => key.obj_id = value as i64,
                3 => key.rec_type = u16::try_from(value).map_err(|_| too_large())?,
                4 => key.key = value as i64,
                5 => key.create_tid = Tid(value),
                _ => return Err("more than the five fields LO:OBJ:RT:KEY:TID".into()),
            }
        }
        Ok(Self { text: text.into(), key, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_search_takes_as_many_fields_as_are_given() {
        let all = Search::parse("1:8000000000000000:0x10:ffffffffffffffff:100018040").unwrap();
        assert_eq!(all.fields, 5);
        assert_eq!((all.key.localization, all.key.obj_id, all.key.rec_type), (1, i64::MIN, 0x10));
        assert_eq!((all.key.key, all.key.create_tid), (-1, Tid(0x1_0001_8040)));
        assert_eq!(Search::parse("2").unwrap().fields, 1);
        for wrong in ["", "x", "1:", "100000000", "1:1:10000", "1:1:1:1:1:1", "-1"] {
            assert!(Search::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volumes_are_separated_by_colons() {
        let Volumes(paths) = volume_paths("/no/such/a:/no/such/b".into()).unwrap();
        assert_eq!(paths, [Path::new("/no/such/a"), Path::new("/no/such/b")]);
        for wrong in ["", ":", "/no/such/a:", ":/no/such/b"] {
            assert!(volume_paths(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_a_unit_and_are_multiples_of_a_buffer() {
        assert_eq!(suffixed("16k"), Ok(16 << 10));
        assert_eq!(suffixed("8000K"), Ok(8000 << 10));
        assert_eq!((suffixed("8m"), suffixed("1g")), (Ok(8 << 20), Ok(1 << 30)));
        for wrong in ["", "8", "k", "-8m", "33k", "8193k", "8mb", "16777216t", "8 m", "8\u{b5}"] {
            assert!(suffixed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!((number("10"), number("0x10")), (Ok(10), Ok(16)));
        assert!(number("-1").is_err() && number("0x").is_err() && number("1k").is_err());
    }
}
