//! The models catch what they are there for: each patch in `crates/*/mutations` breaks a lock-free algorithm, and
//! some loom test of that crate must fail with it.
//!
//! The patches are applied to a copy of the checkout inside the target directory.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    interleave::{LOOM_MAX_PREEMPTIONS, loom_cargo},
    project::{Project, names},
    run::{Ended, Run},
};

/// A model that takes longer with a mutation hangs, and proves nothing.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(project: &Project) -> Result<()> {
    let scratch = Scratch::new(project)?;
    let (mut patches, mut missed) = (0, Vec::new());
    for folder in project.crates()? {
        let mutations = project.root.join("crates").join(&folder).join("mutations");
        if !mutations.is_dir() {
            continue;
        }
        for name in names(&mutations, |path| {
            path.extension().is_some_and(|e| e == "patch").then(|| path.file_name())?
        })? {
            patches += 1;
            let begin = Instant::now();
            let result = scratch.with_patch(&mutations.join(&name), || catch(project, &scratch, &folder));
            let seconds = begin.elapsed().as_secs_f32();
            match result {
                Ok(test) => println!("{folder}/{name}: caught by {test} ({seconds:.1} s)"),
                Err(error) => {
                    println!("{folder}/{name}: FAILED: {error:#} ({seconds:.1} s)");
                    missed.push(format!("{folder}/{name}"));
                }
            }
        }
    }
    ensure!(patches > 0, "no crate has a patch in its folder mutations");
    ensure!(
        missed.is_empty(),
        "{} of {patches} mutations are not caught: {}",
        missed.len(),
        missed.join(", ")
    );
    println!("{patches} mutations, all caught");
    Ok(())
}

/// The loom test that fails in the patched scratch copy. An error where it does not compile, or nothing fails.
fn catch(project: &Project, scratch: &Scratch, folder: &str) -> Result<String> {
    let tests = project.loom_tests(folder)?;
    ensure!(!tests.is_empty(), "the crate has no loom tests");
    let tests: String = tests.iter().map(|test| format!(" --test {test}")).collect();
    let words = format!(
        "test --release --quiet -p dfly-{folder}{tests} --no-run --message-format json-render-diagnostics"
    );
    let built = loom_cargo(project, Run::new("cargo").words(&words).dir(&scratch.root)).text();
    for binary in executables(&built.context("it does not compile")?) {
        let run = Run::new(&binary).env("LOOM_MAX_PREEMPTIONS", LOOM_MAX_PREEMPTIONS).dir(&scratch.root);
        if let Some(test) = verdict(&run.run_within(LIMIT)?)? {
            return Ok(test);
        }
    }
    bail!("every model passes")
}

/// The test that failed, or `None` where all passed.
fn verdict(ended: &Ended) -> Result<Option<String>> {
    ensure!(!ended.timed_out, "a model still runs after {} s", LIMIT.as_secs());
    if ended.success {
        return Ok(None);
    }
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let begun = |line: &str| Some(line.strip_prefix("test ")?.split_once(" ...")?.0.to_owned());
    match ended.stdout.lines().find_map(failed) {
        Some(test) => Ok(Some(test)),
        // A panic while panicking ends the process before the harness can say which test it was.
        None => Ok(Some(match ended.stdout.lines().filter_map(begun).next_back() {
            Some(last) => format!("an abort after {last}"),
            None => String::from("an abort"),
        })),
    }
}

/// The test binaries that cargo's messages name.
fn executables(messages: &str) -> Vec<String> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned())).collect()
}

/// A copy of the checkout's files.
struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Brings the copy up to date. Only what differs is written, so that cargo sees what changed and nothing else.
    fn new(project: &Project) -> Result<Self> {
        let root = project.target.join("mutations");
        let files: HashSet<PathBuf> = project.files()?.into_iter().collect();
        for file in &files {
            let (from, to) = (project.root.join(file), root.join(file));
            let content = fs::read(&from).with_context(|| from.display().to_string())?;
            if fs::read(&to).is_ok_and(|old| old == content) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::write(&to, content)?;
        }
        remove_others(&root, &root, &files)?;
        Ok(Self { root })
    }

    /// Runs `test` while `patch` is applied.
    fn with_patch<T>(&self, patch: &Path, test: impl FnOnce() -> Result<T>) -> Result<T> {
        self.apply(patch, &[]).context("the patch does not apply")?;
        let result = test();
        self.apply(patch, &["--reverse"])?;
        result
    }

    fn apply(&self, patch: &Path, flags: &[&str]) -> Result<()> {
        let mut git = Run::new("git").arg("apply").dir(&self.root);
        for flag in flags {
            git = git.arg(flag);
        }
        // Inside a repository git would look for the files relative to the repository's root.
        let outside = self.root.parent().unwrap_or(&self.root);
        git.arg(patch).env("GIT_CEILING_DIRECTORIES", outside).text().map(drop)
    }
}

/// Removes the files under `folder` that are not among `files`, which are relative to `root`.
fn remove_others(root: &Path, folder: &Path, files: &HashSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(root, &path, files)?;
        } else if !path.strip_prefix(root).is_ok_and(|relative| files.contains(relative)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(success: bool, stdout: &str) -> Ended {
        Ended { success, timed_out: false, stdout: stdout.into() }
    }

    #[test]
    fn a_failed_test_or_an_abort_catches_a_mutation_and_a_hang_does_not() {
        let stdout = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n";
        assert_eq!(verdict(&ended(false, stdout)).unwrap().unwrap(), "b::c");
        assert_eq!(verdict(&ended(false, "test a ... ok\n")).unwrap().unwrap(), "an abort after a");
        assert_eq!(verdict(&ended(true, "test a ... ok\n")).unwrap(), None);
        assert!(verdict(&Ended { success: false, timed_out: true, stdout: String::new() }).is_err());
    }

    #[test]
    fn a_patch_is_taken_back_and_one_that_does_not_fit_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("scratch/crates/a.txt");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "one\ntwo\n").unwrap();
        let patch = dir.path().join("p.patch");
        fs::write(&patch, "--- a/crates/a.txt\n+++ b/crates/a.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n")
            .unwrap();

        let scratch = Scratch { root: dir.path().join("scratch") };
        let seen = scratch.with_patch(&patch, || Ok(fs::read_to_string(&file)?)).unwrap();
        assert_eq!(seen, "one\nthree\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");

        fs::write(&file, "other\n").unwrap();
        assert!(scratch.with_patch(&patch, || Ok(())).unwrap_err().to_string().contains("does not apply"));
    }
}
