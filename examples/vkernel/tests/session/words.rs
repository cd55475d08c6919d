//! Words of the shell and lines of its output.

use std::time::Duration;

/// `bytes` as one word of the shell, in plain ASCII.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./@:%+=,-".contains(&b);
    if !bytes.is_empty() && bytes.iter().all(|&b| plain(b)) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let quote = |&b: &u8| match b {
        b'\'' | b'\\' => format!("\\{}", char::from(b)),
        b' '..=b'~' => char::from(b).into(),
        _ => format!("\\x{b:02x}"),
    };
    format!("$'{}'", bytes.iter().map(quote).collect::<String>())
}

/// The lines of a session's output that the shell wrote, without carriage returns: lines that begin with a time stamp,
/// `[    0.123456] `, are the kernel's own messages.
pub(crate) fn without_kernel_messages(output: &[u8]) -> Vec<&[u8]> {
    let lines = output.strip_suffix(b"\n").unwrap_or(output).split(|&b| b == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| time_stamp_us(line).is_none())
        .collect()
}

/// The time stamp of a kernel message, in microseconds since boot.
pub(crate) fn time_stamp_us(line: &[u8]) -> Option<u64> {
    let (stamp, _) = str::from_utf8(line).ok()?.strip_prefix('[')?.split_once("] ")?;
    let (seconds, micros) = stamp.split_once('.').filter(|(s, us)| s.len() >= 5 && us.len() == 6)?;
    Some(seconds.trim_start().parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// When the shell began, by the kernel's clock: at the last kernel message before the first line of the shell.
pub(crate) fn boot_time(output: &[u8]) -> Option<Duration> {
    output.split(|&b| b == b'\n').map_while(time_stamp_us).last().map(Duration::from_micros)
}
