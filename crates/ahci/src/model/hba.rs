//! The adapter's registers, and what goes wrong.

use alloc::vec::Vec;

use super::port::{Outside, Port};
use super::{Abilities, Counts, DeviceMemory, Drive, Fault, Mistake, Pattern};
use crate::spec::{BOHC, Bohc, CAP, CAP2, Cap, Cap2, GHC, Ghc, IS, PI, PORT_BYTES, PORTS, VS};

pub(super) struct Hba {
    pub(super) counts: Counts,
    abilities: Abilities,
    ports: Vec<Port>,
    ghc: Ghc,
    is: u32,
    bohc: Bohc,
    /// Accesses until a reset is done.
    resetting: u64,
    stuck_reset: bool,
    gone: bool,
    accesses_left: Option<u64>,
    registers: Vec<(usize, u32)>,
    mistakes: Vec<(Pattern, Mistake)>,
    /// The interrupt was raised since the last look.
    raised: bool,
}

impl Hba {
    pub(super) fn new(drives: Vec<Option<Drive>>, abilities: Abilities) -> Self {
        let of_drives = 1_u64.checked_shl(drives.len() as u32).map_or(u32::MAX, |bit| (bit - 1) as u32);
        let pi = abilities.pi | of_drives;
        let mut drives = drives.into_iter();
        let count = u32::BITS - pi.leading_zeros();
        let ports = (0..count.max(1)).map(|_| Port::new(drives.next().flatten(), &abilities)).collect();
        Self {
            counts: Counts::default(),
            abilities: Abilities { pi, ..abilities },
            ports,
            ghc: Ghc::new(),
            is: 0,
            bohc: Bohc::new().with_bos(abilities.bios),
            resetting: 0,
            stuck_reset: false,
            gone: false,
            accesses_left: None,
            registers: Vec::new(),
            mistakes: Vec::new(),
            raised: false,
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        let port = |ports: &mut Vec<Port>, number: u8, f: &mut dyn FnMut(&mut Port)| {
            if let Some(port) = ports.get_mut(usize::from(number)) {
                f(port);
            }
        };
        match fault {
            Fault::AllOnes => self.gone = true,
            Fault::AllOnesAfter(accesses) => self.accesses_left = Some(accesses),
            Fault::StuckReset => self.stuck_reset = true,
            Fault::StuckEngine(number) => port(&mut self.ports, number, &mut |port| port.stuck_engine = true),
            Fault::StuckBusy(number) => port(&mut self.ports, number, &mut |port| port.stuck_busy = true),
            Fault::NoLink(number, times) => port(&mut self.ports, number, &mut |port| port.no_link = times),
            Fault::Register { offset, value } => self.registers.push((offset, value)),
            Fault::Identify { port: number, word, value } => port(&mut self.ports, number, &mut |port| {
                if let Some(drive) = &mut port.drive {
                    drive.lies.push((word, value));
                }
            }),
            Fault::Spurious(number, bits) => {
                port(&mut self.ports, number, &mut |port| port.is = port.is.or(bits));
                self.collect(true);
            }
            Fault::Command(pattern, mistake) => self.mistakes.push((pattern, mistake)),
        }
    }

    pub(super) fn drive_mut(&mut self, port: u8) -> Option<&mut Drive> {
        self.ports.get_mut(usize::from(port))?.drive.as_mut()
    }

    pub(super) fn unplug(&mut self, port: u8) -> Option<Drive> {
        let drive = self.ports.get_mut(usize::from(port))?.unplug();
        self.collect(false);
        drive
    }

    pub(super) fn plug(&mut self, port: u8, drive: Drive) {
        if let Some(port) = self.ports.get_mut(usize::from(port)) {
            port.plug(drive, &self.abilities);
        }
        self.collect(false);
    }

    pub(super) fn is_asserted(&self) -> bool {
        self.ghc.ie() && self.is != 0 && !self.gone
    }

    pub(super) fn take_raised(&mut self) -> bool {
        let raised = core::mem::take(&mut self.raised) && !self.gone;
        self.counts.interrupts += u64::from(raised);
        raised
    }

    /// Latches what ports announce; `again` if what is pending is announced anew.
    fn collect(&mut self, again: bool) {
        let (mut is, mut hushed) = (self.is, 0);
        let mut fresh = false;
        for (number, port) in self.ports.iter_mut().enumerate() {
            if port.is.any(port.ie) {
                is |= 1 << number;
            }
            hushed |= u32::from(core::mem::take(&mut port.hushed)) << number;
            fresh |= core::mem::take(&mut port.fresh);
        }
        fresh |= is & !self.is & !hushed != 0;
        self.is = is;
        self.raised |= self.is_asserted() && (fresh || again);
    }

    /// Whether somebody still answers; one access more, for which time goes on.
    fn is_there(&mut self, memory: &impl DeviceMemory) -> bool {
        match &mut self.accesses_left {
            Some(0) => self.gone = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.gone {
            return false;
        }
        if self.resetting > 0 && !self.stuck_reset {
            self.resetting -= 1;
            if self.resetting == 0 {
                self.ghc = Ghc::new();
                self.is = 0;
                for port in &mut self.ports {
                    port.power_on(&self.abilities);
                }
            }
        }
        for port in &mut self.ports {
            port.pass_time(memory, &mut self.counts);
        }
        true
    }

    pub(super) fn read(&mut self, offset: usize, memory: &impl DeviceMemory) -> u32 {
        if !self.is_there(memory) {
            return u32::MAX;
        }
        self.counts.reads += 1;
        self.collect(false);
        if let Some(&(_, value)) = self.registers.iter().rev().find(|&&(at, _)| at == offset) {
            return value;
        }
        if let Some(at) = offset.checked_sub(PORTS) {
            let port = self.ports.get(at / PORT_BYTES).filter(|_| self.is_implemented(at / PORT_BYTES));
            return port.map_or(0, |port| port.read(at % PORT_BYTES));
        }
        match offset {
            o if o == CAP.offset() => self.cap().into_bits(),
            o if o == GHC.offset() => self.ghc.into_bits(),
            o if o == IS.offset() => self.is,
            o if o == PI.offset() => self.abilities.pi,
            o if o == VS.offset() => 0x0001_0301,
            o if o == CAP2.offset() => Cap2::new().with_boh(self.abilities.bios).into_bits(),
            o if o == BOHC.offset() => {
                let says = self.bohc.into_bits();
                // It cleans up while it is looked at.
                if self.bohc.oos() {
                    self.bohc = self.bohc.with_bos(false).with_bb(false);
                }
                says
            }
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, offset: usize, value: u32, memory: &impl DeviceMemory) {
        if !self.is_there(memory) {
            return;
        }
        self.counts.writes += 1;
        let mut again = false;
        if let Some(at) = offset.checked_sub(PORTS) {
            let number = at / PORT_BYTES;
            if self.resetting > 0 || !self.is_implemented(number) || self.bohc.bos() {
                self.counts.misuse += 1;
                return;
            }
            let Self { ports, counts, abilities, mistakes, .. } = self;
            if let Some(port) = ports.get_mut(number) {
                let mut outside = Outside { memory, counts, abilities, mistakes, number: number as u8 };
                port.write(at % PORT_BYTES, value, &mut outside);
            }
        } else {
            match offset {
                o if o == GHC.offset() => {
                    let ghc = Ghc::from_bits(value);
                    again = ghc.ie() && !self.ghc.ie();
                    self.ghc = ghc;
                    if ghc.hr() {
                        self.counts.hba_resets += 1;
                        self.resetting = self.abilities.settling + 1;
                        if !self.stuck_reset {
                            self.ports.iter_mut().for_each(Port::halt);
                        }
                    }
                }
                o if o == IS.offset() => {
                    self.is &= !value;
                    again = true;
                }
                o if o == BOHC.offset() => {
                    let asked = Bohc::from_bits(value);
                    let bb = self.bohc.bos() && asked.oos();
                    self.bohc = Bohc::new().with_bos(self.bohc.bos()).with_oos(asked.oos()).with_bb(bb);
                }
                _ => self.counts.misuse += 1,
            }
        }
        self.collect(again);
    }

    fn is_implemented(&self, port: usize) -> bool {
        self.abilities.pi.checked_shr(port as u32).is_some_and(|bits| bits & 1 != 0)
    }

    fn cap(&self) -> Cap {
        let Abilities { ncs_z, sncq, s64a, sclo, sss, salp, .. } = self.abilities;
        Cap::new()
            .with_np_z((self.ports.len() - 1) as u8)
            .with_ncs_z(ncs_z)
            .with_sncq(sncq)
            .with_s64a(s64a)
            .with_sclo(sclo)
            .with_sss(sss)
            .with_salp(salp)
            .with_psc(salp)
            .with_ssc(salp)
            .with_sam(true)
            .with_iss(3)
    }
}
