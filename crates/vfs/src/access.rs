//! Permissions: what a mode, its owner and its flags let somebody do.
//!
//! Source: `naccess()`, `vop_helper_access()`, `vop_helper_setattr_flags()`, `vop_helper_chmod()`,
//! `vop_helper_chown()` of DragonFly; chmod(2), chown(2), chflags(2), utimes(2), sticky(7).

use crate::{Attr, Cred, Errno, FileFlags, Kind, SetAttr, SetTime, Timestamp};

bitflags::bitflags! {
    /// What somebody wants to do to a node, as access(2) counts it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Permit: u8 {
        /// Execute a file, search a directory.
        const EXECUTE = 1;
        /// Change a file, or the entries of a directory.
        const WRITE = 2;
        /// Read a file, list a directory.
        const READ = 4;
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To read and write.
    ReadWrite,
}

impl Access {
    /// The permission that such an open needs.
    pub const fn permit(self) -> Permit {
        match self {
            Self::Read => Permit::READ,
            Self::Write => Permit::WRITE,
            Self::ReadWrite => Permit::READ.union(Permit::WRITE),
        }
    }
}

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_ISVTX: u16 = 0o1000;

impl Attr {
    /// Whether `cred` may do all of `what` to this node, by its mode bits and flags. The super-user may all but
    /// write to what is immutable, and execute what nobody may execute.
    ///
    /// Errors: `EPERM` to write what is immutable, else `EACCES`. Never blocks.
    pub fn check(&self, cred: &Cred, what: Permit) -> Result<(), Errno> {
        if what.contains(Permit::WRITE) && self.flags.intersects(FileFlags::IMMUTABLE) {
            return Err(Errno::EPERM);
        }
        let permitted = if cred.is_superuser() {
            !what.contains(Permit::EXECUTE) || self.kind == Kind::Directory || self.mode & 0o111 != 0
        } else {
            let granted = if cred.uid == self.uid {
                self.mode >> 6
            } else if cred.is_member(self.gid) {
                self.mode >> 3
            } else {
                self.mode
            };
            Permit::from_bits_truncate(granted as u8).contains(what)
        };
        if permitted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether `cred` may look names up in this directory. Errors: `ENOTDIR`, `EACCES`.
    pub fn check_search(&self, cred: &Cred) -> Result<(), Errno> {
        if self.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.check(cred, Permit::EXECUTE)
    }

    /// Whether `cred` may add names to this directory. Errors: `ENOTDIR`, `EACCES`, `EPERM` by its flags.
    pub fn check_add(&self, cred: &Cred) -> Result<(), Errno> {
        self.check_search(cred)?;
        self.check(cred, Permit::WRITE)
    }

    /// Whether `cred` may take the name of `victim` out of this directory. In a sticky one only the owners of the
    /// directory and of the victim may.
    ///
    /// Errors: `ENOTDIR`, `EACCES`, `EPERM` by the flags of either.
    pub fn check_take(&self, cred: &Cred, victim: &Attr) -> Result<(), Errno> {
        const STAYS: FileFlags = FileFlags::IMMUTABLE.union(FileFlags::APPEND).union(FileFlags::NOUNLINK);
        self.check_add(cred)?;
        if victim.flags.intersects(STAYS) || self.flags.intersects(FileFlags::APPEND) {
            return Err(Errno::EPERM);
        }
        let owns = cred.is_superuser() || cred.uid == self.uid || cred.uid == victim.uid;
        if self.mode & S_ISVTX != 0 && !owns { Err(Errno::EACCES) } else { Ok(()) }
    }
}

impl SetAttr {
    /// The attributes that this change makes of `attr` on behalf of `cred` at the time `now`, by the rules that all
    /// file systems share; `size` is the file system's, which also moves data. A change sets `ctime`.
    ///
    /// Errors: `EPERM` for who is not the owner or asks for what only the super-user may, and by the flags of the
    /// node; `EACCES` to set the times to now without the permission to write; `EFTYPE` for a sticky file; `EINVAL` for
    /// mode bits beyond 0o7777. Never blocks.
    pub fn apply(&self, attr: &Attr, cred: &Cred, now: Timestamp) -> Result<Attr, Errno> {
        let mut new = *attr;
        let owner_only =
            || if cred.is_superuser() || cred.uid == attr.uid { Ok(()) } else { Err(Errno::EPERM) };
        if let Some(flags) = self.flags {
            owner_only()?;
            new.flags = changed_flags(attr.flags, flags, cred)?;
        }
        let frozen = FileFlags::IMMUTABLE.union(FileFlags::APPEND);
        if *self != (Self { flags: self.flags, ..Self::default() }) && new.flags.intersects(frozen) {
            return Err(Errno::EPERM);
        }
        if self.uid.is_some() || self.gid.is_some() {
            let (uid, gid) = (self.uid.unwrap_or(attr.uid), self.gid.unwrap_or(attr.gid));
            let own = cred.uid == attr.uid && uid == attr.uid && (gid == attr.gid || cred.is_member(gid));
            if !own && !cred.is_superuser() {
                return Err(Errno::EPERM);
            }
            if (uid, gid) != (attr.uid, attr.gid) && !cred.is_superuser() {
                new.mode &= !(S_ISUID | S_ISGID);
            }
            (new.uid, new.gid) = (uid, gid);
        }
        if let Some(mode) = self.mode {
            owner_only()?;
            if mode & !0o7777 != 0 {
                return Err(Errno::EINVAL);
            }
            if !cred.is_superuser() {
                if mode & S_ISVTX != 0 && attr.kind != Kind::Directory {
                    return Err(Errno::EFTYPE);
                }
                if mode & S_ISGID != 0 && !cred.is_member(new.gid) {
                    return Err(Errno::EPERM);
                }
            }
            new.mode = mode;
        }
        if self.atime.is_some() || self.mtime.is_some() {
            let only_now = [self.atime, self.mtime].iter().flatten().all(|t| *t == SetTime::Now);
            match owner_only() {
                Err(_) if only_now => attr.check(cred, Permit::WRITE)?,
                checked => checked?,
            }
            let moment = |t| match t {
                SetTime::Now => now,
                SetTime::To(moment) => moment,
            };
            new.atime = self.atime.map_or(attr.atime, moment);
            new.mtime = self.mtime.map_or(attr.mtime, moment);
        }
        new.ctime = now;
        Ok(new)
    }
}

/// The flags that are left when `cred` asks for `wanted` in place of `old`.
fn changed_flags(old: FileFlags, wanted: FileFlags, cred: &Cred) -> Result<FileFlags, Errno> {
    const OF_THE_SUPERUSER: FileFlags = FileFlags::from_bits_retain(0xFFFF_0000);
    const LOCKED: FileFlags =
        FileFlags::SF_IMMUTABLE.union(FileFlags::SF_APPEND).union(FileFlags::SF_NOUNLINK);
    if cred.is_superuser() {
        return Ok(wanted);
    }
    if old.intersects(LOCKED) || (old ^ wanted).intersects(OF_THE_SUPERUSER) {
        return Err(Errno::EPERM);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    const OWNER: Cred = Cred::user(10, 20);
    const MATE: Cred = Cred::user(11, 20);
    const OTHER: Cred = Cred::user(12, 22);
    const NOW: Timestamp = Timestamp::from_micros(77);

    fn node(kind: Kind, mode: u16) -> Attr {
        Attr { mode, uid: 10, gid: 20, ..Attr::new(NodeId([1, 0, 0]), kind) }
    }

    #[test]
    fn only_the_class_of_the_asker_counts() {
        let f = node(Kind::Regular, 0o046);
        assert_eq!(f.check(&OWNER, Permit::READ), Err(Errno::EACCES));
        assert_eq!(f.check(&MATE, Permit::READ), Ok(()));
        assert_eq!(f.check(&MATE, Permit::WRITE), Err(Errno::EACCES));
        assert_eq!(f.check(&OTHER, Permit::READ | Permit::WRITE), Ok(()));
        let with_group = OTHER.with_groups(&[5, 20]).unwrap();
        assert_eq!(f.check(&with_group, Permit::WRITE), Err(Errno::EACCES));
    }

    #[test]
    fn the_superuser_passes_but_for_flags_and_dead_programs() {
        let f = node(Kind::Regular, 0);
        assert_eq!(f.check(&Cred::ROOT, Permit::READ | Permit::WRITE), Ok(()));
        assert_eq!(f.check(&Cred::ROOT, Permit::EXECUTE), Err(Errno::EACCES));
        assert_eq!(node(Kind::Directory, 0).check(&Cred::ROOT, Permit::EXECUTE), Ok(()));
        let f = Attr { flags: FileFlags::SF_IMMUTABLE, ..f };
        assert_eq!(f.check(&Cred::ROOT, Permit::WRITE), Err(Errno::EPERM));
    }

    #[test]
    fn a_sticky_directory_keeps_foreign_names() {
        let dir = Attr { uid: 0, ..node(Kind::Directory, 0o1777) };
        let file = node(Kind::Regular, 0o644);
        assert_eq!(dir.check_take(&OWNER, &file), Ok(()));
        assert_eq!(dir.check_take(&OTHER, &file), Err(Errno::EACCES));
        assert_eq!(dir.check_take(&Cred::ROOT, &file), Ok(()));
        let kept = Attr { flags: FileFlags::UF_NOUNLINK, ..file };
        assert_eq!(dir.check_take(&Cred::ROOT, &kept), Err(Errno::EPERM));
        assert_eq!(file.check_take(&Cred::ROOT, &file), Err(Errno::ENOTDIR));
    }

    #[test]
    fn setattr_obeys_ownership() {
        let f = node(Kind::Regular, 0o644);
        let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        assert_eq!(chmod.apply(&f, &OWNER, NOW).map(|a| (a.mode, a.ctime)), Ok((0o600, NOW)));
        assert_eq!(chmod.apply(&f, &MATE, NOW), Err(Errno::EPERM));
        let sticky = SetAttr { mode: Some(0o1644), ..SetAttr::default() };
        assert_eq!(sticky.apply(&f, &OWNER, NOW), Err(Errno::EFTYPE));
        let wide = SetAttr { mode: Some(0o10_000), ..SetAttr::default() };
        assert_eq!(wide.apply(&f, &Cred::ROOT, NOW), Err(Errno::EINVAL));
        let give = SetAttr { uid: Some(12), ..SetAttr::default() };
        assert_eq!(give.apply(&f, &OWNER, NOW), Err(Errno::EPERM));
        assert_eq!(give.apply(&f, &Cred::ROOT, NOW).map(|a| a.uid), Ok(12));
    }

    #[test]
    fn changing_the_group_drops_set_id_bits() {
        let f = node(Kind::Regular, 0o6755);
        let regroup = SetAttr { gid: Some(5), ..SetAttr::default() };
        assert_eq!(regroup.apply(&f, &OWNER, NOW), Err(Errno::EPERM));
        let cred = OWNER.with_groups(&[5]).unwrap();
        assert_eq!(regroup.apply(&f, &cred, NOW).map(|a| (a.gid, a.mode)), Ok((5, 0o755)));
    }

    #[test]
    fn flags_freeze_everything_but_flags() {
        let f = Attr { flags: FileFlags::UF_IMMUTABLE, ..node(Kind::Regular, 0o644) };
        let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        assert_eq!(chmod.apply(&f, &Cred::ROOT, NOW), Err(Errno::EPERM));
        let thaw = SetAttr { flags: Some(FileFlags::empty()), ..SetAttr::default() };
        assert_eq!(thaw.apply(&f, &OWNER, NOW).map(|a| a.flags), Ok(FileFlags::empty()));
        let lock = SetAttr { flags: Some(FileFlags::SF_IMMUTABLE), ..SetAttr::default() };
        assert_eq!(lock.apply(&f, &OWNER, NOW), Err(Errno::EPERM));
        assert!(lock.apply(&f, &Cred::ROOT, NOW).is_ok());
    }

    #[test]
    fn who_may_write_may_touch_but_not_choose_the_time() {
        let f = node(Kind::Regular, 0o666);
        let touch = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
        assert_eq!(touch.apply(&f, &OTHER, NOW).map(|a| a.mtime), Ok(NOW));
        let forge = SetAttr { mtime: Some(SetTime::To(Timestamp::from_micros(1))), ..SetAttr::default() };
        assert_eq!(forge.apply(&f, &OTHER, NOW), Err(Errno::EPERM));
        assert_eq!(forge.apply(&f, &OWNER, NOW).map(|a| a.mtime.as_micros()), Ok(1));
        assert_eq!(touch.apply(&node(Kind::Regular, 0o644), &OTHER, NOW), Err(Errno::EACCES));
    }
}
