//! The machine in QEMU, tried: that it keeps its promises, that it ends as it should whatever happens, that its driver writes
//! what it is told, and that its shell says what the golden images hold.

use std::{
    env,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::{
    project::Project,
    qemu::{self, End},
    run::Tally,
    toolchain,
};

/// Arguments of `qemu`, how the machine ends, and what it says on stdout or we on stderr.
const TRIES: &[(&str, End, &str)] = &[
    ("--append selftest --cpus 1", End::Success, "interrupts disturb no computation: ok"),
    ("--append selftest", End::Success, "interrupts disturb no computation: ok"),
    ("--append selftest --cpus 4 --memory 5120", End::Success, "interrupts disturb no computation: ok"),
    // Stacks of CPUs above 4 GiB.
    ("--append selftest --cpus 16 --memory 4096", End::Success, "interrupts disturb no computation: ok"),
    // A panic while the other CPUs are still the firmware's.
    ("--append selftest -- -M q35,pit=off", End::Panicked, "panic: the interval timer"),
    // The last of four controllers finds no interrupt vector left.
    (
        "--cpus 64 -- \
         -drive if=none,id=a,driver=null-co,size=64M -device nvme,serial=a,drive=a \
         -drive if=none,id=b,driver=null-co,size=64M -device nvme,serial=b,drive=b \
         -drive if=none,id=c,driver=null-co,size=64M -device nvme,serial=c,drive=c \
         -drive if=none,id=d,driver=null-co,size=64M -device nvme,serial=d,drive=d",
        End::Success,
        "so it is polled",
    ),
    ("--append end=panic", End::Panicked, "examples/pc64/src/selftest.rs:"),
    ("--append end=nested", End::Panicked, "panic: asked for"),
    ("--append end=allocating --cpus 4", End::Panicked, "panic: asked for"),
    ("--append end=everywhere --cpus 4", End::Panicked, "thread "),
    ("--append end=interrupt", End::Panicked, "in an interrupt handler"),
    ("--append end=fault", End::Exception, "read at 0x8: not mapped"),
    ("--append end=code", End::Exception, "not allowed"),
    ("--append end=data", End::Exception, "execute at "),
    ("--append end=overflow", End::Exception, "(greedy) has overflowed its stack of 262144 bytes"),
    ("--append end=overflow --cpus 4", End::Exception, "times more"),
    // A page that one CPU takes away is taken from all.
    ("--append end=gone", End::Exception, "on cpu1 of 2, thread"),
    ("--append end=deep", End::Exception, "which is below a stack"),
    ("--append end=triple", End::Silent, "ended without a word"),
    ("--append end=hang --timeout 3", End::TimedOut, "the time is over"),
];

/// Longer than any of them takes on a busy host.
const LIMIT: &str = "--timeout 120";

pub(crate) fn run(project: &Project, tests: &mut Tally) -> Result<()> {
    toolchain::program("qemu-system-x86_64", "qemu-system-x86")?;
    qemu::build(project)?;
    for &(words, end, text) in TRIES {
        let output = boot(words, None)?;
        judge(&output, end, text).with_context(|| format!("qemu {words}"))?;
        passed(words, tests);
    }
    let output = boot(&format!("--append {}", "x".repeat(4096)), None)?;
    judge(&output, End::Panicked, "the options are no text, or too long").context("qemu --append xxx...")?;
    passed("--append with options that are too long", tests);
    killed().context("qemu, killed")?;
    passed("leaves no machine behind when it is killed", tests);
    for (words, option) in [("--append disktest", "--scratch"), ("--append disktest=ahci", "--scratch-ahci")]
    {
        disk(words, option).with_context(|| format!("qemu {words}"))?;
        passed(&format!("{words}, and the image is as it should be"), tests);
    }
    one_error().context("qemu --append disktest=ahci-error")?;
    passed("of 32 queued reads by AHCI only that of the broken sector fails", tests);
    golden(project, tests)
}

fn passed(what: &str, tests: &mut Tally) {
    println!("qemu {what}: ok");
    tests.passed += 1;
}

/// Boots with these arguments, and perhaps a disk by that option.
fn boot(words: &str, scratch: Option<(&str, &NamedTempFile)>) -> Result<Output> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("qemu");
    if !words.contains("--timeout") {
        command.args(LIMIT.split(' '));
    }
    command.args(words.split(' '));
    if let Some((option, scratch)) = scratch {
        command.arg(option).arg(scratch.path());
    }
    Ok(command.stdin(Stdio::null()).output()?)
}

