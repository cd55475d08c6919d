//! The machine's terminal: written to by the kernel, read by a host thread.

use std::future::poll_fn;
use std::io::{self, BufRead as _, Write as _};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use dfly_hal::{Wait, block_on};
use kernel::Terminal;

/// Takes what the kernel shows.
pub trait Show: FnMut(&[u8]) + Send + 'static {}
impl<F: FnMut(&[u8]) + Send + 'static> Show for F {}

/// Shows a prompt and gets a line, without its end; `None`: there are no more. May block, for it has a host thread of its
/// own.
pub trait Ask: FnMut(&str) -> Option<Vec<u8>> + Send + 'static {}
impl<F: FnMut(&str) -> Option<Vec<u8>> + Send + 'static> Ask for F {}

/// A [`Terminal`] of a host program.
pub struct Console {
    show: Mutex<Box<dyn Show>>,
    prompts: Mutex<Sender<String>>,
    answer: Arc<Answer>,
}

/// What was read, on its way from the host thread to the kernel thread that waits for it.
#[derive(Default)]
struct Answer {
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    /// Nobody waits.
    #[default]
    Idle,
    Wanted(Waker),
    Line(Vec<u8>),
    /// There will be no more.
    Ended,
}

impl Console {
    /// Shows by `show`, and reads by `ask`.
    ///
    /// # Errors
    /// No host thread could be started.
    pub fn new(show: impl Show, mut ask: impl Ask) -> io::Result<Self> {
        let (prompts, asked) = mpsc::channel::<String>();
        let answer = Arc::new(Answer::default());
        let to = answer.clone();
        // Not joined: it may be blocked for as long as its person likes.
        thread::Builder::new().name("terminal".into()).spawn(move || {
            for prompt in asked {
                to.put(ask(&prompt));
            }
        })?;
        Ok(Self { show: Mutex::new(Box::new(show)), prompts: Mutex::new(prompts), answer })
    }

    /// The standard output, and the lines of the standard input without any prompt.
    ///
    /// # Errors
    /// No host thread could be started.
    pub fn plain() -> io::Result<Self> {
        Self::new(show, |_| {
            let mut line = Vec::new();
            // What cannot be read has ended.
            let bytes = io::stdin().lock().read_until(b'\n', &mut line).unwrap_or(0);
            line.pop_if(|last| *last == b'\n');
            (bytes > 0).then_some(line)
        })
    }
}

/// Writes to the standard output. When nobody reads it any more, the machine runs on.
pub(crate) fn show(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

impl Terminal for Console {
    fn write(&self, bytes: &[u8]) {
        (lock(&self.show))(bytes);
    }

    fn read_line(&self, prompt: &str, w: &mut dyn Wait) -> Option<Vec<u8>> {
        let mut asked = false;
        let answer = poll_fn(|cx| {
            let mut state = lock(&self.answer.state);
            match std::mem::take(&mut *state) {
                State::Line(line) => return Poll::Ready(Some(line)),
                State::Ended => {
                    *state = State::Ended;
                    return Poll::Ready(None);
                }
                State::Idle | State::Wanted(_) => *state = State::Wanted(cx.waker().clone()),
            }
            drop(state);
            // After the waker is in place: the answer may come at once. A line that an earlier caller gave up waiting for
            // is still being read, and is this caller's.
            if !std::mem::replace(&mut asked, true) && lock(&self.prompts).send(prompt.into()).is_err() {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        block_on(w, answer, None).ok().flatten()
    }
}

impl Answer {
    fn put(&self, line: Option<Vec<u8>>) {
        let new = line.map_or(State::Ended, State::Line);
        let old = std::mem::replace(&mut *lock(&self.state), new);
        if let State::Wanted(waker) = old {
            waker.wake();
        }
    }
}

/// What is behind these locks is whole after every statement, so a poisoned one is as good.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
