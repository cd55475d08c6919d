//! The terminal of a person: line editing and history by `rustyline`, and kernel messages that leave the edited line whole.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};

use crate::Console;
use crate::terminal::{lock, show};

/// The console of this process: with editing if a person sits there, else [`Console::plain`].
///
/// # Errors
/// The terminal cannot be set up.
pub fn console() -> io::Result<Console> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() { editing() } else { Console::plain() }
}

fn editing() -> io::Result<Console> {
    save_settings();
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = Editor::<(), _>::with_history(config, MemHistory::new()).map_err(io::Error::other)?;
    let mut printer = editor.create_external_printer().map_err(io::Error::other)?;
    // While a line is edited, what is shown goes above it. The library's printer may block until the line is looked at
    // again, which no CPU should, so a thread calls it.
    let (above, messages) = mpsc::channel::<String>();
    thread::Builder::new().name("messages".into()).spawn(move || {
        // A message that cannot be shown is in dmesg.
        messages.into_iter().for_each(|message| drop(printer.print(message)));
    })?;
    let is_edited = Arc::new(AtomicBool::new(false));
    let edited = is_edited.clone();
    let show = move |bytes: &[u8]| {
        // Relaxed: what comes while a line begins or ends may go either way; the library tells which it needs.
        if edited.load(Ordering::Relaxed) {
            let _ = above.send(String::from_utf8_lossy(bytes).into_owned());
        } else {
            show(bytes);
        }
    };
    // What was pasted may be several lines.
    let mut lines = VecDeque::new();
    let ask = move |prompt: &str| {
        while lines.is_empty() {
            is_edited.store(true, Ordering::Relaxed);
            let read = editor.readline(prompt);
            is_edited.store(false, Ordering::Relaxed);
            match read {
                Ok(read) => lines.extend(read.split('\n').map(|line| line.as_bytes().to_vec())),
                // Control-C drops the line.
                Err(ReadlineError::Interrupted) => {}
                Err(_) => return None,
            }
        }
        lines.pop_front()
    };
    Console::new(show, ask)
}

/// The terminal's settings before the first line was edited.
static SETTINGS: Mutex<Option<Termios>> = Mutex::new(None);

fn save_settings() {
    *lock(&SETTINGS) = tcgetattr(io::stdin().as_fd()).ok();
}

/// Gives the terminal back as it was found, whoever reads a line now. For the end of the process.
pub fn restore_terminal() {
    if let Some(settings) = &*lock(&SETTINGS) {
        // If it is gone, so is the reason.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, settings);
    }
}
