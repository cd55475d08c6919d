//! The drivers on QEMU's own controllers: every CPU writes its share of the disk, 32 requests at a time, and reads back what
//! another wrote. What was on the disk is lost; what must be on it then is [`word`], which the host compares.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use dfly_ahci::Ahci;
use dfly_bio::{Bio, BlockDevice, Buf, JobList, PendingBio};
use dfly_hal::{CpuId, Wait, block_on};
use dfly_lwkt::{Cx, Priority, Spec};
use dfly_nvme::Nvme;

use crate::platform::MACHINE;
use crate::selftest::on_every_cpu;
use crate::{ahci, clock, cpu, nvme, println};

/// Requests of one CPU at a time.
const DEPTH: usize = 32;
/// The disk is written in pieces of these lengths, one length after the other, each on a part of its own.
const LENGTHS: [usize; 3] = [4096, 65536, 12288];
/// The part of each length.
const PART: u64 = 12 << 20;

/// The word of eight bytes that must be at word `index` of the disk.
fn word(index: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(buf: &mut [u8], at: u64) {
    for (index, bytes) in (at / 8..).zip(buf.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word(index).to_le_bytes());
    }
}

fn is_filled(buf: &[u8], at: u64) -> bool {
    (at / 8..).zip(buf.chunks_exact(8)).all(|(index, bytes)| bytes == word(index).to_le_bytes())
}

/// Runs the test on the first disk behind that kind of controller.
pub fn run(bus: &str, cx: &mut Cx<'_>) -> Result<(), String> {
    match bus {
        "ahci" => by_ahci(cx, exercise),
        "ahci-error" => by_ahci(cx, one_fails),
        _ => by_nvme(cx),
    }
}

fn by_nvme(cx: &mut Cx<'_>) -> Result<(), String> {
    let found = nvme::scan().into_iter().find_map(nvme::function).ok_or("no controller")?;
    let driver =
        Nvme::attach(found.window, Arc::new(MACHINE), found.config, cx).map_err(|e| e.to_string())?;
    let driver = Arc::new(driver);
    let interrupted = driver.clone();
    found.irq.connect(move || interrupted.interrupt());
    println!("nvme at {}: {} queues, {:?}", found.location, driver.info().queues, found.config.interrupts);
    let reap = {
        let driver = driver.clone();
        move |cx: &mut Cx<'_>| loop {
            let _ = block_on(cx, driver.work(), None);
            driver.poll();
        }
    };
    let spec = Spec::new("reaper").priority(Priority::INT_MED);
    let _forever = cx.scheduler().spawn(CpuId(0), spec, reap).map_err(|e| e.to_string())?;
    exercise(driver.namespace(1).ok_or("no namespace 1")?, cx)?;
    let stats = driver.stats();
    println!(
        "{} commands, {} doorbells, {} interrupts",
        stats.submitted,
        stats.doorbells,
        cpu::interrupts_taken()
    );
    driver.detach(cx).map_err(|e| e.to_string())
}

fn by_ahci(
    cx: &mut Cx<'_>,
    work: fn(Arc<dyn BlockDevice>, &mut Cx<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let start = clock::now();
    let found = ahci::scan().into_iter().find_map(ahci::function).ok_or("no adapter")?;
    let driver =
        Ahci::attach(found.window, Arc::new(MACHINE), found.config, cx).map_err(|e| e.to_string())?;
    let driver = Arc::new(driver);
    let took = clock::now().saturating_since(start);
    println!(
        "ahci at {}: attached in {} ms, {:?}",
        found.location,
        took.as_millis(),
        found.config.interrupts
    );
    let interrupted = driver.clone();
    found.irq.connect(move || {
        interrupted.interrupt();
    });
    let reap = {
        let driver = driver.clone();
        move |cx: &mut Cx<'_>| loop {
            let _ = block_on(cx, driver.work(), None);
            driver.poll();
        }
    };
    let spec = Spec::new("reaper").priority(Priority::INT_MED);
    let _forever = cx.scheduler().spawn(CpuId(0), spec, reap).map_err(|e| e.to_string())?;
    work(driver.ports().find_map(|port| driver.disk(port)).ok_or("no disk")?, cx)?;
    let stats = driver.stats();
    println!(
        "{} commands, {} batches, {} interrupts, {} recoveries",
        stats.issued,
        stats.batches,
        found.irq.raised(),
        stats.recoveries
    );
    driver.detach(cx).map_err(|e| e.to_string())
}

