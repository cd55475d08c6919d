//! A golden image as a session of the kernel's shell: a script that looks at everything in a manifest, and a comparison
//! of what came out with the manifest.

mod check;
mod words;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use check::printable;
use dfly_golden::{Entry, Kind, Manifest, View};

pub(crate) use words::{boot_time, quoted, without_kernel_messages};

/// Where the script mounts the image.
const MOUNT_POINT: &str = "/mnt";

/// A script, and what each of its lines should show.
pub(crate) struct Session<'m> {
    steps: Vec<Step<'m>>,
}

/// A line of the script.
struct Step<'m> {
    command: String,
    /// What it looks at, as the shell shows it.
    path: String,
    shows: Shows<'m>,
}

/// What a line of the script should show.
enum Shows<'m> {
    Nothing,
    /// The directory, and what lies in it, by name.
    Listing(&'m Entry, Vec<(&'m str, &'m Entry)>),
    Attributes(&'m Entry),
    Hash(&'m str),
    Target(&'m str),
}

impl<'m> Session<'m> {
    /// Mounts `disks`, and looks at every object of every one of `views`.
    pub(crate) fn new(disks: &str, views: &'m [View<'m>]) -> Self {
        let mut steps = Vec::new();
        let mut step = |command: &str, path: String, shows| {
            steps.push(Step {
                command: format!("{command} {}", quoted(path.as_bytes())),
                path: printable(&path),
                shows,
            });
        };
        step(&format!("mount -r {disks}"), MOUNT_POINT.into(), Shows::Nothing);
        for view in views {
            let root = view.root.trim_end_matches('/');
            for entry in view.entries {
                let path = || format!("{MOUNT_POINT}{root}{}", entry.path.trim_end_matches('/'));
                step("stat -r", path(), Shows::Attributes(entry));
                match (entry.kind, &entry.sha256, &entry.target) {
                    (Kind::Directory, ..) => {
                        step("ls -la", path(), Shows::Listing(entry, children(view.entries, &entry.path)));
                    }
                    (Kind::Regular, Some(hash), _) => step("sha256", path(), Shows::Hash(hash)),
                    (Kind::Symlink, _, Some(target)) => step("readlink", path(), Shows::Target(target)),
                    _ => {}
                }
            }
        }
        step("umount", MOUNT_POINT.into(), Shows::Nothing);
        Self { steps }
    }

    /// What the shell is to read.
    pub(crate) fn script(&self) -> String {
        self.steps.iter().flat_map(|step| [step.command.as_str(), "\n"]).collect()
    }
}

/// The disks of an image as `mount` takes them: `nvme0:nvme1`. `kind` is `nvme` or `ahci`.
pub(crate) fn disks(manifest: &Manifest, kind: &str) -> String {
    let names: Vec<_> = (0..manifest.image_files.len()).map(|unit| format!("{kind}{unit}")).collect();
    names.join(":")
}

/// Runs `script` in `vkernel` with disks of that kind, which must end well, and returns what it printed.
pub(crate) fn vkernel(kind: &str, volumes: &[PathBuf], script: &str) -> Result<Vec<u8>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vkernel"));
    let option = format!("--{kind}");
    command.args(volumes.iter().flat_map(|volume| [OsStr::new(&option), volume.as_os_str()]));
    command.args(["--script", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn()?;
    // It reads all of it before it boots.
    running.stdin.take().context("its standard input")?.write_all(script.as_bytes())?;
    let output = running.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = output.stdout.rsplit(|&b| b == b'\n').take(4).collect::<Vec<_>>().join(&b'\n');
    ensure!(
        output.status.success() && stderr.is_empty(),
        "{}: {stderr}{}",
        output.status,
        last.escape_ascii()
    );
    Ok(output.stdout)
}

/// What lies in the directory `of`, in the order of its names.
fn children<'m>(entries: &'m [Entry], of: &str) -> Vec<(&'m str, &'m Entry)> {
    let above = format!("{}/", of.trim_end_matches('/'));
    let name =
        |entry: &'m Entry| entry.path.strip_prefix(&above).filter(|n| !n.is_empty() && !n.contains('/'));
    let mut children: Vec<_> = entries.iter().filter_map(|entry| Some((name(entry)?, entry))).collect();
    children.sort_unstable_by_key(|&(name, _)| name.as_bytes());
    children
}
