//! An interrupt does not wait, and keeps nothing.
use dfly_hal::block_on;
use dfly_lwkt::Cx;
use dfly_lwkt::ipi::IrqCx;
use dfly_lwkt::token::{IrqHeld, Token};

static TOKEN: Token<u32> = Token::new(0);

fn waits(irq: &mut IrqCx<'_>) {
    let _ = block_on(irq, async {}, None);
}

fn blocks_for_a_token(irq: &IrqCx<'_>) {
    let _ = irq.hold(&TOKEN);
}

fn keeps_it<'a>(irq: &'a IrqCx<'_>) -> IrqHeld<'static, u32> {
    irq.try_hold(&TOKEN).unwrap()
}

fn sends_it_away(irq: &IrqCx<'_>) {
    let held = irq.try_hold(&TOKEN);
    std::thread::scope(|s| {
        s.spawn(move || drop(held));
    });
}

fn takes_the_context_of_what_it_interrupted(cx: &mut Cx<'_>) {
    let _ = cx.scheduler().ipis().send(cx.cpu(), |_| cx.yield_now());
}

fn main() {}
