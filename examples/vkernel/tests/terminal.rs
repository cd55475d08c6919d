//! A person at the terminal: a pseudo terminal, and keys.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use dfly_hal::CpuId;
use kernel::{Session, Verdict};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use vkernel::{Running, Vkernel, console, exit_on_panic};

/// Nothing here takes so long.
const LONGEST: Duration = Duration::from_secs(20);

/// A program on a terminal of its own.
struct Person {
    program: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not looked at yet.
    seen: String,
}

impl Person {
    fn at(mut command: Command) -> Self {
        let terminal = openpty(None, None).unwrap();
        let line = || terminal.slave.try_clone().unwrap();
        let program =
            command.env("TERM", "xterm").stdin(line()).stdout(line()).stderr(line()).spawn().unwrap();
        let keys = File::from(terminal.master);
        let (mut from, (shown, screen)) = (keys.try_clone().unwrap(), mpsc::channel());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                shown.send(bytes[..n].to_vec()).unwrap();
            }
        });
        Self { program, keys, screen, seen: String::new() }
    }

    /// Waits until `text` is shown, and forgets what was shown up to it.
    fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + LONGEST;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.screen.recv_timeout(left) else {
                panic!("{text:?} is not in {:?}", self.seen)
            };
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        self.seen = self.seen.split_once(text).unwrap().1.into();
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal shows keys by itself, as it does where nobody edits.
    fn is_echoed(&self) -> bool {
        tcgetattr(&self.keys).unwrap().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    fn ends(mut self) -> Option<i32> {
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            if let Some(status) = self.program.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.program.kill().unwrap();
        None
    }
}

fn shell() -> Person {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vkernel"));
    command.arg("--shell");
    Person::at(command)
}

#[test]
fn lines_are_edited_and_remembered() {
    let mut person = shell();
    person.sees("# ");
    person.types("ecXX\x7f\x7fho edited\r");
    person.sees("\r\nedited\r\n");
    person.sees("# ");
    person.types("\x1b[A again\r");
    person.sees("\r\nedited again\r\n");
    person.sees("# ");
    person.types("echo lost\x03");
    person.sees("# ");
    person.types("echo kept\r");
    person.sees("\r\nkept\r\n");
    person.sees("# ");
    person.types("\x04");
    person.sees("the machine is down");
    assert_eq!(person.ends(), Some(0));
}

#[test]
fn what_is_typed_ahead_or_pasted_is_not_lost() {
    let mut person = shell();
    person.sees("# ");
    person.types("echo one\recho two\recho three\r");
    person.sees("\r\none\r\n");
    person.sees("\r\ntwo\r\n");
    person.sees("\r\nthree\r\n");
    person.sees("# ");
    person.types("\x1b[200~echo four\necho five\n\x1b[201~\r");
    person.sees("\r\nfour\r\nfive\r\n");
    person.sees("# ");
    person.types("shutdown\r");
    person.sees("the machine is down");
    assert_eq!(person.ends(), Some(0));
}

#[test]
fn a_message_leaves_the_edited_line_whole() {
    let mut person = another("talking_machine");
    person.sees("# ");
    person.types("echo who");
    person.sees("who");
    // Above the line, which is shown again.
    person.sees("] still here\r\n");
    person.sees("# echo who");
    person.sees("] still here\r\n");
    person.types("le\r");
    person.sees("\r\nwhole\r\n");
    person.sees("# ");
    person.types("shutdown\r");
    person.sees("the machine is down");
    assert_eq!(person.ends(), Some(0));
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let mut person = another("panicking_machine");
    person.sees("# ");
    assert!(!person.is_echoed(), "a line is edited");
    person.types("go");
    person.sees("panic: at the keyboard\r\n");
    person.sees("in thread 2 (doomed) on cpu1\r\n");
    assert!(person.is_echoed());
    assert_eq!(person.ends(), Some(101));
}

/// One of the machines below, on a terminal.
fn another(machine: &str) -> Person {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", machine, "--ignored", "--nocapture"]);
    Person::at(command)
}

/// With nothing but a shell.
fn machine() -> Running {
    let terminal = Arc::new(console().unwrap());
    Vkernel { cpus: 2, drives: Vec::new(), adapters: Vec::new(), terminal, session: Session::Interactive }
        .boot()
        .unwrap()
}

#[test]
#[ignore = "run by another test, on a terminal"]
fn talking_machine() {
    let running = machine();
    let kernel = running.kernel;
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(200));
            kernel.log().say("still here");
        }
    });
    assert_eq!(running.join(), Verdict::Success);
}

#[test]
#[ignore = "run by another test, on a terminal"]
fn panicking_machine() {
    exit_on_panic();
    let running = machine();
    thread::sleep(Duration::from_millis(500));
    let doomed = running.kernel.scheduler().spawn(CpuId(1), "doomed".into(), |_| panic!("at the keyboard"));
    drop(doomed.unwrap());
    running.join();
}
