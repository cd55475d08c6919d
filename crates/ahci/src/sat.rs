//! SCSI / ATA translation [SAT-3, 12.2]: the pass-through commands that tools send, as ATA commands, and how they ended as
//! sense data.
//!
//! ```
//! use core::time::Duration;
//! use dfly_ahci::{Transport, sat, spec::Command};
//! // What smartctl sends to identify a disk.
//! let cdb = [0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0];
//! let command = sat::parse(&cdb, Duration::from_secs(10))?;
//! assert_eq!(command.pass.taskfile.command, Command::IDENTIFY_DEVICE);
//! assert_eq!((command.pass.transport, command.len), (Transport::In, 512));
//! # Ok::<(), sat::BadCdb>(())
//! ```

use core::time::Duration;

use dfly_hal::Wait;
use dfly_hal::regs::Window;

use crate::spec::{AtaError, AtaStatus, Command, Registers, SenseKey, Taskfile, Transport};
use crate::{Ahci, AhciHal, PassError, PassThrough, Returned};

/// ATA PASS-THROUGH (12).
const SHORT: u8 = 0xa1;
/// ATA PASS-THROUGH (16).
const LONG: u8 = 0x85;
/// Bytes of a block of data (T_TYPE 0).
const BLOCK: usize = 512;

/// A field of a pass-through command that makes no sense, or asks for what cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {byte} of the command is not supported")]
pub struct BadCdb {
    /// Where it is.
    pub byte: u16,
}

/// A pass-through command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SatCommand {
    /// The ATA command.
    pub pass: PassThrough,
    /// Bytes of its data.
    pub len: usize,
    /// The registers are wanted even if all is well (CK_COND).
    pub wants_registers: bool,
    /// 48-bit registers.
    pub is_wide: bool,
}

/// Makes an ATA command of a pass-through command. Pure.
///
/// # Errors
/// [`BadCdb`]: another command, a protocol that is a reset or queued, a length elsewhere than in features or count.
pub fn parse(cdb: &[u8], timeout: Duration) -> Result<SatCommand, BadCdb> {
    let bad = |byte| Err(BadCdb { byte });
    let at = |index: usize| cdb.get(index).copied().unwrap_or(0);
    let is_wide = at(0) == LONG && at(1) & 1 != 0;
    let (registers, command) = match at(0) {
        LONG if cdb.len() >= 16 => {
            // The upper bytes mean something only in a wide command.
            let high = |index| if is_wide { at(index) } else { 0 };
            let registers = Registers {
                features: u16::from_be_bytes([high(3), at(4)]),
                count: u16::from_be_bytes([high(5), at(6)]),
                lba: u64::from_le_bytes([at(8), at(10), at(12), high(7), high(9), high(11), 0, 0]),
                device: at(13),
            };
            (registers, at(14))
        }
        SHORT if cdb.len() >= 12 => {
            let lba = u64::from_le_bytes([at(5), at(6), at(7), 0, 0, 0, 0, 0]);
            (Registers { features: at(3).into(), count: at(4).into(), lba, device: at(8) }, at(9))
        }
        _ => return bad(0),
    };
    let (how, protocol) = (at(2), at(1) >> 1 & 0xf);
    let inward = how & 8 != 0;
    let transport = match protocol {
        3 => Transport::None,
        4 | 10 => Transport::In,
        5 | 11 => Transport::Out,
        6 if inward => Transport::In,
        6 => Transport::Out,
        // Resets, queued commands, diagnostics.
        _ => return bad(1),
    };
    let units = match how & 3 {
        0 => 0,
        1 => registers.features,
        2 => registers.count,
        _ => return bad(2),
    };
    let in_blocks = how & 4 != 0;
    // In logical sectors: the command's own business, which we do not know.
    if in_blocks && how & 0x10 != 0 {
        return bad(2);
    }
    let len = usize::from(units) * if in_blocks { BLOCK } else { 1 };
    if (transport == Transport::None) != (len == 0) || (len != 0 && inward != (transport == Transport::In)) {
        return bad(2);
    }
    let taskfile = Taskfile { command: Command(command), registers };
    let pass = PassThrough { taskfile, cdb: None, transport, timeout };
    Ok(SatCommand { pass, len, wants_registers: how & 0x20 != 0, is_wide })
}

/// Sense data of the descriptor format with the registers of a command [SAT-3, 12.2.6].
pub type SatSense = [u8; 22];

/// How a pass-through command ended, as a SCSI status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SatStatus {
    /// GOOD.
    Good,
    /// CHECK CONDITION: the sense data say why. That may be that all is well and here are the registers.
    Check(SatSense),
}

/// Sense data for this key, code and qualifier, with the registers.
fn sense((key, asc, ascq): (SenseKey, u8, u8), registers: &Returned, is_wide: bool) -> SatSense {
    let [l0, l1, l2, l3, l4, l5, ..] = registers.lba.to_le_bytes();
    let [count, count_high] = registers.count.to_le_bytes();
    let wide = |byte| if is_wide { byte } else { 0 };
    [
        0x72,
        key.0,
        asc,
        ascq,
        0,
        0,
        0,
        14,
        0x09,
        12,
        u8::from(is_wide),
        registers.error,
        wide(count_high),
        count,
        wide(l3),
        l0,
        wide(l4),
        l1,
        wide(l5),
        l2,
        registers.device,
        registers.status,
    ]
}

