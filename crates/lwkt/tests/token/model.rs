//! One thread's holds beside a plain model of them, with another thread that looks while it yields.

use std::sync::{Arc, Mutex};

use dfly_hal::ThreadWait;
use dfly_lwkt::host::Machine;
use dfly_lwkt::lock::Holders;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx};
use proptest::prelude::*;

use crate::{CPU0, spawn};

const TOKENS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    Alone(usize),
    Shared(usize),
    TryAlone(usize),
    TryShared(usize),
    /// Leaves the innermost hold.
    Leave,
    Yield,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..TOKENS).prop_map(Op::Alone),
        3 => (0..TOKENS).prop_map(Op::Shared),
        2 => (0..TOKENS).prop_map(Op::TryAlone),
        2 => (0..TOKENS).prop_map(Op::TryShared),
        5 => Just(Op::Leave),
        3 => Just(Op::Yield),
    ]
}

type Tokens = Arc<[Token<u32>; TOKENS]>;

fn holders(tokens: &Tokens) -> [Holders; TOKENS] {
    std::array::from_fn(|i| tokens[i].holders())
}

/// The model: what the thread has of each token.
type Has = [Holders; TOKENS];

/// What a token is after one more hold, if that can be.
fn more(has: Holders, alone: bool) -> Option<Holders> {
    match (has, alone) {
        (Holders::Nobody, true) => Some(Holders::Exclusive(1)),
        (Holders::Nobody, false) => Some(Holders::Shared(1)),
        (Holders::Shared(_), true) => None,
        (has, _) => Some(has),
    }
}

struct Walk<'a> {
    ops: &'a mut dyn Iterator<Item = Op>,
    tokens: &'a Tokens,
}

impl Walk<'_> {
    /// Goes on until this level is left.
    fn go(&mut self, cx: &mut Cx<'_>, has: Has) {
        let tokens = self.tokens.clone();
        while let Some(op) = self.ops.next() {
            assert_eq!(holders(&tokens), has, "before {op:?}");
            let after = |i: usize, alone| {
                more(has[i], alone).map(|one| std::array::from_fn(|j| if i == j { one } else { has[j] }))
            };
            match op {
                Op::Alone(i) => {
                    // Otherwise it panics, which is tested elsewhere.
                    if let Some(has) = after(i, true) {
                        let (mut cx, mut n) = cx.hold(&tokens[i]);
                        *n.get_mut(&mut cx) += 1;
                        self.go(&mut cx, has);
                    }
                }
                Op::Shared(i) => {
                    let (mut cx, n) = cx.hold_shared(&tokens[i]);
                    assert!(*n.get(&cx) < u32::MAX);
                    self.go(&mut cx, after(i, false).unwrap());
                }
                Op::TryAlone(i) => match cx.try_hold(&tokens[i]) {
                    Ok((mut cx, mut n)) => {
                        *n.get_mut(&mut cx) += 1;
                        self.go(&mut cx, after(i, true).unwrap());
                    }
                    Err(_) => assert_eq!(after(i, true), None),
                },
                Op::TryShared(i) => {
                    let mut cx = cx.try_hold_shared(&tokens[i]).ok().unwrap().0;
                    self.go(&mut cx, after(i, false).unwrap());
                }
                Op::Leave => return,
                Op::Yield => cx.yield_now(),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 200 },
        // Miri has no files.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_threads_holds_are_as_the_model_says_and_gone_while_it_yields(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let machine = Machine::start(1, Config::default()).unwrap();
        let tokens: Tokens = Arc::new(std::array::from_fn(|_| Token::new(0)));
        let yields = ops.iter().filter(|op| matches!(op, Op::Yield)).count();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sees, looks_at) = (seen.clone(), tokens.clone());
        let main = machine.scheduler().spawn(CPU0, "main".into(), move |cx| {
            let theirs = looks_at.clone();
            let other = spawn(cx, CPU0, move |cx| {
                for _ in 0..yields {
                    sees.lock().unwrap().push(holders(&theirs));
                    cx.yield_now();
                }
            });
            let mut ops = ops.into_iter();
            let free = [Holders::Nobody; TOKENS];
            // What is left of the operations after the outermost level was left.
            while ops.len() > 0 {
                Walk { ops: &mut ops, tokens: &looks_at }.go(cx, free);
                assert_eq!(holders(&looks_at), free);
            }
            other.join(cx).unwrap();
        });
        prop_assert_eq!(main.unwrap().join(&mut ThreadWait::new()), Ok(()));
        let seen = seen.lock().unwrap();
        prop_assert_eq!(seen.len(), yields);
        prop_assert!(seen.iter().all(|has| *has == [Holders::Nobody; TOKENS]));
    }
}
