//! Who asks.

use crate::Errno;

/// How many groups a [`Cred`] can hold beside its first. Source: `NGROUPS_MAX` of DragonFly.
pub const GROUPS_MAX: usize = 16;

/// The credentials of whoever asks: the effective user and its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cred {
    /// The effective user; 0 is the super-user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    groups: [u32; GROUPS_MAX],
    group_count: u8,
}

impl Cred {
    /// The kernel itself, or the super-user.
    pub const ROOT: Self = Self::user(0, 0);

    /// A user with one group.
    pub const fn user(uid: u32, gid: u32) -> Self {
        Self { uid, gid, groups: [0; GROUPS_MAX], group_count: 0 }
    }

    /// The same user with these further groups. Errors: `EINVAL` for more than [`GROUPS_MAX`].
    pub fn with_groups(mut self, groups: &[u32]) -> Result<Self, Errno> {
        self.groups.get_mut(..groups.len()).ok_or(Errno::EINVAL)?.copy_from_slice(groups);
        self.group_count = groups.len() as u8;
        Ok(self)
    }

    /// The further groups.
    pub fn groups(&self) -> &[u32] {
        self.groups.get(..usize::from(self.group_count)).unwrap_or_default()
    }

    /// Whether this is the super-user.
    pub const fn is_superuser(&self) -> bool {
        self.uid == 0
    }

    /// Whether `gid` is one of the groups.
    pub fn is_member(&self, gid: u32) -> bool {
        self.gid == gid || self.groups().contains(&gid)
    }
}
