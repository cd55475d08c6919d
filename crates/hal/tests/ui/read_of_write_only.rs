use dfly_hal::regs::{Reg, Window, WriteOnly};

const DOORBELL: Reg<u32, WriteOnly> = Reg::at(0x1000);

fn main() {
    fn f(window: &dyn Window) -> u32 {
        DOORBELL.read(window)
    }
}
