//! The serial line: text out.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use dfly_hal::sync::Lock;

use crate::arch;

static IN_USE: Lock<()> = Lock::new(());
static SEIZED: AtomicBool = AtomicBool::new(false);

/// Takes the line away from whoever has it: what is left is a panic's.
pub fn seize() {
    SEIZED.store(true, Ordering::Relaxed);
}

/// Writes formatted text, not mixed with that of another CPU. From threads, and from wherever a panic is.
pub fn write(text: fmt::Arguments<'_>) {
    let _held = (!SEIZED.load(Ordering::Relaxed)).then(|| IN_USE.lock());
    // The line never fails.
    let _ = Line.write_fmt(text);
}

struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(arch::put);
        Ok(())
    }
}

/// Writes formatted text to the serial line.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::write(format_args!($($arg)*)) };
}

/// Writes a line of formatted text to the serial line.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}
