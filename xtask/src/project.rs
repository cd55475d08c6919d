//! The checkout: where things are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::run::Run;

/// The published libraries, lowest floor first.
pub(crate) const LIBRARIES: [&str; 8] = [
    "dfly-hal",
    "dfly-msgport",
    "dfly-lwkt",
    "dfly-bio",
    "dfly-nvme",
    "dfly-ahci",
    "dfly-vfs",
    "dfly-hammer",
];

/// The programs that a user builds with the oldest supported Rust.
pub(crate) const TOOLS: [&str; 1] = ["hammer-tools"];

/// The checkout and its target directory.
pub(crate) struct Project {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Project {
    /// The checkout that this program was built from.
    pub(crate) fn find() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().unwrap_or(here).to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => env::current_dir().unwrap_or_default().join(target),
            None => root.join("target"),
        };
        Self { root, target }
    }

    /// A cargo command in the root of the checkout; `words` are its arguments.
    pub(crate) fn cargo(&self, words: &str) -> Run {
        Run::new("cargo").words(words).dir(&self.root)
    }

    /// `cargo` of another toolchain.
    pub(crate) fn cargo_of(&self, toolchain: &str, words: &str) -> Run {
        Run::new("cargo").arg(format!("+{toolchain}")).words(words).dir(&self.root)
    }

    /// The files that git tracks or would track, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let list = Run::new("git")
            .words("ls-files -z --cached --others --exclude-standard")
            .dir(&self.root)
            .text()?;
        let files = list.split_terminator('\0').map(PathBuf::from);
        Ok(files.filter(|file| self.root.join(file).is_file()).collect())
    }

    /// The folders of `crates/`, by name, sorted.
    pub(crate) fn crates(&self) -> Result<Vec<String>> {
        names(&self.root.join("crates"), |path| {
            path.join("Cargo.toml").is_file().then(|| path.file_name()).flatten()
        })
    }

    /// The loom test binaries of the crate in `folder`: its `tests/loom*.rs`.
    pub(crate) fn loom_tests(&self, folder: &str) -> Result<Vec<String>> {
        let tests = self.root.join("crates").join(folder).join("tests");
        if !tests.is_dir() {
            return Ok(Vec::new());
        }
        let mut found =
            names(&tests, |path| path.extension().is_some_and(|e| e == "rs").then(|| path.file_stem())?)?;
        found.retain(|name| name.starts_with("loom"));
        Ok(found)
    }
}

/// The names that `pick` takes from the entries of `folder`, sorted.
pub(crate) fn names(folder: &Path, pick: impl Fn(&Path) -> Option<&std::ffi::OsStr>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(pick(&path).and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// ` -p NAME` for each of `packages`.
pub(crate) fn packages(packages: &[&str]) -> String {
    packages.iter().map(|package| format!(" -p {package}")).collect()
}