/// Reads 32 pieces in one batch. One of them fails, by what the host has arranged, and no other.
fn one_fails(disk: Arc<dyn BlockDevice>, cx: &mut Cx<'_>) -> Result<(), String> {
    const LEN: usize = 4096;
    let (mut batch, mut all) = (JobList::new(), Vec::new());
    for piece in 0..DEPTH {
        let mut bio = Bio::new();
        bio.read((piece * LEN) as u64, Buf::alloc(LEN, LEN).map_err(|e| e.to_string())?);
        let (job, pending) = bio.waitable();
        batch.push(job);
        all.push(pending);
    }
    let start = clock::now();
    disk.submit(batch);
    let failed: Vec<_> = all.into_iter().filter_map(|pending| pending.wait(cx).result().err()).collect();
    let took = clock::now().saturating_since(start);
    match failed[..] {
        [error] => {
            println!("one of {DEPTH} failed, in {} ms: {error}", took.as_millis());
            Ok(())
        }
        _ => Err(format!("{} of {DEPTH} failed", failed.len())),
    }
}

/// Writes the disk, and reads it.
fn exercise(disk: Arc<dyn BlockDevice>, cx: &mut Cx<'_>) -> Result<(), String> {
    if disk.limits().bytes() < PART * LENGTHS.len() as u64 {
        return Err(format!("the disk has {} bytes: too few", disk.limits().bytes()));
    }
    for (what, pass) in [("written", Pass::Write), ("read", Pass::Read)] {
        let disk = disk.clone();
        let start = clock::now();
        on_every_cpu(cx, move |cx| share(&*disk, pass, cx))?;
        let took = clock::now().saturating_since(start).max(Duration::from_micros(1));
        let bytes = PART * LENGTHS.len() as u64;
        let rate = (u128::from(bytes) * 1_000_000 / took.as_micros()) >> 20;
        println!("{} MiB {what} in {} ms: {rate} MiB/s", bytes >> 20, took.as_millis());
    }
    let mut bio = Bio::new();
    bio.flush();
    bio.call(&*disk, cx).result().map_err(|e| e.to_string())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Write,
    Read,
}

/// One CPU's share: every piece whose turn it is; when reading, the pieces that the next CPU wrote.
fn share(disk: &dyn BlockDevice, pass: Pass, w: &mut dyn Wait) -> Result<(), String> {
    let count = u64::from(cpu::count());
    let mine = u64::from(cpu::this().0) + u64::from(pass == Pass::Read);
    for (start, len) in (0..).step_by(PART as usize).zip(LENGTHS) {
        let pieces = (0..PART / len as u64).filter(|piece| piece % count == mine % count);
        let mut running = VecDeque::with_capacity(DEPTH);
        for piece in pieces {
            let (mut bio, mut buf) = if running.len() < DEPTH {
                (Bio::new(), Buf::alloc(len, 4096).map_err(|e| e.to_string())?)
            } else {
                next(&mut running, pass, w)?
            };
            let at = start + piece * len as u64;
            match pass {
                Pass::Write => {
                    fill(&mut buf, at);
                    bio.write(at, buf);
                }
                Pass::Read => {
                    buf.fill(0);
                    bio.read(at, buf);
                }
            }
            running.push_back(bio.start(disk));
        }
        while !running.is_empty() {
            next(&mut running, pass, w)?;
        }
    }
    Ok(())
}

/// Waits for the oldest request; it and its memory, which is right.
fn next(running: &mut VecDeque<PendingBio>, pass: Pass, w: &mut dyn Wait) -> Result<(Bio, Buf), String> {
    let mut bio = running.pop_front().ok_or("nothing runs")?.wait(w);
    bio.result().map_err(|e| e.to_string())?;
    let buf = bio.take_buf().ok_or("the memory is gone")?;
    match pass == Pass::Write || is_filled(&buf, bio.offset()) {
        true => Ok((bio, buf)),
        false => Err(format!("what was read at {:#x} is not what was written", bio.offset())),
    }
}
