//! What the machine promises to the kernel, tried on the machine itself (option `selftest`). The disk test
//! (option `selftest-disk`) overwrites the first disk.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;

use atomic_waker::AtomicWaker;
use dfly_bio::{Bio, BlockDevice, Buf, PendingBio};
use dfly_hal::conformance::{check_clock, check_cpus, check_dma};
use dfly_hal::{Clock, CpuId, Cpus, Instant, TimedOut, Wait, block_on, sleep_until};
use dfly_nvme::{Config, Nvme};

use crate::panic::Exit;
use crate::pci::{self, Config as _};
use crate::platform::Pc;
use crate::{clock, cpu, interrupts, nvme, println};

/// All CPUs meet here.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);

type Test = fn() -> Result<(), &'static str>;

/// The tests, which every CPU runs at the same time.
const TESTS: [(&str, Test); 7] = [
    ("copying memory", copies),
    ("PCI lists that lie", lies),
    ("memory for devices", dma),
    ("IPIs, both ways", ipis),
    ("one time on all CPUs", same_time),
    ("timers", timers),
    ("interrupts do not disturb", storm),
];

/// Runs the tests; every CPU calls it.
pub fn run() -> Exit {
    for (name, test) in TESTS {
        step(name, test);
    }
    if FAILED.load(Ordering::Acquire) { Exit::Failure } else { Exit::Success }
}

fn step(name: &str, test: impl FnOnce() -> Result<(), &'static str>) {
    meet();
    let result = test();
    if let Err(why) = result {
        println!("{name}: {}: FAILED: {why}", cpu::this());
        FAILED.store(true, Ordering::Release);
    }
    meet();
    if cpu::this() == CpuId(0) && result.is_ok() {
        println!("{name}: ok");
    }
}

/// Waits for all CPUs.
fn meet() {
    let count = cpu::count();
    let round = ARRIVED.fetch_add(1, Ordering::AcqRel) / count;
    while ARRIVED.load(Ordering::Acquire) / count == round {
        core::hint::spin_loop();
    }
}
