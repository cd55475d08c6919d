//! The command as a person or a script meets it: outputs, exit codes, complaints; on images made here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfly_hammer::ondisk::record::RecType;
use dfly_hammer_image::{Builder, Content, Damage, Data, Format, Image, Object, Seal, Silent, demo};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// What a run of the command gave.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

fn hammer<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_hammer")).args(args).output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An image in a folder of its own, with room for copies.
struct Disk {
    folder: TempDir,
    volumes: String,
}

impl Disk {
    fn new(fs: &Builder) -> Self {
        Self::of_image(&fs.finish().unwrap())
    }

    fn of_image(image: &Image) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["disk.img", "disk.1.img"];
        let paths: Vec<PathBuf> =
            names.iter().take(image.volumes.len()).map(|name| folder.path().join(name)).collect();
        image.write_files(&paths).unwrap();
        let volumes = paths.iter().map(|p| p.to_str().unwrap()).collect::<Vec<_>>().join(":");
        Self { folder, volumes }
    }

    fn demo() -> Self {
        Self::new(&demo(Format::default()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a subcommand with its options, the volumes and the rest.
    fn run(&self, before: &[&str], after: &[&str]) -> Run {
        hammer(before.iter().chain([&&*self.volumes]).chain(after))
    }

    fn ok(&self, before: &[&str], after: &[&str]) -> String {
        let run = self.run(before, after);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{before:?} {after:?}");
        run.out
    }

    fn fails(&self, before: &[&str], after: &[&str]) -> Run {
        let run = self.run(before, after);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.err.starts_with("hammer: ") && run.err.ends_with('\n'), "{run:?}");
        run
    }

    fn copy_out(&self, options: &[&str], source: &str, target: &Path) -> Run {
        let before: Vec<&str> = ["cp-out"].into_iter().chain(options.iter().copied()).collect();
        self.run(&before, &[source, target.to_str().unwrap()])
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["ls"],
        &["tree", "--sha256", "x"],
        &["show", "x", "1:2:x"],
        &["cat", "--offset", "-1", "x", "y"],
        &["cat", "x"],
        &["newfs", "x"],
        &["newfs", "-L", "T"],
        &["newfs", "-L", "T", "-u", "8", "x"],
        &["newfs", "-L", "T", "-u", "33k", "x"],
    ] {
        let run = hammer(args);
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(run.err.contains("try '--help'") || run.err.contains("Usage:"), "{args:?}: {}", run.err);
    }
    assert_eq!(hammer(["--help"]).code, Some(0));
    assert_eq!(hammer(["--version"]).code, Some(0));
}

#[test]
fn what_is_no_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = folder.path().join("zeros");
    fs::write(&zeros, vec![0; 1 << 20]).unwrap();
    let short = folder.path().join("short");
    fs::write(&short, b"short").unwrap();
    let socket = folder.path().join("socket");
    std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (volume, complaint) in [
        (Path::new("/no/such/volume"), "No such file or directory"),
        (folder.path(), "is a directory"),
        (&socket, "neither a file nor a device"),
        (&zeros, "not a HAMMER volume"),
        (&short, "truncated"),
    ] {
        for command in ["ls", "tree", "info", "show"] {
            let run = hammer([OsStr::new(command), volume.as_os_str()]);
            assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
            let name = volume.to_str().unwrap();
            assert!(run.err.contains(complaint) && run.err.contains(name), "{run:?}");
            assert_eq!(run.err.lines().count(), 1, "{run:?}");
        }
    }
}

