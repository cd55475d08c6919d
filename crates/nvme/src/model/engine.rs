//! The state machine of the model.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use dfly_bio::{Access, Failure};
use dfly_hal::dma::DevAddr;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::{Abilities, Counts, DeviceMemory, Disk, Fault, Mistake, walk};
use crate::spec::{
    ACQ, AQA, ASQ, Aqa, CAP, CC, CSTS, Cap, Cc, Command, Completion, Csts, DOORBELLS, Feature, Generic,
    INTMC, INTMS, IdentifyController, IdentifyNamespace, IdentifyWhat, LbaFormat, Media, Opcode, StatusField,
    VS,
};

/// Status: code type and code.
type Code = (u8, u8);
const OK: Code = (0, Generic::SUCCESS.0);
const BAD_FIELD: Code = (0, Generic::INVALID_FIELD.0);
const BAD_OPCODE: Code = (0, Generic::INVALID_OPCODE.0);
const BAD_DATA: Code = (0, Generic::DATA_TRANSFER.0);
const READ_ONLY: Code = (0, Generic::WRITE_PROTECTED.0);
const PAGE: u64 = 4096;
/// Bytes that go between a medium and memory at once.
const BUFFER: usize = 64 << 10;

/// Interrupt vectors that wait to be raised.
#[derive(Clone, Copy, Default)]
pub(super) struct Raised([u64; 4]);

impl Raised {
    const MOST: u16 = 256;

    fn raise(&mut self, vector: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vector / 64)) {
            *word |= 1 << (vector % 64);
        }
    }

    pub(super) fn vectors(self) -> impl Iterator<Item = u16> {
        let is_raised = move |&vector: &u16| {
            self.0.get(usize::from(vector / 64)).is_some_and(|word| word >> (vector % 64) & 1 != 0)
        };
        (0..Self::MOST).filter(is_raised)
    }
}

#[derive(Clone, Copy)]
struct SubQueue {
    base: u64,
    size_z: u16,
    head: u16,
    cq: u16,
}

#[derive(Clone, Copy)]
struct CompQueue {
    base: u64,
    size_z: u16,
    tail: u16,
    /// As the driver said.
    head: u16,
    phase: bool,
    vector: Option<u16>,
}

pub(super) struct Engine {
    pub(super) disks: Vec<Disk>,
    pub(super) counts: Counts,
    pub(super) raised: Raised,
    abilities: Abilities,
    cc: Cc,
    csts: Csts,
    aqa: u32,
    asq: u64,
    acq: u64,
    masked: u32,
    sqs: Vec<Option<SubQueue>>,
    cqs: Vec<Option<CompQueue>>,
    gone: bool,
    /// Register accesses until it is gone.
    accesses_left: Option<u64>,
    never_ready: bool,
    stuck: bool,
    registers: Vec<(usize, u32)>,
    identify: Vec<(IdentifyWhat, u16, u8)>,
    /// For I/O commands to come.
    io: VecDeque<Mistake>,
    /// For admin commands to come.
    admin: Vec<(u8, Mistake)>,
    buffer: Box<[u8]>,
    /// The memory of the command that is executed.
    runs: Vec<(u64, usize)>,
}

const fn low(old: u64, value: u32) -> u64 {
    old & !0xffff_ffff | value as u64
}

const fn high(old: u64, value: u32) -> u64 {
    old & 0xffff_ffff | (value as u64) << 32
}

impl Engine {
    pub(super) fn new(disks: Vec<Disk>, abilities: Abilities) -> Self {
        let queues = usize::from(abilities.queues) + 1;
        Self {
            disks,
            counts: Counts::default(),
            raised: Raised::default(),
            abilities,
            cc: Cc::new(),
            csts: Csts::new(),
            aqa: 0,
            asq: 0,
            acq: 0,
            masked: 0,
            sqs: core::iter::repeat_with(|| None).take(queues).collect(),
            cqs: core::iter::repeat_with(|| None).take(queues).collect(),
            gone: false,
            accesses_left: None,
            never_ready: false,
            stuck: false,
            registers: Vec::new(),
            identify: Vec::new(),
            io: VecDeque::new(),
            admin: Vec::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            runs: Vec::new(),
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::AllOnes => self.gone = true,
            Fault::AllOnesAfter(accesses) => self.accesses_left = Some(accesses),
            Fault::NeverReady => self.never_ready = true,
            Fault::FatalStatus => self.csts.set_cfs(true),
            Fault::Stuck => self.stuck = true,
            Fault::Register { offset, value } => self.registers.push((offset, value)),
            Fault::Identify { what, offset, value } => self.identify.push((what, offset, value)),
            Fault::Io(mistake) => self.io.push_back(mistake),
            Fault::Admin(opcode, mistake) => self.admin.push((opcode, mistake)),
        }
    }

