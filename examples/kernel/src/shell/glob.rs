//! `*` in a word: the names that it stands for. Source: glob(7), sh(1).

use alloc::vec::Vec;

use dfly_vfs::Last;

use super::context::Context;
use super::parse::Word;

/// Adds to `words` the paths that `word` stands for, in order; or the word itself if it stands for none.
pub(crate) fn expand(ctx: &mut Context<'_>, word: Word, words: &mut Vec<Vec<u8>>) {
    let split = word.bytes.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let before = words.len();
    if !word.stars.is_empty() {
        let (dir, last) = word.bytes.split_at(split);
        let stars: Vec<usize> = word.stars.iter().filter_map(|star| star.checked_sub(split)).collect();
        let place = ctx.find(if dir.is_empty() { b"." } else { dir }, Last::Follow);
        let names = place.map(|(place, _)| ctx.entries(&place).0).unwrap_or_default();
        for (name, _) in names {
            // Names that begin with a dot are only meant by who writes the dot.
            if (!name.starts_with(b".") || last.starts_with(b".")) && matches(last, &stars, &name) {
                words.push([dir, &name].concat());
            }
        }
    }
    match words.get_mut(before..) {
        Some(found @ [_, ..]) => found.sort_unstable(),
        _ => words.push(word.bytes),
    }
}

/// Whether `name` is `pattern`, in which a `*` at one of `stars` stands for any bytes.
fn matches(pattern: &[u8], stars: &[usize], name: &[u8]) -> bool {
    // The texts between the stars: the first begins the name, the last ends it, each other one is found as early as can be.
    let Some((&first, rest)) = stars.split_first() else { return pattern == name };
    let text = |from: usize, to: usize| pattern.get(from..to).unwrap_or_default();
    let Some(mut name) = name.strip_prefix(text(0, first)) else { return false };
    let mut from = first + 1;
    for &star in rest {
        let part = text(from, star);
        from = star + 1;
        let Some(at) = find(name, part) else { return false };
        name = name.get(at + part.len()..).unwrap_or_default();
    }
    name.ends_with(text(from, pattern.len()))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() { Some(0) } else { text.windows(part.len()).position(|w| w == part) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        let stars: Vec<usize> = pattern.match_indices('*').map(|(at, _)| at).collect();
        matches(pattern.as_bytes(), &stars, name.as_bytes())
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "abc"),
            ("a*", "a"),
            ("a*c", "abbc"),
            ("*b*", "abc"),
            ("a*b*c", "axbybc"),
            ("**a", "ba"),
        ] {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a*", "ba"), ("a*a", "a"), ("*b*", "ac"), ("a*bb*b", "abb"), ("", "a")] {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_quoted_star_is_itself() {
        assert!(matches(b"a*b*", &[3], b"a*bcd"));
        assert!(!matches(b"a*b*", &[3], b"axbcd"));
    }

    /// The definition, word by word.
    fn plain(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|at| plain(rest, &name[at..])),
            [byte, rest @ ..] => name.first() == Some(byte) && plain(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab*]{0,7}", name in "[ab]{0,8}") {
            prop_assert_eq!(is_match(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
