//! What a command works with: the tree of names, the place in it, the terminal, and what the kernel knows.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;

use dfly_bio::{BlockDevice, OpenError};
use dfly_hal::Wait;
use dfly_hammer::Hammer;
use dfly_lwkt::ThreadInfo;
use dfly_vfs::text::printable;
use dfly_vfs::{self as vfs, Attr, Call, Last, MountTable, Mounted, OpenFile, PATH_MAX, Place, Walk};

use super::options::BadOption;
use super::out::Out;
use crate::Verdict;

/// What commands use of the kernel.
pub(crate) trait System {
    /// Time since boot.
    fn uptime(&self) -> Duration;
    /// Blocks for so long.
    fn sleep(&self, time: Duration, w: &mut dyn Wait);
    /// A disk by its name.
    fn open_disk(&self, name: &[u8], w: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError>;
    /// Starts a thread of the kernel that does `work`, and ends. An error says why there is none.
    fn spawn(&self, name: &str, work: Work) -> Result<(), String>;
    /// A kernel message.
    fn say(&self, text: &dyn Display);
    /// The kernel messages.
    fn messages(&self) -> Vec<String>;
    /// The threads.
    fn threads(&self) -> Vec<ThreadInfo>;
    /// The interrupts and how often each was raised.
    fn interrupts(&self) -> Vec<(String, u64)>;
    /// What sysctl(8) shows, by name.
    fn variables(&self) -> Vec<(String, String)>;
}

/// What a thread does, with whom it waits.
pub(crate) type Work = Box<dyn FnOnce(&mut dyn Wait) + Send>;

/// A row of the table of commands.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What it is called with: each line of it is one way.
    pub(crate) usage: &'static [&'static str],
    /// What it does, in a few words.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Context<'_>, &[Vec<u8>]) -> Outcome,
}

/// How a command went. It has also failed if it [complained](Context::complain).
pub(crate) type Outcome = Result<(), Failure>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It cannot be called like that.
    Usage,
    /// Nor with that option.
    Option(BadOption),
    /// What was wrong, without the name of the command.
    Because(String),
}

impl Failure {
    /// Something is wrong with `subject`.
    pub(crate) fn new(subject: &[u8], reason: impl Display) -> Self {
        Self::Because(alloc::format!("{}: {reason}", printable(subject)))
    }
}

impl From<BadOption> for Failure {
    fn from(e: BadOption) -> Self {
        Self::Option(e)
    }
}

/// The state of a shell, and who waits for it.
pub(crate) struct Context<'a> {
    pub(crate) system: &'a dyn System,
    pub(crate) w: &'a mut dyn Wait,
    pub(crate) out: Out,
    pub(crate) mounts: &'a MountTable,
    /// The HAMMER file systems among them, by their roots' `from`, for their figures.
    pub(crate) hammers: Vec<(Vec<u8>, Weak<Hammer>)>,
    pub(crate) cwd: Place,
    /// How `cwd` was reached: an absolute path without dots.
    pub(crate) cwd_path: Vec<u8>,
    /// Whether commands are shown before they run.
    pub(crate) trace: bool,
    /// How the shell is to end, once it is.
    pub(crate) ending: Option<Verdict>,
    command: &'static Command,
    complained: bool,
}

/// Writes a line on the terminal.
macro_rules! say {
    ($ctx:expr, $($text:tt)*) => { $ctx.out.line(format_args!($($text)*)) };
}
pub(crate) use say;

impl<'a> Context<'a> {
    pub(crate) fn new(
        system: &'a dyn System,
        mounts: &'a MountTable,
        out: Out,
        w: &'a mut dyn Wait,
        idle: &'static Command,
    ) -> Self {
        let cwd = mounts.root();
        Self {
            system,
            w,
            out,
            mounts,
            hammers: Vec::new(),
            cwd,
            cwd_path: b"/".to_vec(),
            trace: false,
            ending: None,
            command: idle,
            complained: false,
        }
    }

    /// Runs `command`, says why if it fails, and returns whether it did what it was to do.
    pub(crate) fn run(&mut self, command: &'static Command, args: &[Vec<u8>]) -> bool {
        (self.command, self.complained) = (command, false);
        let outcome = (command.run)(self, args);
        // What the next one says is a line of its own.
        self.out.end();
        match outcome {
            Ok(()) => return !self.complained,
            Err(Failure::Because(text)) => say!(self, "{}: {text}", command.name),
            Err(Failure::Option(bad)) => {
                say!(self, "{}: {bad}", command.name);
                self.usage();
            }
            Err(Failure::Usage) => self.usage(),
        }
        false
    }