    pub(super) fn disk_mut(&mut self, nsid: u32) -> Option<&mut Disk> {
        self.disks.get_mut((nsid as usize).checked_sub(1)?)
    }

    /// Whether somebody still answers; one access more.
    fn is_there(&mut self) -> bool {
        match &mut self.accesses_left {
            Some(0) => self.gone = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.gone
    }

    fn cap(&self) -> Cap {
        Cap::new()
            .with_mqes_z(self.abilities.mqes_z)
            .with_cqr(true)
            .with_to(self.abilities.to)
            .with_dstrd(self.abilities.dstrd)
            .with_css(1)
            .with_mpsmax(4)
    }

    pub(super) fn read(&mut self, offset: usize) -> u32 {
        const CAP_HIGH: usize = CAP.offset() + 4;
        const ASQ_HIGH: usize = ASQ.offset() + 4;
        const ACQ_HIGH: usize = ACQ.offset() + 4;
        if !self.is_there() {
            return u32::MAX;
        }
        if let Some(&(_, value)) = self.registers.iter().rev().find(|&&(at, _)| at == offset) {
            return value;
        }
        let cap = self.cap().into_bits();
        match offset {
            o if o == CAP.offset() => cap as u32,
            CAP_HIGH => (cap >> 32) as u32,
            o if o == VS.offset() => 0x0001_0400,
            o if o == INTMS.offset() || o == INTMC.offset() => self.masked,
            o if o == CC.offset() => self.cc.into_bits(),
            o if o == CSTS.offset() => self.csts.into_bits(),
            o if o == AQA.offset() => self.aqa,
            o if o == ASQ.offset() => self.asq as u32,
            ASQ_HIGH => (self.asq >> 32) as u32,
            o if o == ACQ.offset() => self.acq as u32,
            ACQ_HIGH => (self.acq >> 32) as u32,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, offset: usize, value: u32, memory: &impl DeviceMemory) {
        const ASQ_HIGH: usize = ASQ.offset() + 4;
        const ACQ_HIGH: usize = ACQ.offset() + 4;
        match offset {
            _ if !self.is_there() => {}
            o if o >= DOORBELLS.offset() => self.doorbell(o - DOORBELLS.offset(), value, memory),
            // Not to be touched with MSI-X.
            o if (o == INTMS.offset() || o == INTMC.offset()) && self.has_vectors() => {
                self.counts.misuse += 1
            }
            o if o == INTMS.offset() => self.masked |= value,
            o if o == INTMC.offset() => self.unmask(value),
            o if o == CC.offset() => self.configure(Cc::from_bits(value)),
            o if o == AQA.offset() => self.aqa = value,
            o if o == ASQ.offset() => self.asq = low(self.asq, value),
            ASQ_HIGH => self.asq = high(self.asq, value),
            o if o == ACQ.offset() => self.acq = low(self.acq, value),
            ACQ_HIGH => self.acq = high(self.acq, value),
            _ => self.counts.misuse += 1,
        }
    }

    /// Whether MSI-X is in use.
    fn has_vectors(&self) -> bool {
        self.cqs.iter().flatten().any(|cq| cq.vector.is_some_and(|vector| vector != 0))
    }

    fn is_masked(&self, vector: u16) -> bool {
        self.masked >> vector.min(31) & 1 != 0 && !self.has_vectors()
    }

    /// A pin is a level: what is unread when it is unmasked is announced again.
    fn unmask(&mut self, value: u32) {
        self.masked &= !value;
        for cq in self.cqs.iter().flatten().filter(|cq| cq.head != cq.tail) {
            if let Some(vector) = cq.vector
                && !self.is_masked(vector)
            {
                self.raised.raise(vector);
            }
        }
    }

    fn configure(&mut self, cc: Cc) {
        let was = core::mem::replace(&mut self.cc, cc);
        if self.stuck {
            return;
        }
        if was.en() && !cc.en() {
            self.csts = Csts::new();
            self.masked = 0;
            self.sqs.fill(None);
            self.cqs.fill(None);
        } else if !was.en() && cc.en() {
            let aqa = Aqa::from_bits(self.aqa);
            let sane = cc.iosqes() == 6 && cc.iocqes() == 4 && cc.mps() == 0;
            let sane = sane
                && self.asq.is_multiple_of(PAGE)
                && self.acq.is_multiple_of(PAGE)
                && aqa.asqs_z() > 0
                && aqa.acqs_z() > 0;
            let sq = SubQueue { base: self.asq, size_z: aqa.asqs_z(), head: 0, cq: 0 };
            let cq = CompQueue {
                base: self.acq,
                size_z: aqa.acqs_z(),
                tail: 0,
                head: 0,
                phase: true,
                vector: Some(0),
            };
            if let (Some(admin_sq), Some(admin_cq)) = (self.sqs.first_mut(), self.cqs.first_mut()) {
                (*admin_sq, *admin_cq) = (Some(sq), Some(cq));
            }
            self.csts.set_cfs(self.csts.cfs() || !sane);
            self.csts.set_rdy(sane && !self.never_ready);
        }
        if cc.shn() != 0 {
            self.csts.set_shst(2);
        }
    }

    fn doorbell(&mut self, offset: usize, value: u32, memory: &impl DeviceMemory) {
        let index = offset >> (2 + self.abilities.dstrd);
        let qid = index / 2;
        let Ok(value) = u16::try_from(value) else {
            self.counts.misuse += 1;
            return;
        };
        if !self.csts.rdy() || self.csts.cfs() || self.stuck {
            return;
        }
        if index % 2 == 1 {
            match self.cqs.get_mut(qid) {
                Some(Some(cq)) if value <= cq.size_z => cq.head = value,
                _ => self.counts.misuse += 1,
            }
            return;
        }
        match self.sqs.get(qid) {
            Some(Some(sq)) if value <= sq.size_z => {}
            _ => {
                self.counts.misuse += 1;
                return;
            }
        }
        self.counts.sq_doorbells += u64::from(qid != 0);
        // No more than the ring holds: the head walks to the tail.
        while let Some(Some(sq)) = self.sqs.get_mut(qid) {
            if sq.head == value {
                break;
            }
            let at = sq.base.wrapping_add(64 * u64::from(sq.head));
            sq.head = if sq.head >= sq.size_z { 0 } else { sq.head + 1 };
            let mut command = Command::new_zeroed();
            if !memory.read(DevAddr(at), command.as_mut_bytes()) {
                self.csts.set_cfs(true);
                return;
            }
            self.serve(qid as u16, &command, memory);
        }
    }

    /// Executes a command and completes it, or does what a mistake says.
    fn serve(&mut self, qid: u16, command: &Command, memory: &impl DeviceMemory) {
        let mistake = match qid {
            0 => {
                let mine = self.admin.iter().position(|&(opcode, _)| opcode == command.opcode);
                mine.map(|index| self.admin.remove(index).1)
            }
            _ => self.io.pop_front(),
        };
        let (code, result) = match mistake {
            Some(Mistake::Drop) => return,
            Some(Mistake::Status(sct, sc)) => ((sct, sc), 0),
            Some(Mistake::Nothing | Mistake::UnknownCid) => (OK, 0),
            _ if qid == 0 => self.admin(command, memory),
            _ => (self.execute(command, memory), 0),
        };
        let Some(Some(sq)) = self.sqs.get(usize::from(qid)).copied() else { return };
        let mut entry = Completion {
            result: result.into(),
            reserved: 0.into(),
            sqhd: sq.head.into(),
            sqid: qid.into(),
            cid: command.cid,
            status: 0.into(),
        };
        match mistake {
            Some(Mistake::UnknownCid) => entry.cid.set(command.cid.get() ^ 0x8000),
            Some(Mistake::WrongQueue) => entry.sqid.set(qid + 1),
            // Half a ring ahead.
            Some(Mistake::BadHead) => {
                let (head, size_z) = (u32::from(sq.head), u32::from(sq.size_z));
                entry.sqhd.set(((head + size_z / 2 + 1) % (size_z + 1)) as u16);
            }
            Some(Mistake::OldHead) => entry.sqhd.set(0),
            Some(Mistake::Duplicate) => self.complete(sq.cq, entry, code, Announce::Interrupt, memory),
            _ => {}
        }
        let announce = if mistake == Some(Mistake::Silent) { Announce::Not } else { Announce::Interrupt };
        self.complete(sq.cq, entry, code, announce, memory);
    }

    /// Writes a completion; its status and phase are still to be set.
    fn complete(
        &mut self,
        cqid: u16,
        mut entry: Completion,
        (sct, sc): Code,
        announce: Announce,
        memory: &impl DeviceMemory,
    ) {
        let Some(Some(cq)) = self.cqs.get_mut(usize::from(cqid)) else { return };
        let status =
            StatusField::new().with_phase(cq.phase).with_sc(sc).with_sct(sct).with_dnr((sct, sc) != OK);
        entry.status = status.into_bits().into();
        let next = if cq.tail >= cq.size_z { 0 } else { cq.tail + 1 };
        if next == cq.head {
            // The driver let it run over: a real controller would stall.
            self.counts.misuse += 1;
            return;
        }
        let at = cq.base.wrapping_add(16 * u64::from(cq.tail));
        cq.tail = next;
        cq.phase ^= next == 0;
        let vector = cq.vector;
        if !memory.write(DevAddr(at), entry.as_bytes()) {
            self.csts.set_cfs(true);
        }
        if let Some(vector) = vector
            && announce == Announce::Interrupt
            && !self.is_masked(vector)
        {
            self.raised.raise(vector);
        }
    }

    fn execute(&mut self, command: &Command, memory: &impl DeviceMemory) -> Code {
        self.counts.commands += 1;
        let Self { disks, abilities, counts, buffer, runs, .. } = self;
        let index = (command.nsid.get() as usize).wrapping_sub(1);
        let Some(disk) = disks.get_mut(index) else { return (0, Generic::INVALID_NAMESPACE.0) };
        let write = match command.opcode {
            Opcode::FLUSH => {
                counts.flushes += 1;
                return flush(disk);
            }
            Opcode::WRITE => true,
            Opcode::READ => false,
            _ => return BAD_OPCODE,
        };
        let blocks = u64::from(command.blocks_z()) + 1;
        if command.lba().checked_add(blocks).is_none_or(|end| end > disk.blocks()) {
            return (0, Generic::LBA_RANGE.0);
        }
        // No overflow: the bytes of a medium can be counted.
        let (at, len) = (command.lba() << disk.block_shift, blocks << disk.block_shift);
        if abilities.mdts != 0 && len > PAGE << abilities.mdts.min(20) {
            return BAD_FIELD;
        }
        if write && disk.medium.access() == Access::ReadOnly {
            return READ_ONLY;
        }
        counts.fua += u64::from(command.is_fua());
        counts.last_prp1 = command.prp1.get();
        let fetch = |entry| {
            let mut bytes = [0; 8];
            memory.read(entry, &mut bytes).then(|| u64::from_le_bytes(bytes))
        };
        runs.clear();
        let walked =
            walk((command.prp1.get(), command.prp2.get()), len, PAGE, fetch, |to, n| match runs.last_mut() {
                Some((start, len)) if start.checked_add(*len as u64) == Some(to.0) => *len += n,
                _ => runs.push((to.0, n)),
            });
        if walked.is_err() {
            return (0, Generic::PRP_OFFSET.0);
        }
        let mut pieces = pieces(runs, buffer.len());
        let moved = pieces.try_fold(at, |at, (address, n)| {
            let piece = buffer.get_mut(..n).unwrap_or_default();
            if write {
                if !memory.read(address, piece) {
                    return Err(BAD_DATA);
                }
                disk.medium.write(at, piece).map_err(|error| code_of(error, Media::WRITE_FAULT))?;
            } else {
                disk.medium.read(at, piece).map_err(|error| code_of(error, Media::UNRECOVERED_READ))?;
                if !memory.write(address, piece) {
                    return Err(BAD_DATA);
                }
            }
            Ok(at + n as u64)
        });
        match moved {
            Err(code) => code,
            Ok(_) if write && command.is_fua() => flush(disk),
            Ok(_) => OK,
        }
    }

    fn admin(&mut self, command: &Command, memory: &impl DeviceMemory) -> (Code, u32) {
        let (low, high) = (command.cdw10.get() as u16, (command.cdw10.get() >> 16) as u16);
        let arg = command.cdw11.get();
        let base = command.prp1.get();
        let code = match command.opcode {
            Opcode::ADMIN_IDENTIFY => self.identify(low as u8, command.nsid.get(), base, memory),
            Opcode::ADMIN_SET_FEATURES if low as u8 == Feature::NUMBER_OF_QUEUES.0 => {
                let granted_z = u32::from(self.abilities.queues.saturating_sub(1));
                return (OK, granted_z << 16 | granted_z);
            }
            Opcode::ADMIN_CREATE_CQ | Opcode::ADMIN_CREATE_SQ
                if high == 0 || high > self.abilities.mqes_z =>
            {
                (1, 0x02)
            }
            Opcode::ADMIN_CREATE_CQ | Opcode::ADMIN_CREATE_SQ if !base.is_multiple_of(PAGE) => {
                (0, Generic::PRP_OFFSET.0)
            }
            Opcode::ADMIN_CREATE_CQ
                if arg >> 16 != 0 && arg >> 16 >= u32::from(self.abilities.vectors.min(Raised::MOST)) =>
            {
                (1, 0x08)
            }
            Opcode::ADMIN_CREATE_CQ => match self.cqs.get_mut(usize::from(low)) {
                Some(cq @ None) => {
                    let vector = (arg & 2 != 0).then_some((arg >> 16) as u16);
                    *cq = Some(CompQueue { base, size_z: high, tail: 0, head: 0, phase: true, vector });
                    OK
                }
                _ => (1, 0x01),
            },
            Opcode::ADMIN_CREATE_SQ => {
                let cq = (arg >> 16) as u16;
                let there = cq != 0 && matches!(self.cqs.get(usize::from(cq)), Some(Some(_)));
                match self.sqs.get_mut(usize::from(low)) {
                    Some(_) if !there => (1, 0x00),
                    Some(sq @ None) => {
                        *sq = Some(SubQueue { base, size_z: high, head: 0, cq });
                        OK
                    }
                    _ => (1, 0x01),
                }
            }
            _ => BAD_OPCODE,
        };
        (code, 0)
    }

    fn identify(&self, what: u8, nsid: u32, to: u64, memory: &impl DeviceMemory) -> Code {
        let zeroes = [0_u8; 512];
        let mut done = (0..8).all(|i| memory.write(DevAddr(to.wrapping_add(512 * i)), &zeroes));
        done &= match IdentifyWhat(what) {
            IdentifyWhat::CONTROLLER => {
                let mut id = IdentifyController::new_zeroed();
                id.vid = U16::new(0x1b36);
                id.sn = *b"MODEL-1             ";
                id.mn = *b"dfly NVMe model                         ";
                id.fr = *b"1       ";
                id.mdts = self.abilities.mdts;
                id.ver = U32::new(0x0001_0400);
                (id.sqes, id.cqes) = (0x66, 0x44);
                id.nn = U32::new(self.disks.len() as u32);
                id.vwc = self.abilities.vwc;
                memory.write(DevAddr(to), id.as_bytes())
            }
            IdentifyWhat::NAMESPACE => {
                let disk = (nsid as usize).checked_sub(1).and_then(|index| self.disks.get(index));
                let Some(disk) = disk else { return (0, Generic::INVALID_NAMESPACE.0) };
                let mut id = IdentifyNamespace::new_zeroed();
                id.nsze = disk.blocks().into();
                id.nsattr = u8::from(disk.medium.access() == Access::ReadOnly);
                (id.ncap, id.nuse) = (id.nsze, id.nsze);
                id.lbaf[0] = LbaFormat::new().with_lbads(disk.block_shift).into_bits().into();
                memory.write(DevAddr(to), id.as_bytes())
            }
            IdentifyWhat::ACTIVE_NAMESPACES => {
                let above = nsid.saturating_add(1)..=self.disks.len() as u32;
                above.take(1024).enumerate().all(|(i, nsid)| {
                    memory.write(DevAddr(to.wrapping_add(4 * i as u64)), U32::new(nsid).as_bytes())
                })
            }
            _ => return BAD_FIELD,
        };
        for &(_, offset, value) in self.identify.iter().filter(|(of, ..)| of.0 == what) {
            done &= memory.write(DevAddr(to.wrapping_add(offset.into())), &[value]);
        }
        if done { OK } else { BAD_DATA }
    }
}

/// Whether a completion is told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announce {
    Interrupt,
    Not,
}

/// The status that says how a medium failed; `fault` where that says nothing more exact.
fn code_of(failure: Failure, fault: Media) -> Code {
    match failure {
        Failure::NoSpace => (0, Generic::CAPACITY.0),
        Failure::WriteProtected => READ_ONLY,
        _ => (2, fault.0),
    }
}

fn flush(disk: &mut Disk) -> Code {
    disk.medium.flush().map_or_else(|error| code_of(error, Media::WRITE_FAULT), |()| OK)
}

/// Runs of memory cut to pieces of at most `most` bytes.
fn pieces(runs: &[(u64, usize)], most: usize) -> impl Iterator<Item = (DevAddr, usize)> {
    runs.iter().flat_map(move |&(start, len)| {
        (0..len)
            .step_by(most.max(1))
            .map(move |from| (DevAddr(start.wrapping_add(from as u64)), most.min(len - from)))
    })
}
