//! Progress bars: on stderr, only if that is a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Whether the command writes its result to stdout, where a bar would get into its way on a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdout {
    Used,
    Unused,
}

/// A bar that counts bytes: towards `total`, if that is known.
pub(crate) fn bytes(total: Option<u64>, stdout: Stdout) -> ProgressBar {
    if !io::stderr().is_terminal() || (stdout == Stdout::Used && io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {wide_msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A spinner that counts things.
pub(crate) fn count(things: &str, stdout: Stdout) -> ProgressBar {
    if !io::stderr().is_terminal() || (stdout == Stdout::Used && io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{spinner}} {{human_pos}} {things} {{elapsed}}"))
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
