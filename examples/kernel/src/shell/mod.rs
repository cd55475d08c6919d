//! The shell: reads lines from the terminal or a script, and runs the field's commands in one tree of file systems.
//!
//! It has less than sh(1): no pipes, no variables, no redirection ([`parse`] says what); each command is a row of
//! [`commands::TABLE`]. A script stops at the first command that fails, as `sh -e` does.

mod commands;
mod context;
mod glob;
mod options;
mod out;
mod parse;
mod system;

use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_vfs::MountTable;
use dfly_vfs::text::printable;

use self::context::{Command, Context, Outcome, System, say};
use self::out::Out;
use crate::{Kernel, Session, Terminal, Verdict};

/// Runs a shell until it is left, in a root with a directory to mount on, and unmounts everything. Blocks.
pub(crate) fn run(kernel: &Kernel, session: Session, w: &mut dyn Wait) -> Verdict {
    let mounts = kernel.mounts();
    if let Err(e) = mounts.root().at(w).nmkdir("mnt", 0o755) {
        kernel.log().say(format_args!("/mnt: {e}"));
    }
    run_on(kernel, mounts, kernel.terminal().clone(), session, w)
}

fn run_on(
    system: &dyn System,
    mounts: &MountTable,
    terminal: Arc<dyn Terminal>,
    session: Session,
    w: &mut dyn Wait,
) -> Verdict {
    let mut ctx = Context::new(system, mounts, Out::new(terminal), w, &SHELL);
    let verdict = match session {
        Session::Interactive => interactive(&mut ctx),
        Session::Script(script) => run_script(&mut ctx, &script),
    };
    ctx.run(&END, &[]);
    verdict
}

/// As whom the shell itself complains.
static SHELL: Command = Command { name: "sh", usage: &[], about: "", run: |_, _| Ok(()) };

/// What the shell does before it ends.
static END: Command = Command { name: "shutdown", usage: &[], about: "", run: end };

fn end(ctx: &mut Context<'_>, _: &[Vec<u8>]) -> Outcome {
    // Who stands in a file system keeps it busy.
    ctx.cwd = ctx.mounts.root();
    commands::unmount_all(ctx);
    Ok(())
}

/// Reads and runs lines until there are no more. What fails is told and not held against anybody.
fn interactive(ctx: &mut Context<'_>) -> Verdict {
    loop {
        let Some(line) = ctx.out.terminal().clone().read_line("# ", ctx.w) else { return Verdict::Success };
        run_line(ctx, &line);
        if let Some(verdict) = ctx.ending {
            return verdict;
        }
    }
}

/// Runs lines until one fails.
fn run_script(ctx: &mut Context<'_>, script: &[u8]) -> Verdict {
    for (line, number) in script.split(|&b| b == b'\n').zip(1u64..) {
        let succeeded = run_line(ctx, line);
        if let Some(verdict) = ctx.ending {
            return verdict;
        }
        if !succeeded {
            say!(ctx, "sh: line {number}: failed: {}", printable(line.trim_ascii()));
            return Verdict::Failure;
        }
    }
    Verdict::Success
}

/// Runs the commands of a line up to the first that fails, and returns whether none did.
fn run_line(ctx: &mut Context<'_>, line: &[u8]) -> bool {
    let commands = match parse::parse(line) {
        Ok(commands) => commands,
        Err(e) => {
            say!(ctx, "sh: Syntax error: {e}");
            return false;
        }
    };
    commands.into_iter().all(|command| ctx.ending.is_some() || run_command(ctx, command))
}

fn run_command(ctx: &mut Context<'_>, command: parse::Command) -> bool {
    let mut words: Vec<Vec<u8>> = Vec::with_capacity(command.words.len());
    for word in command.words {
        glob::expand(ctx, word, &mut words);
    }
    let Some((name, args)) = words.split_first() else { return true };
    if ctx.trace {
        say!(ctx, "+ {}", printable(&words.join(&b' ')));
    }
    let began = ctx.system.uptime();
    let succeeded = match commands::find(name) {
        Some(command) => ctx.run(command, args),
        None => {
            say!(ctx, "sh: {}: not found", printable(name));
            false
        }
    };
    if command.timed {
        let took = ctx.system.uptime().saturating_sub(began);
        say!(ctx, "{:>9}.{:06} real", took.as_secs(), took.subsec_micros());
    }
    succeeded != command.negated
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
