//! `cargo xtask qemu`: the kernel of `examples/pc64` in QEMU, with disk images behind QEMU's own NVMe controllers.
//!
//! stdout is what the machine writes to its serial line and nothing else, with line feeds as line ends; our own words go to
//! stderr. So a test runs it as a program and compares. The exit status says how the machine ended: see [`End`].

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use addr2line::{Loader, demangle_auto};
use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

use crate::{project::Project, run::Run, toolchain};

/// What the machine is made of.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Disk images, each behind an NVMe controller of its own: nvme0, nvme1, ...; what is written is forgotten
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    nvme: Vec<PathBuf>,
    /// Disk images, each behind an AHCI adapter of its own: ahci0, ahci1, ...; what is written is forgotten
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    ahci: Vec<PathBuf>,
    /// Disk images that keep what is written, behind the controllers that follow
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    scratch: Vec<PathBuf>,
    /// The same behind AHCI adapters
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    scratch_ahci: Vec<PathBuf>,
    /// Runs the commands of this file (-: of stdin) instead of a shell
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// How many CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How much memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// Uses the host's KVM instead of emulating the CPUs
    #[arg(long)]
    kvm: bool,
    /// Ends the machine after so many seconds (0: never); 600 for a script, never for a shell, unless given
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Options for the kernel
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// More arguments for QEMU
    #[arg(last = true)]
    extra: Vec<String>,
}

/// How the machine ended, as an exit status. 2 is for whatever kept it from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// All went well.
    Success = 0,
    /// A command of the script failed.
    Failed = 1,
    /// The kernel panicked.
    Panicked = 101,
    /// A CPU ran into an exception.
    Exception = 102,
    /// QEMU ended, or was ended, without a word of the kernel: a triple fault, or a defect of QEMU.
    Silent = 103,
    /// The time was over.
    TimedOut = 124,
}

impl Options {
    fn limit(&self) -> Option<Duration> {
        const FOR_A_SCRIPT: u64 = 600;
        let seconds = self.timeout.or(self.script.is_some().then_some(FOR_A_SCRIPT))?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

impl End {
    /// QEMU's status is twice what the kernel wrote to `isa-debug-exit`, plus one: `examples/pc64/src/panic.rs`.
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(33) => Self::Success,
            Some(35) => Self::Failed,
            Some(253) => Self::Exception,
            Some(255) => Self::Panicked,
            _ => Self::Silent,
        }
    }
}

/// Builds the kernel, and runs it to the end of the machine.
pub(crate) fn run(project: &Project, options: &Options) -> Result<End> {
    toolchain::program("qemu-system-x86_64", "qemu-system-x86")?;
    toolchain::program("setpriv", "util-linux")?;
    let kernel = build(project)?;
    let script = options.script.as_deref().map(module).transpose()?;
    let command = command(&kernel, script.as_ref().map(NamedTempFile::path), options)?;
    let (end, output) = boot(command, options)?;
    match end {
        End::Panicked | End::Exception => {
            symbolize(project, &kernel, end, &output, &mut io::stderr().lock())?
        }
        End::Silent => eprintln!("the machine ended without a word: a triple fault, or QEMU's own error"),
        End::TimedOut => eprintln!("the time is over"),
        End::Success | End::Failed => {}
    }
    Ok(end)
}

/// What the kernel is built for.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// Sets a cargo command to work on the kernel, which is a workspace of its own: in its folder, where cargo finds its flags,
/// which the environment's would replace.
pub(crate) fn in_workspace(project: &Project, cargo: Run) -> Run {
    cargo
        .dir(&project.root.join("examples/pc64"))
        .env("CARGO_TARGET_DIR", target(project))
        .without_env("RUSTFLAGS")
}

fn target(project: &Project) -> PathBuf {
    project.target.join("pc64")
}

/// Builds the kernel; where it is.
pub(crate) fn build(project: &Project) -> Result<PathBuf> {
    toolchain::bare_targets()?;
    in_workspace(project, project.cargo("build --release")).text()?;
    Ok(target(project).join(TARGET).join("release/pc64"))
}

/// The script in `file` (`-`: from stdin) as a module, which is never empty.
fn module(file: &Path) -> Result<NamedTempFile> {
    let mut text = Vec::new();
    match file == Path::new("-") {
        true => io::stdin().lock().read_to_end(&mut text).context("stdin")?,
        false => File::open(file)
            .and_then(|mut file| file.read_to_end(&mut text))
            .with_context(|| file.display().to_string())?,
    };
    text.push(b'\n');
    let mut module = NamedTempFile::new()?;
    module.write_all(&text)?;
    Ok(module)
}

