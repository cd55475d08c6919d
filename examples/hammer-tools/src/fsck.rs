//! `hammer fsck`: is everything on the volumes as it should be?

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use dfly_hal::ThreadWait;
use dfly_hammer::check::{Depth, Event, Finding, Options, Report, Severity, check};

use crate::cli::FsckArgs;
use crate::disk::open_volumes;
use crate::progress::{self, Stdout};
use crate::text::count;

/// Exit codes of fsck(8).
const DAMAGED: u8 = 4;
const NOT_DONE: u8 = 8;

pub(crate) fn run(args: &FsckArgs, out: &mut dyn Write) -> ExitCode {
    match examine(args, out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => DAMAGED.into(),
        // Whoever reads our output has seen enough: not all was looked at.
        Err(e) => {
            if !crate::is_broken_pipe(&e) {
                crate::complain(&e);
            }
            NOT_DONE.into()
        }
    }
}

/// Whether the file system is clean.
fn examine(args: &FsckArgs, out: &mut dyn Write) -> Result<bool> {
    let devices = open_volumes(&args.volumes)?;
    let mut options = Options::default();
    if args.quick {
        options.depth = Depth::Quick;
    }
    if let Some(mib) = args.memory {
        options.memory_bytes = mib.saturating_mul(1 << 20);
    }
    let bar = progress::count("records", if args.json { Stdout::Used } else { Stdout::Unused });
    let mut written: io::Result<()> = Ok(());
    let mut first = true;
    if args.json {
        write!(out, "{{\"findings\":[")?;
    }
    let report = check(&devices, &options, &mut ThreadWait::new(), &mut |event| match event {
        Event::Found(finding) if written.is_ok() => {
            let note = finding.kind.severity() == Severity::Note;
            if args.json {
                written = json(out, &finding, first);
                first = false;
            } else if !note || args.verbose {
                bar.suspend(|| written = writeln!(out, "{finding}"));
            }
        }
        Event::Progress(report) => bar.set_position(report.records),
        _ => {}
    });
    bar.finish_and_clear();
    let report = report.with_context(|| crate::disk::names(&args.volumes))?;
    written?;
    if args.json {
        write!(out, "],{}}}", summary_json(&report))?;
        writeln!(out)?;
    } else {
        summary(out, &report)?;
    }
    out.flush()?;
    Ok(report.is_clean())
}

fn summary(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let recovery = report.recovery;
    if recovery.crashed {
        writeln!(
            out,
            "not unmounted: checked after {} UNDO records, applied in memory",
            recovery.undo_records
        )?;
    }
    writeln!(
        out,
        "{}, {}, {}, {}",
        count(report.nodes, "node", "nodes"),
        count(report.records, "record", "records"),
        count(report.inodes, "inode", "inodes"),
        count(report.passes.into(), "pass", "passes")
    )?;
    let clean = if report.is_clean() { "clean: " } else { "" };
    writeln!(
        out,
        "{clean}{}, {}, {}",
        count(report.errors, "error", "errors"),
        count(report.warnings, "warning", "warnings"),
        count(report.notes, "note", "notes")
    )
}

fn json(out: &mut dyn Write, finding: &Finding, first: bool) -> io::Result<()> {
    let kind = finding.kind;
    let (comma, severity) = (if first { "" } else { "," }, kind.severity().name());
    write!(
        out,
        "{comma}\n{{\"kind\":\"{}\",\"severity\":\"{severity}\",\"at\":\"{}\"",
        kind.name(),
        finding.at
    )?;
    if let Some(object) = finding.object {
        write!(out, ",\"pfs\":{},\"obj_id\":\"{:016x}\"", object.pfs, object.obj_id)?;
    }
    if let Some(values) = finding.values {
        write!(out, ",\"found\":\"{:#x}\",\"expected\":\"{:#x}\"", values.found, values.expected)?;
    }
    write!(out, ",\"text\":")?;
    crate::json::string(out, kind.text().as_bytes())?;
    write!(out, "}}")
}

fn summary_json(r: &Report) -> String {
    format!(
        "\n\"crashed\":{},\"undo_records\":{},\"nodes\":{},\"records\":{},\"inodes\":{},\"checked_bytes\":{},\"passes\":{},\
         \"errors\":{},\"warnings\":{},\"notes\":{},\"clean\":{}",
        r.recovery.crashed,
        r.recovery.undo_records,
        r.nodes,
        r.records,
        r.inodes,
        r.checked_bytes,
        r.passes,
        r.errors,
        r.warnings,
        r.notes,
        r.is_clean()
    )
}
