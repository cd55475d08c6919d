//! Bringing a controller up [NVMe base 1.4, 7.6.1]: reset, admin queue, identify, I/O queues.

use alloc::vec::Vec;

use core::time::Duration;

use dfly_bio::WriteCache;
use dfly_hal::dma::{Coherent, Constraints, DmaError, Pod};
use dfly_hal::regs::{NotYet, Patience, Window};
use dfly_hal::{Instant, Wait, block_on, sleep_until};
use zerocopy::little_endian::U32;

use crate::driver::Core;
use crate::io::{Queue, Shape};
use crate::pair::Pair;
use crate::queue::Broken;
use crate::spec::{
    ACQ, AQA, ASQ, Aqa, CAP, CC, CSTS, Cap, Cc, Command, Completion, Csts, INTMC, INTMS, IdentifyController,
    IdentifyNamespace, IdentifyWhat, StatusCode, VS,
};
use crate::{
    AttachError, Config, ControllerInfo, Interrupts, NamespaceInfo, Nvme, NvmeHal, SkippedNamespace, Unusable,
};

/// Entries of the admin queues, minus one.
const ADMIN_SIZE_Z: u16 = 31;
/// The first pause between two looks for an admin completion; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
/// How long an orderly shutdown may take.
pub(crate) const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);
/// CAP.TO counts these.
const TO_UNIT: Duration = Duration::from_millis(500);
/// Namespace identifiers in a list [5.15.2.3].
const IDS_IN_LIST: usize = 1024;
/// Identify answers with 4096 bytes, of which the first part says what we want to know.
type PagePart = [u8; 1024];
const PAGE_PARTS: usize = 4096 / size_of::<PagePart>();
/// Above are identifiers that stand for several, or for none [6.1].
const LAST_NSID: u32 = 0xffff_fffd;

/// The controller was seen not to run (RDY = 0 after EN = 0), or not to be there.
pub(crate) struct Halted(());

/// What an attach found out.
pub(crate) struct Found {
    pub(crate) shape: Shape,
    pub(crate) info: ControllerInfo,
    pub(crate) namespaces: Vec<NamespaceInfo>,
    pub(crate) skipped: Vec<SkippedNamespace>,
}

/// The registers, and what they said.
pub(crate) struct Controller<H, W> {
    pub(crate) window: W,
    pub(crate) hal: H,
    cap: Cap,
}

impl<H: NvmeHal + Clone, W: Window> Controller<H, W> {
    fn new(window: W, hal: H) -> Result<Self, AttachError> {
        let cap = CAP.read(&window);
        if cap.into_bits() == u64::MAX || CSTS.read(&window).is_gone() {
            return Err(AttachError::Gone);
        }
        if cap.css() & 1 == 0 {
            return Err(AttachError::NoNvmCommands);
        }
        if cap.mqes_z() == 0 {
            return Err(AttachError::QueueSize);
        }
        Ok(Self { window, hal, cap })
    }

    /// The longest time to become ready, or not ready.
    pub(crate) fn timeout(&self) -> Duration {
        TO_UNIT * u32::from(self.cap.to().max(1))
    }

    /// Whether the controller, told to stop, has.
    pub(crate) fn halted(&self) -> Option<Halted> {
        let csts = CSTS.read(&self.window);
        (csts.is_gone() || !csts.rdy()).then_some(Halted(()))
    }

    /// Waits until the controller's status is as wanted.
    fn status(&self, w: &mut dyn Wait, done: impl Fn(Csts) -> bool) -> Result<Csts, AttachError> {
        let deadline = self.hal.now().saturating_add(self.timeout());
        let patience = Patience { clock: &self.hal, wait: w, deadline };
        match CSTS.poll_until(&self.window, patience, |csts| csts.is_gone() || done(csts)) {
            Ok(csts) if csts.is_gone() => Err(AttachError::Gone),
            Ok(csts) => Ok(csts),
            Err(NotYet { last }) => Err(AttachError::NotInTime { csts: last.into_bits() }),
        }
    }

