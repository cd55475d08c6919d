use std::ops::ControlFlow;

use dfly_hal::dma::{Constraints, Dma, FromDevice, Streaming};

fn main() {
    fn f(hal: &dyn Dma) {
        let memory: &'static [u8] = b"constant";
        let _ = Streaming::<FromDevice, _, _>::map(hal, memory, &Constraints::ANY, &mut |_| ControlFlow::Continue(()));
    }
}
