//! A context is its thread's own, and its thread's only.
use std::cell::RefCell;
use std::rc::Rc;

use dfly_hal::{CpuId, Wait, block_on};
use dfly_lwkt::{Cx, Scheduler};

fn sent_to_a_host_thread(cx: &mut Cx<'_>) {
    std::thread::scope(|s| {
        s.spawn(|| cx.yield_now());
    });
}

fn lent_to_a_host_thread(cx: &Cx<'_>) {
    std::thread::scope(|s| {
        s.spawn(|| cx.cpu());
    });
}

fn sent_to_another_thread(cx: &mut Cx<'static>) {
    let _ = cx.scheduler().spawn(CpuId(0), "other".into(), |_| cx.yield_now());
}

fn kept_for_later(scheduler: &'static Scheduler) {
    thread_local! {
        static KEPT: RefCell<Option<&'static mut Cx<'static>>> = const { RefCell::new(None) };
    }
    let _ = scheduler.spawn(CpuId(0), "keeper".into(), |cx| KEPT.set(Some(cx)));
}

fn made_out_of_nothing() {
    let _ = Cx::new;
}

fn used_while_it_waits(cx: &mut Cx<'_>) {
    let _ = block_on(cx, async { cx.yield_now() }, None);
}

fn a_thread_of_what_is_not_send(cx: &mut Cx<'_>) {
    let shared = Rc::new(1);
    let _ = cx.scheduler().spawn(cx.cpu(), "other".into(), move |_| drop(shared));
}

fn main() {}
