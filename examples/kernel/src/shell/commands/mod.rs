//! The commands: one row of [`TABLE`] each.

use super::context::Command;

mod builtin;
mod file;
mod hammer;
mod ls;
mod mount;
mod stat;
mod sysctl;
mod system;

pub(super) use mount::all as unmount_all;

/// All commands, by name.
pub(crate) static TABLE: &[Command] = &[
    file::CAT,
    builtin::CD,
    mount::DF,
    system::DMESG,
    builtin::ECHO,
    builtin::EXIT,
    system::HALT,
    hammer::HAMMER,
    builtin::HELP,
    ls::LS,
    file::MKDIR,
    mount::MOUNT,
    system::PS,
    builtin::PWD,
    file::READLINK,
    file::RMDIR,
    builtin::SET,
    file::SHA256,
    system::SHUTDOWN,
    builtin::SLEEP,
    stat::STAT,
    mount::SYNC,
    sysctl::SYSCTL,
    builtin::TRUE,
    mount::UMOUNT,
    system::UPTIME,
    system::VMSTAT,
];

/// The command of that name.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    TABLE.iter().find(|c| c.name.as_bytes() == name)
}
