//! Steps that are a cargo command or two.

use anyhow::{Result, ensure};

use crate::{
    project::{LIBRARIES, Project, TOOLS, packages},
    qemu,
    run::Tally,
    toolchain, virt,
};

pub(crate) fn fmt(project: &Project) -> Result<()> {
    toolchain::components(&["rustfmt"])?;
    project.cargo("fmt --all --check").run()?;
    project.cargo("fmt --manifest-path fuzz/Cargo.toml --check").run()?;
    project.cargo("fmt --manifest-path examples/pc64/Cargo.toml --check").run()?;
    project.cargo("fmt --manifest-path examples/virt/Cargo.toml --check").run()
}

pub(crate) fn clippy(project: &Project) -> Result<()> {
    toolchain::components(&["clippy"])?;
    project.cargo("clippy --workspace --all-features --all-targets -- -D warnings").run()?;
    // What is not among the tests is not among all targets either.
    project.cargo("clippy -p vkernel --test pc64 -- -D warnings").run()?;
    toolchain::bare_targets()?;
    qemu::in_workspace(project, project.cargo("clippy --release -- -D warnings")).run()?;
    virt::TARGETS.iter().try_for_each(|target| {
        let clippy = project.cargo(&format!("clippy --release --target {target} -- -D warnings"));
        virt::in_workspace(project, clippy).run()
    })
}

pub(crate) fn test(project: &Project, tests: &mut Tally) -> Result<()> {
    let tested = project.cargo("test --workspace --all-features --no-fail-fast").run_tests(tests);
    let checked = project.cargo(&format!("check --no-default-features{}", packages(&LIBRARIES))).run();
    tested.and(checked)
}

pub(crate) fn doc(project: &Project) -> Result<()> {
    project.cargo("doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-D warnings").run()
}

pub(crate) fn msrv(project: &Project) -> Result<()> {
    let manifest = std::fs::read_to_string(project.root.join("Cargo.toml"))?;
    let declared =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap_or("nothing");
    ensure!(format!("{}.0", declared.trim_matches('"')) == toolchain::OLDEST, "rust-version says {declared}");

    toolchain::toolchain(toolchain::OLDEST, &[])?;
    let packages = packages(&LIBRARIES) + &packages(&TOOLS);
    project.cargo_of(toolchain::OLDEST, &format!("check --all-features{packages}")).run()?;
    toolchain::target(toolchain::OLDEST, qemu::TARGET)?;
    qemu::in_workspace(project, project.cargo_of(toolchain::OLDEST, "check --release")).run()?;
    virt::TARGETS.iter().try_for_each(|target| {
        toolchain::target(toolchain::OLDEST, target)?;
        let check = project.cargo_of(toolchain::OLDEST, &format!("check --release --target {target}"));
        virt::in_workspace(project, check).run()
    })
}

pub(crate) fn bare(project: &Project) -> Result<()> {
    toolchain::bare_targets()?;
    let targets: String =
        toolchain::BARE_TARGETS.iter().map(|target| format!(" --target {target}")).collect();
    project.cargo(&format!("build --no-default-features{}{targets}", packages(&LIBRARIES))).run()
}

pub(crate) fn bench(project: &Project, quick: bool) -> Result<()> {
    toolchain::program("mkfs.ext4", "e2fsprogs")?;
    if quick {
        return project.cargo("run --release -p dfly-bench -- --quick").run();
    }
    project.cargo("run --release -p dfly-bench").run()?;
    project.cargo("bench -p dfly-nvme --features model,std --bench depth").run()?;
    project.cargo("bench -p dfly-ahci --features model,std --bench depth").run()?;
    project.cargo("bench -p dfly-bio --bench request").run()
}
