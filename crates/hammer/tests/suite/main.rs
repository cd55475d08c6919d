//! The read side on images that the project builds itself.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod check;
mod common;
mod damage;
mod format;
mod salvage;
mod views;