#[test]
fn newfs_makes_what_the_other_commands_read() {
    let folder = tempfile::tempdir().unwrap();
    let volumes = [("a", 64), ("b", 40)].map(|(name, mib)| {
        let path = folder.path().join(name);
        fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        path.to_str().unwrap().to_string()
    });
    let [a, b] = [volumes[0].as_str(), volumes[1].as_str()];
    let before = fs::read(a).unwrap();
    let root_label = "x".repeat(64);
    for (args, complaint) in [
        (&["-L", "T", "-u", "8m", a][..], "smaller than 10 GiB"),
        (&["-L", "T", "-f", a], "are needed"),
        (&["-L", "T", "-f", "-u", "2g", a], "FIFO"),
        (&["-L", "T", "-f", "-u", "8m", "-V", "8", a], "version 8"),
        (&["-L", &root_label, "-f", "-u", "8m", a], "label"),
        (&["-L", "T", "-f", "-u", "8m", a, b, a], "more than once"),
        (&["-L", "T", "-f", "-u", "8m", a, "/no/such/volume"], "No such file"),
    ] {
        let run = hammer(["newfs"].iter().chain(args));
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.err.contains(complaint), "{run:?}");
        assert!(fs::read(a).unwrap() == before, "{args:?} wrote");
    }
    let run = hammer(["newfs", "-L", "MINE", "-V", "6", "-f", "-u", "9m", a, b]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for line in [
        &format!("Volume 0 REGFILE {a:<15} size  64.00MB"),
        "HAMMER version 6",
        "2 volumes total size 104.00MB",
        &format!("root-volume:         {a}"),
        "boot-area-size:       32.00KB",
        "memory-log-size:     256.00KB",
        "undo-buffer-size:     16.00MB",
        "total-pre-allocated:  32.00MB",
    ] {
        assert!(run.out.lines().any(|l| l == line), "{line}: {}", run.out);
    }
    let fsid = run.out.lines().find_map(|l| l.strip_prefix("fsid:                ")).unwrap().to_string();
    let run = hammer(["info", &format!("{b}:{a}")]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("label      MINE") && run.out.contains(&fsid), "{run:?}");
    // Again, over what is there: another identity.
    let again = hammer(["newfs", "-L", "MINE", "-f", "-u", "8m", a]);
    assert!(again.code == Some(0) && !again.out.contains(&fsid), "{again:?}");
    assert_eq!(hammer(["ls", a]).code, Some(0));
}

#[test]
fn fsck_says_what_is_wrong_by_text_json_and_exit_code() {
    let image = demo(Format { volumes: vec![96 << 20], ..Format::default() }).finish().unwrap();
    let sound = Disk::of_image(&image);
    for args in [&["fsck"][..], &["fsck", "-q", "-m", "1"]] {
        let run = hammer(args.iter().copied().chain([sound.volumes.as_str()]));
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
        assert!(run.out.ends_with("clean: 0 errors, 0 warnings, 0 notes\n"), "{run:?}");
    }
    let mut broken = image.clone();
    Silent::Append(dfly_hammer::ondisk::Zone::META, 16).apply(&mut broken).unwrap();
    Silent::LeakedBlock(dfly_hammer::ondisk::Zone::LARGE_DATA).apply(&mut broken).unwrap();
    let broken = Disk::of_image(&broken);
    let run = hammer(["fsck", &broken.volumes]);
    assert_eq!((run.code, run.err.as_str()), (Some(4), ""), "{run:?}");
    assert!(run.out.starts_with("error: append-too-low at 2"), "{run:?}");
    assert!(run.out.contains("1 error, 0 warnings, 1 note") && !run.out.contains("leaked"), "{run:?}");
    assert!(hammer(["fsck", "-v", &broken.volumes]).out.contains("note: big-block-leaked at 2"));
    let run = hammer(["fsck", "--json", &broken.volumes]);
    assert_eq!(run.code, Some(4), "{run:?}");
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let kinds: Vec<_> = json["findings"].as_array().unwrap().iter().map(|f| f["kind"].clone()).collect();
    assert_eq!(kinds, ["append-too-low", "big-block-leaked"]);
    assert_eq!((&json["errors"], &json["clean"]), (&1.into(), &false.into()));
    // A check that was not made.
    for volume in ["/no/such/volume", "/dev/null"] {
        let run = hammer(["fsck", volume]);
        assert_eq!((run.code, run.out.as_str()), (Some(8), ""), "{run:?}");
        assert!(run.err.contains(volume), "{run:?}");
    }
}

