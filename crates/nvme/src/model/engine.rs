//! The state machine of the model.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use dfly_bio::Image;
use dfly_hal::dma::DevAddr;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::{Abilities, Counts, DeviceMemory, Disk, Fault, walk};
use crate::spec::{
    ACQ, AQA, ASQ, Aqa, CAP, CC, CSTS, Cap, Cc, Command, Completion, Csts, DOORBELLS, Feature, Generic,
    INTMC, INTMS, IdentifyController, IdentifyNamespace, IdentifyWhat, LbaFormat, Opcode, StatusField, VS,
};

/// Status: code type and code.
type Code = (u8, u8);
const OK: Code = (0, Generic::SUCCESS.0);
const BAD_FIELD: Code = (0, Generic::INVALID_FIELD.0);
const BAD_OPCODE: Code = (0, Generic::INVALID_OPCODE.0);
const BAD_DATA: Code = (0, Generic::DATA_TRANSFER.0);
const PAGE: u64 = 4096;

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
    /// Vectors to raise, a bit each.
    pub(super) raised: u64,
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
    never_ready: bool,
    stuck: bool,
    /// For I/O commands to come.
    faults: VecDeque<Fault>,
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
            raised: 0,
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
            never_ready: false,
            stuck: false,
            faults: VecDeque::new(),
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::AllOnes => self.gone = true,
            Fault::NeverReady => self.never_ready = true,
            Fault::FatalStatus => self.csts.set_cfs(true),
            Fault::Stuck => self.stuck = true,
            command => self.faults.push_back(command),
        }
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

    pub(super) fn read(&self, offset: usize) -> u32 {
        const CAP_HIGH: usize = CAP.offset() + 4;
        const ASQ_HIGH: usize = ASQ.offset() + 4;
        const ACQ_HIGH: usize = ACQ.offset() + 4;
        let cap = self.cap().into_bits();
        match offset {
            _ if self.gone => u32::MAX,
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
            _ if self.gone => {}
            o if o >= DOORBELLS.offset() => self.doorbell(o - DOORBELLS.offset(), value, memory),
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

    /// A pin is a level: what is unread when it is unmasked is announced again.
    fn unmask(&mut self, value: u32) {
        self.masked &= !value;
        let unread = self.cqs.iter().flatten().filter(|cq| cq.head != cq.tail);
        let vectors = unread.filter_map(|cq| cq.vector).fold(0, |all, v| all | 1_u64 << (v & 63));
        self.raised |= vectors & !u64::from(self.masked);
    }

    fn configure(&mut self, cc: Cc) {
        let was = core::mem::replace(&mut self.cc, cc);
        if self.stuck {
            return;
        }
        if was.en() && !cc.en() {
            self.csts = Csts::new();
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
            if qid == 0 {
                let (code, result) = self.admin(&command, memory);
                self.complete(0, command.cid.get(), code, result, memory);
            } else {
                self.io(qid as u16, &command, memory);
            }
        }
    }

    fn complete(&mut self, qid: u16, cid: u16, (sct, sc): Code, result: u32, memory: &impl DeviceMemory) {
        let Some(Some(sq)) = self.sqs.get(usize::from(qid)).copied() else { return };
        let Some(Some(cq)) = self.cqs.get_mut(usize::from(sq.cq)) else { return };
        let status = StatusField::new().with_phase(cq.phase).with_sc(sc).with_sct(sct).with_dnr(sc != 0);
        let entry = Completion {
            result: result.into(),
            reserved: 0.into(),
            sqhd: sq.head.into(),
            sqid: qid.into(),
            cid: cid.into(),
            status: status.into_bits().into(),
        };
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
            && self.masked & 1_u32.checked_shl(vector.into()).unwrap_or(0) == 0
        {
            self.raised |= 1 << (vector & 63);
        }
    }

    fn io(&mut self, qid: u16, command: &Command, memory: &impl DeviceMemory) {
        let cid = command.cid.get();
        match self.faults.pop_front() {
            Some(Fault::Drop) => {}
            Some(Fault::Status(sct, sc)) => self.complete(qid, cid, (sct, sc), 0, memory),
            Some(Fault::UnknownCid) => self.complete(qid, cid ^ 0x8000, OK, 0, memory),
            fault => {
                let code = self.execute(command, memory);
                self.complete(qid, cid, code, 0, memory);
                if fault == Some(Fault::Duplicate) {
                    self.complete(qid, cid, code, 0, memory);
                }
            }
        }
    }

    fn execute(&mut self, command: &Command, memory: &impl DeviceMemory) -> Code {
        self.counts.commands += 1;
        let index = (command.nsid.get() as usize).wrapping_sub(1);
        let Some(disk) = self.disks.get_mut(index) else { return (0, Generic::INVALID_NAMESPACE.0) };
        let write = match command.opcode {
            Opcode::FLUSH => {
                self.counts.flushes += 1;
                return OK;
            }
            Opcode::WRITE => true,
            Opcode::READ => false,
            _ => return BAD_OPCODE,
        };
        let blocks = u64::from(command.blocks_z()) + 1;
        let len = blocks << disk.block_shift;
        if command.lba().checked_add(blocks).is_none_or(|end| end > disk.image.len() >> disk.block_shift) {
            return (0, Generic::LBA_RANGE.0);
        }
        if self.abilities.mdts != 0 && len > PAGE << self.abilities.mdts.min(20) {
            return BAD_FIELD;
        }
        self.counts.fua += u64::from(command.is_fua());
        self.counts.last_prp1 = command.prp1.get();
        transfer(&mut disk.image, command.lba() << disk.block_shift, len, command, write, memory)
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
                id.nsze = (disk.image.len() >> disk.block_shift).into();
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
        if done { OK } else { BAD_DATA }
    }
}

/// Moves the bytes of a read or write, page by page.
fn transfer(
    image: &mut Image,
    mut at: u64,
    len: u64,
    command: &Command,
    write: bool,
    memory: &impl DeviceMemory,
) -> Code {
    let mut buffer = [0_u8; PAGE as usize];
    let mut good = true;
    let fetch = |entry| {
        let mut bytes = [0; 8];
        memory.read(entry, &mut bytes).then(|| u64::from_le_bytes(bytes))
    };
    let walked = walk((command.prp1.get(), command.prp2.get()), len, PAGE, fetch, |to, n| {
        let piece = buffer.get_mut(..n).unwrap_or_default();
        if write {
            good = good && memory.read(to, piece) && image.write(at, piece).is_ok();
        } else {
            image.read(at, piece);
            good = good && memory.write(to, piece);
        }
        at += n as u64;
    });
    match walked {
        Err(_) => (0, Generic::PRP_OFFSET.0),
        Ok(()) if good => OK,
        Ok(()) => BAD_DATA,
    }
}
