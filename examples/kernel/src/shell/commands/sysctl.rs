//! `sysctl`: what the kernel counts and knows, by name. Source: sysctl(8).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dfly_vfs::text::printable;

use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const SYSCTL: Command = Command {
    name: "sysctl",
    usage: &["[-n] name[=value] ...", "[-n] -a"],
    about: "what the kernel counts and knows",
    run,
};

/// Setting this to 1 ends the kernel, to see how that looks.
const PANIC: &str = "debug.panic";

fn run(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("an", args)?;
    if args.has('a') != args.operands.is_empty() {
        return Err(Failure::Usage);
    }
    let all = variables(ctx);
    let show = |ctx: &mut Context<'_>, (name, value): &(String, String)| {
        let value = printable(value.as_bytes());
        if args.has('n') { say!(ctx, "{value}") } else { say!(ctx, "{name}: {value}") }
    };
    if args.has('a') {
        all.iter().for_each(|variable| show(ctx, variable));
    }
    for operand in args.operands {
        let mut parts = operand.splitn(2, |&b| b == b'=');
        let name = parts.next().unwrap_or_default();
        // A name stands for what is below it, too.
        let is_named = |known: &str| {
            known.as_bytes().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
        };
        let mut named = all.iter().filter(|(known, _)| is_named(known)).peekable();
        match (named.peek().is_some(), parts.next()) {
            (false, _) => ctx.complain(name, "unknown oid"),
            (true, None) => named.for_each(|variable| show(ctx, variable)),
            (true, Some(value)) if name == PANIC.as_bytes() && value == b"1" => panic!("{PANIC} was set"),
            (true, Some(value)) if name == PANIC.as_bytes() => ctx.complain(value, "only 1 means something"),
            (true, Some(_)) => ctx.complain(name, "oid is read only"),
        }
    }
    Ok(())
}

fn variables(ctx: &mut Context<'_>) -> Vec<(String, String)> {
    let mut all = ctx.system.variables();
    all.push((PANIC.into(), "0".into()));
    ctx.hammers.retain(|(_, hammer)| hammer.strong_count() > 0);
    for (from, hammer) in &ctx.hammers {
        let Some(hammer) = hammer.upgrade() else { continue };
        let stats = hammer.cache_stats();
        let from = printable(from);
        for (name, value) in [
            ("version", u64::from(hammer.header().vol_version.get())),
            ("cache.hits", stats.hits),
            ("cache.misses", stats.misses),
            ("cache.evictions", stats.evictions),
            ("cache.capacity_pages", stats.capacity_pages as u64),
            ("cache.resident_pages", stats.resident_pages as u64),
            ("undone_bytes", hammer.recovery().undo_bytes),
        ] {
            all.push((format!("vfs.hammer.{from}.{name}"), value.to_string()));
        }
    }
    all
}