    /// Disables the controller, whatever it is doing.
    fn disable(&self, w: &mut dyn Wait) -> Result<(), AttachError> {
        let cc = CC.read(&self.window);
        if cc.en() {
            // EN may not be cleared before RDY was seen, unless it will never come [3.1.5].
            if let Err(AttachError::Gone) = self.status(w, |csts| csts.rdy() || csts.cfs()) {
                return Err(AttachError::Gone);
            }
            CC.write(&self.window, cc.with_en(false));
        }
        self.status(w, |csts| !csts.rdy()).map(drop)
    }

    /// Page size: 4 KiB, or what is nearest to it of what the controller can do.
    fn mps(&self) -> Result<u8, AttachError> {
        let (min, max) = (self.cap.mpsmin(), self.cap.mpsmax());
        if min > max || min > 4 {
            return Err(AttachError::PageSize { mpsmin: min, mpsmax: max });
        }
        Ok(min)
    }

    fn enable(
        &self,
        admin: &Pair<H>,
        mps: u8,
        interrupts: Interrupts,
        w: &mut dyn Wait,
    ) -> Result<(), AttachError> {
        let (asq, acq) = admin.bases();
        AQA.write(&self.window, Aqa::new().with_asqs_z(ADMIN_SIZE_Z).with_acqs_z(ADMIN_SIZE_Z));
        ASQ.write(&self.window, asq);
        ACQ.write(&self.window, acq);
        CC.write(&self.window, Cc::new().with_en(true).with_mps(mps).with_iosqes(6).with_iocqes(4));
        let csts = self.status(w, |csts| csts.rdy() || csts.cfs())?;
        if csts.cfs() {
            return Err(AttachError::Fatal);
        }
        // Admin completions assert the pin, and nobody is there to answer it: an attach polls. With MSI-X these registers
        // are not to be touched.
        if !matches!(interrupts, Interrupts::Message { .. }) {
            INTMS.write(&self.window, u32::MAX);
        }
        Ok(())
    }