#[test]
fn salvage_copies_what_is_left_and_says_what_is_not() {
    let image = demo(Format::default()).finish().unwrap();
    let sound = Disk::of_image(&image);
    let whole = sound.path("whole");
    let run = hammer([OsStr::new("salvage"), sound.volumes.as_ref(), whole.as_ref()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let notes = fs::read(whole.join("PFS00000/docs/notes")).unwrap();
    assert_eq!(notes, b"Wednesday: began anew.\n");
    assert!(fs::read(whole.join("PFS00001/hello")).unwrap().starts_with(b"from another"));
    assert!(!whole.join("lost+found").exists());
    // Never over something that is there.
    let run = hammer([OsStr::new("salvage"), sound.volumes.as_ref(), whole.as_ref()]);
    assert!(run.code == Some(1) && run.err.contains("not an empty directory"), "{run:?}");

    let mut broken = image.clone();
    Damage::DataByte(RecType::DATA, 3).apply(&mut broken, Seal::Stale).unwrap();
    broken.edit_header(0, |h| h.vol0_btree_root = 0.into()).unwrap();
    let broken = Disk::of_image(&broken);
    let rest = broken.path("rest");
    let run = hammer([OsStr::new("salvage"), broken.volumes.as_ref(), rest.as_ref()]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("the tree is broken") && run.err.contains("bytes 0 to "), "{run:?}");
    assert!(fs::read_link(rest.join("PFS00000/kinds/long-link")).is_ok());
    let large = |of: &Path| fs::read(of.join("PFS00000/kinds/large")).unwrap();
    assert_eq!(large(&rest).len(), large(&whole).len());
}

#[test]
fn undo_prints_lists_and_compares_versions() {
    let disk = Disk::demo();
    let undo = |args: &[&str]| {
        let run = hammer(
            ["undo"]
                .iter()
                .chain(&args[..args.len() - 1])
                .chain([&disk.volumes.as_str()])
                .chain(&args[args.len() - 1..]),
        );
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}: {run:?}");
        run.out
    };
    let (monday, tuesday) = ("Monday: began.\n", "Monday: began.\nTuesday: went on.\n");
    assert_eq!(undo(&["docs/notes"]), tuesday);
    assert_eq!(undo(&["-t", "2", "docs/notes"]), monday);
    assert_eq!(undo(&["-t", "0x100008020", "docs/notes"]), monday);
    let list = undo(&["-ai", "docs/notes"]);
    let first: Vec<_> = list.lines().map(|l| l.split("  ").next().unwrap()).collect();
    assert_eq!(first, ["0000", "0001", "0002"]);
    assert!(list.lines().last().unwrap().ends_with("  15"), "{list}");
    assert!(list.contains("0x0000000100008020"), "{list}");
    let diff = undo(&["-d", "docs/notes"]);
    assert!(diff.contains("\n-Monday: began.\n-Tuesday: went on.\n+Wednesday: began anew.\n"), "{diff}");
    let back = undo(&["-D", "docs/notes"]);
    assert!(back.contains("\n-Wednesday: began anew.\n+Monday: began.\n"), "{back}");
    let both = undo(&["-d", "-t", "2", "-t", "0", "docs/notes"]);
    assert!(
        both.starts_with("--- docs/notes@@0x0000000100008020\n+++ docs/notes@@0x0000000100008060\n"),
        "{both}"
    );
    assert_eq!(undo(&["-a", "docs/notes"]).matches("==> docs/notes").count(), 3);
    // A file that was moved, and then removed.
    assert_eq!(undo(&["draft"]), "Nobody will miss this.\n");
    let out = disk.path("version");
    undo(&["-a", "-o", out.to_str().unwrap(), "docs/notes"]);
    assert_eq!(fs::read_to_string(disk.path("version.0001")).unwrap(), tuesday);
    // Binary contents are not printed as text.
    assert_eq!(hammer(["undo", "-d", &disk.volumes, "kinds/large"]).code, Some(1));
    for (args, complaint) in [
        (&["undo", "-t", "9", &disk.volumes, "docs/notes"][..], "no version 9"),
        (&["undo", "-t", "0x2", &disk.volumes, "docs/notes"], "not there yet"),
        (&["undo", &disk.volumes, "docs"], "no regular file"),
        (&["undo", &disk.volumes, "docs/never"], "docs/never"),
        (&["undo", "-o", out.to_str().unwrap(), "-a", &disk.volumes, "docs/notes"], "exists"),
    ] {
        let run = hammer(args);
        assert!(run.code == Some(1) && run.err.contains(complaint), "{run:?}");
    }
}

#[test]
fn a_missing_volume_is_a_failure() {
    let two = Format { volumes: vec![64 << 20, 64 << 20], ..Format::default() };
    let disk = Disk::new(&demo(two));
    assert!(disk.ok(&["ls"], &[]).contains("docs\n"));
    let (first, second) = disk.volumes.split_once(':').unwrap();
    assert_eq!(hammer(["ls", &format!("{second}:{first}")]).code, Some(0));
    let run = hammer(["ls", first]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("has 2 volumes, 1 were given"), "{run:?}");
}

#[test]
fn ls_lists_names_and_attributes() {
    let disk = Disk::demo();
    assert_eq!(disk.ok(&["ls"], &[]), "bin\ndocs\nhome\nhome-mirror\nkinds\n");
    assert_eq!(disk.ok(&["ls"], &["/docs"]), "notes\n");
    assert_eq!(disk.ok(&["ls"], &["docs/notes"]), "docs/notes\n");
    let long = disk.ok(&["ls", "-l"], &["/kinds"]);
    assert!(long.contains("    2,    2 2020-"), "{long}");
    assert!(long.contains(" short-link -> ../docs/notes\n"), "{long}");
    let tool = long.lines().find(|l| l.ends_with(" hard-link")).unwrap();
    assert!(tool.starts_with("-rwxr-xr-x   2  1001  1001         21 "), "{tool}");
    let mut unsorted: Vec<String> = disk.ok(&["ls", "-U"], &["/kinds"]).lines().map(String::from).collect();
    unsorted.sort();
    let sorted: Vec<String> = disk.ok(&["ls"], &["/kinds"]).lines().map(String::from).collect();
    assert_eq!(unsorted, sorted);
    let run = disk.fails(&["ls"], &["/nowhere"]);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", "hammer: /nowhere: No such file or directory\n"));
}

#[test]
fn paths_lead_to_other_times_and_file_systems() {
    let fs = demo(Format::default());
    let disk = Disk::new(&fs);
    let history = disk.ok(&["history"], &["/docs/notes"]);
    let tids: Vec<&str> = history.lines().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(tids.len(), 3, "{history}");
    let then = |tid: &str| disk.ok(&["cat"], &[&format!("/docs/notes@@{tid}")]);
    assert_eq!(then(tids[0]), "Monday: began.\n");
    assert_eq!(then(tids[1]), "Monday: began.\nTuesday: went on.\n");
    assert_eq!(then(tids[2]), disk.ok(&["cat"], &["docs/notes"]));
    assert_eq!(disk.ok(&["ls"], &[&format!("/@@{}/docs", tids[0])]), "draft\nnotes\n");
    assert_eq!(disk.ok(&["cat"], &["/home/hello"]), "from another file system\n");
    assert_eq!(disk.ok(&["cat"], &["/@@-1:00001/hello"]), "from another file system\n");
    assert_eq!(disk.ok(&["cat"], &["/home-mirror/hello"]), "from another file system\n");
    disk.fails(&["ls"], &["/@@0x1/docs"]);
}

#[test]
fn tree_draws_and_counts() {
    let mut fs = Builder::default();
    let root = fs.root();
    let a = fs.directory(root, "a");
    let b = fs.directory(a, "b");
    fs.file(b, "deep", Content::bytes("x"));
    fs.symlink(a, "link", "b/deep");
    let disk = Disk::new(&fs);
    let tree = disk.ok(&["tree"], &[]);
    // The order within a directory is that of its hashes.
    let either = [
        "/\n`-- a\n    |-- b\n    |   `-- deep\n    `-- link -> b/deep\n\n3 directories, 2 files\n",
        "/\n`-- a\n    |-- link -> b/deep\n    `-- b\n        `-- deep\n\n3 directories, 2 files\n",
    ];
    assert!(either.contains(&tree.as_str()), "{tree}");
    assert_eq!(disk.ok(&["tree"], &["a/b/deep"]), "a/b/deep\n\n0 directories, 1 file\n");
    assert_eq!(disk.ok(&["tree"], &["a/b"]), "a/b\n`-- deep\n\n1 directory, 1 file\n");
}

#[test]
fn tree_writes_json_of_any_name() {
    let mut fs = Builder::default();
    let root = fs.root();
    for name in [&b"plain"[..], b"quo\"te", b"back\\slash", b"new\nline", b"\xc3\xaf", b"\xff"] {
        fs.file(root, name, Content::bytes(name));
    }
    let disk = Disk::new(&fs);
    let text = disk.ok(&["tree", "--json", "--sha256"], &[]);
    assert!(text.contains("\"path\": \"/\\udcff\""), "{text}");
    let all: serde_json::Value = serde_json::from_str(&text.replace("\\udcff", "?")).unwrap();
    let mut paths: Vec<&str> = all.as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/", "/?", "/back\\slash", "/new\nline", "/plain", "/quo\"te", "/\u{ef}"]);
    for e in all.as_array().unwrap().iter().filter(|e| e["path"] == "/plain") {
        let expected: String = Sha256::digest(b"plain").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(e["sha256"], expected);
    }
}

