//! Options of a command, taken from its arguments as getopt(3) does.

use alloc::vec::Vec;

/// What a command was called with, after its name.
pub(crate) struct Args<'a> {
    /// Option letters, with the argument of those that take one, in order.
    given: Vec<(u8, Option<&'a [u8]>)>,
    /// What follows the options.
    pub(crate) operands: &'a [Vec<u8>],
}

/// Why the arguments cannot be understood. The words are getopt(3)'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadOption {
    #[error("illegal option -- {}", char::from(*.0).escape_default())]
    Illegal(u8),
    #[error("option requires an argument -- {}", char::from(*.0))]
    NoArgument(u8),
}

impl<'a> Args<'a> {
    /// Takes `letters` off the front of `args`; one with a `:` behind it takes an argument. `--` ends the options, and
    /// so does what is none; a lone `-` is none.
    pub(crate) fn parse(letters: &str, args: &'a [Vec<u8>]) -> Result<Self, BadOption> {
        let mut given = Vec::new();
        let mut rest = args;
        while let [first, behind @ ..] = rest {
            let Some(mut cluster) = first.strip_prefix(b"-").filter(|c| !c.is_empty()) else { break };
            rest = behind;
            if cluster == b"-" {
                break;
            }
            while let [letter, more @ ..] = cluster {
                cluster = more;
                match Self::takes(letters, *letter).ok_or(BadOption::Illegal(*letter))? {
                    Takes::Nothing => given.push((*letter, None)),
                    Takes::Argument => {
                        let argument = if more.is_empty() {
                            let (next, behind) = rest.split_first().ok_or(BadOption::NoArgument(*letter))?;
                            rest = behind;
                            next.as_slice()
                        } else {
                            more
                        };
                        given.push((*letter, Some(argument)));
                        cluster = b"";
                    }
                }
            }
        }
        Ok(Self { given, operands: rest })
    }

    fn takes(letters: &str, letter: u8) -> Option<Takes> {
        let letters = letters.as_bytes();
        let at = letters.iter().position(|&l| l == letter && l != b':')?;
        Some(if letters.get(at + 1) == Some(&b':') { Takes::Argument } else { Takes::Nothing })
    }

    /// Whether there are neither options nor operands.
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty() && self.operands.is_empty()
    }

    pub(crate) fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(l, _)| char::from(*l) == letter)
    }

    /// The arguments given to this option, in order.
    pub(crate) fn values(&self, letter: char) -> impl Iterator<Item = &'a [u8]> {
        self.given.iter().filter(move |(l, _)| char::from(*l) == letter).filter_map(|(_, value)| *value)
    }
}

enum Takes {
    Nothing,
    Argument,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    fn args(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|w| w.as_bytes().to_vec()).collect()
    }

    #[test]
    fn letters_cluster_and_end_where_they_should() {
        let words = args(&["-la", "-R", "--", "-x", "y"]);
        let parsed = Args::parse("alR", &words).unwrap();
        assert!(parsed.has('l') && parsed.has('a') && parsed.has('R') && !parsed.has('x'));
        assert_eq!(parsed.operands, args(&["-x", "y"]));
        let words = args(&["-l", "dir", "-a"]);
        assert_eq!(Args::parse("al", &words).unwrap().operands, args(&["dir", "-a"]));
        let words = args(&["-"]);
        assert_eq!(Args::parse("l", &words).unwrap().operands, args(&["-"]));
    }

    #[test]
    fn arguments_stand_behind_their_letter_or_in_the_next_word() {
        let words = args(&["-rocache=1", "-o", "ro", "d"]);
        let parsed = Args::parse("ro:", &words).unwrap();
        assert!(parsed.has('r'));
        assert_eq!(parsed.values('o').collect::<Vec<_>>(), [&b"cache=1"[..], b"ro"]);
        assert_eq!(parsed.operands, args(&["d"]));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let bad = |letters, words: &[&str]| Args::parse(letters, &args(words)).err();
        assert_eq!(bad("l", &["-lz"]), Some(BadOption::Illegal(b'z')));
        assert_eq!(bad("o:", &["-:"]), Some(BadOption::Illegal(b':')));
        assert_eq!(bad("o:", &["-o"]), Some(BadOption::NoArgument(b'o')));
        assert_eq!(BadOption::Illegal(b'z').to_string(), "illegal option -- z");
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..6)) {
            let _ = Args::parse("abc:d", &words);
        }
    }
}
