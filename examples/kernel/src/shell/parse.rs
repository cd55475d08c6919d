//! A line of the shell, taken apart: pure, total, and strict where it is less than sh(1).
//!
//! Source: sh(1) of DragonFly, POSIX.1 "Shell Command Language" 2.2 (quoting), 2.3 (tokens), 2.9.2 (negation). What
//! sh would expand, redirect or connect is a syntax error here, never taken as text.

use alloc::vec::Vec;

/// One command of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    /// It has a `!` before it: it succeeds when it fails.
    pub(crate) negated: bool,
    /// It has `time` before it.
    pub(crate) timed: bool,
    /// Its name and its arguments, at least one.
    pub(crate) words: Vec<Word>,
}

/// A word with its quotes taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// What it says.
    pub(crate) bytes: Vec<u8>,
    /// Where in `bytes` a `*` stands that was not quoted, in rising order.
    pub(crate) stars: Vec<usize>,
}

/// Why a line means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// A quote that begins and does not end.
    #[error("Unterminated quoted string")]
    Unterminated,
    /// A backslash with nothing behind it.
    #[error("a backslash at the end of the line")]
    LoneBackslash,
    /// What comes after a backslash in `$'...'` is not understood, or makes a NUL.
    #[error("bad escape in $'...'")]
    BadEscape,
    /// `$` that would expand, or a back quote.
    #[error("expansion is not supported: quote the `{}`", char::from(*.0))]
    Expansion(u8),
    /// A token for which there is no place: `;` without a command, or an operator that this shell does not have.
    #[error("\"{}\" unexpected", char::from(*.0))]
    Unexpected(u8),
    /// `!` or `time` without a command.
    #[error("a command is missing")]
    NoCommand,
    /// A `*` that was not quoted and is not in the last component.
    #[error("`*` is understood in the last component only")]
    StarInside,
}

