//! A port: its registers, its link, its command list.

use alloc::vec::Vec;

use dfly_hal::dma::DevAddr;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::drive::{NoData, Outcome, Request, Transfer};
use super::{Abilities, Counts, DeviceMemory, Drive, Mistake, Pattern, QueueErrors, walk};
use crate::spec::{
    AtaError, AtaStatus, CommandHeader, D2h, FisType, H2d, HeaderFlags, PORTS, Port as Registers,
    PortCommand, PortInterrupts, Prd, QueuedError, ReceivedAt, SataControl, SataError, SataStatus,
    SetDeviceBits, TABLE_PRDT_AT, TaskFileData,
};

/// What a port needs of what is around it.
pub(super) struct Outside<'a, M: DeviceMemory> {
    pub(super) memory: &'a M,
    pub(super) counts: &'a mut Counts,
    pub(super) abilities: &'a Abilities,
    pub(super) mistakes: &'a mut Vec<(Pattern, Mistake)>,
    pub(super) number: u8,
}

/// A command that completes later.
struct Late {
    slot: u8,
    queued: bool,
    accesses: u64,
    outcome: Outcome,
}

pub(super) struct Port {
    pub(super) drive: Option<Drive>,
    pub(super) is: PortInterrupts,
    pub(super) ie: PortInterrupts,
    /// Something new is to be announced.
    pub(super) fresh: bool,
    /// What is there is not announced now.
    pub(super) hushed: bool,
    pub(super) stuck_engine: bool,
    pub(super) stuck_busy: bool,
    /// Resets after which the link still stays down.
    pub(super) no_link: u32,
    clb: u64,
    fb: u64,
    cmd: PortCommand,
    tfd: TaskFileData,
    sig: u32,
    ssts: SataStatus,
    sctl: SataControl,
    serr: SataError,
    sact: u32,
    ci: u32,
    settling: u64,
    /// Accesses until the link is up, the device is ready, the engine stops.
    link_in: Option<u64>,
    ready_in: Option<u64>,
    stop_in: Option<u64>,
    /// The device's first FIS waits for somebody to receive it.
    greets: bool,
    /// An error stopped the list, until ST is cleared.
    failed: bool,
    /// Slots that the device has and has not finished.
    held: u32,
    /// It has one of those, not queued, and takes nothing else.
    busy: bool,
    /// The engine was stopped while the device had commands: only a reset makes it forget them.
    stale: bool,
    late: Vec<Late>,
    runs: Vec<(u64, usize)>,
}

const fn low(old: u64, value: u32) -> u64 {
    old & !0xffff_ffff | value as u64
}

const fn high(old: u64, value: u32) -> u64 {
    old & 0xffff_ffff | (value as u64) << 32
}

/// The offset of a register in a port's.
macro_rules! at {
    ($name:ident) => {
        Registers(0).$name().offset() - PORTS
    };
}

impl Port {
    pub(super) fn new(drive: Option<Drive>, abilities: &Abilities) -> Self {
        let mut port = Self {
            drive,
            is: PortInterrupts::new(),
            ie: PortInterrupts::new(),
            fresh: false,
            hushed: false,
            stuck_engine: false,
            stuck_busy: false,
            no_link: 0,
            clb: 0,
            fb: 0,
            cmd: PortCommand::new(),
            tfd: TaskFileData::new(),
            sig: 0,
            ssts: SataStatus::new(),
            sctl: SataControl::new(),
            serr: SataError::new(),
            sact: 0,
            ci: 0,
            settling: abilities.settling,
            link_in: None,
            ready_in: None,
            stop_in: None,
            greets: false,
            failed: false,
            held: 0,
            busy: false,
            stale: false,
            late: Vec::new(),
            runs: Vec::new(),
        };
        port.power_on(abilities);
        port
    }

    /// As after an HBA reset.
    pub(super) fn power_on(&mut self, abilities: &Abilities) {
        self.halt();
        (self.clb, self.fb) = (0, 0);
        (self.is, self.ie) = (PortInterrupts::new(), PortInterrupts::new());
        (self.sctl, self.serr) = (SataControl::new(), SataError::new());
        self.cmd = PortCommand::new().with_sud(!abilities.sss).with_pod(!abilities.sss);
        self.begin_link();
    }

