//! Commands on a root in memory and HAMMER disks in memory, with a screen that remembers.

use super::*;
use crate::shell::context::{System, Work};
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::time::Duration;
use dfly_bio::{BlockDevice, MemDisk, OpenError};
use dfly_hal::sync::Lock;
use dfly_hal::{SpinWait, ThreadWait};
use dfly_hammer_image::{Format, demo};
use dfly_lwkt::ThreadInfo;
use dfly_vfs::mem::MemFs;
use dfly_vfs::{
    Access, Attr, Call, DeviceNumber, DirSink, Entry, Errno, FIRST_COOKIE, FileSystem, FileSystemExt as _,
    Kind, LinkSink, Name, NodeId, OpenId, Opened, ReadSink, SetAttr, SetTime, Special, StatFs, Timestamp,
    Walk,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::format;
use std::sync::LazyLock;
use std::vec;

/// A terminal that keeps what is written, and has lines to be read.
#[derive(Default)]
pub(crate) struct Screen {
    writes: Lock<Vec<Vec<u8>>>,
    lines: Lock<VecDeque<Vec<u8>>>,
}

impl Screen {
    pub(crate) fn writes(&self) -> Vec<Vec<u8>> {
        self.writes.lock().clone()
    }
}

impl Terminal for Screen {
    fn write(&self, bytes: &[u8]) {
        self.writes.lock().push(bytes.to_vec());
    }

    fn read_line(&self, prompt: &str, _: &mut dyn Wait) -> Option<Vec<u8>> {
        assert_eq!(prompt, "# ");
        self.lines.lock().pop_front()
    }
}

/// A machine with two HAMMER disks (one a crashed one), and one that holds nothing.
struct Machine {
    mounts: MountTable,
    disks: Vec<Arc<MemDisk>>,
    said: Lock<Vec<String>>,
    slept: Lock<Duration>,
}

/// One image of two volumes, and a blank one. Made once: it takes a while.
static DISKS: LazyLock<Vec<Arc<MemDisk>>> = LazyLock::new(|| {
    let format = Format { volumes: vec![64 << 20; 2], ..Format::default() };
    let image = demo(format).finish().unwrap();
    let disk = |volume: &dfly_hammer_image::Volume| {
        let mut image = dfly_bio::Image::new(volume.size());
        for (at, chunk) in volume.chunks() {
            image.write(at, chunk).unwrap();
        }
        Arc::new(MemDisk::from_image(512, image))
    };
    let mut disks: Vec<_> = image.volumes.iter().map(disk).collect();
    disks.push(Arc::new(MemDisk::new(512, 1 << 17)));
    disks
});

impl Machine {
    /// Its root holds `files`, each with its own name as contents.
    fn new() -> Self {
        let root = MemFs::new();
        let mut nothing = || ();
        let w = &mut SpinWait::new(&mut nothing);
        let dir = root.at(w).nmkdir("d", 0o755).unwrap().node();
        for name in [&b"b"[..], b"a", b".hidden", b"\x1b[2J\xff\n"] {
            let file = root.at(w).to(dir).ncreate(name, 0o640).unwrap().open(Access::Write).unwrap();
            file.write_at(w, 0, name).unwrap();
        }
        root.at(w).to(dir).nmkdir("sub", 0o711).unwrap().ncreate("inner", 0o600).unwrap();
        root.at(w).nmkdir("mnt", 0o755).unwrap();
        root.at(w).nsymlink("to_d", "d").unwrap();
        root.at(w).nsymlink("nowhere", "none\x07").unwrap();
        let null = Special::CharDevice(DeviceNumber { major: 2, minor: 3 });
        root.at(w).nmknod("null", null, 0o666).unwrap();
        let moment = |us| Some(SetTime::To(Timestamp::from_micros(us)));
        let times = SetAttr { atime: moment(-1), mtime: moment(1_600_000_000_000_005), ..SetAttr::default() };
        root.at(w).walk("d/a").unwrap().setattr(&times).unwrap();
        let mounts = MountTable::new(Arc::new(root), b"mem");
        let disks = DISKS.clone();
        Self { mounts, disks, said: Lock::default(), slept: Lock::default() }
    }

    fn session(&self, session: Session, lines: &[&str]) -> (Verdict, Vec<u8>) {
        let screen = Arc::new(Screen::default());
        screen.lines.lock().extend(lines.iter().map(|l| l.as_bytes().to_vec()));
        let mut nothing = || ();
        let verdict = run_on(self, &self.mounts, screen.clone(), session, &mut SpinWait::new(&mut nothing));
        for write in screen.writes() {
            assert!(write.ends_with(b"\n"), "a cut line: {}", write.escape_ascii());
        }
        (verdict, screen.writes().concat())
    }

    /// Runs a script.
    fn script(&self, script: impl AsRef<[u8]>) -> (Verdict, String) {
        let (verdict, shown) = self.session(Session::Script(script.as_ref().to_vec()), &[]);
        (verdict, String::from_utf8(shown).unwrap())
    }
}

impl System for Machine {
    fn uptime(&self) -> Duration {
        Duration::new(3723, 45_000_000) + *self.slept.lock()
    }

    fn sleep(&self, time: Duration, _: &mut dyn Wait) {
        *self.slept.lock() += time;
    }

    fn open_disk(&self, name: &[u8], _: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError> {
        let unit = match name {
            b"nvme0" => 0,
            b"nvme1" => 1,
            b"nvme2" => 2,
            _ => return Err(OpenError::NotFound),
        };
        Ok(self.disks[unit].clone())
    }

    fn spawn(&self, _: &str, work: Work) -> Result<(), String> {
        std::thread::spawn(move || work(&mut ThreadWait::new()));
        Ok(())
    }

    fn say(&self, text: &dyn Display) {
        self.said.lock().push(text.to_string());
    }

    fn messages(&self) -> Vec<String> {
        vec!["[    0.000001] one".into(), "[    0.000002] \x1b[2J".into()]
    }

    fn threads(&self) -> Vec<ThreadInfo> {
        Vec::new()
    }

    fn interrupts(&self) -> Vec<(String, u64)> {
        vec![("nvme0".into(), 7446), ("nvme1".into(), 1)]
    }

    fn variables(&self) -> Vec<(String, String)> {
        let row = |name: &str, value: &str| (name.into(), value.into());
        vec![
            row("hw.ncpu", "2"),
            row("dev.nvme.0.model", "m"),
            row("dev.nvme.0.serial", "s"),
            row("dev.nvme.01", "x"),
        ]
    }
}

/// What a script that succeeds shows.
fn shown(script: &str) -> String {
    let (verdict, shown) = Machine::new().script(script);
    assert_eq!(verdict, Verdict::Success, "{shown}");
    shown
}

/// What a line that fails shows, without the note of which line it was.
fn complaint(line: &str) -> String {
    let (verdict, shown) = Machine::new().script(line);
    assert_eq!(verdict, Verdict::Failure, "{shown}");
    let note = format!("sh: line 1: failed: {}\n", printable(line.as_bytes()));
    shown.strip_suffix(&note).expect("a note").into()
}

#[test]
fn a_script_ends_at_the_first_line_that_fails() {
    let (verdict, shown) = Machine::new().script("echo a\n\n# comment\n  ls /none  \necho b");
    assert_eq!(verdict, Verdict::Failure);
    assert_eq!(shown, "a\nls: /none: No such file or directory\nsh: line 4: failed: ls /none\n");
}

#[test]
fn a_line_ends_at_the_first_command_that_fails() {
    assert_eq!(complaint("echo a; ls /none; echo b"), "a\nls: /none: No such file or directory\n");
}

#[test]
fn a_failure_that_is_expected_is_none() {
    assert_eq!(
        shown("! ls /none\n! nonsense\necho on"),
        "ls: /none: No such file or directory\nsh: nonsense: not found\non\n"
    );
    assert_eq!(complaint("! echo a"), "a\n");
    assert_eq!(complaint("! ls $x"), "sh: Syntax error: expansion is not supported: quote the `$`\n");
}

#[test]
fn an_unknown_command_and_bad_syntax_fail() {
    assert_eq!(complaint("frobnicate -x"), "sh: frobnicate: not found\n");
    assert_eq!(complaint("ls | cat"), "sh: Syntax error: \"|\" unexpected\n");
    assert_eq!(complaint("echo 'a"), "sh: Syntax error: Unterminated quoted string\n");
}

#[test]
fn a_person_is_not_held_to_what_fails() {
    let machine = Machine::new();
    let (verdict, shown) =
        machine.session(Session::Interactive, &["ls /none", "pwd", "shutdown -p now", "pwd"]);
    assert_eq!(verdict, Verdict::Success);
    assert_eq!(shown, b"ls: /none: No such file or directory\n/\n");
    // The end of input is also an end.
    assert_eq!(machine.session(Session::Interactive, &["echo a"]).1, b"a\n");
}

#[test]
fn who_leaves_ends_what_comes_after() {
    assert_eq!(shown("echo a; exit; echo b\necho c"), "a\n");
    for line in ["shutdown", "shutdown -p", "shutdown -h now", "! exit", "halt", "halt -p", "exit 0"] {
        assert_eq!(shown(&format!("{line}\nls /none")), "");
    }
    assert_eq!(Machine::new().script("exit 1").0, Verdict::Failure);
}

#[test]
fn commands_are_shown_on_request() {
    assert_eq!(shown("set -x\necho 'a  b'"), "+ echo a  b\na  b\n");
    assert_eq!(shown("set -x\nset +x\necho a"), "+ set +x\na\n");
}

#[test]
fn words_with_a_star_become_names() {
    assert_eq!(
        shown("echo n* '*' x* /n* d/.h* d/*b"),
        "nowhere null * x* /nowhere /null d/.hidden d/b d/sub\n"
    );
    assert_eq!(shown("cd d; ls -d *"), "\\x1b[2J\\xff\\x0a\na\nb\nsub\n");
    assert_eq!(complaint("ls /*/a"), "sh: Syntax error: `*` is understood in the last component only\n");
}

#[test]
fn echo_writes_its_arguments() {
    assert_eq!(shown("echo a  b 'c  d'\necho\necho -n a; echo b"), "a b c  d\n\na\nb\n");
}

#[test]
fn directories_are_entered_and_left() {
    assert_eq!(
        shown("pwd; cd d/sub; pwd; cd ..; pwd; cd /to_d/sub; pwd; cd ..; pwd; cd; pwd"),
        "/\n/d/sub\n/d\n/to_d/sub\n/to_d\n/\n"
    );
    assert_eq!(complaint("cd /none"), "cd: /none: No such file or directory\n");
    assert_eq!(complaint("cd d/a"), "cd: d/a: Not a directory\n");
    assert_eq!(complaint("cd a b"), "usage: cd [directory]\n");
}

#[test]
fn ls_lists_names_in_order_and_harmlessly() {
    assert_eq!(shown("ls"), "d\nmnt\nnowhere\nnull\nto_d\n");
    assert_eq!(
        shown("ls d to_d d/a"),
        "d/a\n\nd:\n\\x1b[2J\\xff\\x0a\na\nb\nsub\n\nto_d:\n\\x1b[2J\\xff\\x0a\na\nb\nsub\n"
    );
    assert_eq!(shown("cd d; ls -A; ls -a sub"), "\\x1b[2J\\xff\\x0a\n.hidden\na\nb\nsub\n.\n..\ninner\n");
    assert_eq!(shown("ls -d d nowhere; ls nowhere"), "d\nnowhere\nnowhere\n");
    assert_eq!(complaint("ls -z"), "ls: illegal option -- z\nusage: ls [-1AaRdil] [file ...]\n");
}

#[test]
fn ls_lists_trees() {
    assert_eq!(shown("ls -R d"), "\\x1b[2J\\xff\\x0a\na\nb\nsub\n\nd/sub:\ninner\n");
    assert_eq!(
        shown("ls -R"),
        "d\nmnt\nnowhere\nnull\nto_d\n\n./d:\n\\x1b[2J\\xff\\x0a\na\nb\nsub\n\n./d/sub:\ninner\n\n./mnt:\n"
    );
}

/// 64 directories, one below the other, each under two names: 2^64 paths.
struct Maze;

impl FileSystem for Maze {
    fn root(&self) -> NodeId {
        NodeId([0; 3])
    }
    fn statfs(&self, _: &mut Call<'_>) -> dfly_vfs::Result<StatFs> {
        Err(Errno::ENOSYS.into())
    }
    fn getattr(&self, _: &mut Call<'_>, node: NodeId) -> dfly_vfs::Result<Attr> {
        let mut attr = Attr::new(node, Kind::Directory);
        attr.mode = 0o755;
        Ok(attr)
    }
    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, _: Name<'_>) -> dfly_vfs::Result<Attr> {
        self.getattr(c, NodeId([dir.0[0] + 1, 0, 0]))
    }
    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> dfly_vfs::Result<Attr> {
        self.getattr(c, NodeId([dir.0[0].saturating_sub(1), 0, 0]))
    }
    fn readlink(&self, _: &mut Call<'_>, _: NodeId, _: &mut LinkSink<'_>) -> dfly_vfs::Result<()> {
        Err(Errno::EINVAL.into())
    }
    fn open(&self, _: &mut Call<'_>, node: NodeId, _: Access) -> dfly_vfs::Result<Opened> {
        Ok(Opened { open: OpenId(0), node })
    }
    fn close(&self, _: OpenId) {}
    fn read(
        &self,
        _: &mut Call<'_>,
        _: NodeId,
        _: u64,
        _: u64,
        _: &mut ReadSink<'_>,
    ) -> dfly_vfs::Result<u64> {
        Err(Errno::EISDIR.into())
    }
    fn readdir(
        &self,
        _: &mut Call<'_>,
        dir: NodeId,
        cookie: u64,
        out: &mut DirSink<'_>,
    ) -> dfly_vfs::Result<()> {
        let below = NodeId([dir.0[0] + 1, 0, 0]);
        let names = [&b"a"[..], b"b"].into_iter().zip(FIRST_COOKIE..).filter(|_| dir.0[0] < 63);
        for (name, at) in names.skip_while(|&(_, at)| at < cookie) {
            let entry = Entry { name, node: below, kind: Kind::Directory, fileid: below.0[0], next: at + 1 };
            if out(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn ls_lists_a_directory_once_whatever_names_it_has() {
    let machine = Machine::new();
    let mut nothing = || ();
    let w = &mut SpinWait::new(&mut nothing);
    let c = &mut Call::new(w);
    let at = machine.mounts.walk(c, &machine.mounts.root(), b"mnt", &Walk::default()).unwrap().0;
    machine.mounts.mount(c, &at, Arc::new(Maze), b"maze", b"/mnt").unwrap();
    drop(at);
    let (verdict, out) = machine.script("ls -R /mnt");
    assert_eq!(verdict, Verdict::Failure);
    assert_eq!(out.lines().filter(|line| line.ends_with(':')).count(), 63);
    assert_eq!(out.lines().filter(|line| line.ends_with("directory is listed already")).count(), 63);
}

#[test]
fn ls_tells_what_names_stand_for() {
    assert_eq!(
        shown("ls -l d/a nowhere null to_d"),
        "-rw-r-----   1     0     0          1 2020-09-13 12:26:40 d/a\n\
         lrwxrwxrwx   1     0     0          5 1970-01-01 00:00:00 nowhere -> none\\x07\n\
         crw-rw-rw-   1     0     0    2,    3 1970-01-01 00:00:00 null\n\
         lrwxrwxrwx   1     0     0          1 1970-01-01 00:00:00 to_d -> d\n"
    );
    let long = shown("ls -la d/sub");
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], "total 0");
    assert!(lines[1].starts_with("drwx--x--x") && lines[1].ends_with(" ."), "{long}");
    assert!(lines[2].starts_with("drwxr-xr-x") && lines[2].ends_with(" .."), "{long}");
    assert_eq!(lines.len(), 4);
    assert_eq!(shown("ls -i d/a").split(' ').count(), 2);
}

#[test]
fn cat_writes_bytes_as_they_are() {
    assert_eq!(shown("cat d/a d/b"), "ab\n");
    assert_eq!(
        complaint("cat d/a d /none d/b"),
        "a\ncat: d: Is a directory\ncat: /none: No such file or directory\nb\n"
    );
    assert_eq!(complaint("cat"), "usage: cat file ...\n");
}

#[test]
fn sums_are_written_in_the_bsd_way() {
    let a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    assert_eq!(shown("sha256 d/a"), format!("SHA256 (d/a) = {a}\n"));
    assert_eq!(shown("sha256 -q d/a; sha256 -r d/a"), format!("{a}\n{a} d/a\n"));
    assert!(shown(r"sha256 d/$'\x1b[2J\xff\n'").starts_with("SHA256 (d/\\x1b[2J\\xff\\x0a) = "));
    assert_eq!(complaint("sha256 d"), "sha256: d: Is a directory\n");
}

#[test]
fn stat_tells_everything_in_numbers() {
    let raw = shown("stat -r d/a");
    let fields: Vec<&str> = raw.trim_end().split(' ').collect();
    assert_eq!(fields[2..8], ["0100640", "1", "0", "0", "0,0", "1"]);
    assert_eq!(fields[8..10], ["-1.999999", "1600000000.000005"]);
    assert_eq!(fields[11..], ["4096", "1", "0", "d/a"]);
    let of_null = shown("stat -r null");
    let fields: Vec<&str> = of_null.split(' ').collect();
    assert_eq!((fields[2], fields[6]), ("020666", "2,3"));
    assert!(shown("stat to_d").contains(" lrwxrwxrwx "));
    assert!(shown("stat -L to_d").contains(" drwxr-xr-x "));
    assert!(shown("stat d/a").contains("\"1969-12-31 23:59:59\" \"2020-09-13 12:26:40\""));
    assert_eq!(complaint("stat /none"), "stat: /none: No such file or directory\n");
}

#[test]
fn links_are_read() {
    assert_eq!(shown("readlink to_d nowhere; readlink -n to_d"), "d\nnone\\x07\nd\n");
    assert_eq!(complaint("readlink d"), "readlink: d: Invalid argument\n");
}

#[test]
fn directories_are_made_and_removed() {
    assert_eq!(
        shown("mkdir x x/y; mkdir -p x/y x/p/q/r/ /d/sub; ls -R x; rmdir x/y; ls x"),
        "p\ny\n\nx/p:\nq\n\nx/p/q:\nr\n\nx/p/q/r:\n\nx/y:\np\n"
    );
    assert_eq!(complaint("mkdir d"), "mkdir: d: File exists\n");
    assert_eq!(complaint("mkdir -p d/a/x"), "mkdir: d/a/x: Not a directory\n");
    assert_eq!(complaint("rmdir d"), "rmdir: d: Directory not empty\n");
    assert_eq!(complaint("cd d/sub; rmdir ../sub"), "rmdir: ../sub: Device busy\n");
}

#[test]
fn a_disk_is_mounted_read_and_unmounted() {
    assert_eq!(
        shown(
            "mount -r nvme0:nvme1 /mnt\nmount\ncat /mnt/docs/notes\ncd /mnt/kinds; readlink short-link; cat short-link\n\
             ls ..; cd /; umount /mnt; ls /mnt; mount"
        ),
        "mem on / (mem)\nnvme0:nvme1 on /mnt (hammer, noatime, read-only)\nWednesday: began anew.\n../docs/notes\n\
         Wednesday: began anew.\nbin\ndocs\nhome\nhome-mirror\nkinds\nmem on / (mem)\n"
    );
    assert_eq!(
        shown("mount -o ro,cache=4m -t hammer /dev/nvme1:/dev/nvme0 mnt; umount nvme1:nvme0; mount"),
        "mem on / (mem)\n"
    );
    assert_eq!(
        shown("mount -r nvme0:nvme1 mnt; cat mnt/home/hello mnt/home-mirror/hello"),
        "from another file system\n".repeat(2)
    );
}

#[test]
fn a_file_system_and_its_disks_behind_ports_show_what_they_show_without() {
    let script = |options: &str| {
        let text = format!(
            "mount -r {options} nvme0:nvme1 /mnt; mount; ls -lR /mnt; cat /mnt/docs/notes; cd /mnt/docs; df -i .\n\
             hammer history notes; hammer snapls; cd /; umount /mnt; mount"
        );
        shown(&text)
    };
    assert_eq!(script("-o port"), script(""));
    assert!(complaint("mount -r -o port nvme2 /mnt").contains("not a HAMMER volume"));
}

#[test]
fn the_past_is_another_path() {
    let text = shown("mount -r nvme0:nvme1 /mnt; cd /mnt/docs; hammer history notes; hammer snapls");
    let tids: Vec<&str> =
        text.lines().filter(|l| l.ends_with(':') || l.starts_with("0x")).map(|l| &l[..18]).collect();
    let [first, second, third, snapshot] = tids[..] else { panic!("{text}") };
    assert!(text.ends_with("PFS 00002  home, mirrored\n") && text.contains("  monday\n"), "{text}");
    assert!(first < second && second < third);
    let past = format!(
        "mount -r nvme0:nvme1 /mnt; cat /mnt/docs/notes@@{first} /mnt/@@{second}/docs/notes /mnt/@@{snapshot}/docs/draft"
    );
    assert_eq!(shown(&past), "Monday: began.\nMonday: began.\nTuesday: went on.\nNobody will miss this.\n");
    assert_eq!(
        complaint("hammer history /d"),
        "hammer: /d: Operation not supported: not on a HAMMER file system\n"
    );
    assert_eq!(complaint("hammer"), "usage: hammer history path ...\n       hammer snapls [directory]\n");
}

#[test]
fn a_mount_that_cannot_be_says_why_and_leaves_nothing() {
    for (line, why) in [
        (
            "mount nvme0:nvme1 /mnt",
            "mount: nvme0:nvme1: Read-only file system: only read-only mounts yet, use -r\n",
        ),
        ("mount -r nvme9 /mnt", "mount: nvme9: no such device\n"),
        ("mount -r nvme2 /mnt", "mount: nvme2: volume 0: not a HAMMER volume (signature 0000000000000000)\n"),
        ("mount -r nvme0:nvme1 /none", "mount: /none: No such file or directory\n"),
        ("mount -r nvme0:nvme1 /null", "mount: /null: Not a directory\n"),
        ("mount -r nvme0:nvme1 /", "mount: /: Device busy: a file system is mounted there\n"),
        ("mount -r -t ufs nvme0 /mnt", "mount: ufs: file system is not available\n"),
        ("mount -r -o fast nvme0 /mnt", "mount: fast: option not supported\n"),
        (
            "mount -r nvme0",
            "usage: mount\n       mount -r [-o cache=bytes,port] [-t hammer] volume[:volume ...] directory\n",
        ),
    ] {
        let machine = Machine::new();
        let (verdict, shown) = machine.script(line);
        assert_eq!(verdict, Verdict::Failure);
        assert!(shown.starts_with(why), "{line}: {shown}");
        assert_eq!(machine.script("mount").1, "mem on / (mem)\n", "{line}");
    }
}

#[test]
fn what_is_in_use_is_not_unmounted() {
    let before = "mount -r nvme0:nvme1 /mnt\n";
    let (_, shown) = Machine::new().script(format!("{before}cd /mnt/docs; umount /mnt"));
    assert!(shown.starts_with("umount: /mnt: Device busy: it is in use\n"), "{shown}");
    let (_, shown) = Machine::new().script(format!("{before}mount -r nvme0:nvme1 /d"));
    assert!(shown.starts_with("mount: nvme0:nvme1: Device busy\n"), "{shown}");
    let (_, shown) = Machine::new().script(format!("{before}rmdir /mnt"));
    assert!(shown.starts_with("rmdir: /mnt: Device busy\n"), "{shown}");
    assert_eq!(complaint("umount /"), "umount: /: Device busy: the root stays\n");
    assert_eq!(complaint("umount /d"), "umount: /d: Invalid argument: nothing is mounted there\n");
}

#[test]
fn a_shell_that_ends_unmounts_what_it_stands_in() {
    let machine = Machine::new();
    assert_eq!(machine.script("mount -r nvme0:nvme1 /mnt; mkdir /o; cd /mnt/docs").0, Verdict::Success);
    assert_eq!(machine.mounts.list().len(), 1);
    assert_eq!(Arc::strong_count(&machine.disks[0]), 2, "the disk is let go");
}

#[test]
fn what_is_damaged_is_an_error_of_the_command_that_meets_it() {
    let (verdict, shown) = Machine::new().script("mount -r nvme0 /mnt");
    assert_eq!(verdict, Verdict::Failure);
    assert!(shown.starts_with("mount: nvme0: "), "{shown}");
}

#[test]
fn df_counts_in_blocks() {
    let text = shown("mount -r nvme0:nvme1 /mnt; df; df -k /mnt");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["Filesystem", "512-blocks", "Used", "Avail", "Capacity"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][5]), ("mem", "131072", "/"));
    assert_eq!((rows[2][0], rows[2][5]), ("nvme0:nvme1", "/mnt"));
    assert_eq!(rows[3][1], "1K-blocks");
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert_eq!(number(rows[2][1]), 2 * number(rows[4][1]));
    assert_eq!(number(rows[2][1]), number(rows[2][2]) + number(rows[2][3]));
    assert_eq!(rows.len(), 5);
}

#[test]
fn variables_have_names_and_names_have_parents() {
    assert_eq!(shown("sysctl hw.ncpu; sysctl -n hw.ncpu"), "hw.ncpu: 2\n2\n");
    assert_eq!(shown("sysctl dev.nvme.0"), "dev.nvme.0.model: m\ndev.nvme.0.serial: s\n");
    assert_eq!(shown("sysctl -a").lines().count(), 5);
    assert_eq!(complaint("sysctl hw.none hw.ncpu"), "sysctl: hw.none: unknown oid\nhw.ncpu: 2\n");
    assert_eq!(complaint("sysctl hw.ncpu=3"), "sysctl: hw.ncpu: oid is read only\n");
    assert_eq!(complaint("sysctl debug.panic=2"), "sysctl: 2: only 1 means something\n");
    assert_eq!(complaint("sysctl"), "usage: sysctl [-n] name[=value] ...\n       sysctl [-n] -a\n");
    let of_hammer =
        shown("mount -r nvme0:nvme1 /mnt; ls -lR /mnt; sysctl vfs.hammer; umount /mnt; ! sysctl vfs.hammer");
    assert!(of_hammer.contains("\nvfs.hammer.nvme0:nvme1.version: 7\n"), "{of_hammer}");
    assert!(!of_hammer.contains("cache.hits: 0\n"), "{of_hammer}");
}

#[test]
#[should_panic(expected = "debug.panic was set")]
fn the_kernel_panics_on_request() {
    Machine::new().script("sysctl debug.panic=1");
}

#[test]
fn the_machine_tells_of_itself() {
    assert_eq!(shown("uptime; sleep 1.5; uptime"), "up 1:02:03.045\nup 1:02:04.545\n");
    assert_eq!(shown("time sleep 0.25"), "        0.250000 real\n");
    assert_eq!(shown("dmesg"), "[    0.000001] one\n[    0.000002] \\x1b[2J\n");
    assert_eq!(
        shown("vmstat -i"),
        "interrupt                       total       rate\n\
         nvme0                            7446          2\n\
         nvme1                               1          0\n\
         Total                            7447          2\n"
    );
    assert!(shown("ps").starts_with("  ID CPU PRI STATE"));
    assert_eq!(complaint("sleep soon"), "usage: sleep seconds\n");
}

#[test]
fn every_command_is_found_listed_and_explained() {
    let listed = shown("help");
    for (line, command) in listed.lines().zip(commands::TABLE) {
        assert!(line.starts_with(command.name) && line.ends_with(command.about), "{line}");
        assert!(shown(&format!("help {}", command.name)).starts_with(command.name));
    }
    assert_eq!(listed.lines().count(), commands::TABLE.len());
    assert!(commands::TABLE.is_sorted_by_key(|c| c.name));
}

#[test]
fn the_page_of_the_crate_lists_every_command() {
    let page = include_str!("../../README.md");
    for command in commands::TABLE {
        assert!(page.contains(&format!("| `{}` |", command.name)), "{} is not in README.md", command.name);
    }
}

proptest! {
    #[test]
    fn no_script_makes_the_shell_panic(
        words in prop::collection::vec((0..commands::TABLE.len(), prop::collection::vec(
            prop::sample::select(vec!["-a", "-l", "-r", "-R", "/", "d", "..", "d/a", "*", "nvme0:nvme1", "/mnt", "-o", "x", "''", "--", "now", "-h", "0", "; !"]),
            0..4,
        )), 0..8),
    ) {
        let lines: Vec<String> = words
            .iter()
            .map(|(at, args)| (commands::TABLE[*at].name, args.join(" ")))
            .filter(|(name, _)| *name != "sysctl")
            .map(|(name, args)| format!("{name} {args}\n"))
            .collect();
        let machine = Machine::new();
        let _ = machine.script(lines.concat());
        prop_assert_eq!(machine.mounts.list().len(), 1);
    }
}
