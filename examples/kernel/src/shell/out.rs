//! What the shell shows: whole lines at a time, so that messages of other threads never cut one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::Terminal;

/// A line that is longer is shown in pieces, so that a file without line ends takes no memory.
const LONGEST_LINE_BYTES: usize = 4096;

/// The way to the terminal.
pub(crate) struct Out {
    terminal: Arc<dyn Terminal>,
    /// What was said since the last end of line.
    rest: Vec<u8>,
}

impl Out {
    pub(crate) fn new(terminal: Arc<dyn Terminal>) -> Self {
        Self { terminal, rest: Vec::new() }
    }

    pub(crate) fn terminal(&self) -> &Arc<dyn Terminal> {
        &self.terminal
    }

    /// A line, to which the end of line is added.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.text(text);
        self.bytes(b"\n");
    }

    /// Part of a line, or several.
    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) {
        // The only error there is would be one of what is displayed.
        let _ = self.write_fmt(text);
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = LONGEST_LINE_BYTES.saturating_sub(self.rest.len());
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.rest.extend_from_slice(now);
            bytes = later;
            let whole = match self.rest.iter().rposition(|&b| b == b'\n') {
                Some(last) => last + 1,
                None if self.rest.len() >= LONGEST_LINE_BYTES => self.rest.len(),
                None => 0,
            };
            if whole > 0 {
                self.terminal.write(self.rest.get(..whole).unwrap_or_default());
                self.rest.drain(..whole);
            }
        }
    }

    /// Shows what has no end of line yet, before somebody else is to speak.
    pub(crate) fn end(&mut self) {
        if !self.rest.is_empty() {
            self.bytes(b"\n");
        }
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::tests::Screen;
    use proptest::prelude::*;

    #[test]
    fn only_whole_lines_reach_the_terminal() {
        let screen = Arc::new(Screen::default());
        let mut out = Out::new(screen.clone());
        out.text(format_args!("a{}", 1));
        assert!(screen.writes().is_empty());
        out.text(format_args!("b\nc\nd"));
        assert_eq!(screen.writes(), [b"a1b\nc\n"]);
        out.line(format_args!("e"));
        out.end();
        assert_eq!(screen.writes(), [&b"a1b\nc\n"[..], b"de\n"]);
        out.bytes(b"f");
        out.end();
        assert_eq!(screen.writes().last().unwrap(), b"f\n");
    }

    proptest! {
        #[test]
        fn all_bytes_arrive_in_order_and_in_bounded_pieces(
            parts in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..6000), 0..6),
        ) {
            let screen = Arc::new(Screen::default());
            let mut out = Out::new(screen.clone());
            for part in &parts {
                out.bytes(part);
            }
            let mut all = parts.concat();
            out.end();
            if all.last().is_some_and(|&b| b != b'\n') {
                all.push(b'\n');
            }
            prop_assert!(screen.writes().iter().all(|w| w.len() <= LONGEST_LINE_BYTES));
            // A line without end that was shown in full when it reached the limit is not ended again.
            let shown = screen.writes().concat();
            prop_assert_eq!(shown.strip_suffix(b"\n"), all.strip_suffix(b"\n").or(Some(&all)).filter(|_| !all.is_empty()));
        }
    }
}
