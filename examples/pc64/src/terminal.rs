//! The serial line as the kernel's terminal: text out, edited lines in.
//!
//! | key | does |
//! |---|---|
//! | backspace, ^U, ^W | takes back a character, the line, a word |
//! | up, down | earlier lines and back |
//! | ^D | ends the line; on an empty line, the input |
//! | ^C | gives the line up |
//!
//! A line of more than 4096 bytes is refused as a whole: half of a command is another command.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use dfly_hal::sync::Lock;
use dfly_hal::{Wait, block_on};
use kernel::Terminal;

use crate::serial;

const LONGEST_LINE: usize = 4096;
const KEPT_LINES: usize = 64;

/// The terminal on the serial line. One reader at a time.
#[derive(Default)]
pub struct SerialTerminal {
    earlier: Lock<VecDeque<Vec<u8>>>,
    /// What comes with the end of a line that came with a carriage return.
    follows_return: Lock<bool>,
}

impl Terminal for SerialTerminal {
    fn write(&self, bytes: &[u8]) {
        serial::write_text(bytes);
    }

    fn read_line(&self, prompt: &str, w: &mut dyn Wait) -> Option<Vec<u8>> {
        serial::write_text(prompt.as_bytes());
        let mut editor =
            Editor { earlier: self.earlier.lock().iter().cloned().collect(), ..Editor::default() };
        loop {
            // Without a deadline it does not time out.
            let byte = block_on(w, serial::read(), None).ok()?;
            if core::mem::replace(&mut *self.follows_return.lock(), byte == b'\r') && byte == b'\n' {
                continue;
            }
            let mut echo = Vec::new();
            let done = editor.key(byte, &mut echo);
            serial::write_text(&echo);
            match done {
                Done::NotYet => {}
                Done::Ended => return None,
                Done::Line => return Some(self.keep(editor.line)),
            }
        }
    }
}

impl SerialTerminal {
    fn keep(&self, line: Vec<u8>) -> Vec<u8> {
        let mut earlier = self.earlier.lock();
        if !line.is_empty() && earlier.back() != Some(&line) {
            if earlier.len() == KEPT_LINES {
                earlier.pop_front();
            }
            earlier.push_back(line.clone());
        }
        line
    }
}

/// Whether a line is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// More is to come.
    NotYet,
    /// It is.
    Line,
    /// There will be no more lines.
    Ended,
}

/// A line in the making. The cursor is always at its end.
#[derive(Debug, Default)]
pub struct Editor {
    /// What was typed so far.
    pub line: Vec<u8>,
    /// Earlier lines, oldest first.
    pub earlier: Vec<Vec<u8>>,
    /// How many lines back we are.
    back: usize,
    /// What was typed before going back.
    typed: Vec<u8>,
    /// Bytes have come for which the line has no room.
    is_too_long: bool,
    escape: Escape,
}

/// How much of a key's sequence has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Begun,
    Bracket,
}

impl Editor {
    /// Takes a byte; what the terminal is to show goes to `echo`.
    pub fn key(&mut self, byte: u8, echo: &mut Vec<u8>) -> Done {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        const BACKSPACE: u8 = 8;
        const CTRL_U: u8 = 21;
        const CTRL_W: u8 = 23;
        const ESCAPE: u8 = 27;
        const DELETE: u8 = 127;
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Bracket,
            (Escape::Begun, _) => self.escape = Escape::No,
            // Parameters of the sequence, then its last byte.
            (Escape::Bracket, 0x20..=0x3f) => {}
            (Escape::Bracket, _) => {
                self.escape = Escape::No;
                match byte {
                    b'A' => self.go((self.back + 1).min(self.earlier.len()), echo),
                    b'B' => self.go(self.back.saturating_sub(1), echo),
                    _ => {}
                }
            }
            (Escape::No, ESCAPE) => self.escape = Escape::Begun,
            (Escape::No, b'\r' | b'\n') => return self.end(echo),
            (Escape::No, CTRL_C) => {
                self.line.clear();
                echo.extend_from_slice(b"^C\n");
                return Done::Line;
            }
            (Escape::No, CTRL_D) if self.line.is_empty() => {
                echo.push(b'\n');
                return Done::Ended;
            }
            (Escape::No, CTRL_D) => return self.end(echo),
            (Escape::No, BACKSPACE | DELETE) => self.take_back(echo),
            (Escape::No, CTRL_U) => self.take_back_all(echo),
            (Escape::No, CTRL_W) => {
                while self.line.last() == Some(&b' ') {
                    self.take_back(echo);
                }
                while self.line.last().is_some_and(|&last| last != b' ') {
                    self.take_back(echo);
                }
            }
            (Escape::No, b' '..) if self.line.len() == LONGEST_LINE => self.is_too_long = true,
            (Escape::No, b' '..) => {
                self.line.push(byte);
                echo.push(byte);
            }
            (Escape::No, _) => {}
        }
        Done::NotYet
    }

    /// The line is complete; one that is too long comes to nothing.
    fn end(&mut self, echo: &mut Vec<u8>) -> Done {
        echo.push(b'\n');
        if self.is_too_long {
            self.line.clear();
            echo.extend_from_slice(b"the line is too long: ignored\n");
        }
        Done::Line
    }

    /// Takes back a character, with all of its bytes.
    fn take_back(&mut self, echo: &mut Vec<u8>) {
        let is_rest = |byte: u8| byte & 0xc0 == 0x80;
        while self.line.pop_if(|last| is_rest(*last)).is_some() {}
        if self.line.pop().is_some() {
            echo.extend_from_slice(b"\x08 \x08");
        }
        // Nothing is left of what there was no room for.
        self.is_too_long &= !self.line.is_empty();
    }

    fn take_back_all(&mut self, echo: &mut Vec<u8>) {
        while !self.line.is_empty() {
            self.take_back(echo);
        }
    }

    /// Shows the line that is `back` lines back.
    fn go(&mut self, back: usize, echo: &mut Vec<u8>) {
        let from = core::mem::replace(&mut self.back, back);
        if from == back {
            return;
        }
        if from == 0 {
            self.typed = if self.is_too_long { Vec::new() } else { self.line.clone() };
        }
        self.take_back_all(echo);
        let line = self.earlier.len().checked_sub(back).and_then(|index| self.earlier.get(index));
        self.line = line.unwrap_or(&self.typed).clone();
        echo.extend_from_slice(&self.line);
    }
}