#[test]
fn cat_prints_parts() {
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "f", Content::bytes("0123456789"));
    let disk = Disk::new(&fs);
    assert_eq!(disk.ok(&["cat"], &["f"]), "0123456789");
    assert_eq!(disk.ok(&["cat", "--offset", "4"], &["f"]), "456789");
    assert_eq!(disk.ok(&["cat", "--offset", "4", "--length", "0x3"], &["f"]), "456");
    assert_eq!(disk.ok(&["cat", "--offset", "100"], &["f"]), "");
    assert!(disk.fails(&["cat"], &["/"]).err.contains("Is a directory"));
    assert!(disk.fails(&["cat"], &["f/"]).err.contains("Not a directory"));
}

#[test]
fn stat_and_info_tell_what_there_is() {
    let disk = Disk::demo();
    let stat = disk.ok(&["stat"], &["/kinds/long-link"]);
    assert!(stat.contains("  target  ../a/target/that/does/not/fit/into/an/inode\n"), "{stat}");
    assert!(stat.contains("    type  lnk\n") && stat.contains("   as of  now\n"), "{stat}");
    let info = disk.ok(&["info"], &[]);
    for line in ["version    7", "state      clean", "home, mirrored", "monday"] {
        assert!(info.contains(line), "{line}: {info}");
    }
}

