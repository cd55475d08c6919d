//! A stack overflow on a host: the process ends by the signal, before anything is written to, and says whose stack it was if
//! it was asked to. Each overflow is that of a child process, which is this program again.
#![cfg(all(unix, not(any(miri, loom))))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use dfly_hal::{CpuId, ThreadWait};
use dfly_lwkt::host::{Machine, name_overflows};
use dfly_lwkt::{Config, Cx, Handle, Spec, overflowed_at};

const CPU1: CpuId = CpuId(1);
const SIGSEGV: i32 = 11;
const SIGBUS: i32 = if cfg!(target_vendor = "apple") { 10 } else { 7 };
/// Says to the test `as_a_child` what to do.
const CHILD: &str = "DFLY_OVERFLOW";

fn spawn(machine: &Machine, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Handle {
    machine.scheduler().spawn(CPU1, Spec::new("greedy").stack_bytes(64 << 10), f).unwrap()
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn dig(depth: u64) -> u64 {
    black_box(depth) + dig(depth + 1) + black_box(1)
}

#[test]
fn as_a_child() {
    let Ok(how) = env::var(CHILD) else { return };
    if how != "silent" {
        name_overflows().unwrap();
    }
    let machine = Machine::start(2, Config::default()).unwrap();
    // Not the first on its stack.
    spawn(&machine, |_| ()).join(&mut ThreadWait::new()).unwrap();
    let greedy = spawn(&machine, move |_| match &*how {
        // SAFETY: not at all: it is for seeing the fault.
        "elsewhere" => drop(black_box(unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() })),
        _ => drop(black_box(dig(0))),
    });
    let _ = greedy.join(&mut ThreadWait::new());
}

fn run(how: &str) -> Output {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "as_a_child", "--nocapture"]).env(CHILD, how).output().unwrap()
}

fn ended_by_signal(output: &Output) -> bool {
    matches!(output.status.signal(), Some(SIGSEGV | SIGBUS))
}

#[test]
fn an_overflow_ends_the_process_and_is_named() {
    let output = run("named");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(ended_by_signal(&output), "{}: {text}", output.status);
    assert!(text.contains("thread 2 (greedy) on cpu1 has overflowed its stack of 65536 bytes"), "{text}");
}

#[test]
fn an_overflow_ends_the_process_also_where_nobody_names_it() {
    let output = run("silent");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(ended_by_signal(&output), "{}: {text}", output.status);
    assert!(!text.contains("greedy"), "{text}");
}

#[test]
fn another_fault_is_not_taken_for_an_overflow() {
    let output = run("elsewhere");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(ended_by_signal(&output), "{}: {text}", output.status);
    assert!(!text.contains("greedy"), "{text}");
}

#[test]
fn a_thread_knows_that_it_is_guarded_and_where() {
    let machine = Machine::start(2, Config::default()).unwrap();
    let thread = spawn(&machine, |cx| {
        let me = cx.scheduler().current().unwrap();
        assert!(me.stack_is_guarded);
        let here = black_box(&raw const me).addr();
        // As far as a stack is long, and a page.
        let guarded = (0..=me.stack_bytes / 4096).filter_map(|page| overflowed_at(here - 4096 * page));
        let guarded: Vec<_> = guarded.map(|thread| thread.id).collect();
        assert_eq!(guarded, [me.id]);
        assert_eq!(overflowed_at(here), None);
    });
    thread.join(&mut ThreadWait::new()).unwrap();
}
