//! What holds a token is its thread's own, and the data of a token must be such that other threads may have it.
use std::cell::Cell;
use std::rc::Rc;

use dfly_lwkt::Cx;
use dfly_lwkt::token::{Token, TokenPool};

fn an_inner_context_sent_to_a_host_thread(cx: &mut Cx<'_>, token: &Token<u32>) {
    let (mut cx, _held) = cx.hold(token);
    std::thread::scope(|s| {
        s.spawn(|| cx.yield_now());
    });
}

fn a_hold_sent_to_a_host_thread(cx: &mut Cx<'_>, token: &Token<u32>) {
    let (_cx, held) = cx.hold(token);
    std::thread::scope(|s| {
        s.spawn(move || drop(held));
    });
}

fn a_hold_lent_to_a_host_thread(cx: &mut Cx<'_>, token: &Token<u32>) {
    let (_cx, held) = cx.hold_shared(token);
    std::thread::scope(|s| {
        s.spawn(|| format!("{held:?}"));
    });
}

fn data_that_is_not_sync_shared(cx: &mut Cx<'_>, token: &Token<Cell<u32>>) {
    let _ = cx.hold_shared(token);
}

fn a_pool_token_shared(cx: &mut Cx<'_>, pool: &TokenPool<4>) {
    let _ = cx.try_hold_shared(pool.of_key(1));
}

static NOT_SEND: Token<Option<Rc<u32>>> = Token::new(None);

static THREE: TokenPool<3> = TokenPool::new("three");

fn main() {}
