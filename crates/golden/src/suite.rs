//! Tests on golden images, reported as ignored where there are none.

use std::{env, fmt, process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::folder::{Golden, Missing};

/// Runs the tests that `declare` names, as the `main` of a test binary with `harness = false`.
///
/// Without a golden folder the tests are reported as ignored and the reason goes to stderr; with `CI=true` in the
/// environment they fail. Takes the arguments of the standard harness.
pub fn run(declare: impl FnOnce(&mut Suite)) -> ExitCode {
    let arguments = Arguments::from_args();
    let mut suite = Suite { golden: Golden::find().map(Arc::new), trials: Vec::new() };
    declare(&mut suite);
    let Suite { golden, mut trials } = suite;
    if let Err(missing) = golden {
        if env::var_os("CI").is_some_and(|ci| ci == "true") {
            eprintln!("CI=true, so {} golden tests fail: {missing}", trials.len());
        } else {
            eprintln!("{} golden tests are skipped: {missing}", trials.len());
            trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The tests of one binary. Declaring a test does not need the folder; only running it does.
pub struct Suite {
    golden: Result<Arc<Golden>, Missing>,
    trials: Vec<Trial>,
}

impl Suite {
    /// One test.
    pub fn test<E: fmt::Display>(
        &mut self,
        name: impl Into<String>,
        test: impl FnOnce(&Golden) -> Result<(), E> + Send + 'static,
    ) {
        let golden = self.golden.clone();
        self.trials.push(Trial::test(name, move || match golden {
            Ok(golden) => test(&golden).map_err(|error| Failed::from(format!("{error:#}"))),
            Err(missing) => Err(missing.into()),
        }));
    }

    /// One test for each of `images`, named `name/image`.
    pub fn each<E: fmt::Display>(
        &mut self,
        name: &str,
        images: &[&'static str],
        test: impl Fn(&Golden, &str) -> Result<(), E> + Clone + Send + 'static,
    ) {
        for &image in images {
            let test = test.clone();
            self.test(format!("{name}/{image}"), move |golden| test(golden, image));
        }
    }
}