/// The commands of one line, in order; none for an empty line or a comment.
///
/// Errors: see [`SyntaxError`]; then nothing of the line may run.
pub(crate) fn parse(line: &[u8]) -> Result<Vec<Command>, SyntaxError> {
    let mut rest = Cursor { line, at: 0 };
    let mut commands = Vec::new();
    let mut command = Command::default();
    loop {
        match rest.token()? {
            Token::Word { word, quoted: false } if command.words.is_empty() && word.bytes == b"!" => {
                // Twice negated is as it was; so sh has it where it has it at all.
                command.negated = !command.negated;
            }
            Token::Word { word, quoted: false } if command.words.is_empty() && word.bytes == b"time" => {
                command.timed = true;
            }
            Token::Word { word, .. } => command.words.push(word),
            end @ (Token::Semicolon | Token::End) => {
                let command = core::mem::take(&mut command);
                if !command.words.is_empty() {
                    commands.push(command);
                } else if command != Command::default() {
                    return Err(SyntaxError::NoCommand);
                } else if end == Token::Semicolon {
                    return Err(SyntaxError::Unexpected(b';'));
                }
                if end == Token::End {
                    return Ok(commands);
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum Token {
    Word { word: Word, quoted: bool },
    Semicolon,
    End,
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
        match self.peek() {
            None | Some(b'#') => {
                self.at = self.line.len();
                Ok(Token::End)
            }
            Some(b';') => {
                self.at += 1;
                Ok(Token::Semicolon)
            }
            Some(_) => self.word(),
        }
    }

    fn word(&mut self) -> Result<Token, SyntaxError> {
        let (mut word, mut quoted) = (Word::default(), false);
        while let Some(byte) = self.peek().filter(|&b| !is_blank(b) && b != b';') {
            self.at += 1;
            quoted |= matches!(byte, b'\'' | b'"' | b'\\' | b'$');
            match byte {
                b'\'' => self.single_quoted(&mut word.bytes)?,
                b'"' => self.double_quoted(&mut word.bytes)?,
                b'\\' => word.bytes.push(self.next().ok_or(SyntaxError::LoneBackslash)?),
                b'$' if self.peek() == Some(b'\'') => {
                    self.at += 1;
                    self.dollar_quoted(&mut word.bytes)?;
                }
                b'$' | b'`' => self.literal(byte, &mut word.bytes)?,
                b'|' | b'&' | b'<' | b'>' | b'(' | b')' => return Err(SyntaxError::Unexpected(byte)),
                b'*' => {
                    word.stars.push(word.bytes.len());
                    word.bytes.push(byte);
                }
                _ => word.bytes.push(byte),
            }
        }
        let component = word.bytes.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        match word.stars.first() {
            Some(&star) if star < component => Err(SyntaxError::StarInside),
            _ => Ok(Token::Word { word, quoted }),
        }
    }

    fn single_quoted(&mut self, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        loop {
            match self.next().ok_or(SyntaxError::Unterminated)? {
                b'\'' => return Ok(()),
                byte => out.push(byte),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        loop {
            match self.next().ok_or(SyntaxError::Unterminated)? {
                b'"' => return Ok(()),
                b'\\' => match self.next().ok_or(SyntaxError::Unterminated)? {
                    byte @ (b'"' | b'\\' | b'$' | b'`') => out.push(byte),
                    byte => out.extend([b'\\', byte]),
                },
                byte @ (b'$' | b'`') => self.literal(byte, out)?,
                byte => out.push(byte),
            }
        }
    }

    /// `$` or a back quote that is not quoted: text only if no shell would expand it.
    fn literal(&self, byte: u8, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let expands = |b: u8| b.is_ascii_alphanumeric() || b"_{(@*#?$!-".contains(&b);
        if byte == b'`' || self.peek().is_some_and(expands) {
            return Err(SyntaxError::Expansion(byte));
        }
        out.push(byte);
        Ok(())
    }

    /// `$'...'`, with the escapes of C.
    fn dollar_quoted(&mut self, out: &mut Vec<u8>) -> Result<(), SyntaxError> {
        loop {
            match self.next().ok_or(SyntaxError::Unterminated)? {
                b'\'' => return Ok(()),
                b'\\' => {
                    let byte = match self.next().ok_or(SyntaxError::Unterminated)? {
                        byte @ (b'\\' | b'\'' | b'"') => byte,
                        b'a' => 0x07,
                        b'b' => 0x08,
                        b'e' => 0x1b,
                        b'f' => 0x0c,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'v' => 0x0b,
                        b'x' => self.number(16, 2)?,
                        b'0'..=b'7' => {
                            self.at -= 1;
                            self.number(8, 3)?
                        }
                        _ => return Err(SyntaxError::BadEscape),
                    };
                    // No name and no path has one, and C would end there.
                    if byte == 0 {
                        return Err(SyntaxError::BadEscape);
                    }
                    out.push(byte);
                }
                byte => out.push(byte),
            }
        }
    }

    /// A byte by its number: one digit, or up to `most`.
    fn number(&mut self, radix: u32, most: usize) -> Result<u8, SyntaxError> {
        let mut value: Option<u32> = None;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(radix)) else { break };
            value = Some(value.unwrap_or(0) * radix + digit);
            self.at += 1;
        }
        value.and_then(|v| u8::try_from(v).ok()).ok_or(SyntaxError::BadEscape)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec;

    /// The words of each command.
    fn words(line: &str) -> Vec<Vec<String>> {
        let text = |w: Word| w.bytes.escape_ascii().to_string();
        let commands = parse(line.as_bytes()).unwrap();
        commands.into_iter().map(|c| c.words.into_iter().map(text).collect()).collect()
    }

    #[test]
    fn words_are_what_stands_between_blanks() {
        assert_eq!(words("  ls -l\t/mnt  "), [["ls", "-l", "/mnt"]]);
        for line in ["", "   ", "# comment", "  # mount ; ls"] {
            assert!(words(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_hash_begins_a_comment_only_where_a_word_could_begin() {
        assert_eq!(words("echo a#b '#c' # d"), [["echo", "a#b", "#c"]]);
    }

    #[test]
    fn semicolons_separate_commands() {
        assert_eq!(words("cd /mnt; ls;pwd ; "), [vec!["cd", "/mnt"], vec!["ls"], vec!["pwd"]]);
        assert_eq!(words("echo 'a;b' c\\;d"), [["echo", "a;b", "c;d"]]);
        for line in [";", "ls ;; pwd", "; ls"] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::Unexpected(b';')), "{line}");
        }
    }

    #[test]
    fn quotes_join_to_words() {
        assert_eq!(words(r#"echo 'a  b'"c "d\ e"#), [["echo", "a  bc d e"]]);
        assert_eq!(words(r#"echo '' """#), [["echo", "", ""]]);
        assert_eq!(
            words(r#"echo 'a\b' "a\b" "\"\\\$\`" "it's""#),
            [["echo", r"a\\b", r"a\\b", r#"\"\\$`"#, r"it\'s"]]
        );
    }

    #[test]
    fn any_byte_can_be_written() {
        assert_eq!(words(r"cat $'\xff\x1b\n\t\'\\\303\7x'"), [["cat", r"\xff\x1b\n\t\'\\\xc3\x07x"]]);
        assert_eq!(words(r"cat a$'\x62'c"), [["cat", "abc"]]);
        for line in [r"$'\x'", r"$'\xg'", r"$'\0'", r"$'\x00'", r"$'\777'", r"$'\q'"] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::BadEscape), "{line}");
        }
    }

    #[test]
    fn quotes_must_end() {
        for line in ["'", "ls '", "\"", "$'", "$'\\", "\"\\", "'a\"", "\"a'"] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::Unterminated), "{line}");
        }
        assert_eq!(parse(b"ls \\"), Err(SyntaxError::LoneBackslash));
    }

    #[test]
    fn what_sh_would_do_and_this_shell_cannot_is_refused() {
        for (line, operator) in
            [("ls | cat", b'|'), ("ls &", b'&'), ("ls>f", b'>'), ("cat <f", b'<'), ("(ls)", b'(')]
        {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::Unexpected(operator)), "{line}");
        }
        for line in ["echo $HOME", "echo ${x}", "echo $(ls)", "echo \"$x\"", "echo $?"] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::Expansion(b'$')), "{line}");
        }
        for line in ["echo `ls`", "echo \"`ls`\""] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::Expansion(b'`')), "{line}");
        }
        assert_eq!(
            words(r#"echo '$HOME' \$x "\$x" $ "$" a$/"#),
            [["echo", "$HOME", "$x", "$x", "$", "$", "a$/"]]
        );
    }

    #[test]
    fn negation_and_time_stand_before_a_command() {
        let flags = |line: &str| {
            let c = &parse(line.as_bytes()).unwrap()[0];
            (c.negated, c.timed, c.words.len())
        };
        assert_eq!(flags("ls !"), (false, false, 2));
        assert_eq!(flags("! ls"), (true, false, 1));
        assert_eq!(flags("time ! ls -l"), (true, true, 2));
        assert_eq!(flags("'!' ls"), (false, false, 2));
        assert_eq!(flags("\\time ls"), (false, false, 2));
        assert_eq!(flags("!ls"), (false, false, 1));
        for line in ["!", "time", "! ; ls", "ls; !"] {
            assert_eq!(parse(line.as_bytes()), Err(SyntaxError::NoCommand), "{line}");
        }
    }

    #[test]
    fn stars_are_marked_unless_quoted() {
        let stars = |line: &str| parse(line.as_bytes()).unwrap()[0].words[0].stars.clone();
        assert_eq!(stars("a*b*"), [1, 3]);
        assert_eq!(stars("/mnt/*.c"), [5]);
        assert!(stars("'*'\\*\"*\"").is_empty());
        assert_eq!(stars("'*'*"), [1]);
        assert_eq!(parse(b"ls /*/x"), Err(SyntaxError::StarInside));
    }

    /// The simplest way to write a word so that it comes back.
    fn quote(word: &[u8]) -> Vec<u8> {
        let mut text = b"$'".to_vec();
        for byte in word {
            text.extend(std::format!("\\x{byte:02x}").bytes());
        }
        text.push(b'\'');
        text
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_line_of_its_own_signs_makes_it_panic_or_gives_an_empty_command(
            line in prop::collection::vec(prop::sample::select(b" ;#!'\"\\$x*/0at|{".to_vec()), 0..40),
        ) {
            for command in parse(&line).unwrap_or_default() {
                prop_assert!(!command.words.is_empty());
                for word in command.words {
                    prop_assert!(word.stars.iter().all(|&at| word.bytes.get(at) == Some(&b'*')));
                }
            }
        }

        #[test]
        fn quoted_words_come_back(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(1u8.., 0..8), 1..5), 1..5),
        ) {
            let line = commands.iter().map(|c| c.iter().map(|w| quote(w)).collect::<Vec<_>>().join(&b' ')).collect::<Vec<_>>();
            let parsed = parse(&line.join(&b';')).unwrap();
            let back: Vec<Vec<Vec<u8>>> =
                parsed.into_iter().map(|c| c.words.into_iter().map(|w| w.bytes).collect()).collect();
            prop_assert_eq!(back, commands);
        }
    }
}