#[test]
fn nothing_is_written_to_a_volume() {
    let disk = Disk::demo();
    let before = fs::read(&disk.volumes).unwrap();
    for (command, rest) in [
        (&["tree", "--json", "--sha256"][..], &[][..]),
        (&["show"], &[]),
        (&["info"], &[]),
        (&["history"], &["/docs/notes"]),
    ] {
        disk.ok(command, rest);
    }
    assert!(fs::read(&disk.volumes).unwrap() == before);
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let mut fs = Builder::default();
    let root = fs.root();
    for i in 0..3000 {
        fs.file(root, format!("a-file-with-a-long-name-{i:060}"), Content::default());
    }
    let disk = Disk::new(&fs);
    let mut child = Command::new(env!("CARGO_BIN_EXE_hammer"))
        .args(["tree", "--json", &disk.volumes])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn cp_out_copies_a_tree_and_minds_what_is_there() {
    let disk = Disk::demo();
    let target = disk.path("copy");
    let run = disk.copy_out(&[], "/kinds", &target);
    assert_eq!(run.code, Some(0), "{run:?}");
    // Pipes, sockets and devices are left out, with a notice for each.
    assert_eq!(run.err.lines().count(), 4, "{run:?}");
    assert_eq!(fs::read_link(target.join("short-link")).unwrap(), Path::new("../docs/notes"));
    assert_eq!(fs::metadata(target.join("large")).unwrap().len(), 1_500_000);
    let sparse = fs::metadata(target.join("sparse")).unwrap();
    assert!(sparse.len() == 3 << 20 && sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());

    // Into a directory that exists; then nothing is overwritten, unless it is asked for.
    assert_eq!(disk.copy_out(&[], "/docs/notes", &target).code, Some(0));
    fs::write(target.join("notes"), b"mine").unwrap();
    let run = disk.copy_out(&[], "/docs/notes", &target);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("File exists"), "{run:?}");
    assert_eq!(fs::read(target.join("notes")).unwrap(), b"mine");
    assert_eq!(disk.copy_out(&["--force"], "/docs/notes", &target).code, Some(0));
    assert_eq!(fs::read(target.join("notes")).unwrap(), b"Wednesday: began anew.\n");

    let run = disk.copy_out(&[], "/kinds", disk.folder.path());
    assert_eq!(run.code, Some(0), "{run:?}");
    let run = disk.copy_out(&[], "/kinds", disk.folder.path());
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("is not empty"), "{run:?}");
    assert_eq!(disk.copy_out(&["--force"], "/kinds", disk.folder.path()).code, Some(0));
    assert!(fs::read_dir(disk.path("kinds")).unwrap().count() == 6);
}

