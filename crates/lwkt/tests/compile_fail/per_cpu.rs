//! The value of a CPU is lent for as long as its thread stays there.
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use dfly_hal::CpuId;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Cx, PerCpu};

fn a_value_kept_beyond_the_section(cx: &mut Cx<'_>, values: &PerCpu<Cell<u32>>) {
    let section = cx.critical();
    let mine = values.with(&section);
    drop(section);
    mine.set(1);
}

fn a_value_across_a_yield(cx: &mut Cx<'_>, values: &PerCpu<Cell<u32>>) {
    let mine = values.with(&cx.critical());
    cx.yield_now();
    mine.set(1);
}

fn a_hold_in_a_section(cx: &mut Cx<'_>, values: &PerCpu<Cell<u32>>, token: &Token<u32>) {
    let section = cx.critical();
    let mine = values.with(&section);
    let (cx, held) = cx.hold(token);
    mine.set(*held.get(&cx));
}

fn a_value_written_to(cx: &mut Cx<'_>, values: &PerCpu<u32>) {
    *values.with(&cx.critical()) += 1;
}

fn values_that_are_not_send(cx: &mut Cx<'_>) {
    let values = Arc::new(PerCpu::new(cx.scheduler(), |_| Rc::new(1)));
    let _ = cx.scheduler().spawn(CpuId(0), "other".into(), move |_| drop(values));
}

fn main() {}
