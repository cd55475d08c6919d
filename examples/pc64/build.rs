//! Links at a fixed address, by our own script.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-changed=src/asm");
    for arg in ["-no-pie", "-static", "--build-id=none", "-zmax-page-size=0x1000"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    println!("cargo:rustc-link-arg-bins=-T{folder}/linker.ld");
}