fn command(kernel: &Path, script: Option<&Path>, options: &Options) -> Result<Command> {
    // QEMU does not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-M", "q35", "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    // At a terminal with QEMU's own keys, so that ^C is the machine's, and a machine that hangs can be ended.
    qemu.args(["-serial", if Input::of(options) == Input::Terminal { "mon:stdio" } else { "stdio" }]);
    // QEMU gives the unprivileged features that its emulation has; on KVM, those of the host.
    match options.kvm {
        true => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        false => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
    };
    // With one possible CPU the emulation leaves out memory barriers, and disks lose requests.
    qemu.args(["-smp", &format!("{},maxcpus={}", options.cpus, options.cpus.max(2))]);
    qemu.args(["-m", &options.memory.to_string()]);
    qemu.arg("-kernel").arg(kernel).args(["-append", &options.append]);
    if let Some(script) = script {
        qemu.arg("-initrd").arg(script);
    }
    const KEPT: &str = "snapshot=on";
    const WRITTEN: &str = "cache=writeback,discard=unmap";
    let Options { nvme, ahci, scratch, scratch_ahci, .. } = options;
    let by = |images: &'_ [PathBuf], mode, bus| {
        images.iter().map(move |image| (image.clone(), mode, bus)).collect()
    };
    let disks: [Vec<_>; 4] = [
        by(nvme, KEPT, Bus::Nvme),
        by(scratch, WRITTEN, Bus::Nvme),
        by(ahci, KEPT, Bus::Ahci),
        by(scratch_ahci, WRITTEN, Bus::Ahci),
    ];
    for (index, (image, mode, bus)) in disks.into_iter().flatten().enumerate() {
        ensure!(image.exists(), "no image {}", image.display());
        // In QEMU's lists of options a comma is written twice.
        let image = image.to_str().context("the name of an image is not UTF-8")?.replace(',', ",,");
        qemu.args(["-drive", &format!("file={image},if=none,id=disk{index},format=raw,{mode}")]);
        match bus {
            Bus::Nvme => qemu.args(["-device", &format!("nvme,serial=dfly{index},drive=disk{index}")]),
            Bus::Ahci => {
                qemu.args(["-device", &format!("ich9-ahci,id=ahci{index}")]);
                qemu.args([
                    "-device",
                    &format!("ide-hd,serial=dfly{index},drive=disk{index},bus=ahci{index}.0"),
                ])
            }
        };
    }
    qemu.args(&options.extra);
    Ok(qemu)
}

/// What a disk is behind.
#[derive(Clone, Copy)]
enum Bus {
    Nvme,
    Ahci,
}

/// Where the machine's input comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// From nowhere: it runs a script.
    None,
    /// From our stdin, which is no terminal.
    Pipe,
    /// From the terminal, which QEMU puts into its raw mode, and back.
    Terminal,
}

impl Input {
    fn of(options: &Options) -> Self {
        match options.script {
            Some(_) => Self::None,
            None if io::stdin().is_terminal() => Self::Terminal,
            None => Self::Pipe,
        }
    }
}

/// Runs QEMU; how it ended, and what the machine wrote last.
fn boot(mut command: Command, options: &Options) -> Result<(End, Vec<u8>)> {
    command.stdin(match Input::of(options) {
        Input::None => Stdio::null(),
        Input::Pipe => Stdio::piped(),
        Input::Terminal => {
            eprintln!("ctrl-d or `shutdown` ends the machine, ctrl-a x ends QEMU");
            Stdio::inherit()
        }
    });
    let mut qemu = command.stdout(Stdio::piped()).spawn().context("setpriv qemu-system-x86_64")?;
    let (awake, wakes) = mpsc::channel();
    if let Some(input) = qemu.stdin.take() {
        // Not joined: it may wait for a writer that has nothing to say.
        thread::spawn(move || feed(input, &wakes));
    }
    let output = qemu.stdout.take().context("no pipe")?;
    let output = thread::spawn(move || copy_and_keep(output, &awake));
    let end = wait(&mut qemu, options.limit());
    let Ok(output) = output.join() else { bail!("the reader of the serial line panicked") };
    Ok((end?, output?))
}

/// Copies stdin to the serial line, from when the machine has said something: before, it would lose bytes.
fn feed(mut line: impl Write, wakes: &Receiver<()>) {
    /// Ends a line that has no end, and then the input.
    const ENDS: [u8; 2] = [4, 4];
    if wakes.recv().is_ok() {
        // Who does not read any more has ended.
        let _ = io::copy(&mut io::stdin().lock(), &mut line).and_then(|_| line.write_all(&ENDS));
        let _ = line.flush();
    }
    // Open until the machine ends: a serial line knows no end.
    thread::park();
}

