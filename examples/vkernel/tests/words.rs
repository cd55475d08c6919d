//! How sessions are written and read.

#[path = "session/words.rs"]
mod words;

use std::time::Duration;

use words::{boot_time, quoted, time_stamp_us, without_kernel_messages};

#[test]
fn a_word_of_any_bytes_is_plain_ascii() {
    assert_eq!(quoted(b"/mnt/@@0x0000000100030110:00002/a-b_c.d"), "/mnt/@@0x0000000100030110:00002/a-b_c.d");
    assert_eq!(quoted(b""), "$''");
    assert_eq!(quoted(b"with space"), "$'with space'");
    assert_eq!(quoted(b"it's \\ \t\xc3\xa9\xff"), r"$'it\'s \\ \x09\xc3\xa9\xff'");
    assert!(quoted(&(0..=255).collect::<Vec<u8>>()).is_ascii());
}

#[test]
fn kernel_messages_are_known_by_their_time() {
    assert_eq!(time_stamp_us(b"[    0.000231] dfly"), Some(231));
    assert_eq!(time_stamp_us(b"[123456.500000] late"), Some(123_456_500_000));
    for shell in [
        "",
        "[",
        "[    0.000231]x",
        "[0.000231] x",
        "[    0.0231] x",
        "[    a.000231] x",
        " [    0.000231] x",
    ] {
        assert_eq!(time_stamp_us(shell.as_bytes()), None, "{shell}");
    }
    let output = b"[    0.000231] dfly\ntotal 1\r\n[    0.1\n[    1.000000] gone\n\xff\n";
    assert_eq!(without_kernel_messages(output), [&b"total 1"[..], b"[    0.1", b"\xff"]);
    assert_eq!(boot_time(output), Some(Duration::from_micros(231)));
    assert_eq!(boot_time(b"total 1\n"), None);
}
