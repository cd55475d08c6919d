//! Running programs: shown before they run, an error when they fail, their test results counted.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// A program to run.
pub(crate) struct Run {
    command: Command,
    shown: String,
}

/// How a program with a time limit ended.
pub(crate) struct Ended {
    /// Its exit status, if it ended by itself.
    pub(crate) code: Option<i32>,
    /// It had to be stopped.
    pub(crate) timed_out: bool,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
}

impl Ended {
    /// Whether it ended by itself, with success.
    pub(crate) fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        Self { command: Command::new(program), shown: program.to_string_lossy().into_owned() }
    }

    /// Adds arguments that are separated by spaces.
    pub(crate) fn words(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::arg)
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown += " ";
        self.shown += &arg.as_ref().to_string_lossy();
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{name}={:?} {}", value.as_ref(), self.shown);
        self.command.env(name, value);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Result<()> {
        println!("$ {}", self.shown);
        let status = self.command.status().with_context(|| self.shown.clone())?;
        ensure!(status.success(), "`{}`: {status}", self.shown);
        Ok(())
    }

    /// Runs it to its end, with nothing on our stdout: what it writes goes to stderr.
    pub(crate) fn run_aside(mut self) -> Result<()> {
        eprintln!("$ {}", self.shown);
        let status = self.command.stdout(std::io::stderr()).status().with_context(|| self.shown.clone())?;
        ensure!(status.success(), "`{}`: {status}", self.shown);
        Ok(())
    }

    /// Runs it to its end; all that it writes goes to the file `log`.
    pub(crate) fn run_logged(mut self, log: &Path) -> Result<()> {
        println!("$ {} > {}", self.shown, log.display());
        let log = File::create(log).with_context(|| log.display().to_string())?;
        let status =
            self.command.stdout(log.try_clone()?).stderr(log).status().with_context(|| self.shown.clone())?;
        ensure!(status.success(), "`{}`: {status}", self.shown);
        Ok(())
    }

    /// Runs it to its end, and counts the tests that it reports.
    pub(crate) fn run_tests(mut self, tests: &mut Tally) -> Result<()> {
        println!("$ {}", self.shown);
        let mut child = self.command.stdout(Stdio::piped()).spawn().with_context(|| self.shown.clone())?;
        let stdout = child.stdout.take().context("no pipe")?;
        let before = tests.total();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let mut out = std::io::stdout().lock();
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            tests.read(&String::from_utf8_lossy(&line));
        }
        let status = child.wait()?;
        ensure!(status.success(), "`{}`: {status}", self.shown);
        ensure!(tests.total() > before, "`{}` ran no test", self.shown);
        Ok(())
    }

    /// Runs it to its end; what it wrote to stdout.
    pub(crate) fn text(mut self) -> Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output().with_context(|| self.shown.clone())?;
        ensure!(output.status.success(), "`{}`: {}", self.shown, output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs it without input and output for at most `limit`.
    pub(crate) fn run_within(mut self, limit: Duration) -> Result<Ended> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| self.shown.clone())?;
        let mut stdout = child.stdout.take().context("no pipe")?;
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut stdout, &mut bytes).map(|_| bytes)
        });
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let Ok(stdout) = reader.join() else { bail!("the reader of stdout panicked") };
        Ok(Ended {
            code: status.and_then(|status| status.code()),
            timed_out: status.is_none(),
            stdout: String::from_utf8_lossy(&stdout?).into_owned(),
        })
    }
}

/// How many tests ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    pub(crate) fn total(self) -> u64 {
        self.passed + self.failed + self.ignored
    }

    /// Counts what a `test result:` line says; other lines say nothing.
    pub(crate) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [(self.passed, "passed"), (self.failed, "failed"), (self.ignored, "ignored")];
        let mut separator = "";
        for (number, what) in counts.into_iter().filter(|&(number, _)| number > 0) {
            write!(f, "{separator}{number} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_counted() {
        let mut tally = Tally::default();
        tally.read(
            "test result: ok. 30 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.24s",
        );
        tally.read("test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.read("test something ... ok");
        assert_eq!(tally, Tally { passed: 31, failed: 3, ignored: 2 });
        assert_eq!(tally.to_string(), "31 passed, 3 failed, 2 ignored");
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let ended = Run::new("sleep").arg("60").run_within(Duration::from_millis(30)).unwrap();
        assert!(ended.timed_out && !ended.is_success());
    }

    #[test]
    fn a_test_run_without_tests_fails() {
        let none = Run::new("true").run_tests(&mut Tally::default()).unwrap_err();
        assert!(none.to_string().contains("ran no test"), "{none}");
        let mut tally = Tally::default();
        let failed = Run::new("false").run_tests(&mut tally).unwrap_err();
        assert!(failed.to_string().contains("exit status: 1"), "{failed}");
    }
}
