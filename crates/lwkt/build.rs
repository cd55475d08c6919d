//! Says which switch the target gets:
//!
//! - `own_stacks`: threads run on stacks of their own, for there is a switch in assembly (`src/sched/arch`);
//! - `double_float`: on riscv64, a call preserves floating-point registers of 64 bits.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(own_stacks)");
    println!("cargo::rustc-check-cfg=cfg(double_float)");

    let of = |name: &str| env::var(name).unwrap_or_default();
    let arch = of("CARGO_CFG_TARGET_ARCH");
    let has_switch = ["x86_64", "aarch64", "riscv64"].contains(&arch.as_str());
    // Where `extern "C"` is another ABI than System V's, or the system keeps the bounds of a stack.
    let is_foreign = ["windows", "uefi", "cygwin"].contains(&of("CARGO_CFG_TARGET_OS").as_str());
    if has_switch && of("CARGO_CFG_TARGET_POINTER_WIDTH") == "64" && !is_foreign {
        println!("cargo::rustc-cfg=own_stacks");
    }
    // The stable compiler does not say that a target has `d`; what it has built in is told by its name. (It has no other
    // targets.)
    let has_double = of("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "d");
    if arch == "riscv64" && (has_double || !of("TARGET").starts_with("riscv64im")) {
        println!("cargo::rustc-cfg=double_float");
    }
}
