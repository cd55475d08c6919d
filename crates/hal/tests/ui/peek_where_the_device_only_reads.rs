use dfly_hal::dma::{Dma, Streaming, ToDevice};

fn main() {
    fn f(lent: &Streaming<ToDevice, Vec<u8>, &dyn Dma>) {
        let _ = unsafe { lent.peek(0..1) };
    }
}
