//! The promises of [`Cpus`].

use super::Violation;
use crate::{CpuId, Cpus};

/// Turns of a spinning loop that an IPI may take.
const PATIENCE: usize = 10_000_000;

/// Checks the CPUs, from one of them on which the caller stays meanwhile. `handled` says whether a CPU has handled an IPI
/// since it was last asked about that CPU; it is asked again and again, and may let others run.
pub fn check_cpus(cpus: &dyn Cpus, handled: &mut dyn FnMut(CpuId) -> bool) -> Result<(), Violation> {
    let count = cpus.count();
    let this = cpus.this();
    for _ in 0..1000 {
        let (now, then) = (cpus.this(), cpus.count());
        if then == 0 || then != count {
            return Err(Violation::CpuCount { first: count, then });
        }
        if now.0 >= count {
            return Err(Violation::WrongCpu { this: now, count, expected: None });
        }
        if now != this {
            return Err(Violation::WrongCpu { this: now, count, expected: Some(this) });
        }
    }
    for to in (0..count).map(CpuId) {
        handled(to);
        for _ in 0..3 {
            cpus.raise_ipi(to);
            let mut turns = 0;
            while !handled(to) {
                turns += 1;
                if turns == PATIENCE {
                    return Err(Violation::IpiLost { to });
                }
                core::hint::spin_loop();
            }
        }
    }
    // Nobody there: nothing happens.
    cpus.raise_ipi(CpuId(count));
    cpus.raise_ipi(CpuId::NONE);
    Ok(())
}
