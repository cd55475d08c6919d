//! An overflow of a guarded stack on a host: says whose it was before the process ends.

use core::fmt::{self, Write as _};
use core::mem::MaybeUninit;
use core::ptr;
use std::io;
use std::sync::OnceLock;

use libc::{SA_ONSTACK, SA_SIGINFO, SIGBUS, SIGSEGV, c_int, c_void, sigaction, siginfo_t};

use crate::sched::registry::overflowed_at;

/// From now on, when a thread of any scheduler runs into the page that guards its stack, the process says which thread that was
/// on its standard error before it ends by the signal. Without it the process ends by the signal all the same.
///
/// Process-wide, and once is enough. It wants an alternate signal stack, as every thread of Rust's has where `main` is
/// Rust's. Signals that are about something else are left to whoever had them before.
///
/// # Errors
/// The system's.
pub fn name_overflows() -> io::Result<()> {
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        // Known before the handler can ask for it.
        before.get_or_init(|| Action(set(signal, None)));
    }
    let mut ours: sigaction = empty();
    ours.sa_sigaction = handler as *const () as usize;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for signal in SIGNALS {
        set(signal, Some(&ours)).ok_or_else(io::Error::last_os_error)?;
    }
    Ok(())
}

/// What a fault of memory is, depending on the system.
const SIGNALS: [c_int; 2] = [SIGSEGV, SIGBUS];

/// What the signals did before.
static BEFORE: [OnceLock<Action>; 2] = [const { OnceLock::new() }; 2];

struct Action(Option<sigaction>);

// SAFETY: numbers, and the address of a function.
unsafe impl Send for Action {}
// SAFETY: as above.
unsafe impl Sync for Action {}

fn empty() -> sigaction {
    // SAFETY: all zeroes are an action: the default one.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Sets what a signal does, if `new` says so; returns what it did before.
fn set(signal: c_int, new: Option<&sigaction>) -> Option<sigaction> {
    let mut before = empty();
    // SAFETY: both are null or valid; the handlers that are set here and below are handlers.
    let result = unsafe { libc::sigaction(signal, new.map_or(ptr::null(), ptr::from_ref), &raw mut before) };
    (result == 0).then_some(before)
}

/// On the alternate stack of a thread that has had a fault, at any instruction: neither allocates nor locks.
extern "C" fn handler(signal: c_int, info: *const siginfo_t, _: *mut c_void) {
    // SAFETY: the system passes what the signal is about.
    let info = unsafe { &*info };
    // SAFETY: an address, for these signals.
    let address = unsafe { info.si_addr() }.addr();
    if let Some(thread) = overflowed_at(address) {
        let mut line = Line::default();
        // What does not fit is left out.
        let _ = writeln!(
            line,
            "\nthread {} ({}) on {} has overflowed its stack of {} bytes",
            thread.id, thread.name, thread.cpu, thread.stack_bytes
        );
        let text = line.text();
        // SAFETY: writes bytes that are there. If it fails, there is nobody to tell.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // The fault happens again, and goes to whoever had it before; in the end that is the system.
    let before = SIGNALS.into_iter().zip(&BEFORE).find(|&(known, _)| known == signal);
    let before = before.and_then(|(_, before)| before.get()?.0);
    let _ = set(signal, Some(&before.unwrap_or_else(empty)));
}

/// A line of text, in place.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl Line {
    fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.saturating_add(text.len());
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
