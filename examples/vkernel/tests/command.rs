//! The command `vkernel`: what it says, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dfly_hammer_image::{Format, demo};

/// A machine whose disk is the one of the tour, and `input` its standard input.
fn vkernel(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vkernel"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    // Who does not read all of it has ended.
    let _ = running.stdin.take().unwrap().write_all(input.as_bytes());
    running.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_a_disk_it_shows_you_round() {
    let tour = vkernel(&[], "");
    let text = stdout(&tour);
    assert_eq!((tour.status.code(), stderr(&tour).as_str()), (Some(0), ""), "{text}");
    // Each command is typed, and each does what it is to do.
    for line in include_str!("../src/tour.sh").lines() {
        let shown =
            line.strip_prefix("# ").map_or_else(|| format!("# {line}\n"), |remark| format!("\n{remark}\n"));
        assert!(text.contains(&shown), "{line} is not in\n{text}");
    }
    for shown in [
        "nvme0 on /mnt (hammer, noatime, read-only)",
        "Wednesday: began anew.",
        "Monday: began.",
        "Nobody will miss this.",
        "0x0000000100008020  2020-09-13 12:26:41  monday",
        "from another file system",
        "hw.ncpu: 2",
        "the machine is down",
    ] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    for failed in ["usage:", "not found", "No such", "error"] {
        assert!(!text.contains(failed), "{failed} is in\n{text}");
    }
}

#[test]
fn a_script_ends_with_its_verdict() {
    let good = vkernel(
        &["--script", "-", "--cpus", "3"],
        "mount -r nvme0 /mnt\n! cat /mnt/nothing\nsysctl -n hw.ncpu",
    );
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    assert!(stdout(&good).contains("\n3\n"));
    let bad = vkernel(&["--script", "-"], "true\ncat /mnt/nothing\necho not reached");
    assert_eq!(bad.status.code(), Some(1));
    assert!(stdout(&bad).contains("line 2") && !stdout(&bad).contains("\nnot reached"), "{}", stdout(&bad));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"exit 1\n").unwrap();
    assert_eq!(vkernel(&["--script", file.path().to_str().unwrap()], "").status.code(), Some(1));
}

#[test]
fn lines_may_come_through_a_pipe() {
    let shell = vkernel(&["--shell"], "cat /nothing\necho one; echo two");
    assert_eq!(shell.status.code(), Some(0));
    assert!(stdout(&shell).contains("No such file or directory\none\ntwo\n"), "{}", stdout(&shell));
    assert!(!stdout(&shell).contains("# "), "no prompt without a person");
}

#[test]
fn images_are_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    demo(Format::default()).finish().unwrap().volumes.remove(0).write_file(&path).unwrap();
    let mut permissions = path.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let before = (std::fs::read(&path).unwrap(), modified(&path));
    let read = vkernel(
        &["--nvme", path.to_str().unwrap(), "--script", "-"],
        "mount -r nvme0 /mnt\nls -laR /mnt\nsync",
    );
    assert_eq!(read.status.code(), Some(0), "{}", stdout(&read));
    assert!(before == (std::fs::read(&path).unwrap(), modified(&path)));
}

fn modified(path: &Path) -> std::time::SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

#[test]
fn wrong_usage_and_what_cannot_be_opened_are_said() {
    for args in
        [&["--cpus", "0"][..], &["--cpus", "65"], &["--floppy"], &["image"], &["--shell", "--nvme", "x"]]
    {
        let usage = vkernel(args, "");
        assert_eq!(usage.status.code(), Some(2), "{args:?}");
        assert!(stderr(&usage).contains("error:") && usage.stdout.is_empty());
    }
    for args in [["--nvme", "/no/such/image"], ["--script", "/no/such/script"]] {
        let missing = vkernel(&args, "");
        assert_eq!(missing.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&missing).starts_with("vkernel: /no/such/") && missing.stdout.is_empty(),
            "{}",
            stderr(&missing)
        );
    }
}

#[test]
fn a_panic_says_where_and_who_and_how_it_came_there() {
    let panicked = vkernel(&["--script", "-"], "sysctl debug.panic=1");
    assert_eq!(panicked.status.code(), Some(101), "{}", stdout(&panicked));
    let text = stderr(&panicked);
    for part in [
        "panic: debug.panic was set",
        "at examples/kernel/src/shell",
        "in thread 1 (init) on cpu0",
        "shell/mod.rs",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
