//! Controllers and disks as they should not be: the console names what is wrong, the command that needs it fails, and the
//! kernel lives: it reads another disk, answers, and shuts down in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use dfly_bio::Image as Bytes;
use dfly_hammer_image::{Builder, Content, Format, Volume, demo};
use dfly_nvme::model::{Abilities, Disk, Fault, Medium, Mistake};
use dfly_nvme::spec::Opcode;
use kernel::{Session, Verdict};
use vkernel::{Ask, BackSide, Console, Drive, ReadOnly, Vkernel};

/// No session here takes so long.
const LONGEST: Duration = Duration::from_secs(60);
/// A request that nobody answers is late after this.
const LATE: Duration = Duration::from_millis(300);
/// What a script says where something is to go wrong.
const NOW: &str = "now it happens";

/// What a small file system's largest file hashes to.
const LARGE: &str = "kinds/large) = 3682eb6cba677b5bc31a235af7e26b4d2509c3f81b1b26ece500942aad30bebd";

/// What a machine does after something went wrong: `nvme0` is sound.
const ALL_IS_WELL: &str = "
mkdir /sound
mount -r nvme0 /sound
cat /sound/docs/notes
sha256 /sound/kinds/large
umount /sound
ps
dmesg
";

/// A file system whose `/big` has 32 MiB.
static BIG_FILE: LazyLock<Volume> = LazyLock::new(|| {
    let mut fs = Builder::new(Format { volumes: vec![128 << 20], ..Format::default() });
    let root = fs.root();
    fs.file(root, "big", Content::pattern(7, 32 << 20));
    fs.commit();
    fs.finish().unwrap().volumes.swap_remove(0)
});

/// A small file system.
static SMALL: LazyLock<Volume> =
    LazyLock::new(|| demo(Format::default()).finish().unwrap().volumes.swap_remove(0));

/// A controller of which nobody expects much: it asks for half a second to start or stop, and requests are late soon.
fn hasty(medium: impl Medium + 'static) -> Drive {
    let mut drive = Drive::with(Disk::new(512, medium), Abilities { to: 1, ..Abilities::default() });
    (drive.config.io_timeout, drive.config.admin_timeout) = (LATE, LATE);
    drive
}

/// A disk of so many zero bytes.
fn zeroes(bytes: u64) -> Drive {
    hasty(Bytes::new(bytes))
}

/// Runs `script` on a machine whose `nvme0` is sound and whose `nvme1` is `drive`, sees whether all is well then, and
/// returns what was shown. Does `at_now` to the drive when the script says [`NOW`].
fn shown(drive: Drive, script: &str, at_now: impl Fn(&BackSide) + Send + 'static) -> String {
    session(drive, Session::Script(format!("{script}\n{ALL_IS_WELL}").into()), |_: &str| None, at_now)
}

/// As [`shown`], with a script of which any line may fail.
fn survived(drive: Drive, script: &str) -> String {
    let lines: Vec<String> = script.lines().chain(ALL_IS_WELL.lines()).map(str::to_owned).collect();
    let mut lines = lines.into_iter();
    session(drive, Session::Interactive, move |_: &str| Some(lines.next()?.into()), |_| ())
}

fn session(
    drive: Drive,
    session: Session,
    ask: impl Ask,
    at_now: impl Fn(&BackSide) + Send + 'static,
) -> String {
    let (text, back_side) = (Arc::new(Mutex::new(String::new())), drive.back_side());
    let to = text.clone();
    let show = move |bytes: &[u8]| {
        let bytes = String::from_utf8_lossy(bytes);
        to.lock().unwrap().push_str(&bytes);
        if bytes.lines().any(|line| line == NOW) {
            at_now(&back_side);
        }
    };
    let sound = Drive::volume(SMALL.clone());
    let counts = sound.back_side();
    let machine = Vkernel {
        cpus: 2,
        drives: vec![sound, drive],
        adapters: Vec::new(),
        terminal: Arc::new(Console::new(show, ask).unwrap()),
        session,
    };
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(machine.boot().unwrap().join()));
    let verdict = end.recv_timeout(LONGEST);
    let text = text.lock().unwrap().clone();
    assert_eq!(verdict, Ok(Verdict::Success), "{text}");
    // Of cat, of sha256, of ps, of dmesg, at the end.
    let healthy = ["Wednesday: began anew.", LARGE, "STATE", "] dfly ", "the machine is down"];
    assert_shown(&text, &healthy);
    assert_eq!(text.matches("] dfly ").count(), 2, "{text}");
    assert_eq!(counts.counts().misuse, 0);
    text
}

