//! Variant symlinks: `${NAME}` in a link's target, replaced when a path walk follows the link.
//!
//! Source: varsym(1), varsym(2) of DragonFly.

use crate::path_text::{PathText, TEXT_MAX};
use crate::{Errno, Error};

/// The longest value of a variable, in bytes (256 with its NUL in DragonFly).
pub const VALUE_MAX: usize = 255;

/// The value of a variable, inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    len: u8,
    bytes: [u8; VALUE_MAX],
}

impl Value {
    /// Any bytes but NUL, also with `/`, at most [`VALUE_MAX`]. Errors: `ENAMETOOLONG`, `EINVAL`.
    pub fn new(value: &[u8]) -> Result<Self, Errno> {
        if value.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; VALUE_MAX];
        bytes.get_mut(..value.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(value);
        Ok(Self { len: value.len() as u8, bytes })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Where a path walk looks variables up.
///
/// Whoever resolves paths for somebody else decides here which scopes count: a program with privileges should see only
/// the system's variables, because a user's own lead paths where that user likes.
pub trait Variables {
    /// The value of the variable with exactly this name (`${}` has the empty one), `None` if there is none. Must not
    /// block.
    fn get(&self, name: &[u8]) -> Option<Value>;
}

/// Scopes one after the other: the first that has the variable wins (DragonFly: process, user, system).
#[derive(Clone, Copy)]
pub struct Scopes<'a>(pub &'a [&'a dyn Variables]);

impl Variables for Scopes<'_> {
    fn get(&self, name: &[u8]) -> Option<Value> {
        self.0.iter().find_map(|scope| scope.get(name))
    }
}

impl<F: Fn(&[u8]) -> Option<Value>> Variables for F {
    fn get(&self, name: &[u8]) -> Option<Value> {
        self(name)
    }
}

/// Replaces each `${NAME}` in `text` by the variable's value.
///
/// One pass from left to right: values are not scanned again, there is no nesting, no default and no escape. An unknown
/// variable stays as it is, up to and with its `}`; so does everything from a `${` that is not closed.
///
/// Errors: `ENAMETOOLONG` if the result of a replacement would have 1023 bytes or more. Never blocks, never allocates.
pub fn expand(text: &mut PathText, variables: &dyn Variables) -> Result<(), Error> {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| rest.len() >= 2) {
        let Some(inner) = rest.strip_prefix(b"${") else {
            at += 1;
            continue;
        };
        let Some(name_len) = inner.iter().position(|&b| b == b'}') else { break };
        let end = at + 2 + name_len + 1;
        match variables.get(inner.get(..name_len).unwrap_or_default()) {
            Some(value) => {
                text.replace(at..end, value.as_bytes(), TEXT_MAX - 1)
                    .map_err(|e| Error::new(e).because("a variant symlink expands to too long a path"))?;
                at += value.as_bytes().len();
            }
            None => at = end,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn var(name: &[u8]) -> Option<Value> {
        match name {
            b"OS" => Value::new(b"dfly").ok(),
            b"" => Value::new(b"empty").ok(),
            b"self" => Value::new(b"${self}${OS}").ok(),
            b"dirs" => Value::new(b"a/b").ok(),
            b"none" => Value::new(b"").ok(),
            b"long" => Value::new(&[b'x'; VALUE_MAX]).ok(),
            _ => None,
        }
    }

    fn expanded(input: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut text = PathText::new();
        text.push(input).unwrap();
        expand(&mut text, &var).map(|()| text.to_vec()).map_err(|e| e.errno())
    }

    #[test]
    fn known_variables_are_replaced_and_nothing_else() {
        for (input, output) in [
            (&b""[..], &b""[..]),
            (b"plain", b"plain"),
            (b"/usr/${OS}/bin", b"/usr/dfly/bin"),
            (b"${OS}${OS}", b"dflydfly"),
            (b"${dirs}/c", b"a/b/c"),
            (b"x${none}y", b"xy"),
            (b"${}", b"empty"),
            (b"$OS $ {OS} $", b"$OS $ {OS} $"),
            (b"${unknown}/${OS}", b"${unknown}/dfly"),
            (b"${OS", b"${OS"),
            (b"${OS}${OS", b"dfly${OS"),
            (b"$${OS}", b"$dfly"),
        ] {
            assert_eq!(expanded(input).unwrap(), output, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn values_are_not_scanned_again() {
        assert_eq!(expanded(b"<${self}>").unwrap(), b"<${self}${OS}>");
    }

    #[test]
    fn an_unknown_variable_hides_one_inside_it() {
        assert_eq!(expanded(b"${a${OS}}").unwrap(), b"${a${OS}}");
    }

    #[test]
    fn a_result_of_1022_bytes_fits_and_one_of_1023_does_not() {
        let mut input = [b'.'; 1022 - VALUE_MAX].to_vec();
        input.extend(b"${long}");
        assert_eq!(expanded(&input).unwrap().len(), 1022);
        input.insert(0, b'.');
        assert_eq!(expanded(&input), Err(Errno::ENAMETOOLONG));
        // Without a replacement 1023 bytes are fine.
        assert_eq!(expanded(&[b'.'; 1023]).unwrap().len(), 1023);
    }

    #[test]
    fn the_first_scope_that_knows_a_variable_wins() {
        let user = |name: &[u8]| (name == b"OS").then(|| Value::new(b"mine").unwrap());
        let scopes = Scopes(&[&user, &var]);
        assert_eq!(scopes.get(b"OS").unwrap().as_bytes(), b"mine");
        assert_eq!(scopes.get(b"dirs").unwrap().as_bytes(), b"a/b");
        assert_eq!(scopes.get(b"?"), None);
    }

    #[test]
    fn values_have_limits() {
        assert_eq!(Value::new(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        assert_eq!(Value::new(b"a\0b"), Err(Errno::EINVAL));
    }

    /// The same rules, by splitting into a new vector.
    fn reference(input: &[u8]) -> Result<Vec<u8>, Errno> {
        let (mut out, mut rest) = (Vec::new(), input);
        while let Some(start) = rest.windows(2).position(|w| w == b"${") {
            let Some(len) = rest[start..].iter().position(|&b| b == b'}') else { break };
            let (before, after) = (&rest[..start], &rest[start + len + 1..]);
            out.extend_from_slice(before);
            match var(&rest[start + 2..start + len]) {
                Some(v) => {
                    out.extend_from_slice(v.as_bytes());
                    if out.len() + after.len() >= 1023 {
                        return Err(Errno::ENAMETOOLONG);
                    }
                }
                None => out.extend_from_slice(&rest[start..start + len + 1]),
            }
            rest = after;
        }
        out.extend_from_slice(rest);
        Ok(out)
    }

    proptest! {
        #[test]
        fn expansion_follows_the_rules_on_any_text(
            parts in prop::collection::vec(
                prop::sample::select(std::vec!["$", "{", "}", "${", "a", "/", "OS", "${OS}", "${long}", "${none}", "${dirs}", "${}"]),
                0..60,
            ),
        ) {
            let input = parts.concat();
            prop_assume!(input.len() <= TEXT_MAX);
            prop_assert_eq!(expanded(input.as_bytes()), reference(input.as_bytes()));
        }
    }
}
