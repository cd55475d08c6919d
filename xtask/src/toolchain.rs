//! What a step needs from the machine: installed when it is missing, left alone when it is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::run::Run;

/// The oldest supported Rust, as the workspace's `rust-version` says.
pub(crate) const OLDEST: &str = "1.90.0";

/// The bare-metal targets that the libraries build for.
pub(crate) const BARE_TARGETS: [&str; 3] =
    ["x86_64-unknown-none", "aarch64-unknown-none", "riscv64gc-unknown-none-elf"];

/// A toolchain with `components`.
pub(crate) fn toolchain(name: &str, components: &[&str]) -> Result<()> {
    let installed = Run::new("rustup").words("toolchain list --quiet").text()?;
    if !installed.lines().any(|line| line == name || line.starts_with(&format!("{name}-"))) {
        Run::new("rustup")
            .words("toolchain install --no-self-update --profile minimal")
            .arg(name)
            .run_aside()?;
    }
    let installed = Run::new("rustup").words("component list --installed --toolchain").arg(name).text()?;
    for component in components {
        if !installed.lines().any(|line| line == *component || line.starts_with(&format!("{component}-"))) {
            Run::new("rustup").words("component add --toolchain").arg(name).arg(component).run_aside()?;
        }
    }
    Ok(())
}

/// `components` of the toolchain in use.
pub(crate) fn components(components: &[&str]) -> Result<()> {
    toolchain(&active()?, components)
}

/// The bare-metal targets of the toolchain in use.
pub(crate) fn bare_targets() -> Result<()> {
    BARE_TARGETS.iter().try_for_each(|target| self::target(&active()?, target))
}

/// A target of `toolchain`.
pub(crate) fn target(toolchain: &str, target: &str) -> Result<()> {
    let installed = Run::new("rustup").words("target list --installed --toolchain").arg(toolchain).text()?;
    if !installed.lines().any(|line| line == target) {
        Run::new("rustup").words("target add --toolchain").arg(toolchain).arg(target).run_aside()?;
    }
    Ok(())
}

/// The target that `rustc` of `toolchain` runs on.
pub(crate) fn host(toolchain: &str) -> Result<String> {
    let version = Run::new("rustc").arg(format!("+{toolchain}")).arg("-vV").text()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

/// A program of the system, from the Debian `package`.
pub(crate) fn program(name: &str, package: &str) -> Result<()> {
    let there = || {
        Run::new("sh")
            .arg("-c")
            .arg(format!("command -v {name} >/dev/null"))
            .run_within(Duration::from_secs(10))
            .is_ok_and(|ended| ended.is_success())
    };
    if !there() {
        Run::new("apt-get").words("install --yes --no-install-recommends").arg(package).run_aside()?;
    }
    ensure!(there(), "no program {name}: install the package {package}");
    Ok(())
}

fn active() -> Result<String> {
    let line = Run::new("rustup").words("show active-toolchain").text()?;
    line.split_whitespace().next().map(str::to_owned).context("rustup names no active toolchain")
}
