//! Bringing a controller up [NVMe base 1.4, 7.6.1]: reset, admin queue, identify, I/O queues.

use alloc::vec::Vec;

use core::time::Duration;

use dfly_bio::WriteCache;
use dfly_hal::dma::{Coherent, Constraints, DmaError};
use dfly_hal::regs::{NotYet, Patience, Window};
use dfly_hal::{Instant, Wait, block_on, sleep_until};
use zerocopy::little_endian::U32;

use crate::driver::Core;
use crate::io::{Queue, Shape};
use crate::pair::Pair;
use crate::queue::Broken;
use crate::spec::{
    ACQ, AQA, ASQ, Aqa, CAP, CC, CSTS, Cap, Cc, Command, Completion, Csts, IdentifyController,
    IdentifyNamespace, IdentifyWhat, StatusCode, VS,
};
use crate::{AttachError, Config, ControllerInfo, Interrupts, NamespaceInfo, Nvme, NvmeHal};

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
        Ok(Self { window, hal, cap })
    }

    /// The longest time to become ready, or not ready.
    pub(crate) fn timeout(&self) -> Duration {
        TO_UNIT * u32::from(self.cap.to().max(1))
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
        if min > max || min > 4 { Err(AttachError::PageSize { mpsmin: min }) } else { Ok(min) }
    }

    fn enable(&self, admin: &Pair<H>, mps: u8, w: &mut dyn Wait) -> Result<(), AttachError> {
        let (asq, acq) = admin.bases();
        AQA.write(&self.window, Aqa::new().with_asqs_z(ADMIN_SIZE_Z).with_acqs_z(ADMIN_SIZE_Z));
        ASQ.write(&self.window, asq);
        ACQ.write(&self.window, acq);
        CC.write(&self.window, Cc::new().with_en(true).with_mps(mps).with_iosqes(6).with_iocqes(4));
        let csts = self.status(w, |csts| csts.rdy() || csts.cfs())?;
        if csts.cfs() { Err(AttachError::Fatal) } else { Ok(()) }
    }

    /// Runs one admin command.
    fn admin(
        &self,
        pair: &mut Pair<H>,
        command: Command,
        timeout: Duration,
        w: &mut dyn Wait,
    ) -> Result<Completion, AttachError> {
        let opcode = command.opcode;
        let deadline = self.hal.now().saturating_add(timeout);
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
    page: Coherent<[u8; 4096], H>,
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
        page: Coherent::alloc(hal.clone(), 1, &page_aligned)?,
        queues: Vec::new(),
    };
    let made = controller
        .enable(&making.admin, mps, w)
        .and_then(|()| bring_up(&controller, &mut making, page_bytes, &config, w));
    match made {
        Ok((shape, info, namespaces)) => {
            let Making { admin, queues, .. } = making;
            let core = Core::new(controller, admin, shape, info, namespaces, config.interrupts, queues);
            Ok(Nvme::over(core))
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
) -> Result<(Shape, ControllerInfo, Vec<NamespaceInfo>), AttachError> {
    let Making { admin, page, queues } = making;
    let (hal, cap) = (&controller.hal, controller.cap);
    let at = page.device_addr(0).map_or(0, |at| at.0);
    let mut admin_do = |command, w: &mut dyn Wait| controller.admin(admin, command, config.admin_timeout, w);

    admin_do(Command::identify(IdentifyWhat::CONTROLLER, 0, at), w)?;
    let id: IdentifyController = page.get_part(0, 0).ok_or(DmaError::Exhausted)?;
    if id.sqes & 0xf > 6 || id.cqes & 0xf > 4 {
        return Err(AttachError::EntrySizes { sqes: id.sqes, cqes: id.cqes });
    }
    let nn = id.nn.get();
    let mut ids = Vec::new();
    // Since 1.1 there is a list of those that are active.
    let listed = (VS.read(&controller.window) >= 0x0001_0100)
        .then(|| admin_do(Command::identify(IdentifyWhat::ACTIVE_NAMESPACES, 0, at), w));
    match listed {
        Some(Ok(_)) => {
            let list = (0..IDS_IN_LIST).map_while(|i| page.get_part::<U32>(0, 4 * i));
            ids.extend(list.map(U32::get).take_while(|&nsid| nsid != 0));
        }
        Some(Err(AttachError::Refused { .. })) | None => {
            ids.extend((1..=nn).take(config.max_namespaces.into()));
        }
        Some(Err(error)) => return Err(error),
    }
    ids.truncate(config.max_namespaces.into());

    let write_cache = if id.vwc & 1 == 0 { WriteCache::None } else { WriteCache::Volatile };
    let mut namespaces = Vec::with_capacity(ids.len());
    let mut skipped = 0;
    for nsid in ids {
        match admin_do(Command::identify(IdentifyWhat::NAMESPACE, nsid, at), w) {
            Ok(_) => {}
            Err(AttachError::Refused { .. }) => {
                skipped += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        let ns: IdentifyNamespace = page.get_part(0, 0).ok_or(DmaError::Exhausted)?;
        let format = ns.format();
        let usable = ns.nsze.get() != 0 && format.ms() == 0 && (9..=16).contains(&format.lbads());
        // Nor one whose bytes cannot be counted.
        let bytes = ns.nsze.get().checked_mul(1 << (format.lbads() & 31));
        if !usable || bytes.is_none() {
            skipped += 1;
            continue;
        }
        namespaces.push(NamespaceInfo {
            nsid,
            blocks: ns.nsze.get(),
            block_shift: format.lbads(),
            boundary_blocks: ns.noiob.get(),
            write_cache,
            access: NamespaceInfo::access_of(ns.nsattr),
        });
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

    let wanted = u16::try_from(hal.count()).unwrap_or(u16::MAX).min(config.max_queues).max(1);
    let granted = admin_do(Command::number_of_queues(wanted, wanted), w)?.result.get();
    let count = |z: u32| (z & 0xffff).saturating_add(1);
    let number = u32::from(wanted).min(count(granted)).min(count(granted >> 16)) as u16;
    let size_z = config.queue_depth.clamp(2, 4096).saturating_sub(1).min(cap.mqes_z()).max(1);
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
        admin_do(Command::create_cq(qid, size_z, cq, vector), w)?;
        admin_do(Command::create_sq(qid, size_z, sq, qid), w)?;
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
        namespaces_skipped: skipped,
    };
    Ok((shape, info, namespaces))
}

impl From<Broken> for AttachError {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