fn wait(qemu: &mut Child, limit: Option<Duration>) -> Result<End> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        if let Some(status) = qemu.try_wait()? {
            return Ok(End::of(status));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            qemu.kill()?;
            qemu.wait()?;
            return Ok(End::TimedOut);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Copies to stdout as it comes, with the line ends of a file instead of a terminal's; returns the last of it.
fn copy_and_keep(mut from: impl Read, begun: &Sender<()>) -> Result<Vec<u8>> {
    const KEPT: usize = 64 << 10;
    let (mut ends, mut last, mut buffer) = (LineEnds::default(), Vec::new(), [0; 4096]);
    loop {
        let read = from.read(&mut buffer)?;
        // Nobody may be waiting for it.
        let _ = begun.send(());
        let mut new = ends.translate(&buffer[..read]);
        if read == 0 {
            new.extend(ends.rest());
        }
        let mut out = io::stdout().lock();
        out.write_all(&new)?;
        out.flush()?;
        last.append(&mut new);
        if read == 0 {
            return Ok(last);
        }
        if last.len() > 2 * KEPT {
            last.drain(..last.len() - KEPT);
        }
    }
}

/// Takes away the carriage return that the machine put before each line feed, and no other.
#[derive(Default)]
struct LineEnds {
    /// A carriage return that may belong to a line feed.
    held: bool,
}

impl LineEnds {
    fn translate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::replace(&mut self.held, byte == b'\r') && byte != b'\n' {
                out.push(b'\r');
            }
            if byte != b'\r' {
                out.push(byte);
            }
        }
        out
    }

    fn rest(&mut self) -> Option<u8> {
        std::mem::take(&mut self.held).then_some(b'\r')
    }
}

/// Says which functions the addresses of the back trace in `output` are.
fn symbolize(project: &Project, kernel: &Path, end: End, output: &[u8], to: &mut impl Write) -> Result<()> {
    let Ok(symbols) = Loader::new(kernel) else { bail!("no symbols in {}", kernel.display()) };
    let name = |symbol: &str| demangle_auto(symbol.into(), None).into_owned();
    writeln!(to, "back trace, with names:")?;
    for (at, inside) in addresses(&String::from_utf8_lossy(output), end) {
        let mut any = false;
        if let Ok(mut frames) = symbols.find_frames(inside) {
            while let Ok(Some(frame)) = frames.next() {
                let function =
                    frame.function.and_then(|function| Some(function.demangle().ok()?.into_owned()));
                // Of the toolchain's own files, the part that is the same everywhere.
                let file = frame.location.as_ref().and_then(|place| place.file).unwrap_or("?");
                let file = file.split_once("/library/").map_or(file, |(_, file)| file);
                let file = Path::new(file).strip_prefix(&project.root).unwrap_or(Path::new(file)).display();
                let line = frame.location.as_ref().and_then(|place| place.line).unwrap_or(0);
                writeln!(to, "  {at:#x} {} ({file}:{line})", function.as_deref().unwrap_or("?"))?;
                any = true;
            }
        }
        if !any {
            writeln!(to, "  {at:#x} {}", symbols.find_symbol(inside).map_or("?".into(), name))?;
        }
    }
    Ok(())
}

/// The addresses of the last back trace, and where the instructions are that they are about.
fn addresses(output: &str, end: End) -> impl Iterator<Item = (u64, u64)> {
    let trace = output.rsplit_once("back trace:").map_or("", |(_, trace)| trace);
    let lines = trace.lines().skip(1).map(str::trim).take_while(|line| line.starts_with("0x"));
    // A line with more words says how often the one before comes again.
    let addresses = lines.filter_map(|line| u64::from_str_radix(line.strip_prefix("0x")?, 16).ok());
    addresses.enumerate().map(move |(index, at)| match (index, end) {
        // The instruction that could not be.
        (0, End::Exception) => (at, at),
        // What is on the stack is where a call returns to: the call itself is before.
        _ => (at, at.saturating_sub(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_lose_what_the_machine_added_and_nothing_else() {
        let mut ends = LineEnds::default();
        let parts = ["a\r\nb\r", "\nc\r\r\nd\re\r", "", "f\r"].map(|part| ends.translate(part.as_bytes()));
        let all: Vec<u8> = parts.into_iter().flatten().chain(ends.rest()).collect();
        assert_eq!(String::from_utf8(all).unwrap(), "a\nb\nc\r\nd\re\rf\r");
    }

    #[test]
    fn a_script_ends_some_time_and_a_shell_when_it_likes() {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            options: Options,
        }
        let limit = |words: &str| {
            let words = ["qemu"].into_iter().chain(words.split_whitespace());
            <Words as clap::Parser>::parse_from(words).options.limit().map(|limit| limit.as_secs())
        };
        assert_eq!(limit(""), None);
        assert_eq!(limit("--timeout 5"), Some(5));
        assert_eq!(limit("--script x"), Some(600));
        assert_eq!(limit("--script x --timeout 5"), Some(5));
        assert_eq!(limit("--script x --timeout 0"), None);
    }

    #[test]
    fn the_last_back_trace_is_found() {
        let output = "back trace:\r\n  0x1\r\n$ x\r\npanic: at\r\nback trace:\r\n  0x200c4b\r\n  0x200c4b 9 times more\r\n  0x20559a\r\nend\r\n  0x3";
        let of = |end| addresses(output, end).collect::<Vec<_>>();
        assert_eq!(of(End::Panicked), [(0x20_0c4b, 0x20_0c4a), (0x20_559a, 0x20_5599)]);
        assert_eq!(of(End::Exception), [(0x20_0c4b, 0x20_0c4b), (0x20_559a, 0x20_5599)]);
        assert_eq!(addresses("nothing", End::Panicked).count(), 0);
    }
}