fn judge(output: &Output, end: End, text: &str) -> Result<()> {
    let all = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    ensure!(output.status.code() == Some(i32::from(end as u8)), "{}, not {end:?}:\n{all}", output.status);
    ensure!(all.contains(text), "not a word of `{text}`:\n{all}");
    Ok(())
}

/// The machine ends when the `xtask` that runs it is killed: both have its stderr, which then ends.
fn killed() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut command = Command::new(env::current_exe()?);
    command.arg("qemu").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut xtask = command.spawn()?;
    // The machine says something: it runs.
    xtask.stdout.as_mut().context("no pipe")?.read_exact(&mut [0])?;
    xtask.kill()?;
    let mut stderr = xtask.stderr.take().context("no pipe")?;
    let (end, ended) = mpsc::channel();
    thread::spawn(move || end.send(stderr.read_to_end(&mut Vec::new()).is_ok()));
    let has_ended = ended.recv_timeout(PATIENCE);
    xtask.wait()?;
    ensure!(has_ended == Ok(true), "QEMU is still there");
    Ok(())
}

/// Both CPUs write a disk at depth; then its image holds what `examples/pc64/README.md` says, and nothing else changed.
fn disk(words: &str, option: &str) -> Result<()> {
    const WRITTEN: u64 = 36 << 20;
    const BYTES: u64 = 40 << 20;
    const OLD: u8 = 0x5a;
    let mut image = NamedTempFile::new()?;
    image.write_all(&vec![OLD; BYTES as usize])?;
    judge(&boot(words, Some((option, &image)))?, End::Success, "the disk holds what was written: ok")?;

    let mut image = File::open(image.path())?;
    image.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    image.read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == BYTES, "the image has {} bytes", bytes.len());
    let (new, old) = bytes.split_at(WRITTEN as usize);
    for (index, word) in (1_u64..).zip(new.chunks_exact(8)) {
        let expected = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        ensure!(word == expected, "at {:#x}: {word:02x?} instead of {expected:02x?}", 8 * (index - 1));
    }
    ensure!(old.iter().all(|&byte| byte == OLD), "bytes behind what was written have changed");
    Ok(())
}

/// Of 32 reads at a time the disk fails one, and the driver finds out which.
fn one_error() -> Result<()> {
    const SECTOR: u64 = 13 * 8;
    let (mut image, mut rules) = (NamedTempFile::new()?, NamedTempFile::new()?);
    image.write_all(&[0; 1 << 20])?;
    write!(rules, "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"{SECTOR}\"\n")?;
    let words = format!(
        "--append disktest=ahci-error -- -drive if=none,id=x,format=raw,file=blkdebug:{}:{} -device ich9-ahci,id=y \
         -device ide-hd,drive=x,bus=y.0",
        rules.path().display(),
        image.path().display()
    );
    judge(&boot(&words, None)?, End::Success, &format!("at {}: ", SECTOR * 512))
}

/// The golden sessions in QEMU, compared with the manifests and with `vkernel`.
fn golden(project: &Project, tests: &mut Tally) -> Result<()> {
    // Two machines at a time: one leaves a host's CPU idle now and then, more slow each other down.
    let test = project.cargo("test -p vkernel --test pc64 -- --test-threads 2");
    test.env("DFLY_XTASK", env::current_exe()?).run_tests(tests)
}
