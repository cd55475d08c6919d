//! Links at the place where the machine's memory is, by our own script.

use std::env;

fn main() {
    let of = |name| env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=src/asm");
    let base = match of("CARGO_CFG_TARGET_ARCH").as_str() {
        // The device tree is below, at the start of memory.
        "aarch64" => 0x4020_0000_u64,
        _ => 0x8000_0000,
    };
    for arg in ["-no-pie", "-static", "--build-id=none", "-zmax-page-size=0x1000"] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
    println!("cargo::rustc-link-arg-bins=--defsym=image_base={base:#x}");
    println!("cargo::rustc-link-arg-bins=-T{}/linker.ld", of("CARGO_MANIFEST_DIR"));
}