    fn usage(&mut self) {
        let mut before = "usage:";
        for usage in self.command.usage {
            let between = if usage.is_empty() { "" } else { " " };
            say!(self, "{before} {}{between}{usage}", self.command.name);
            before = "      ";
        }
    }

    /// Says what is wrong with `subject`; the command goes on, and has failed.
    pub(crate) fn complain(&mut self, subject: &[u8], reason: impl Display) {
        self.complained = true;
        self.out.end();
        say!(self, "{}: {}: {reason}", self.command.name, printable(subject));
    }

    /// Does `one` for each operand, and complains of each for which it fails.
    pub(crate) fn each(
        &mut self,
        operands: &[Vec<u8>],
        mut one: impl FnMut(&mut Self, &[u8]) -> vfs::Result<()>,
    ) {
        for operand in operands {
            if let Err(e) = one(self, operand) {
                self.complain(operand, e);
            }
        }
    }

    /// What is at `path`.
    pub(crate) fn find(&mut self, path: &[u8], last: Last) -> vfs::Result<(Place, Attr)> {
        let how = Walk { last, ..Walk::default() };
        self.mounts.walk(&mut Call::new(self.w), &self.cwd, path, &how)
    }

    /// The file at `path`, open to be read.
    pub(crate) fn open(&mut self, path: &[u8]) -> vfs::Result<OpenFile> {
        let (place, attr) = self.find(path, Last::Follow)?;
        OpenFile::open(place.mounted, &mut Call::new(self.w), &attr, vfs::Access::Read)
    }

    /// `path` from the root, without dots: `..` takes the component before it away, as `cd -L` has it.
    pub(crate) fn absolute(&self, path: &[u8]) -> Vec<u8> {
        absolute(&self.cwd_path, path)
    }

    /// The names in a directory, `.` and `..` included, and the place of each; what is mounted there is crossed into.
    pub(crate) fn entries(&mut self, dir: &Place) -> (Vec<(Vec<u8>, Place)>, vfs::Result<()>) {
        let mut entries = Vec::new();
        let mut sink = |e: vfs::Entry<'_>| {
            entries.push((e.name.to_vec(), Place { mounted: dir.mounted.clone(), node: e.node }));
            core::ops::ControlFlow::Continue(())
        };
        let result = dir.mounted.readdir(&mut Call::new(self.w), dir.node, 0, &mut sink);
        for (name, place) in &mut entries {
            if name != b"."
                && name != b".."
                && let Some(above) = self.mounts.mounted_on(place)
            {
                *place = above.place();
            }
        }
        (entries, result)
    }

    /// The attributes of a place.
    pub(crate) fn attr(&mut self, place: &Place) -> vfs::Result<Attr> {
        place.attr(&mut Call::new(self.w))
    }

    /// What is mounted, if it is from there.
    pub(crate) fn mounted_from(&self, from: &[u8]) -> Option<Mounted> {
        self.mounts.list().into_iter().find(|m| m.from() == from)
    }
}

/// See [`Context::absolute`].
pub(crate) fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    let base: &[u8] = if path.starts_with(b"/") { b"" } else { cwd };
    let mut result = Vec::with_capacity(base.len().saturating_add(path.len()).min(PATH_MAX));
    for component in base.split(|&b| b == b'/').chain(path.split(|&b| b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => result.truncate(result.iter().rposition(|&b| b == b'/').unwrap_or(0)),
            name => {
                result.push(b'/');
                result.extend_from_slice(name);
            }
        }
    }
    if result.is_empty() {
        result.push(b'/');
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn paths_lose_their_dots() {
        let text =
            |cwd: &str, path: &str| absolute(cwd.as_bytes(), path.as_bytes()).escape_ascii().to_string();
        for (cwd, path, result) in [
            ("/", "", "/"),
            ("/", "..", "/"),
            ("/mnt/a", "b", "/mnt/a/b"),
            ("/mnt/a", "../b/./c//d/", "/mnt/b/c/d"),
            ("/mnt/a", "/b/..", "/"),
            ("/mnt/a", "../../../..", "/"),
            ("/mnt", "@@0x1/..", "/mnt"),
        ] {
            assert_eq!(text(cwd, path), result, "{cwd} {path}");
        }
    }
}
