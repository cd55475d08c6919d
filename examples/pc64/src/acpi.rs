//! ACPI's MADT: which CPUs and I/O APICs there are.

use alloc::vec::Vec;

use crate::apic;
use crate::firmware::{self, u32_at, u64_at};

/// More than any machine has.
const MOST_TABLES: usize = 256;
const HEADER: usize = 36;
const LONGEST_TABLE: usize = 1 << 20;

/// What the MADT says.
#[derive(Debug, Default)]
pub struct Madt {
    /// APIC numbers of the CPUs that can be used, each once.
    pub cpus: Vec<u32>,
    /// Registers and first interrupt of each I/O APIC.
    pub io_apics: Vec<(u32, u32)>,
    /// Where ISA interrupts come in, unless under their own number: ISA number, I/O APIC number.
    overrides: Vec<(u8, u32)>,
}

impl Madt {
    /// Finds and reads it, from the root pointer at `rsdp` on.
    pub fn read(rsdp: u64) -> Option<Self> {
        let root = firmware::bytes(rsdp, 20)?;
        if !root.starts_with(b"RSD PTR ") {
            return None;
        }
        let madt = extended(rsdp, root[15]).or_else(|| {
            let tables = table(u32_at(root, 16)?.into(), b"RSDT")?.get(HEADER..)?.chunks_exact(4);
            tables.take(MOST_TABLES).find_map(|at| table(u32_at(at, 0)?.into(), b"APIC"))
        })?;
        Some(Self::of(madt.get(HEADER + 8..)?))
    }

    /// What the entries of a table say.
    pub fn of(mut entries: &[u8]) -> Self {
        let mut found = Self::default();
        // Each entry says its own length; one that says less than its head ends the list.
        while let Some((entry, rest)) =
            entries.get(1).filter(|&&len| len >= 2).and_then(|&len| entries.split_at_checked(len.into()))
        {
            found.entry(entry);
            entries = rest;
        }
        found
    }

    fn entry(&mut self, entry: &[u8]) -> Option<()> {
        const USABLE: u32 = 1;
        match entry[0] {
            0 if u32_at(entry, 4)? & USABLE != 0 => self.cpu((*entry.get(3)?).into()),
            9 if u32_at(entry, 8)? & USABLE != 0 => self.cpu(u32_at(entry, 4)?),
            1 => self.io_apics.push((u32_at(entry, 4)?, u32_at(entry, 8)?)),
            2 => self.overrides.push((*entry.get(3)?, u32_at(entry, 4)?)),
            _ => {}
        }
        Some(())
    }

    fn cpu(&mut self, apic: u32) {
        if apic < apic::BROADCAST && !self.cpus.contains(&apic) {
            self.cpus.push(apic);
        }
    }

    /// The I/O APIC's number of an ISA interrupt.
    pub fn isa_interrupt(&self, irq: u8) -> u32 {
        self.overrides.iter().find(|(isa, _)| *isa == irq).map_or(irq.into(), |&(_, number)| number)
    }
}

/// The MADT by the table of wide addresses, which root pointers have from revision 2 on.
fn extended(rsdp: u64, revision: u8) -> Option<&'static [u8]> {
    let root = firmware::bytes(rsdp, 36).filter(|_| revision >= 2)?;
    let tables = table(u64_at(root, 24)?, b"XSDT")?.get(HEADER..)?.chunks_exact(8);
    tables.take(MOST_TABLES).find_map(|at| table(u64_at(at, 0)?, b"APIC"))
}

/// The table at `at`, if it has that signature and its sum is right.
fn table(at: u64, signature: &[u8; 4]) -> Option<&'static [u8]> {
    let len = u32_at(firmware::bytes(at, HEADER)?, 4)? as usize;
    let table = firmware::bytes(at, len).filter(|_| (HEADER..=LONGEST_TABLE).contains(&len))?;
    let sum = table.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    (table.starts_with(signature) && sum == 0).then_some(table)
}
