//! Steps that read the sources as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Crates without any unsafe code, by folder.
const FORBID_UNSAFE: [&str; 5] =
    ["crates/golden", "crates/hammer", "crates/hammer-image", "crates/torture", "crates/vfs"];

/// Where unsafe code may be, besides tests and benches: files and folders.
const UNSAFE: &[&str] = &[
    "crates/ahci/src/lend.rs",
    "crates/alloc-count/src/lib.rs",
    "crates/bench/src/ipi.rs",
    "crates/bench/src/ports.rs",
    "crates/bio/src/buf",
    "crates/hal/src/conformance",
    "crates/hal/src/cpu.rs",
    "crates/hal/src/dma",
    "crates/hal/src/dma.rs",
    "crates/hal/src/fake",
    "crates/hal/src/fake.rs",
    "crates/hal/src/forward.rs",
    "crates/hal/src/host",
    "crates/hal/src/model/host.rs",
    "crates/hal/src/regs/mmio.rs",
    "crates/hal/src/sync",
    "crates/lwkt/src/ipi/raw.rs",
    "crates/lwkt/src/lock/acquire.rs",
    "crates/lwkt/src/lock/guard.rs",
    "crates/lwkt/src/lock/rw.rs",
    "crates/lwkt/src/lock/site.rs",
    "crates/lwkt/src/lock/spin.rs",
    "crates/lwkt/src/sched/arch",
    "crates/lwkt/src/sched/cpu.rs",
    "crates/lwkt/src/sched/critical.rs",
    "crates/lwkt/src/sched/cx.rs",
    "crates/lwkt/src/sched/host.rs",
    "crates/lwkt/src/sched/ipis.rs",
    "crates/lwkt/src/sched/link.rs",
    "crates/lwkt/src/sched/per_cpu.rs",
    "crates/lwkt/src/sched/overflow.rs",
    "crates/lwkt/src/sched/migrate.rs",
    "crates/lwkt/src/sched/registry.rs",
    "crates/lwkt/src/sched/thread.rs",
    "crates/lwkt/src/spec.rs",
    "crates/lwkt/src/stack",
    "crates/lwkt/src/token/held.rs",
    "crates/lwkt/src/token/irq.rs",
    "crates/lwkt/src/token/mod.rs",
    "crates/lwkt/src/token/model.rs",
    "crates/lwkt/src/token/wanted.rs",
    "crates/msgport/src/carrier",
    "crates/nvme/src/lend.rs",
    "examples/pc64/src/ahci.rs",
    "examples/pc64/src/apic.rs",
    "examples/pc64/src/boot.rs",
    "examples/pc64/src/clock.rs",
    "examples/pc64/src/cpu.rs",
    "examples/pc64/src/firmware.rs",
    "examples/pc64/src/heap.rs",
    "examples/pc64/src/interrupts.rs",
    "examples/pc64/src/memory.rs",
    "examples/pc64/src/msix.rs",
    "examples/pc64/src/nvme.rs",
    "examples/pc64/src/panic.rs",
    "examples/pc64/src/pci.rs",
    "examples/pc64/src/platform.rs",
    "examples/pc64/src/port.rs",
    "examples/pc64/src/probe.rs",
    "examples/pc64/src/serial.rs",
    "examples/virt/src/aarch64.rs",
    "examples/virt/src/heap.rs",
    "examples/virt/src/platform.rs",
    "examples/virt/src/probe.rs",
    "examples/virt/src/registers.rs",
    "examples/virt/src/riscv64.rs",
    "examples/virt/src/tree.rs",
    "examples/vkernel/src/host.rs",
];

/// Endings of the files that people write.
const TEXT: [&str; 7] = ["rs", "toml", "md", "patch", "sh", "stderr", "yml"];

pub(crate) fn ascii(project: &Project) -> Result<()> {
    report(texts(project, &TEXT)?.iter().flat_map(|(file, text)| not_ascii(file, text)))
}

fn not_ascii(file: &Path, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
    lines.map(|(number, line)| format!("{}:{}: {line}", file.display(), number + 1)).collect()
}

/// A link that is neither a web address nor inside the document leads to a file or folder.
pub(crate) fn links(project: &Project) -> Result<()> {
    let mut dead = Vec::new();
    for (file, text) in texts(project, &["md"])? {
        let folder = project.root.join(&file).parent().map(Path::to_path_buf).unwrap_or_default();
        for link in relative_links(&text) {
            if !folder.join(link).exists() {
                dead.push(format!("{}: {link}", file.display()));
            }
        }
    }
    report(dead)
}

/// The targets of `[text](target)`, without their fragments.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files =
        targets.filter(|target| !target.contains(':')).map(|target| target.split('#').next().unwrap_or(""));
    files.filter(|file| !file.is_empty() && !file.contains(char::is_whitespace))
}

pub(crate) fn unsafe_code(project: &Project) -> Result<()> {
    let mut wrong = Vec::new();
    for folder in FORBID_UNSAFE {
        let lib = format!("{folder}/src/lib.rs");
        if !fs::read_to_string(project.root.join(&lib))
            .with_context(|| lib.clone())?
            .contains("#![forbid(unsafe_code)]")
        {
            wrong.push(format!("{lib}: no forbid(unsafe_code)"));
        }
    }
    for (file, text) in texts(project, &["rs"])? {
        let in_product = file.components().any(|part| part.as_os_str() == "src");
        if in_product && !UNSAFE.iter().any(|allowed| file.starts_with(allowed)) {
            wrong.extend(
                unsafe_lines(&text).map(|number| format!("{}:{number}: unsafe code", file.display())),
            );
        }
    }
    wrong.extend(
        UNSAFE
            .iter()
            .filter(|path| !project.root.join(path).exists())
            .map(|path| format!("{path}: not there")),
    );
    report(wrong)
}

/// The numbers of the lines with the word `unsafe` outside comments and strings.
fn unsafe_lines(text: &str) -> impl Iterator<Item = usize> {
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        let outside_strings = code.split('"').step_by(2);
        outside_strings
            .flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .any(|w| w == "unsafe")
    };
    text.lines().enumerate().filter(move |(_, line)| is_unsafe(line)).map(|(number, _)| number + 1)
}

/// The project's files with one of `endings`.
fn texts(project: &Project, endings: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    let mut texts = Vec::new();
    for file in project.files()? {
        if file.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
        {
            let text =
                fs::read_to_string(project.root.join(&file)).with_context(|| file.display().to_string())?;
            texts.push((file, text));
        }
    }
    Ok(texts)
}

/// Prints what is wrong; an error where anything is.
fn report(wrong: impl IntoIterator<Item = String>) -> Result<()> {
    let count = wrong.into_iter().inspect(|line| println!("{line}")).count();
    if count > 0 {
        bail!("{count} places");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_found_as_a_word_of_code() {
        let text =
            "// unsafe\n#![forbid(unsafe_code)]\nlet a = \"unsafe\";\nunsafe { b() }\npub unsafe fn c() {}\n";
        assert_eq!(unsafe_lines(text).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let text = "[a](src/lib.rs) [b](https://c.d/e) [f](#g) [h](../i.md#j) `x[0](y, z)`";
        assert_eq!(relative_links(text).collect::<Vec<_>>(), ["src/lib.rs", "../i.md"]);
    }

    #[test]
    fn text_outside_ascii_is_named_with_its_line() {
        assert_eq!(not_ascii(Path::new("a"), "b\nc\u{e9}\n"), ["a:2: c\u{e9}"]);
    }
}
