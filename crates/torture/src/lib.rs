//! Torture of the scheduler: storms of threads that hold tokens, sleep, lock, interrupt each other, begin and end, in orders
//! that a seed decides. Progress never stops, nothing is held twice, nothing is lost, and every thread ends.
//!
//! It runs in a thread of the scheduler, on host threads and on a machine:
//!
//! ```sh
//! cargo xtask torture --minutes 120               # on the host, for hours
//! cargo xtask torture --minutes 120 --qemu        # on the machine in QEMU
//! ```
//!
//! ```
//! use core::time::Duration;
//! use dfly_hal::{CpuId, ThreadWait};
//! use dfly_lwkt::{Config, host::Machine};
//! use dfly_torture::{Plan, torture};
//!
//! let machine = Machine::start(2, Config::default())?;
//! let main = machine.scheduler().spawn(CpuId(0), "torture".into(), |cx| {
//!     let plan = Plan { seed: 7, time: Duration::from_millis(200), patience: Duration::from_secs(10) };
//!     torture(cx, &plan, &mut |line| println!("{line}")).unwrap();
//! })?;
//! main.join(&mut ThreadWait::new())?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod crew;
mod rng;
mod storms;

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use dfly_lwkt::{Cx, Scheduler};

use crate::crew::{Crew, Report};

/// How to torture.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What decides about orders, as far as the machine does not.
    pub seed: u64,
    /// How long all storms take together.
    pub time: Duration,
    /// How long nothing may move. Ample: the machine may be busy with others.
    pub patience: Duration,
}

/// Lets each storm blow for its share of the time, one after the other, and says what each did. Called from a thread that
/// is more important than the storms' are ([`PRIORITY`](dfly_lwkt::Priority::MAX)), or on a CPU of its own.
///
/// # Errors
/// What went wrong, with the seed, the storm, and all threads where they matter. Threads of the storm may be left, then.
pub fn torture(cx: &mut Cx<'_>, plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Plan { seed, time, patience } = *plan;
    let cpus = cx.scheduler().platform().count();
    say(&format!("torture: seed {seed}, {} s on {cpus} CPUs", time.as_secs_f32()));
    let share = time / storms::ALL.len() as u32;
    for (number, (name, storm)) in storms::ALL.into_iter().enumerate() {
        let mut crew = Crew::new(cx.scheduler(), seed.wrapping_add(number as u64));
        storm(&mut crew);
        match crew.blow(cx, share, patience) {
            Ok(steps) => say(&format!("{name}: ok, {steps} steps")),
            Err(why) => return Err(format!("seed {seed}: {name}: {why}")),
        }
    }
    Ok(())
}

/// Every thread of a scheduler, one in a line, for who watches from outside.
pub fn report(scheduler: &'static Scheduler) -> impl fmt::Display {
    Report(scheduler).to_string()
}
