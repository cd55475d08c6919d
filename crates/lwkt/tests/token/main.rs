//! Tokens, through threads.
#![cfg(all(feature = "std", not(loom)))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod abuse;
mod behaviour;
// Miri lets weak exchanges fail now and then.
#[cfg(not(miri))]
mod cost;
mod model;
mod others;
mod torture;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use dfly_hal::{CpuId, ThreadWait, Wait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::{Config, Cx, JoinError};

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// Runs `f` as a thread of a machine of so many CPUs.
fn on(cpus: u32, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Result<(), JoinError> {
    let machine = Machine::start(cpus, Config::default()).unwrap();
    let main = machine.scheduler().spawn(CPU0, "main".into(), f).unwrap();
    main.join(&mut ThreadWait::new())
}

/// Starts `f` as another thread.
fn spawn(cx: &Cx<'_>, cpu: CpuId, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> dfly_lwkt::Handle {
    cx.scheduler().spawn(cpu, "other".into(), f).unwrap()
}

/// Something that a thread waits for until somebody says so.
#[derive(Clone, Default)]
struct Event(Arc<Mutex<(bool, Option<Waker>)>>);

impl Event {
    fn happen(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn wait(&self, w: &mut dyn Wait) {
        w.wait(pin!(self.clone()), None).unwrap();
    }
}

impl Future for Event {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(cx.waker().clone());
        if state.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<String>().map_or("", String::as_str)
}