fn assert_shown(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_controller_that_fails_does_not_give_its_name_to_another() {
    let gone = zeroes(1 << 20);
    gone.back_side().inject(Fault::AllOnes);
    let text = Arc::new(Mutex::new(String::new()));
    let to = text.clone();
    let show = move |bytes: &[u8]| to.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
    let machine = Vkernel {
        cpus: 2,
        drives: vec![gone, Drive::volume(SMALL.clone())],
        adapters: Vec::new(),
        terminal: Arc::new(Console::new(show, |_: &str| None).unwrap()),
        session: Session::Script("! mount -r nvme0 /mnt\nmount -r nvme1 /mnt\ncat /mnt/docs/notes".into()),
    };
    let verdict = machine.boot().unwrap().join();
    let text = text.lock().unwrap();
    assert_eq!(verdict, Verdict::Success, "{text}");
    assert_shown(&text, &["nvme0: at model0: no controller answers", "Wednesday: began anew."]);
}

#[test]
fn a_cpu_that_comes_when_all_is_over_has_the_same_verdict() {
    for _ in 0..20 {
        let machine = Vkernel {
            cpus: 32,
            drives: Vec::new(),
            adapters: Vec::new(),
            terminal: Arc::new(Console::new(|_: &[u8]| (), |_: &str| None).unwrap()),
            session: Session::Script("shutdown".into()),
        };
        assert_eq!(machine.boot().unwrap().join(), Verdict::Success);
    }
}

/// A controller that cannot be attached: its disk is not there.
fn cannot_be_attached(fault: Fault, message: &str) {
    let drive = zeroes(64 << 20);
    drive.back_side().inject(fault);
    let text = shown(drive, "! mount -r nvme1 /mnt", |_| ());
    assert_shown(&text, &["nvme1: at model1: ", message, "mount: nvme1: "]);
}

#[test]
fn a_controller_that_is_not_there() {
    cannot_be_attached(Fault::AllOnes, "no controller answers");
}

#[test]
fn a_controller_that_never_gets_ready() {
    cannot_be_attached(Fault::NeverReady, "did not start or stop in time");
}

#[test]
fn a_controller_with_fatal_status_at_attach() {
    cannot_be_attached(Fault::FatalStatus, "fatal status");
}

#[test]
fn a_controller_that_refuses_to_say_what_it_is() {
    cannot_be_attached(Fault::Admin(0x06, Mistake::Status(0, 0x06)), "failed");
}

/// A disk that is attached, and holds nothing to mount.
fn cannot_be_mounted(drive: Drive, message: &str) {
    let text = shown(drive, "! mount -r nvme1 /mnt", |_| ());
    assert_shown(&text, &["nvme1: nvme1 namespace 1: ", "mount: nvme1: ", message]);
}

#[test]
fn a_disk_that_is_no_hammer() {
    cannot_be_mounted(zeroes(64 << 20), "not a HAMMER volume");
}

#[test]
fn a_disk_that_is_too_small_for_hammer() {
    cannot_be_mounted(zeroes(4096), "4096 bytes");
}

#[test]
fn a_disk_that_is_cut_off() {
    let mut volume = SMALL.clone();
    volume.resize(20 << 20);
    cannot_be_mounted(Drive::volume(volume), "truncated?");
}

#[test]
fn a_disk_without_the_other_volume() {
    let mut volumes =
        demo(Format { volumes: vec![64 << 20; 2], ..Format::default() }).finish().unwrap().volumes;
    let text = shown(
        Drive::volume(volumes.swap_remove(0)),
        "! mount -r nvme1 /mnt\n! mount -r nvme1:nvme7 /mnt\n! mount -r nvme1:nvme0 /mnt",
        |_| (),
    );
    assert_shown(
        &text,
        &["the file system has 2 volumes, 1 were given", "mount: nvme7: ", "number 0 was given twice"],
    );
}

#[test]
fn blocks_of_4096_bytes_work() {
    let disk = Disk::new(4096, ReadOnly(SMALL.clone()));
    let text = shown(Drive::new(disk), "mount -r nvme1 /mnt\ncat /mnt/docs/notes", |_| ());
    assert_shown(&text, &["in blocks of 4096 bytes", "Wednesday: began anew."]);
}

#[test]
fn blocks_of_odd_sizes_are_refused() {
    for (block_shift, why) in [
        (0, "blocks of 2^0 bytes are not supported"),
        (8, "blocks of 2^8 bytes are not supported"),
        (17, "blocks of 2^17 bytes are not supported"),
        (63, "it has no blocks"),
    ] {
        let disk = Disk { block_shift, ..Disk::new(512, Bytes::new(64 << 20)) };
        let text = shown(Drive::new(disk), "! mount -r nvme1 /mnt", |_| ());
        assert_shown(&text, &["nvme1: namespace 1 is not used: ", why, "mount: nvme1: no such device"]);
    }
}

/// A controller that is attached, and fails in the middle of a long read: that fails, and so does what comes after.
fn fails_in_the_middle(fault: Fault, messages: &[&str]) {
    let script =
        format!("mount -r nvme1 /mnt\necho {NOW}\n! sha256 /mnt/big\n! sha256 /mnt/big\numount /mnt");
    let text = shown(hasty(ReadOnly(BIG_FILE.clone())), &script, move |drive| drive.inject(fault));
    assert_shown(&text, messages);
    assert_shown(&text, &["sha256: /mnt/big: ", "nvme1: stopped: "]);
}

#[test]
fn a_disk_that_vanishes_in_the_middle_of_a_file() {
    fails_in_the_middle(Fault::AllOnesAfter(100), &["the controller is gone", "device gone"]);
}

#[test]
fn a_controller_with_fatal_status_in_the_middle_of_a_file() {
    fails_in_the_middle(Fault::FatalStatus, &["fatal status"]);
}

#[test]
fn a_controller_that_completes_what_nobody_asked_for() {
    fails_in_the_middle(Fault::Io(Mistake::UnknownCid), &["broke the protocol"]);
}

#[test]
fn a_controller_that_completes_twice() {
    fails_in_the_middle(Fault::Io(Mistake::Duplicate), &["broke the protocol"]);
}

#[test]
fn a_controller_that_forgets_a_command() {
    fails_in_the_middle(Fault::Io(Mistake::Drop), &["a request was not answered in time"]);
}

#[test]
fn a_controller_that_is_stuck() {
    fails_in_the_middle(Fault::Stuck, &["a request was not answered in time"]);
}

#[test]
fn a_block_that_cannot_be_read_fails_one_read_only() {
    let script = format!("mount -r nvme1 /mnt\necho {NOW}\n! sha256 /mnt/big\nsha256 /mnt/big");
    let text = shown(Drive::volume(BIG_FILE.clone()), &script, |drive| {
        drive.inject(Fault::Io(Mistake::Status(2, 0x81)))
    });
    assert_shown(&text, &["sha256: /mnt/big: ", "device error", "SHA256 (/mnt/big) = "]);
    assert!(!text.contains("stopped"), "{text}");
}

#[test]
fn a_completion_that_nobody_announces_is_found() {
    let script = format!("mount -r nvme1 /mnt\necho {NOW}\nsha256 /mnt/big");
    let text =
        shown(Drive::volume(BIG_FILE.clone()), &script, |drive| drive.inject(Fault::Io(Mistake::Silent)));
    assert_shown(&text, &["SHA256 (/mnt/big) = "]);
}

/// With any one fault a file is read as it is, or not at all.
fn right_or_failed(fault: Fault) {
    let drive = hasty(ReadOnly(SMALL.clone()));
    drive.back_side().inject(fault);
    let text = survived(drive, "mount -r nvme1 /mnt\nsha256 /mnt/kinds/large\numount /mnt");
    let hashes = text.matches("SHA256 (").count();
    assert_eq!(hashes, text.matches(LARGE).count(), "{fault:?}: {text}");
    assert!(hashes == 2 || text.contains("sha256: /mnt/kinds/large: "), "{fault:?}: {text}");
}

#[test]
fn whenever_a_controller_is_removed() {
    // Most of the time is spent in waiting, which several machines can do at once.
    let moments: Vec<u64> = (0..60).collect();
    thread::scope(|s| {
        for moments in moments.chunks(moments.len().div_ceil(8)) {
            s.spawn(|| moments.iter().for_each(|&accesses| right_or_failed(Fault::AllOnesAfter(accesses))));
        }
    });
}

/// Everything that a controller can get wrong with a command.
const MISTAKES: [Mistake; 9] = [
    Mistake::UnknownCid,
    Mistake::Duplicate,
    Mistake::WrongQueue,
    Mistake::BadHead,
    Mistake::OldHead,
    Mistake::Status(0, 6),
    Mistake::Drop,
    Mistake::Nothing,
    Mistake::Silent,
];

#[test]
fn whatever_goes_wrong_with_a_read() {
    MISTAKES.into_iter().for_each(|mistake| right_or_failed(Fault::Io(mistake)));
}

#[test]
fn whatever_goes_wrong_with_an_admin_command() {
    for opcode in
        [Opcode::ADMIN_CREATE_SQ, Opcode::ADMIN_CREATE_CQ, Opcode::ADMIN_IDENTIFY, Opcode::ADMIN_SET_FEATURES]
    {
        MISTAKES.into_iter().for_each(|mistake| right_or_failed(Fault::Admin(opcode, mistake)));
    }
}
