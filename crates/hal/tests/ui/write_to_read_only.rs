use dfly_hal::regs::{ReadOnly, Reg, Window};

const VS: Reg<u32, ReadOnly> = Reg::at(0x08);

fn main() {
    fn f(window: &dyn Window) {
        VS.write(window, 1);
        VS.update(window, |vs| vs);
    }
}
