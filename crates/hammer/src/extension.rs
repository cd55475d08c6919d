//! `@@` names: the extension of a path component that leads to another time or pseudo file system.
//!
//! `name@@0x0123456789abcdef` is `name` as of a transaction, `name@@-1` is `name` now, `@@0x...` is the directory
//! itself as of then, and `@@...:00002` is the root of pseudo file system 2. Anything that deviates is an ordinary
//! name.

use crate::object::View;
use crate::ondisk::node::Tid;

/// What the part behind `@@` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The time: now for `-1` and for transaction 0.
    pub view: View,
    /// The pseudo file system, if one is named.
    pub pfs: Option<u16>,
}

impl Extension {
    /// Splits a path component into the name before `@@` and the extension behind it, if it has a well-formed one.
    pub fn split(component: &[u8]) -> Option<(&[u8], Self)> {
        let at = component.windows(2).position(|w| w == b"@@")?;
        let (name, rest) = component.split_at_checked(at)?;
        Some((name, Self::parse(rest.get(2..)?)?))
    }

    /// Parses what stands behind `@@`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (view, rest) = if let Some(rest) = text.strip_prefix(b"-1") {
            (View::Current, rest)
        } else {
            let digits = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X"))?;
            let (digits, rest) = digits.split_at_checked(16)?;
            let tid = Tid(number(digits, 16)?);
            (if tid == Tid::ZERO { View::Current } else { View::AsOf(tid) }, rest)
        };
        let pfs = match rest {
            [] => None,
            [b':', digits @ ..] if digits.len() == 5 => Some(u16::try_from(number(digits, 10)?).ok()?),
            _ => return None,
        };
        Some(Self { view, pfs })
    }
}

/// The target of a symlink that stands for a pseudo file system: `@@PFS` and five digits.
pub fn pfs_link(target: &[u8]) -> Option<u16> {
    let digits = target.strip_prefix(b"@@PFS")?;
    if digits.len() != 5 {
        return None;
    }
    u16::try_from(number(digits, 10)?).ok()
}

/// All of `digits` as a number: no sign, no blanks.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, &d| {
        n.checked_mul(radix.into())?.checked_add(char::from(d).to_digit(radix)?.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fact sheet 4.4: names that the real code resolves, and names that it takes for ordinary ones.
    #[test]
    fn well_formed_extensions_only() {
        let e = |asof, pfs| Some(Extension { view: View::AsOf(Tid(asof)), pfs });
        let now = |pfs| Some(Extension { view: View::Current, pfs });
        for (text, want) in [
            ("0x0000000100010030", e(0x1_0001_0030, None)),
            ("0x0000000100010030:00000", e(0x1_0001_0030, Some(0))),
            ("-1", now(None)),
            ("-1:00001", now(Some(1))),
            ("-1:65535", now(Some(65535))),
            ("0x0000000000000000:00002", now(Some(2))),
            ("0xFFFFFFFFFFFFFFFF", e(u64::MAX, None)),
            ("0X0000000100010030", e(0x1_0001_0030, None)),
            ("0x100010030", None),
            ("-1:7", None),
            ("-1:99999", None),
            ("0x0000000100010030:00000x", None),
            ("", None),
            ("1", None),
            ("-2", None),
            ("-1:+0001", None),
            ("0x000000010001003g", None),
        ] {
            assert_eq!(Extension::parse(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn the_name_ends_at_the_first_extension_sign() {
        let now = Extension { view: View::Current, pfs: None };
        assert_eq!(Extension::split(b"g@@-1"), Some((&b"g"[..], now)));
        assert_eq!(Extension::split(b"@@-1"), Some((&b""[..], now)));
        assert_eq!(Extension::split(b"x@@y"), None);
        assert_eq!(Extension::split(b"x"), None);
        assert_eq!(Extension::split(b"x@@y@@-1"), None);
    }

    #[test]
    fn pfs_links_have_exactly_five_digits() {
        assert_eq!(pfs_link(b"@@PFS00017"), Some(17));
        for no in [&b"@@PFS0017"[..], b"@@PFS000017", b"@@PFS0001x", b"@@PFS99999", b"PFS00017"] {
            assert_eq!(pfs_link(no), None);
        }
    }
}
