//! Kernel messages: shown on the terminal with the time since boot, and kept for dmesg(8).

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use dfly_hal::Instant;
use dfly_hal::sync::Lock;

use crate::{Platform, Terminal};

/// Text that is kept, in bytes with the ends of lines; the oldest goes first.
const KEPT_BYTES: usize = 64 << 10;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, since boot.
    pub at: Duration,
    /// What, without an end of line.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:5}.{:06}] {}", self.at.as_secs(), self.at.subsec_micros(), self.text)
    }
}

/// The kernel's messages. Thread context.
pub struct Log {
    platform: Arc<dyn Platform>,
    terminal: Arc<dyn Terminal>,
    boot: Instant,
    kept: Lock<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Log {
    pub(crate) fn new(platform: Arc<dyn Platform>, terminal: Arc<dyn Terminal>) -> Self {
        let boot = platform.now();
        Self { platform, terminal, boot, kept: Lock::default() }
    }

    /// Time since boot.
    pub fn uptime(&self) -> Duration {
        self.platform.now().saturating_since(self.boot)
    }

    /// Shows a message and keeps it; one of several lines as several.
    pub fn say(&self, text: impl fmt::Display) {
        for text in text.to_string().lines() {
            let line = Line { at: self.uptime(), text: text.into() };
            self.terminal.write(format!("{line}\n").as_bytes());
            self.keep(line);
        }
    }

    fn keep(&self, line: Line) {
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        kept.bytes += line.text.len() + 1;
        kept.lines.push_back(line);
        while kept.bytes > KEPT_BYTES
            && let Some(oldest) = kept.lines.pop_front()
        {
            kept.bytes -= oldest.text.len() + 1;
            gone.push(oldest);
        }
    }

    /// What is kept, oldest first.
    pub fn lines(&self) -> Vec<Line> {
        self.kept.lock().lines.iter().cloned().collect()
    }
}
