use std::ops::ControlFlow;

use dfly_hal::dma::{Constraints, Dma, FromDevice, Streaming};

fn main() {
    fn f(hal: &dyn Dma) {
        let mut memory = [0_u8; 64];
        let _ = Streaming::<FromDevice, _, _>::map(hal, &mut memory[..], &Constraints::ANY, &mut |_| ControlFlow::Continue(()));
    }
}
