//! The shell: commands from the terminal or from a script.

use alloc::format;

use dfly_hal::Wait;

use crate::{Kernel, Session, Verdict};

/// Runs the session to its end.
pub(crate) fn run(kernel: &'static Kernel, session: Session, w: &mut dyn Wait) -> Verdict {
    let mut script = match &session {
        Session::Script(text) => Some(text.split(|&b| b == b'\n')),
        Session::Interactive => None,
    };
    loop {
        let line = match &mut script {
            Some(lines) => lines.next().map(<[u8]>::to_vec),
            None => kernel.terminal().read_line("# ", w),
        };
        match line.as_deref().map(<[u8]>::trim_ascii) {
            None | Some(b"shutdown") => return Verdict::Success,
            Some(b"") => {}
            Some(other) => {
                let text = format!("{}: not found\n", other.escape_ascii());
                kernel.terminal().write(text.as_bytes());
                if script.is_some() {
                    return Verdict::Failure;
                }
            }
        }
    }
}
