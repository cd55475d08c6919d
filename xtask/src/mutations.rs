//! The models catch what they are there for: each patch in `crates/*/mutations` breaks a lock-free algorithm, and some loom
//! model of the test binary that its first line names must fail with it; where models take long, the line names one:
//!
//! ```text
//! Model: loom_ipi a_waiter_sees_what_its_message_did
//! ```
//!
//! The patches are applied to copies of the checkout inside the target directory, one for each of several workers.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::{
    interleave::{LOOM_MAX_PREEMPTIONS, loom_cargo},
    project::{Project, names},
    run::{Ended, Run},
};

/// A model that takes longer with a mutation hangs, and proves nothing.
const LIMIT: Duration = Duration::from_secs(120);

/// How many mutations are tried at a time: models use one CPU, compilers more.
const WORKERS: usize = 2;

pub(crate) fn run(project: &Project) -> Result<()> {
    let patches = patches(project)?;
    ensure!(!patches.is_empty(), "no crate has a patch in its folder mutations");
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = |worker: usize| -> Result<()> {
        let scratch = Scratch::new(project, worker)?;
        while let Some(patch) = patches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let result = catch(project, &scratch, patch);
            let seconds = begin.elapsed().as_secs_f32();
            match result {
                Ok(model) => println!("{}: caught by {model} ({seconds:.1} s)", patch.name),
                Err(error) => {
                    println!("{}: FAILED: {error:#} ({seconds:.1} s)", patch.name);
                    missed.lock().unwrap_or_else(PoisonError::into_inner).push(patch.name.as_str());
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let (patches, missed) = (patches.len(), missed.into_inner().unwrap_or_else(PoisonError::into_inner));
    ensure!(
        missed.is_empty(),
        "{} of {patches} mutations are not caught: {}",
        missed.len(),
        missed.join(", ")
    );
    println!("{patches} mutations, all caught");
    Ok(())
}

/// A mutation.
struct Patch {
    /// `hal/lock-taken-without-acquire.patch`.
    name: String,
    crate_folder: String,
    path: PathBuf,
}

fn patches(project: &Project) -> Result<Vec<Patch>> {
    let mut patches = Vec::new();
    for crate_folder in project.crates()? {
        let folder = project.root.join("crates").join(&crate_folder).join("mutations");
        if !folder.is_dir() {
            continue;
        }
        let is_patch = |path: &Path| path.extension().is_some_and(|e| e == "patch");
        for file in names(&folder, |path| is_patch(path).then(|| path.file_name()).flatten())? {
            patches.push(Patch {
                name: format!("{crate_folder}/{file}"),
                crate_folder: crate_folder.clone(),
                path: folder.join(file),
            });
        }
    }
    Ok(patches)
}

/// What the first line of a patch names: a test binary, and perhaps one of its models.
fn named_models(patch: &str) -> Result<(&str, Option<&str>)> {
    let named = patch.lines().next().and_then(|line| line.strip_prefix("Model: "));
    let mut words =
        named.context("its first line is not `Model: <test binary> [<model>]`")?.split_whitespace();
    Ok((words.next().context("its first line names no test binary")?, words.next()))
}

/// The model that fails in the patched scratch copy. An error where that does not compile, or nothing fails.
fn catch(project: &Project, scratch: &Scratch, patch: &Patch) -> Result<String> {
    let text = fs::read_to_string(&patch.path).with_context(|| patch.path.display().to_string())?;
    let (binary, model) = named_models(&text)?;
    let ended = scratch.with_patch(&patch.path, || {
        let words = format!(
            "test --release --quiet -p dfly-{} --test {binary} --no-run --message-format json-render-diagnostics",
            patch.crate_folder
        );
        let build = loom_cargo(project, Run::new("cargo").words(&words).dir(&scratch.root));
        let built = build.env("CARGO_TARGET_DIR", &scratch.target).text().context("it does not compile")?;
        let program = executables(&built).into_iter().next().context("cargo built no test")?;
        let run = model.into_iter().fold(Run::new(program), |run, model| run.arg("--exact").arg(model));
        run.env("LOOM_MAX_PREEMPTIONS", LOOM_MAX_PREEMPTIONS).dir(&scratch.root).run_within(LIMIT)
    })?;
    verdict(&ended)
}

/// The test that failed.
fn verdict(ended: &Ended) -> Result<String> {
    ensure!(!ended.timed_out, "a model still runs after {} s", LIMIT.as_secs());
    ensure!(!ended.is_success(), "nothing fails");
    let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let begun = |line: &str| Some(line.strip_prefix("test ")?.split_once(" ...")?.0.to_owned());
    // A panic while panicking ends the process before the harness can say which test it was.
    let aborted = || match ended.stdout.lines().filter_map(begun).next_back() {
        Some(last) => format!("an abort after {last}"),
        None => String::from("an abort"),
    };
    Ok(ended.stdout.lines().find_map(failed).unwrap_or_else(aborted))
}

/// The test binaries that cargo's messages name.
fn executables(messages: &str) -> Vec<String> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned())).collect()
}

/// A copy of the checkout's files, and where it is built.
struct Scratch {
    root: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Brings the copy up to date. Only what differs is written, so that cargo sees what changed and nothing else.
    fn new(project: &Project, worker: usize) -> Result<Self> {
        let root = project.target.join(format!("mutations-{worker}"));
        // What others need is there already for the first.
        let target = project.target.join("loom").with_extension(match worker {
            0 => String::new(),
            worker => worker.to_string(),
        });
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
        Ok(Self { root, target })
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

    fn ended(code: i32, stdout: &str) -> Ended {
        Ended { code: Some(code), timed_out: false, stdout: stdout.into() }
    }

    #[test]
    fn a_failed_test_or_an_abort_catches_a_mutation_and_a_hang_does_not() {
        let stdout = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n";
        assert_eq!(verdict(&ended(101, stdout)).unwrap(), "b::c");
        assert_eq!(verdict(&ended(101, "test a ... ok\n")).unwrap(), "an abort after a");
        assert!(verdict(&ended(0, "test a ... ok\n")).is_err());
        assert!(verdict(&ended(0, "running 0 tests\n")).is_err());
        assert!(verdict(&Ended { code: None, timed_out: true, stdout: String::new() }).is_err());
    }

    #[test]
    fn a_patch_names_its_models() {
        assert_eq!(named_models("Model: loom a_b\n--- a/x\n").unwrap(), ("loom", Some("a_b")));
        assert_eq!(named_models("Model: loom_lock\n--- a/x\n").unwrap(), ("loom_lock", None));
        assert!(named_models("--- a/x\n").is_err());
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

        let scratch = Scratch { root: dir.path().join("scratch"), target: dir.path().join("target") };
        let seen = scratch.with_patch(&patch, || Ok(fs::read_to_string(&file)?)).unwrap();
        assert_eq!(seen, "one\nthree\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");

        fs::write(&file, "other\n").unwrap();
        assert!(scratch.with_patch(&patch, || Ok(())).unwrap_err().to_string().contains("does not apply"));
    }
}
