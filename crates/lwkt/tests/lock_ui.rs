//! Misuse of the locks that must not compile, with the compiler's own words.
#![cfg(not(loom))]

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn misuse_of_locks_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/lock_ui/*.rs");
}
