//! A critical section borrows its thread's context, and stays on its CPU.
use dfly_hal::block_on;
use dfly_lwkt::{Crit, Cx};

fn waits_inside(cx: &mut Cx<'_>) {
    let section = cx.critical();
    let _ = block_on(cx, async {}, None);
    drop(section);
}

fn yields_inside(cx: &mut Cx<'_>) {
    let section = cx.critical();
    cx.yield_now();
    drop(section);
}

fn lent_to_a_host_thread(cx: &Cx<'_>) {
    let section = cx.critical();
    std::thread::scope(|s| {
        s.spawn(|| section.cpu());
    });
}

fn kept_for_later(cx: &Cx<'_>) -> Crit<'static> {
    cx.critical()
}

fn main() {}
