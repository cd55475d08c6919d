//! JSON text, written as it comes.

use std::io::{self, Write};

/// Writes `bytes` as a JSON string. Bytes that are no UTF-8 become lone surrogates, U+DC80 to U+DCFF, as Python's
/// `surrogateescape` has it, so that no name is lost or mistaken for another.
pub(crate) fn string(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    for chunk in bytes.utf8_chunks() {
        // Runs of what needs no escape go out in one piece.
        for run in chunk.valid().split_inclusive(|c| matches!(c, '"' | '\\' | '\0'..' ')) {
            let last = run.chars().next_back().filter(|&c| matches!(c, '"' | '\\' | '\0'..' '));
            let plain = run.strip_suffix(|c| Some(c) == last).unwrap_or(run);
            out.write_all(plain.as_bytes())?;
            match last {
                Some(c @ ('"' | '\\')) => write!(out, "\\{c}")?,
                Some(c) => write!(out, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\udc{byte:02x}")?;
        }
    }
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    fn string(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        super::string(&mut out, bytes).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn any_text_reads_back() {
        for text in ["", "plain", "a\"b\\c", "tab\tline\nnul\0", "na\u{ef}ve", "\u{1f600}", "\\\\\"\""] {
            assert_eq!(serde_json::from_str::<String>(&string(text.as_bytes())).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_text_is_kept_apart() {
        assert_eq!(string(b"a\xffb\xc3"), "\"a\\udcffb\\udcc3\"");
    }
}
