//! File systems that the project makes itself, read and written.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod check;
mod common;
mod damage;
mod format;
mod salvage;
mod views;
mod writing;