#[test]
fn cp_out_joins_names_of_one_file_and_gives_no_power() {
    let mut image = Builder::default();
    let root = image.root();
    let d = image.directory(root, "d");
    let f = image.file(d, "one", Content::bytes("data"));
    image.link(d, "two", f);
    image.inode(f, |inode| inode.mode = 0o6755.into());
    let disk = Disk::new(&image);
    let target = disk.path("copy");
    for options in [&[][..], &["--force"]] {
        assert_eq!(disk.copy_out(options, "/d", &target).code, Some(0));
        let target = if options.is_empty() { target.clone() } else { target.join("d") };
        let found = ["one", "two"].map(|name| fs::metadata(target.join(name)).unwrap());
        assert_eq!(found[0].ino(), found[1].ino());
        assert_eq!(found[0].permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2, "no leftovers");
    }
}

/// A directory `d` with a file for each of these names, none of which is a possible one.
fn with_impossible_names(names: &[&[u8]]) -> (Builder, Object) {
    let mut fs = Builder::default();
    let root = fs.root();
    let d = fs.directory(root, "d");
    for (i, _) in names.iter().enumerate() {
        fs.file(d, format!("impossible-{i}"), Content::bytes("stolen"));
    }
    fs.file(d, "good", Content::bytes("good"));
    for record in fs.records_mut().filter(|r| r.key.rec_type == RecType::DIRENTRY.0) {
        let bytes = record.data.get().unwrap();
        let Some(number) = bytes[16..].strip_prefix(b"impossible-") else { continue };
        let number: usize = std::str::from_utf8(number).unwrap().parse().unwrap();
        record.data = Data::bytes([&bytes[..16], names[number]].concat());
    }
    (fs, d)
}

