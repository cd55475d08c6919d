//! What `vkernel` does without a disk: it brings one, and shows you round.

use std::io;

use dfly_hammer_image::{Format, Result, Volume, demo};

use crate::Console;
use crate::terminal::show;

/// The lines of the tour: remarks after `# `, and commands.
const LINES: &str = include_str!("tour.sh");

/// The disk: the file system of `hammer-image`'s demonstration, with files of all kinds, history over three transactions,
/// and a pseudo file system with a slave. In memory, so nothing is left behind.
///
/// # Errors
/// None, as long as the demonstration can be built.
pub fn disk() -> Result<Volume> {
    Ok(demo(Format { label: "TOUR".into(), ..Format::default() }).finish()?.volumes.swap_remove(0))
}

/// A console at which somebody types the tour and says what it is about.
///
/// # Errors
/// No host thread could be started.
pub fn console() -> io::Result<Console> {
    let mut lines = LINES.lines();
    Console::new(show, move |prompt: &str| {
        loop {
            let line = lines.next()?;
            match line.strip_prefix("# ") {
                Some(remark) => show(format!("\n{remark}\n").as_bytes()),
                None => {
                    show(format!("{prompt}{line}\n").as_bytes());
                    return Some(line.into());
                }
            }
        }
    })
}