    /// Everything ends at once.
    pub(super) fn halt(&mut self) {
        (self.ci, self.sact, self.held) = (0, 0, 0);
        self.cmd = self.cmd.with_st(false).with_cr(false).with_fre(false).with_fr(false);
        self.late.clear();
        (self.failed, self.busy, self.stale, self.stuck_engine) = (false, false, false, false);
        self.stop_in = None;
        self.link_down();
    }

    fn link_down(&mut self) {
        self.ssts = SataStatus::new();
        self.tfd = TaskFileData::new().with_status(0x7f);
        self.sig = u32::MAX;
        (self.link_in, self.ready_in, self.greets) = (None, None, false);
    }

    /// The device is reset and greets, after a while.
    fn begin_link(&mut self) {
        self.link_down();
        let Some(drive) = &mut self.drive else { return };
        if !self.cmd.sud() {
            return;
        }
        drive.reset();
        self.ssts.set_det(1);
        if self.no_link > 0 {
            self.no_link -= 1;
        } else {
            self.link_in = Some(self.settling);
        }
    }

    pub(super) fn unplug(&mut self) -> Option<Drive> {
        let drive = self.drive.take()?;
        self.link_down();
        self.late.clear();
        self.announce_link();
        Some(drive)
    }

    pub(super) fn plug(&mut self, drive: Drive, _: &Abilities) {
        self.drive = Some(drive);
        (self.held, self.busy, self.stale) = (0, false, false);
        self.begin_link();
        self.announce_link();
    }

    fn announce_link(&mut self) {
        self.serr = self.serr.with_x(true).with_n(true);
        self.show_errors();
        self.fresh = true;
    }

    /// These three are as PxSERR says.
    fn show_errors(&mut self) {
        self.is = self.is.with_pcs(self.serr.x()).with_prcs(self.serr.n()).with_ufs(self.serr.f());
    }

    fn event(&mut self, bits: PortInterrupts) {
        self.is = self.is.or(bits);
        self.fresh |= bits.any(self.ie);
    }

