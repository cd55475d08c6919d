//! Bringing an adapter up [AHCI 1.3.1, 10.1, 10.4.3, 10.6]: the BIOS lets go, reset, ports.

use alloc::vec::Vec;

use core::time::Duration;

use dfly_hal::regs::{NotYet, Patience, Window};
use dfly_hal::{Wait, block_on, sleep_until};

use crate::driver::Core;
use crate::port::{Port, Shape};
use crate::slots::Halted;
use crate::spec::{BOHC, CAP, CAP2, Cap, GHC, Ghc, PI, VS};
use crate::{AdapterInfo, Ahci, AhciHal, AttachError, Config, Interrupts};

/// An HBA reset takes no longer [10.4.3].
pub(crate) const RESET: Duration = Duration::from_secs(1);
/// How long the BIOS may take to let go [10.6.3]; twice, if it says that it is busy.
const HAND_OFF: Duration = Duration::from_secs(2);
/// Between two looks at ports that come up.
const LOOK: Duration = Duration::from_micros(100);

/// The registers, and what they said.
pub(crate) struct Hba<H, W> {
    pub(crate) window: W,
    pub(crate) hal: H,
    pub(crate) cap: Cap,
    pub(crate) config: Config,
}

impl<H: AhciHal + Clone, W: Window> Hba<H, W> {
    /// Begins an HBA reset.
    pub(crate) fn reset(&self) {
        GHC.write(&self.window, Ghc::new().with_ae(true).with_hr(true));
    }

    /// Whether a reset is over, or nobody is there.
    pub(crate) fn halted(&self) -> Option<(Ghc, Halted)> {
        let ghc = GHC.read(&self.window);
        (ghc.is_gone() || !ghc.hr()).then(|| (ghc, Halted::seen()))
    }

    /// After a reset: AHCI, and interrupts if somebody waits for them.
    pub(crate) fn enable(&self) {
        let ie = self.config.interrupts != Interrupts::None;
        GHC.write(&self.window, Ghc::new().with_ae(true).with_ie(ie));
    }

    fn patience<'a>(&'a self, w: &'a mut dyn Wait, limit: Duration) -> Patience<'a> {
        let deadline = dfly_hal::Clock::now(&self.hal).saturating_add(limit);
        Patience { clock: &self.hal, wait: w, deadline }
    }

    /// The BIOS lets the adapter go.
    fn hand_off(&self, w: &mut dyn Wait) -> Result<(), AttachError> {
        if VS.read(&self.window) < 0x0001_0200 || !CAP2.read(&self.window).boh() {
            return Ok(());
        }
        BOHC.update(&self.window, |bohc| bohc.with_oos(true));
        for busy in [false, true] {
            let left = |bohc: crate::spec::Bohc| !bohc.bos() || bohc.into_bits() == u32::MAX;
            match BOHC.poll_until(&self.window, self.patience(w, HAND_OFF), left) {
                Ok(bohc) if bohc.into_bits() == u32::MAX => return Err(AttachError::Gone),
                Ok(_) => return Ok(()),
                Err(NotYet { last }) if last.bb() && !busy => {}
                // It does not; the reset takes the adapter.
                Err(_) => break,
            }
        }
        Ok(())
    }
}

pub(crate) fn attach<H: AhciHal + Clone, W: Window>(
    window: W,
    hal: H,
    config: Config,
    w: &mut dyn Wait,
) -> Result<Ahci<H, W>, AttachError> {
    let hba = Hba { cap: CAP.read(&window), window, hal, config };
    if GHC.read(&hba.window).is_gone() || hba.cap.into_bits() == u32::MAX {
        return Err(AttachError::Gone);
    }
    hba.hand_off(w)?;
    // Some adapters forget in a reset what the BIOS has told them.
    let implemented = PI.read(&hba.window);
    GHC.write(&hba.window, Ghc::new().with_ae(true));
    hba.reset();
    match GHC.poll_until(&hba.window, hba.patience(w, RESET), |ghc| !ghc.hr() || ghc.is_gone()) {
        Ok(ghc) if ghc.is_gone() => return Err(AttachError::Gone),
        Ok(_) => {}
        Err(NotYet { last }) => return Err(AttachError::NotReset { ghc: last.into_bits() }),
    }
    // Interrupts later: an attach polls, and nobody may be there yet to answer them.
    GHC.write(&hba.window, Ghc::new().with_ae(true));
    let pi = match PI.read(&hba.window) {
        0 => implemented,
        pi => pi,
    };
    let shape = Shape::new(config.max_transfer_bytes);
    let ports: Vec<Port<H>> = crate::slots::bits(pi)
        .map(|number| Port::new(&hba.hal, number, hba.cap, shape))
        .collect::<Result<_, _>>()?;
    if ports.is_empty() {
        return Err(AttachError::NoPorts);
    }
    let info = AdapterInfo {
        version: VS.read(&hba.window),
        slots: hba.cap.ncs_z() + 1,
        ports: pi,
        queueing: hba.cap.sncq(),
        wide_addresses: hba.cap.s64a(),
    };
    let deadline = dfly_hal::Clock::now(&hba.hal).saturating_add(config.attach_timeout);
    let core = Core::new(hba, info, shape, ports);
    core.power_up();
    let ahci = Ahci::over(core);
    loop {
        ahci.poll();
        if ahci.is_gone() {
            return Err(AttachError::Gone);
        }
        let now = ahci.now();
        if ahci.is_settled() || now >= deadline {
            ahci.enable_interrupts();
            return Ok(ahci);
        }
        let next = now.saturating_add(LOOK).min(deadline);
        let _ = block_on(w, sleep_until(ahci.hal(), next), Some(next));
    }
}
