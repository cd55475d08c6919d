//! What concerns the shell itself. Source: sh(1), cd(1), pwd(1), echo(1), sleep(1), true(1).

use alloc::vec::Vec;
use core::time::Duration;

use dfly_vfs::{Errno, Last};

use crate::Verdict;
use crate::shell::context::{Command, Context, Failure, Outcome, say};
use crate::shell::options::Args;

pub(super) const CD: Command =
    Command { name: "cd", usage: &["[directory]"], about: "go to a directory", run: cd };

fn cd(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let args = Args::parse("", args)?;
    let to: &[u8] = match args.operands {
        [] => b"/",
        [to] => to,
        _ => return Err(Failure::Usage),
    };
    let path = ctx.absolute(to);
    let (place, attr) = ctx.find(&path, Last::Follow).map_err(|e| Failure::new(to, e))?;
    // Also one that may be read but not searched is no place to be in.
    attr.check_search(&dfly_vfs::Cred::ROOT).map_err(|e| Failure::new(to, e))?;
    (ctx.cwd, ctx.cwd_path) = (place, path);
    Ok(())
}

pub(super) const PWD: Command = Command { name: "pwd", usage: &[""], about: "where the shell is", run: pwd };

fn pwd(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    say!(ctx, "{}", dfly_vfs::text::printable(&ctx.cwd_path));
    Ok(())
}

pub(super) const ECHO: Command =
    Command { name: "echo", usage: &["[-n] [string ...]"], about: "write its arguments", run: echo };

fn echo(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let (words, end): (_, &[u8]) = match args {
        [first, words @ ..] if first == b"-n" => (words, b""),
        words => (words, b"\n"),
    };
    ctx.out.bytes(&words.join(&b' '));
    ctx.out.bytes(end);
    Ok(())
}

pub(super) const SLEEP: Command =
    Command { name: "sleep", usage: &["seconds"], about: "wait, also for parts of a second", run: sleep };

fn sleep(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [time] = Args::parse("", args)?.operands else { return Err(Failure::Usage) };
    let time = seconds(time).ok_or(Failure::Usage)?;
    ctx.system.sleep(time, ctx.w);
    Ok(())
}

/// Seconds, with up to nine digits behind the point.
fn seconds(text: &[u8]) -> Option<Duration> {
    let text = core::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let number = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<u64>().ok() };
    let scale = 10u64.pow(9 - part.len() as u32);
    Some(Duration::new(number(whole)?, u32::try_from(number(part)? * scale).ok()?))
}

pub(super) const TRUE: Command = Command { name: "true", usage: &[""], about: "succeed", run: |_, _| Ok(()) };

pub(super) const SET: Command = Command {
    name: "set",
    usage: &["-x | +x"],
    about: "show commands before they run, or no more",
    run: set,
};

fn set(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    let [flag] = args else { return Err(Failure::Usage) };
    ctx.trace = match flag.as_slice() {
        b"-x" => true,
        b"+x" => false,
        _ => return Err(Failure::Usage),
    };
    Ok(())
}

pub(super) const EXIT: Command =
    Command { name: "exit", usage: &["[0 | 1]"], about: "leave the shell, and shut down", run: exit };

fn exit(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    ctx.ending = Some(match args {
        [] => Verdict::Success,
        [status] if status == b"0" => Verdict::Success,
        [status] if status == b"1" => Verdict::Failure,
        _ => return Err(Failure::Usage),
    });
    Ok(())
}

pub(super) const HELP: Command =
    Command { name: "help", usage: &["[command ...]"], about: "list the commands", run: help };

fn help(ctx: &mut Context<'_>, args: &[Vec<u8>]) -> Outcome {
    for command in super::TABLE.iter().filter(|_| args.is_empty()) {
        say!(ctx, "{:<9} {}", command.name, command.about);
    }
    for name in args {
        match super::find(name) {
            Some(command) => {
                say!(ctx, "{}: {}", command.name, command.about);
                command.usage.iter().for_each(|usage| say!(ctx, "    {} {usage}", command.name));
            }
            None => ctx.complain(name, Errno::ENOENT),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_parts() {
        assert_eq!(seconds(b"2"), Some(Duration::from_secs(2)));
        assert_eq!(seconds(b"0.05"), Some(Duration::from_millis(50)));
        assert_eq!(seconds(b".5"), Some(Duration::from_millis(500)));
        assert_eq!(seconds(b"1."), Some(Duration::from_secs(1)));
        for text in ["", ".", "-1", "1e3", "x", "1.0000000001", "99999999999999999999", "+1"] {
            assert_eq!(seconds(text.as_bytes()), None, "{text}");
        }
    }
}
