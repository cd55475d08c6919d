//! No reference into a token's data outlives what may give the token up, and no two of them are in each other's way.
use std::future::ready;

use dfly_hal::{Wait, block_on};
use dfly_lwkt::Cx;
use dfly_lwkt::lock::Mtx;
use dfly_lwkt::sleep::Ident;
use dfly_lwkt::token::{Held, Token, get2_mut};

type List = Vec<u32>;

fn a_shared_reference_across_a_yield(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    cx.yield_now();
    assert_eq!(*first, 1);
}

fn a_mutable_reference_across_a_yield(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut list) = cx.hold(token);
    let list = list.get_mut(&mut cx);
    cx.yield_now();
    list.push(1);
}

fn a_reference_across_another_hold(cx: &mut Cx<'_>, token: &Token<List>, other: &Token<List>) {
    let (mut cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    let (_cx, _other) = cx.hold(other);
    assert_eq!(*first, 1);
}

fn a_mutable_reference_across_another_hold(cx: &mut Cx<'_>, token: &Token<List>, other: &Token<List>) {
    let (mut cx, mut list) = cx.hold(token);
    let list = list.get_mut(&mut cx);
    let (_cx, _other) = cx.hold_shared(other);
    list.push(1);
}

fn a_reference_across_a_try(cx: &mut Cx<'_>, token: &Token<List>, other: &Token<List>) {
    let (mut cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    let _ = cx.try_hold(other);
    assert_eq!(*first, 1);
}

fn a_shared_hold_across_a_wait(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, list) = cx.hold_shared(token);
    let first = &list.get(&cx)[0];
    let _ = block_on(&mut cx, ready(()), None);
    assert_eq!(*first, 1);
}

fn a_reference_across_a_sleep(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, list) = cx.hold(token);
    let sleep = cx.interlock(Ident::of(token));
    let first = &list.get(sleep.cx())[0];
    let _ = sleep.wait(None);
    assert_eq!(*first, 1);
}

fn a_reference_across_a_blocking_lock(cx: &mut Cx<'_>, token: &Token<List>, lock: &Mtx<u32>) {
    let (mut cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    let guard = lock.lock(&mut cx);
    assert_eq!(*first, *guard);
}

fn a_reference_across_somebody_who_may_wait(cx: &mut Cx<'_>, token: &Token<List>, read: fn(&mut dyn Wait)) {
    let (mut cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    read(&mut cx);
    assert_eq!(*first, 1);
}

fn a_wait_for_what_borrows_the_data(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, list) = cx.hold(token);
    let list = list.get(&cx);
    let sum = async { list.iter().sum::<u32>() };
    let _ = block_on(&mut cx, sum, None);
}

fn two_mutable_references_by_one_hold(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut list) = cx.hold(token);
    let one = list.get_mut(&mut cx);
    let two = list.get_mut(&mut cx);
    one.append(two);
}

fn two_mutable_references_by_two_holds(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut one) = cx.hold(token);
    let (mut cx, mut two) = cx.hold(token);
    let one = one.get_mut(&mut cx);
    let two = two.get_mut(&mut cx);
    one.append(two);
}

fn the_same_hold_twice(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut list) = cx.hold(token);
    let _ = get2_mut(&mut list, &mut list, &mut cx);
}

fn a_reader_and_a_writer(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut writer) = cx.hold(token);
    let (mut cx, reader) = cx.hold_shared(token);
    let first = &reader.get(&cx)[0];
    writer.get_mut(&mut cx).clear();
    assert_eq!(*first, 1);
}

fn a_shared_hold_written_through(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut cx, mut list) = cx.hold_shared(token);
    list.get_mut(&mut cx).clear();
}

fn the_outer_context_used_while_the_inner_lives(cx: &mut Cx<'_>, token: &Token<List>) {
    let (inner, _list) = cx.hold(token);
    cx.yield_now();
    drop(inner);
}

fn the_outer_context_used_while_the_hold_lives(cx: &mut Cx<'_>, token: &Token<List>) {
    let (inner, list) = cx.hold(token);
    drop(inner);
    assert_eq!(list.get(cx).len(), 1);
}

fn a_hold_used_after_its_context(cx: &mut Cx<'_>, token: &Token<List>) {
    let (mut inner, mut list) = cx.hold(token);
    drop(inner);
    list.get_mut(&mut inner).clear();
}

fn a_context_dropped_while_it_lends(cx: &mut Cx<'_>, token: &Token<List>) {
    let (cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    drop(cx);
    assert_eq!(*first, 1);
}

fn a_context_forgotten_while_it_lends(cx: &mut Cx<'_>, token: &Token<List>) {
    let (cx, list) = cx.hold(token);
    let first = &list.get(&cx)[0];
    std::mem::forget(cx);
    assert_eq!(*first, 1);
}

fn a_token_freed_while_it_is_held(cx: &mut Cx<'_>, token: Box<Token<List>>) {
    let (cx, list) = cx.hold(&token);
    drop(token);
    assert_eq!(list.get(&cx).len(), 1);
}

fn a_token_in_a_token_held_by_what_the_outer_one_lends(cx: &mut Cx<'_>, outer: &Token<Token<List>>) {
    let (mut cx, outer) = cx.hold(outer);
    let inner = outer.get(&cx);
    let _ = cx.hold(inner);
}

fn a_hold_kept_for_later<'a>(cx: &'a mut Cx<'_>, token: &'static Token<List>) -> Held<'static, List> {
    cx.hold(token).1
}

fn a_reference_kept_for_later<'a>(cx: &'a mut Cx<'_>, token: &'a Token<List>) -> &'a List {
    let (cx, list) = cx.hold(token);
    list.get(&cx)
}

fn a_future_that_holds_waited_for_by_its_own_thread(cx: &mut Cx<'_>, token: &Token<List>) {
    let adds = async {
        let (mut cx, mut list) = cx.hold(token);
        list.get_mut(&mut cx).push(1);
    };
    let _ = block_on(cx, adds, None);
}

fn main() {}
