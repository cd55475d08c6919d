//! The machine. Source: ps(1), dmesg(8), vmstat(8), uptime(1), shutdown(8), halt(8).

use alloc::vec::Vec;

use dfly_vfs::text::printable;

use crate::Verdict;
use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const PS: Command = Command { name: "ps", usage: &[""], about: "list the threads", run: ps };

fn ps(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    say!(ctx, "  ID CPU PRI STATE    SWITCHES     WAKES         TIME     STACK NAME");
    for t in ctx.system.threads() {
        let used = match t.stack_used_bytes {
            Some(used) => alloc::format!("{}/{}K", used >> 10, t.stack_bytes >> 10),
            None => alloc::format!("{}K", t.stack_bytes >> 10),
        };
        let (seconds, micros) = (t.run_time.as_secs(), t.run_time.subsec_micros());
        say!(
            ctx,
            "{:>4} {:>3} {:>3} {:<8} {:>8} {:>9} {seconds:>5}.{micros:06} {used:>9} {}",
            t.id.get(),
            t.cpu.0,
            t.priority,
            t.state,
            t.switches,
            t.wakes,
            printable(t.name.as_bytes()),
        );
    }
    Ok(())
}

pub(super) const DMESG: Command =
    Command { name: "dmesg", usage: &[""], about: "the kernel's messages", run: dmesg };

fn dmesg(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    for line in ctx.system.messages() {
        say!(ctx, "{}", printable(line.as_bytes()));
    }
    Ok(())
}

pub(super) const VMSTAT: Command =
    Command { name: "vmstat", usage: &["-i"], about: "count the interrupts", run: vmstat };

fn vmstat(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("i", args)?;
    if !args.has('i') || !args.operands.is_empty() {
        return Err(Failure::Usage);
    }
    let seconds = ctx.system.uptime().as_secs().max(1);
    say!(ctx, "{:<24} {:>12} {:>10}", "interrupt", "total", "rate");
    let mut sum = 0u64;
    for (name, total) in ctx.system.interrupts() {
        say!(ctx, "{:<24} {total:>12} {:>10}", name, total / seconds);
        sum = sum.saturating_add(total);
    }
    say!(ctx, "{:<24} {sum:>12} {:>10}", "Total", sum / seconds);
    Ok(())
}

pub(super) const UPTIME: Command =
    Command { name: "uptime", usage: &[""], about: "how long the machine has been up", run: uptime };

fn uptime(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    let up = ctx.system.uptime();
    let (s, ms) = (up.as_secs(), up.subsec_millis());
    say!(ctx, "up {}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60);
    Ok(())
}

pub(super) const SHUTDOWN: Command =
    Command { name: "shutdown", usage: &["[-h | -p] [now]"], about: "shut the machine down", run: shutdown };

fn shutdown(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("hp", args)?;
    match args.operands {
        [] => {}
        [now] if now == b"now" => {}
        _ => return Err(Failure::Usage),
    }
    ctx.ending = Some(Verdict::Success);
    Ok(())
}

pub(super) const HALT: Command =
    Command { name: "halt", usage: &["[-p]"], about: "shut the machine down", run: halt };

fn halt(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("p", args)?.operands else { return Err(Failure::Usage) };
    ctx.ending = Some(Verdict::Success);
    Ok(())
}