    /// One access went by.
    pub(super) fn pass_time(&mut self, memory: &impl DeviceMemory, counts: &mut Counts) {
        fn due(left: &mut Option<u64>) -> bool {
            match left {
                Some(0) => {
                    *left = None;
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        }
        if due(&mut self.link_in) {
            self.ssts = SataStatus::new().with_det(3).with_spd(3).with_ipm(1);
            self.tfd = TaskFileData::new().with_status(AtaStatus::BSY);
            self.serr.set_x(true);
            self.show_errors();
            self.fresh = true;
            self.ready_in = Some(self.settling);
        }
        if due(&mut self.ready_in) && !self.stuck_busy {
            self.greets = true;
            self.greet(memory);
        }
        if due(&mut self.stop_in) {
            self.cmd.set_cr(false);
        }
        if self.late.is_empty() {
            return;
        }
        self.late.iter_mut().for_each(|late| late.accesses = late.accesses.saturating_sub(1));
        while let Some(index) = self.late.iter().position(|late| late.accesses == 0) {
            let late = self.late.remove(index);
            self.held &= !(1 << late.slot);
            self.busy &= late.queued;
            self.complete(late.slot, late.queued, &late.outcome, memory, counts);
        }
    }

    /// The device's first FIS, if somebody receives it.
    fn greet(&mut self, memory: &impl DeviceMemory) {
        let Some(drive) = self.drive.as_ref().filter(|_| self.greets && self.cmd.fre()) else { return };
        let (greeting, signature) = (drive.greeting(), drive.signature());
        self.greets = false;
        self.receive(ReceivedAt::D2h, greeting.as_bytes(), memory);
        self.tfd = TaskFileData::new().with_status(greeting.status).with_error(greeting.error);
        self.sig = signature.0;
        self.event(PortInterrupts::new().with_dhrs(true));
    }

    fn receive(&mut self, at: ReceivedAt, fis: &[u8], memory: &impl DeviceMemory) {
        if !memory.write(DevAddr(self.fb.wrapping_add(at as u64)), fis) {
            self.event(PortInterrupts::new().with_hbfs(true));
        }
    }

    pub(super) fn read(&self, offset: usize) -> u32 {
        match offset {
            o if o == at!(clb) => self.clb as u32,
            o if o == at!(clbu) => (self.clb >> 32) as u32,
            o if o == at!(fb) => self.fb as u32,
            o if o == at!(fbu) => (self.fb >> 32) as u32,
            o if o == at!(is) => self.is.into_bits(),
            o if o == at!(ie) => self.ie.into_bits(),
            o if o == at!(cmd) => self.cmd.into_bits(),
            o if o == at!(tfd) => self.tfd.into_bits(),
            o if o == at!(sig) => self.sig,
            o if o == at!(ssts) => self.ssts.into_bits(),
            o if o == at!(sctl) => self.sctl.into_bits(),
            o if o == at!(serr) => self.serr.into_bits(),
            o if o == at!(sact) => self.sact,
            o if o == at!(ci) => self.ci,
            _ => 0,
        }
    }

    pub(super) fn write<M: DeviceMemory>(&mut self, offset: usize, value: u32, outside: &mut Outside<'_, M>) {
        let runs = self.cmd.st() || self.cmd.cr();
        let receives = self.cmd.fre() || self.cmd.fr();
        match offset {
            o if o == at!(clb) && !runs && value.is_multiple_of(1024) => self.clb = low(self.clb, value),
            o if o == at!(clbu) && !runs && outside.abilities.s64a | (value == 0) => {
                self.clb = high(self.clb, value)
            }
            o if o == at!(fb) && !receives && value.is_multiple_of(256) => self.fb = low(self.fb, value),
            o if o == at!(fbu) && !receives && outside.abilities.s64a | (value == 0) => {
                self.fb = high(self.fb, value)
            }
            o if o == at!(is) => {
                self.is = PortInterrupts::from_bits(self.is.into_bits() & !value);
                self.show_errors();
            }
            o if o == at!(ie) => self.ie = PortInterrupts::from_bits(value),
            o if o == at!(cmd) => self.command(PortCommand::from_bits(value), outside),
            o if o == at!(sctl) => self.control(SataControl::from_bits(value), outside),
            o if o == at!(serr) => {
                self.serr = SataError::from_bits(self.serr.into_bits() & !value);
                self.show_errors();
            }
            o if o == at!(sact) && runs && value & self.sact == 0 => self.sact |= value,
            o if o == at!(ci) && runs && value & self.ci == 0 => {
                self.ci |= value;
                self.wake_link();
                self.process(outside);
                self.lower_link();
            }
            _ => outside.counts.misuse += 1,
        }
    }

    fn command<M: DeviceMemory>(&mut self, cmd: PortCommand, outside: &mut Outside<'_, M>) {
        let was = self.cmd;
        // What software cannot change.
        let mut now = cmd.with_cr(was.cr()).with_fr(was.fr()).with_ccs(was.ccs()).with_cps(was.cps());
        if now.clo() {
            outside.counts.misuse += u64::from(was.st() || !outside.abilities.sclo);
            if outside.abilities.sclo && !self.stuck_busy {
                self.tfd = self.tfd.with_status(self.tfd.status() & !(AtaStatus::BSY | AtaStatus::DRQ));
            }
            now.set_clo(false);
        }
        if now.fre() && !was.fre() {
            outside.counts.misuse += u64::from(self.fb == 0);
            now.set_fr(true);
        } else if was.fre() && !now.fre() {
            outside.counts.misuse += u64::from(was.cr());
            now.set_fr(false);
        }
        if now.st() && !was.st() {
            // Only where FISes are received, and a device is there that is not busy [10.3.1].
            let ready = now.fre() && !self.tfd.is_busy() && self.ssts.is_up() && !was.cr() && self.clb != 0;
            outside.counts.misuse += u64::from(!ready);
            now.set_cr(true);
            self.failed = false;
        } else if was.st() && !now.st() {
            (self.ci, self.sact) = (0, 0);
            now.set_ccs(0);
            self.failed = false;
            self.stale |= self.held != 0;
            if self.busy {
                self.tfd.set_status(AtaStatus::BSY);
            }
            self.late.clear();
            if !self.stuck_engine {
                self.stop_in = Some(self.settling);
            }
        }
        match now.icc() {
            1 => self.ssts.set_ipm(1),
            2 if outside.abilities.salp && self.ssts.is_up() => self.ssts.set_ipm(2),
            6 if outside.abilities.salp && self.ssts.is_up() => self.ssts.set_ipm(6),
            _ => {}
        }
        now.set_icc(0);
        let spins_up = now.sud() && !was.sud();
        self.cmd = now;
        if spins_up && self.ssts.det() == 0 {
            self.begin_link();
        }
        self.greet(outside.memory);
    }

    fn control<M: DeviceMemory>(&mut self, sctl: SataControl, outside: &mut Outside<'_, M>) {
        let was = core::mem::replace(&mut self.sctl, sctl);
        if sctl.det() == 1 && was.det() != 1 {
            outside.counts.misuse += u64::from(self.cmd.st());
            outside.counts.resets += 1;
            (self.held, self.busy, self.stale) = (0, false, false);
            self.late.clear();
            self.link_down();
        } else if was.det() == 1 && sctl.det() == 0 {
            self.begin_link();
        }
    }

    /// A link that saves power wakes for a command.
    fn wake_link(&mut self) {
        if self.ssts.is_up() && self.ssts.ipm() != 1 {
            self.ssts.set_ipm(1);
            self.serr = self.serr.with_w(true).with_n(true);
            self.show_errors();
        }
    }

    fn lower_link(&mut self) {
        let forbidden = if self.cmd.asp() { 2 } else { 1 };
        if self.cmd.alpe()
            && self.ci | self.sact == 0
            && self.ssts.is_up()
            && self.sctl.ipm() & forbidden == 0
        {
            self.ssts.set_ipm(if self.cmd.asp() { 6 } else { 2 });
            self.serr.set_n(true);
            self.show_errors();
            self.fresh = true;
        }
    }

    /// Goes through the command list.
    fn process<M: DeviceMemory>(&mut self, outside: &mut Outside<'_, M>) {
        for slot in 0..32_u8 {
            let bit = 1_u32 << slot;
            if self.failed || self.busy || self.drive.is_none() || !self.ssts.is_up() || self.stuck_busy {
                return;
            }
            if self.ci & bit == 0 || self.held & bit != 0 {
                continue;
            }
            if slot > outside.abilities.ncs_z {
                outside.counts.misuse += 1;
                continue;
            }
            if outside.abilities.says_ccs {
                self.cmd.set_ccs(slot);
            }
            self.send(slot, outside);
        }
    }

    fn send<M: DeviceMemory>(&mut self, slot: u8, outside: &mut Outside<'_, M>) {
        let bit = 1_u32 << slot;
        let Some((header, request)) = self.fetch(slot, outside.memory) else {
            self.fail(PortInterrupts::new().with_hbfs(true));
            return;
        };
        let queued = request.is_queued();
        let flags = HeaderFlags::from_bits(header.flags.get());
        // One class at a time; the tag is the slot; the frame is as long as it is.
        let mixed = queued != (self.sact & bit != 0) || (!queued && self.sact != 0);
        let tag = queued && request.registers.count >> 3 & 0x1f != u16::from(slot);
        let crooked = flags.cfl() != H2d::WORDS || header.prdbc.get() != 0 || flags.pmp() != 0;
        outside.counts.misuse +=
            u64::from(mixed) + u64::from(tag) + u64::from(crooked) + u64::from(self.stale);
        if queued {
            self.ci &= !bit;
        }
        let mistake = take_mistake(outside.mistakes, outside.number, &request);
        let aborted =
            Outcome { status: AtaStatus::GOOD | AtaStatus::ERR, error: AtaError::ABRT, ..Outcome::default() };
        let mut outcome = Outcome { status: AtaStatus::GOOD, ..Outcome::default() };
        match mistake {
            Some(Mistake::Vanish) => {
                drop(self.unplug());
                return;
            }
            Some(Mistake::Interface) => return self.fail(PortInterrupts::new().with_ifs(true)),
            Some(Mistake::HostBus) => return self.fail(PortInterrupts::new().with_hbfs(true)),
            Some(Mistake::Drop) => {
                self.held |= bit;
                self.busy = !queued;
                return;
            }
            Some(Mistake::Status(status, error)) => (outcome.status, outcome.error) = (status, error),
            Some(Mistake::Nothing) => {}
            _ if self.stale => outcome = aborted,
            _ => match self.execute(&header, &request, mistake == Some(Mistake::Corrupt), outside) {
                Ok(done) => outcome = done,
                Err(NoData::Bus) => return self.fail(PortInterrupts::new().with_hbfs(true)),
                Err(NoData::Short) => return self.fail(PortInterrupts::new().with_ofs(true)),
            },
        }
        if AtaStatus(outcome.status).is_error() {
            self.command_failed(slot, queued, &outcome, &request, outside);
            return;
        }
        match mistake {
            Some(Mistake::Delay(accesses)) => {
                self.held |= bit;
                self.busy = !queued;
                self.late.push(Late { slot, queued, accesses: accesses.max(1), outcome });
                return;
            }
            Some(Mistake::Duplicate) => {
                self.late.push(Late { slot, queued, accesses: 4, outcome });
            }
            _ => {}
        }
        let before = self.fresh;
        self.complete(slot, queued, &outcome, outside.memory, outside.counts);
        if mistake == Some(Mistake::Silent) {
            // As if the message had been lost on its way: the handler finds it when something else calls it.
            self.fresh = before;
            self.hushed = true;
        }
    }

    fn fetch(&self, slot: u8, memory: &impl DeviceMemory) -> Option<(CommandHeader, Request)> {
        let mut header = CommandHeader::new_zeroed();
        let at = self.clb.wrapping_add(32 * u64::from(slot));
        if !memory.read(DevAddr(at), header.as_mut_bytes()) {
            return None;
        }
        let table = table_of(&header);
        let (mut head, mut cdb) = ([0; size_of::<H2d>()], [0; 16]);
        if !memory.read(DevAddr(table), &mut head)
            || !memory.read(DevAddr(table.wrapping_add(0x40)), &mut cdb)
        {
            return None;
        }
        let fis = H2d::read_from_bytes(&head).ok()?;
        Some((
            header,
            Request { command: crate::spec::Command(fis.command), registers: fis.registers(), cdb },
        ))
    }

    fn execute<M: DeviceMemory>(
        &mut self,
        header: &CommandHeader,
        request: &Request,
        corrupt: bool,
        outside: &mut Outside<'_, M>,
    ) -> Result<Outcome, NoData> {
        let Self { runs, drive: Some(drive), .. } = self else { return Err(NoData::Bus) };
        let prdt = table_of(header).wrapping_add(TABLE_PRDT_AT as u64);
        let fetch = |index: u16| {
            let mut entry = Prd::new_zeroed();
            let at = DevAddr(prdt.wrapping_add(16 * u64::from(index)));
            outside.memory.read(at, entry.as_mut_bytes()).then_some(entry)
        };
        runs.clear();
        walk(header.prdtl.get(), u64::MAX, fetch, |at, len| runs.push((at.0, len)))
            .map_err(|_| NoData::Bus)?;
        let mut transfer = Transfer { memory: outside.memory, runs, used: 0, moved: 0, corrupt };
        drive.execute(request, &mut transfer, outside.counts)
    }

    fn complete(
        &mut self,
        slot: u8,
        queued: bool,
        outcome: &Outcome,
        memory: &impl DeviceMemory,
        counts: &mut Counts,
    ) {
        let bit = 1_u32 << slot;
        self.tfd = TaskFileData::new().with_status(outcome.status).with_error(outcome.error);
        if queued {
            let fis = SetDeviceBits {
                kind: FisType::SET_DEVICE_BITS.0,
                flags: 0x40,
                status: outcome.status & 0x77,
                error: outcome.error,
                done: bit.into(),
            };
            self.receive(ReceivedAt::SetDeviceBits, fis.as_bytes(), memory);
            self.sact &= !bit;
            self.event(PortInterrupts::new().with_sdbs(true));
            return;
        }
        let at = self.clb.wrapping_add(32 * u64::from(slot)).wrapping_add(4);
        if !memory.write(DevAddr(at), &outcome.moved.to_le_bytes()) {
            counts.misuse += 1;
        }
        self.register_fis(outcome, memory);
        self.ci &= !bit;
        self.event(PortInterrupts::new().with_dhrs(true));
    }

    fn register_fis(&mut self, outcome: &Outcome, memory: &impl DeviceMemory) {
        let [l0, l1, l2, l3, l4, l5, ..] = outcome.lba.to_le_bytes();
        let fis = D2h {
            kind: FisType::D2H.0,
            flags: 0x40,
            status: outcome.status,
            error: outcome.error,
            lba_low: [l0, l1, l2],
            device: 0x40,
            lba_high: [l3, l4, l5],
            count: outcome.count.to_le_bytes(),
            ..D2h::default()
        };
        self.receive(ReceivedAt::D2h, fis.as_bytes(), memory);
    }

    /// The device says that a command failed.
    fn command_failed<M: DeviceMemory>(
        &mut self,
        slot: u8,
        queued: bool,
        outcome: &Outcome,
        request: &Request,
        outside: &mut Outside<'_, M>,
    ) {
        self.tfd = TaskFileData::new().with_status(outcome.status).with_error(outcome.error);
        if !queued {
            self.register_fis(outcome, outside.memory);
            self.fail(PortInterrupts::new().with_tfes(true).with_dhrs(true));
            return;
        }
        let fis = SetDeviceBits {
            kind: FisType::SET_DEVICE_BITS.0,
            flags: 0x40,
            status: outcome.status & 0x77,
            error: outcome.error,
            done: 0.into(),
        };
        self.receive(ReceivedAt::SetDeviceBits, fis.as_bytes(), outside.memory);
        if outside.abilities.queue_errors == QueueErrors::Finish {
            let bit = 1 << slot;
            self.held |= bit;
            // What they leave in the registers stays there.
            self.process(outside);
            self.held &= !bit;
            self.fail(PortInterrupts::new().with_tfes(true).with_sdbs(true));
            return;
        } else {
            let mut page = QueuedError::new_zeroed();
            (page.tag, page.status, page.error) = (slot, outcome.status, outcome.error);
            let lba = request.registers.lba.to_le_bytes();
            page.lba_low.copy_from_slice(&lba[..3]);
            page.lba_high.copy_from_slice(&lba[3..6]);
            page.seal();
            if outside.abilities.queue_errors == QueueErrors::AllSent {
                self.ci &= !self.sact;
            }
            if let Some(drive) = &mut self.drive {
                drive.queue_error = Some(page);
            }
            // The device has dropped what it had.
            self.held = 0;
            self.late.clear();
        }
        self.fail(PortInterrupts::new().with_tfes(true).with_sdbs(true));
    }

    /// The list stops.
    fn fail(&mut self, bits: PortInterrupts) {
        self.failed = true;
        self.event(bits);
    }
}

fn table_of(header: &CommandHeader) -> u64 {
    u64::from(header.ctbau.get()) << 32 | u64::from(header.ctba.get())
}

/// The mistake that is made with `request`, if one is.
fn take_mistake(mistakes: &mut Vec<(Pattern, Mistake)>, port: u8, request: &Request) -> Option<Mistake> {
    let blocks = request.blocks();
    let index = mistakes.iter_mut().position(|(pattern, _)| {
        let fits = pattern.port.is_none_or(|wanted| wanted == port)
            && pattern.command.map_or(blocks.is_some(), |command| command == request.command)
            && pattern.lbas.as_ref().is_none_or(|lbas| {
                blocks.as_ref().is_some_and(|blocks| blocks.start < lbas.end && lbas.start < blocks.end)
            });
        let passed = fits && pattern.skip > 0;
        pattern.skip -= u32::from(passed);
        fits && !passed
    })?;
    let (pattern, mistake) = mistakes.get_mut(index)?;
    let mistake = *mistake;
    pattern.times = pattern.times.saturating_sub(1);
    if pattern.times == 0 {
        mistakes.remove(index);
    }
    Some(mistake)
}