#[test]
fn names_that_lead_out_of_the_target_lead_nowhere() {
    let (image, _) = with_impossible_names(&[b"../evil", b"..", b".", b"/etc/evil", b"a/b", b"nul\0nul"]);
    let disk = Disk::new(&image);
    let target = disk.path("copy");
    for options in [&[][..], &["--force"]] {
        let run = disk.copy_out(options, "/", &target);
        assert_eq!(run.code, Some(1));
        assert_eq!(run.err.matches("an impossible name in a directory").count(), 6, "{run:?}");
        assert_eq!(fs::read_dir(target.join("d")).unwrap().count(), 1);
        assert_eq!(fs::read(target.join("d/good")).unwrap(), b"good");
        assert!(!disk.path("evil").exists() && !target.join("evil").exists());
    }
    let run = disk.fails(&["tree", "--json"], &[]);
    assert_eq!(run.out.matches("\"path\"").count(), 3, "{run:?}");
    assert!(!run.err.contains('\0'), "{run:?}");
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_entered() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut image = Builder::default();
        let root = image.root();
        let outside = tempfile::tempdir().unwrap();
        let elsewhere = image.directory(root, "elsewhere");
        let trap = image.symlink(elsewhere, "trap", outside.path().to_str().unwrap());
        let real = image.directory(elsewhere, "real");
        image.file(real, "planted", Content::bytes("planted"));
        // One name for both: whichever comes first, the other must not work through it.
        let d = image.directory(root, "d");
        image.entry_at(d, "name", first, trap);
        image.entry_at(d, "name", second, real);
        let disk = Disk::new(&image);
        for options in [&[][..], &["--force"]] {
            let target = disk.path(if options.is_empty() { "copy" } else { "copy-forced" });
            let run = disk.copy_out(options, "/d", &target);
            assert_eq!(run.code, Some(1), "{run:?}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{run:?}");
        }
    }
}

#[test]
fn a_directory_below_itself_ends() {
    let mut image = Builder::default();
    let root = image.root();
    let a = image.directory(root, "a");
    let b = image.directory(a, "b");
    image.link(b, "loop", a);
    image.link(b, "top", root);
    let disk = Disk::new(&image);
    for command in [&["tree"][..], &["tree", "--json", "--sha256"]] {
        let run = disk.fails(command, &[]);
        assert_eq!(run.err.matches("a directory that is in the tree twice").count(), 2, "{run:?}");
    }
    assert_eq!(disk.copy_out(&[], "/", &disk.path("copy")).code, Some(1));
}

#[test]
fn damage_is_reported_and_the_rest_is_read() {
    let mut image = Builder::default();
    let root = image.root();
    image.file(root, "first", Content::bytes("1".repeat(3000)));
    image.file(root, "second", Content::bytes("2".repeat(3000)));
    let mut image = image.finish().unwrap();
    // The first DATA record in the tree is that of the file with the smaller object id.
    Damage::DataByte(RecType::DATA, 100).apply(&mut image, Seal::Stale).unwrap();
    let disk = Disk::of_image(&image);

    let run = disk.fails(&["cat"], &["first"]);
    assert!(
        run.err.starts_with("hammer: first: Input/output error: bad checksum of file data at 0x"),
        "{run:?}"
    );
    assert_eq!(disk.ok(&["cat"], &["second"]).len(), 3000);

    let run = disk.fails(&["tree", "--json", "--sha256"], &[]);
    let all: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let hash =
        |path: &str| all.as_array().unwrap().iter().find(|e| e["path"] == path).unwrap()["sha256"].clone();
    assert!(hash("/first").is_null() && hash("/second").is_string(), "{}", run.out);

    let run = disk.run(&["show"], &[]);
    assert_eq!((run.code, run.err.as_str()), (Some(1), ""));
    assert_eq!(run.out.matches(" error=BX ").count(), 1);
    assert!(run.out.ends_with("\n1 bad records\n"), "{}", run.out);

    let target = disk.path("copy");
    assert_eq!(disk.copy_out(&[], "/", &target).code, Some(1));
    assert!(!target.join("first").exists());
    assert_eq!(fs::metadata(target.join("second")).unwrap().len(), 3000);
}

