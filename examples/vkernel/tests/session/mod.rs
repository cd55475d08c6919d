//! A golden image as a session of the kernel's shell: a script that looks at everything in a manifest, and a comparison
//! of what came out with the manifest.

mod check;
mod words;

use dfly_golden::{Entry, Kind, Manifest, View};

pub use check::check;
pub use words::{quoted, without_kernel_messages};

/// Where the script mounts the image.
const MOUNT_POINT: &str = "/mnt";

/// A script, and what each of its lines should show.
pub struct Session<'m> {
    steps: Vec<(String, Shows<'m>)>,
}

/// What a line of the script should show.
pub enum Shows<'m> {
    Nothing,
    /// The directory, and what lies in it, by name.
    Listing(&'m Entry, Vec<(&'m str, &'m Entry)>),
    Attributes(&'m Entry),
    Hash(&'m str),
    Target(&'m str),
}

impl<'m> Session<'m> {
    /// Mounts `disks`, and looks at every object of every one of `views`.
    pub fn new(disks: &str, views: &'m [View<'m>]) -> Self {
        let mut steps = vec![(format!("mount -r {disks} {MOUNT_POINT}"), Shows::Nothing)];
        for view in views {
            let root = view.root.trim_end_matches('/');
            for entry in view.entries {
                let path = format!("{MOUNT_POINT}{root}{}", entry.path.trim_end_matches('/'));
                let word = quoted(path.as_bytes());
                steps.push((format!("stat -r {word}"), Shows::Attributes(entry)));
                match (entry.kind, &entry.sha256, &entry.target) {
                    (Kind::Directory, ..) => {
                        let listing = Shows::Listing(entry, children(view.entries, &entry.path));
                        steps.push((format!("ls -la {word}"), listing));
                    }
                    (Kind::Regular, Some(hash), _) => steps.push((format!("sha256 {word}"), Shows::Hash(hash))),
                    (Kind::Symlink, _, Some(to)) => steps.push((format!("readlink {word}"), Shows::Target(to))),
                    _ => {}
                }
            }
        }
        steps.push((format!("umount {MOUNT_POINT}"), Shows::Nothing));
        Self { steps }
    }

    /// What the shell is to read.
    pub fn script(&self) -> String {
        self.steps.iter().flat_map(|(line, _)| [line.as_str(), "\n"]).collect()
    }
}

/// The disks of an image as `mount` takes them: `nvme0:nvme1`.
pub fn disks(manifest: &Manifest) -> String {
    let names: Vec<_> = (0..manifest.image_files.len()).map(|unit| format!("nvme{unit}")).collect();
    names.join(":")
}

/// What lies in the directory `of`, in the order of its names.
fn children<'m>(entries: &'m [Entry], of: &str) -> Vec<(&'m str, &'m Entry)> {
    let above = format!("{}/", of.trim_end_matches('/'));
    let name = |entry: &'m Entry| entry.path.strip_prefix(&above).filter(|n| !n.is_empty() && !n.contains('/'));
    let mut children: Vec<_> = entries.iter().filter_map(|entry| Some((name(entry)?, entry))).collect();
    children.sort_unstable_by_key(|&(name, _)| name.as_bytes());
    children
}
