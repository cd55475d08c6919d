//! The end of a kernel that panicked: where, who, and how it came there.

use std::backtrace::Backtrace;
use std::io::{self, Write as _};
use std::panic::PanicHookInfo;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use crate::editor::restore_terminal;

/// The exit code of a panic: that of a Rust program whose main thread panicked.
pub const EXIT_CODE: i32 = 101;

/// A report that takes longer is not waited for.
const LONGEST_REPORT: Duration = Duration::from_secs(10);

/// From now on a panic on whatever thread is reported on the standard error, with location, thread, CPU and back trace,
/// and ends the process with [`EXIT_CODE`]. For programs; in a test a kernel thread's panic is that thread's.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let report = report(info);
        // Frames are captured here, and named on a stack of the host's size: that takes more than a kernel thread has.
        let trace = Backtrace::force_capture();
        let write = move || {
            restore_terminal();
            // There is nobody to tell if it cannot be written.
            let _ = writeln!(io::stderr().lock(), "{report}\n{trace}");
        };
        match thread::Builder::new().spawn(write) {
            // Whoever panicked may hold the lock of the standard error.
            Ok(writer) => {
                let deadline = Instant::now() + LONGEST_REPORT;
                while !writer.is_finished() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Err(_) => eprintln!("panic, and no thread to report it"),
        }
        process::exit(EXIT_CODE);
    }));
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("something that is no text");
    let place = info.location().map(|location| format!("\n  at {location}")).unwrap_or_default();
    let who = match dfly_lwkt::current() {
        Some(thread) => format!("thread {} ({}) on {}", thread.id, thread.name, thread.cpu),
        None => format!("host thread {}", thread::current().name().unwrap_or("without a name")),
    };
    format!("panic: {message}{place}\n  in {who}")
}