#[test]
fn a_directory_that_breaks_off_is_listed_up_to_there() {
    let mut fs = Builder::default();
    let root = fs.root();
    for i in 0..1300 {
        fs.file(root, format!("file-number-{i:04}"), Content::bytes("x"));
    }
    let disk = Disk::new(&fs);
    let names = disk.ok(&["ls", "-U"], &[]);
    let names: Vec<&str> = names.lines().collect();
    // Behind the first entries that are read together, with whole ones between.
    let (whole, broken) = (&names[..900], names[900]);
    let mut image = fs::read(&disk.volumes).unwrap();
    let at = image.windows(broken.len()).position(|bytes| bytes == broken.as_bytes()).unwrap();
    image[at] ^= 1;
    fs::write(&disk.volumes, image).unwrap();

    let complaint = "Input/output error: bad checksum of ";
    let run = disk.fails(&["ls", "-U"], &[]);
    assert_eq!(run.out.lines().collect::<Vec<_>>(), whole);
    assert!(run.err.contains(complaint) && run.err.lines().count() == 1, "{run:?}");
    let run = disk.fails(&["ls"], &[]);
    assert_eq!(run.out.lines().count(), whole.len());

    let run = disk.fails(&["tree", "--json"], &[]);
    let all: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1 + whole.len());
    assert!(run.err.contains(complaint) && run.err.lines().count() == 1, "{run:?}");

    let target = disk.path("copy");
    assert_eq!(disk.copy_out(&[], "/", &target).code, Some(1));
    assert_eq!(fs::read_dir(&target).unwrap().count(), whole.len());
}

#[test]
fn a_hash_that_would_take_years_is_not_begun() {
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "exabyte", Content::hole(1 << 60).with_bytes(1 << 50, "data"));
    fs.file(root, "small", Content::hole(1 << 20));
    let disk = Disk::new(&fs);
    let run = disk.fails(&["tree", "--json", "--sha256"], &[]);
    assert!(run.err.contains("/exabyte: File too large"), "{run:?}");
    let all: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let hash = |path: &str| &all.as_array().unwrap().iter().find(|e| e["path"] == path).unwrap()["sha256"];
    assert!(hash("/exabyte").is_null() && hash("/small").is_string(), "{}", run.out);
}

#[test]
fn show_ends_on_any_damage() {
    let mut original = demo(Format::default());
    original.shape(dfly_hammer_image::Shape { leaf: 4, ..Default::default() });
    let original = original.finish().unwrap();
    let mut shown = 0;
    for damage in [
        Damage::Cycle,
        Damage::TooDeep(200),
        Damage::KeyOrder,
        Damage::KeyOutOfBounds,
        Damage::Root(0),
        Damage::Root(u64::MAX),
        Damage::Child(u64::MAX),
        Damage::Parent(0),
        Damage::LeafCount(i32::MAX),
        Damage::LeafCount(-1),
        Damage::ChildCount(0),
        Damage::NodeType(0xff),
        Damage::ChildType(b'R'),
        Damage::DataOffset(RecType::INODE, 0),
        Damage::DataLen(RecType::DIRENTRY, 65537),
        Damage::DataLen(RecType::INODE, 16),
        Damage::RecordType(RecType::DATA, 0x7777),
    ] {
        for seal in [Seal::Stale, Seal::Fresh] {
            let mut image = original.clone();
            damage.apply(&mut image, seal).unwrap();
            let disk = Disk::of_image(&image);
            let run = disk.run(&["show"], &[]);
            assert_eq!(run.code, Some(1), "{damage:?} {seal:?}: {}", run.err);
            assert!(run.out.contains(" bad "), "{damage:?} {seal:?}: {}", run.out);
            shown += 1;
        }
    }
    assert_eq!(shown, 34);
}