/// What an ATA error is in SCSI [SAT-3, 11.6].
const fn meaning(registers: &Returned) -> (SenseKey, u8, u8) {
    if registers.status & AtaStatus::DF != 0 {
        (SenseKey::HARDWARE, 0x44, 0)
    } else if registers.error & AtaError::UNC != 0 {
        (SenseKey::MEDIUM, 0x11, 0)
    } else if registers.error & AtaError::IDNF != 0 {
        (SenseKey::ILLEGAL_REQUEST, 0x21, 0)
    } else if registers.error & AtaError::ICRC != 0 {
        (SenseKey::ABORTED, 0x47, 3)
    } else {
        (SenseKey::ABORTED, 0, 0)
    }
}

impl<H: AhciHal + Clone, W: Window> Ahci<H, W> {
    /// Runs an ATA PASS-THROUGH (12) or (16) command at port `number`; its data is the front of `data`. May block, for
    /// `timeout` and what is under way; allocates. What goes wrong is said as a SCSI target says it.
    pub fn sat(
        &self,
        number: u8,
        cdb: &[u8],
        data: &mut [u8],
        timeout: Duration,
        w: &mut dyn Wait,
    ) -> SatStatus {
        let none = Returned::default();
        let invalid = SatStatus::Check(sense((SenseKey::ILLEGAL_REQUEST, 0x24, 0), &none, false));
        let Ok(command) = parse(cdb, timeout) else { return invalid };
        let Some(data) = data.get_mut(..command.len) else { return invalid };
        let (key, registers) = match self.pass_through(number, command.pass, data, w) {
            Ok(_) if !command.wants_registers => return SatStatus::Good,
            Ok(registers) => ((SenseKey::RECOVERED, 0, 0x1d), registers),
            Err(PassError::Failed(registers)) => (meaning(&registers), registers),
            Err(PassError::Length { .. } | PassError::Queued) => return invalid,
            // No response; no such unit.
            Err(PassError::Timeout) => ((SenseKey::ABORTED, 0x2e, 2), none),
            Err(PassError::Gone) => ((SenseKey::NOT_READY, 0x04, 0), none),
        };
        SatStatus::Check(sense(key, &registers, command.is_wide))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_smartctl_sends() {
        // SMART READ DATA, both forms; SMART RETURN STATUS, which wants the registers.
        let long = [0x85, 0x08, 0x0e, 0, 0xd0, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0];
        let short = [0xa1, 0x08, 0x0e, 0xd0, 1, 0, 0x4f, 0xc2, 0, 0xb0, 0, 0];
        for cdb in [&long[..], &short] {
            let command = parse(cdb, SECOND).unwrap();
            let expected = Taskfile::smart(crate::spec::Feature::SMART_READ_DATA, 1);
            assert_eq!((command.pass.taskfile, command.len), (expected, 512));
            assert_eq!((command.pass.transport, command.wants_registers), (Transport::In, false));
        }
        let status = [0x85, 0x06, 0x2c, 0, 0xda, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0];
        let command = parse(&status, SECOND).unwrap();
        assert_eq!((command.pass.transport, command.len), (Transport::None, 0));
        assert!(command.wants_registers);
    }

    #[test]
    fn a_wide_command_has_48_bits_in_their_odd_order() {
        let cdb = [0x85, 0x09, 0x0e, 1, 2, 0, 1, 0x44, 0x11, 0x55, 0x22, 0x66, 0x33, 0x40, 0x2f, 0];
        let command = parse(&cdb, SECOND).unwrap();
        let registers = Registers { features: 0x102, lba: 0x6655_4433_2211, count: 1, device: 0x40 };
        assert_eq!(command.pass.taskfile, Taskfile { command: Command::READ_LOG_EXT, registers });
        let returned = Returned { status: 0x50, error: 0, lba: 0x6655_4433_2211, count: 0x102, device: 0x40 };
        let sense = sense((SenseKey::RECOVERED, 0, 0x1d), &returned, true);
        let registers = [1, 0, 1, 2, 0x44, 0x11, 0x55, 0x22, 0x66, 0x33, 0x40, 0x50];
        assert_eq!((sense[..4].to_vec(), &sense[10..]), ([0x72, 1, 0, 0x1d].to_vec(), &registers[..]));
    }

    #[test]
    fn what_cannot_be_done_is_refused_where_it_stands() {
        let byte = |cdb: &[u8]| parse(cdb, SECOND).unwrap_err().byte;
        assert_eq!(byte(&[]), 0);
        assert_eq!(byte(&[0x12; 16]), 0);
        assert_eq!(byte(&[0x85; 15]), 0);
        // Queued; a reset; a length in the transport's own place; data without a direction.
        assert_eq!(byte(&[0x85, 12 << 1, 0x0e, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x60, 0]), 1);
        assert_eq!(byte(&[0x85, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1);
        assert_eq!(byte(&[0x85, 8, 0x0f, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0]), 2);
        assert_eq!(byte(&[0x85, 8, 0x06, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0]), 2);
    }
}
