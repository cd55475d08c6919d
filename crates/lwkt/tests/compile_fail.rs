//! What must not compile, and why the compiler says so. `TRYBUILD=overwrite` writes the messages anew.
#![cfg(all(feature = "std", not(any(loom, miri))))]

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