    /// Runs one admin command.
    fn admin(
        &self,
        pair: &mut Pair<H>,
        command: Command,
        deadline: Instant,
        w: &mut dyn Wait,
    ) -> Result<Completion, AttachError> {
        let opcode = command.opcode;
        let (_, cid) = pair.ids.take().ok_or(AttachError::AdminTimeout { opcode })?;
        pair.push(cid, command);
        pair.ring(&self.window);
        let mut pause = FIRST_PAUSE;
        loop {
            let late = self.hal.now() >= deadline;
            if let Some((_, completion)) = pair.next()? {
                pair.acknowledge(&self.window);
                let status = StatusCode::from(completion.status());
                return match status.failure() {
                    None => Ok(completion),
                    Some(_) => Err(AttachError::Refused { opcode, status }),
                };
            }
            let csts = CSTS.read(&self.window);
            if csts.is_gone() {
                return Err(AttachError::Gone);
            }
            if csts.cfs() {
                return Err(AttachError::Fatal);
            }
            if late {
                return Err(AttachError::AdminTimeout { opcode });
            }
            let next = self.hal.now().saturating_add(pause).min(deadline);
            let _ = block_on(w, sleep_until(&self.hal, next), Some::<Instant>(next));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What is in the making, so that a failure knows what the controller may still use.
struct Making<H: NvmeHal + Clone> {
    admin: Pair<H>,
    page: Coherent<PagePart, H>,
    queues: Vec<Queue<H>>,
}

pub(crate) fn attach<H: NvmeHal + Clone, W: Window>(
    window: W,
    hal: H,
    config: Config,
    w: &mut dyn Wait,
) -> Result<Nvme<H, W>, AttachError> {
    let controller = Controller::new(window, hal)?;
    controller.disable(w)?;
    let mps = controller.mps()?;
    let page_bytes = 4096_u32 << mps;
    let hal = &controller.hal;
    let page_aligned = Constraints { align: page_bytes, ..Constraints::ANY };
    let mut making = Making {
        admin: Pair::new(hal, 0, ADMIN_SIZE_Z, page_bytes, controller.cap.dstrd())?,
        page: Coherent::alloc(hal.clone(), PAGE_PARTS, &page_aligned)?,
        queues: Vec::new(),
    };
    let made = controller
        .enable(&making.admin, mps, config.interrupts, w)
        .and_then(|()| bring_up(&controller, &mut making, page_bytes, &config, w));
    match made {
        Ok(found) => {
            if config.interrupts == Interrupts::Pin {
                INTMC.write(&controller.window, 1);
            }
            let Making { admin, queues, .. } = making;
            Ok(Nvme::over(Core::new(controller, admin, found, config.interrupts, queues)))
        }
        Err(error) => {
            if !matches!(controller.disable(w), Ok(()) | Err(AttachError::Gone)) {
                // It may use the memory for ever.
                core::mem::forget(making);
            }
            Err(error)
        }
    }
}

fn bring_up<H: NvmeHal + Clone, W: Window>(
    controller: &Controller<H, W>,
    making: &mut Making<H>,
    page_bytes: u32,
    config: &Config,
    w: &mut dyn Wait,
) -> Result<Found, AttachError> {
    let Making { admin, page, queues } = making;
    let (hal, cap) = (&controller.hal, controller.cap);
    // One for all, or a controller that answers each a little late would keep us for hours.
    let deadline = hal.now().saturating_add(config.admin_timeout);
    let mut admin = Admin { controller, pair: admin, page, deadline, w };

    let id: IdentifyController = admin.identify(IdentifyWhat::CONTROLLER, 0)?;
    let takes = |sizes: u8, size: u8| sizes & 0xf <= size && size <= sizes >> 4;
    if !takes(id.sqes, 6) || !takes(id.cqes, 4) {
        return Err(AttachError::EntrySizes { sqes: id.sqes, cqes: id.cqes });
    }
    let smallest_page = 4096_u32 << cap.mpsmin();
    let mdts = match id.mdts {
        0 => u32::MAX,
        n => smallest_page.saturating_mul(1_u32.checked_shl(n.into()).unwrap_or(u32::MAX)),
    };
    // Whole pages, at least one; no controller can do with less.
    let max_bytes = config.max_transfer_bytes.min(Config::LARGEST_TRANSFER_BYTES).min(mdts).max(page_bytes);
    let shape =
        Shape { page_bytes, max_bytes: max_bytes / page_bytes * page_bytes, timeout: config.io_timeout };

    let write_cache = if id.vwc & 1 == 0 { WriteCache::None } else { WriteCache::Volatile };
    let (mut namespaces, mut skipped) = (Vec::new(), Vec::new());
    for nsid in admin.active_namespaces(&id, config.max_namespaces)? {
        let used = match admin.identify(IdentifyWhat::NAMESPACE, nsid) {
            Ok(ns) => usable(nsid, &ns, shape, write_cache),
            Err(AttachError::Refused { status, .. }) => Err(Unusable::Refused { status }),
            Err(error) => return Err(error),
        };
        match used {
            Ok(info) => namespaces.push(info),
            Err(why) => skipped.push(SkippedNamespace { nsid, why }),
        }
    }

    let wanted = u16::try_from(hal.count()).unwrap_or(u16::MAX).min(config.max_queues).max(1);
    let granted = admin.run(Command::number_of_queues(wanted, wanted))?.result.get();
    let count = |z: u32| (z & 0xffff).saturating_add(1);
    let number = u32::from(wanted).min(count(granted)).min(count(granted >> 16)) as u16;
    let size_z = config.queue_depth.clamp(2, 4096).saturating_sub(1).min(cap.mqes_z());
    for qid in 1..=number {
        let pair = Pair::new(hal, qid, size_z, page_bytes, cap.dstrd())?;
        queues.push(Queue::new(hal, pair, shape, size_z, namespaces.len())?);
    }
    for queue in queues.iter() {
        let qid = queue.pair.qid;
        let (sq, cq) = queue.pair.bases();
        let vector = match config.interrupts {
            Interrupts::None => None,
            Interrupts::Pin => Some(0),
            // Vector 0 is the admin queue's, unless it is the only one.
            Interrupts::Message { vectors: 0 | 1 } => Some(0),
            Interrupts::Message { vectors } => Some(1 + (qid - 1) % (vectors - 1)),
        };
        admin.run(Command::create_cq(qid, size_z, cq, vector))?;
        admin.run(Command::create_sq(qid, size_z, sq, qid))?;
    }
    let info = ControllerInfo {
        serial: id.sn,
        model: id.mn,
        firmware: id.fr,
        vendor: id.vid.get(),
        version: VS.read(&controller.window),
        queues: number,
        queue_depth: size_z,
        max_transfer_bytes: shape.max_bytes,
        namespaces_skipped: u32::try_from(skipped.len()).unwrap_or(u32::MAX),
    };
    Ok(Found { shape, info, namespaces, skipped })
}

/// The admin queue while a controller is brought up.
struct Admin<'a, H: NvmeHal + Clone, W: Window> {
    controller: &'a Controller<H, W>,
    pair: &'a mut Pair<H>,
    page: &'a mut Coherent<PagePart, H>,
    deadline: Instant,
    w: &'a mut dyn Wait,
}

impl<H: NvmeHal + Clone, W: Window> Admin<'_, H, W> {
    fn run(&mut self, command: Command) -> Result<Completion, AttachError> {
        if self.controller.hal.now() >= self.deadline {
            return Err(AttachError::AdminTimeout { opcode: command.opcode });
        }
        self.controller.admin(self.pair, command, self.deadline, self.w)
    }

    /// The beginning of what Identify answers. What the controller does not write is zero.
    fn identify<T: Pod>(&mut self, what: IdentifyWhat, nsid: u32) -> Result<T, AttachError> {
        let at = self.page.device_addr(0).map_or(0, |at| at.0);
        // Before the doorbell, by the barrier in `Pair::ring`.
        (0..PAGE_PARTS).try_for_each(|part| self.page.set(part, [0; _])).map_err(|_| DmaError::Exhausted)?;
        self.run(Command::identify(what, nsid, at))?;
        Ok(self.page.get_part(0, 0).ok_or(DmaError::Exhausted)?)
    }

    /// The identifiers of active namespaces, at most `most`, in rising order.
    fn active_namespaces(&mut self, id: &IdentifyController, most: u16) -> Result<Vec<u32>, AttachError> {
        let most = usize::from(most);
        let mut ids: Vec<u32> = Vec::new();
        // Since 1.1 there is a list of those that are active.
        let mut listed = VS.read(&self.controller.window) >= 0x0001_0100;
        while listed && ids.len() < most {
            let above = ids.last().copied().unwrap_or(0);
            match self.identify::<U32>(IdentifyWhat::ACTIVE_NAMESPACES, above) {
                Ok(_) => {}
                Err(AttachError::Refused { .. }) if above == 0 => {
                    listed = false;
                    break;
                }
                Err(error) => return Err(error),
            }
            let before = ids.len();
            let in_part = size_of::<PagePart>() / size_of::<U32>();
            let listed = (0..IDS_IN_LIST)
                .map_while(|i| self.page.get_part::<U32>(i / in_part, i % in_part * size_of::<U32>()));
            for nsid in listed.map(U32::get) {
                // Rising, and no more than there are; the rest is zero, or nonsense.
                if nsid <= ids.last().copied().unwrap_or(0) || nsid > LAST_NSID || ids.len() >= most {
                    break;
                }
                ids.push(nsid);
            }
            if ids.len() - before < IDS_IN_LIST {
                return Ok(ids);
            }
        }
        if !listed {
            ids.extend((1..=id.nn.get().min(LAST_NSID)).take(most));
        }
        Ok(ids)
    }
}

/// What is made of a namespace's own description of itself.
fn usable(
    nsid: u32,
    ns: &IdentifyNamespace,
    shape: Shape,
    write_cache: WriteCache,
) -> Result<NamespaceInfo, Unusable> {
    let (format, blocks) = (ns.format(), ns.nsze.get());
    let shift = format.lbads();
    if blocks == 0 {
        return Err(Unusable::Inactive);
    }
    if !(9..=16).contains(&shift) || shape.max_bytes >> shift == 0 {
        return Err(Unusable::BlockSize { shift });
    }
    if format.ms() != 0 {
        return Err(Unusable::Metadata { bytes: format.ms() });
    }
    if blocks.checked_mul(1 << shift).is_none() {
        return Err(Unusable::Size { blocks });
    }
    Ok(NamespaceInfo {
        nsid,
        blocks,
        block_shift: shift,
        boundary_blocks: ns.noiob.get(),
        write_cache,
        access: NamespaceInfo::access_of(ns.nsattr),
    })
}

impl From<Broken> for AttachError {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
