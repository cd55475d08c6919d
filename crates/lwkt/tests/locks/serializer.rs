use std::panic::AssertUnwindSafe;

use dfly_hal::{SpinWait, ThreadWait};
use dfly_lwkt::lock::{NotRun, Serializer};

use super::panic_of;

#[test]
fn driver_and_handler_exclude_each_other() {
    let rounds = if cfg!(miri) { 10 } else { 3000 };
    let gate = Serializer::new(0);
    let ran: usize = std::thread::scope(|s| {
        let threads = [0, 1, 2, 3].map(|kind| {
            let gate = &gate;
            s.spawn(move || {
                let mut w = ThreadWait::new();
                let work = |n: &mut usize| *n += 1;
                (0..rounds)
                    .filter(|_| match kind {
                        0 => {
                            work(&mut gate.enter(&mut w));
                            true
                        }
                        1 => {
                            work(&mut gate.adaptive_enter(&mut w));
                            true
                        }
                        2 => gate.handler_call(&mut w, work).is_ok(),
                        _ => gate.handler_try(work).is_ok(),
                    })
                    .count()
            })
        });
        threads.map(|t| t.join().unwrap()).iter().sum()
    });
    assert_eq!(gate.into_inner(), ran);
    assert!(ran >= 3 * rounds);
}

#[test]
fn a_disabled_handler_does_not_run_and_disabling_does_not_nest() {
    let gate = Serializer::new(0);
    let mut w = ThreadWait::new();
    gate.handler_disable();
    gate.handler_disable();
    assert_eq!(gate.handler_call(&mut w, |n| *n += 1), Err(NotRun::Disabled));
    assert_eq!(gate.handler_try(|n| *n += 1), Err(NotRun::Disabled));
    gate.handler_enable();
    assert_eq!(gate.handler_call(&mut w, |n| *n += 1), Ok(()));
    assert_eq!(gate.handler_try(|n| *n), Ok(1));
    let inside = gate.enter(&mut w);
    assert_eq!(gate.handler_try(|n| *n), Err(NotRun::Busy));
    assert_eq!(*inside, 1);
}

#[test]
fn a_handler_that_was_disabled_while_it_waited_does_not_run() {
    let gate = Serializer::new(0);
    let mut inside = gate.try_enter();
    let mut poll = || {
        gate.handler_disable();
        inside = None;
    };
    let ran = gate.handler_call(&mut SpinWait::new(&mut poll), |n| *n += 1);
    assert_eq!(ran, Err(NotRun::Disabled));
    drop(inside);
    assert_eq!(gate.into_inner(), 0);
}

#[test]
fn several_are_entered_together_or_not_at_all() {
    let gates = [Serializer::new(1), Serializer::new(2), Serializer::new(3)];
    let [a, b, c] = gates.each_ref();
    let mut w = ThreadWait::new();
    let all = Serializer::enter_all([a, b, c], &mut w);
    assert_eq!(all.each_ref().map(|guard| **guard), [1, 2, 3]);
    assert!(Serializer::try_enter_all([a, b]).is_none());
    drop(all);
    let inside = c.try_enter().unwrap();
    assert!(Serializer::try_enter_all([a, b, c]).is_none());
    assert!(a.try_enter().is_some() && b.try_enter().is_some(), "it is in some");
    drop(inside);
    assert!(Serializer::try_enter_all([a, b, c]).is_some());
}

#[test]
fn entering_one_twice_in_a_row_of_several_is_told() {
    let (gate, other) = (Serializer::named("twice", 1), Serializer::new(2));
    let mut w = ThreadWait::new();
    let message = panic_of(AssertUnwindSafe(|| drop(Serializer::enter_all([&gate, &other, &gate], &mut w))));
    assert!(message.starts_with("entered twice: lock \"twice\""), "{message}");
    assert!(gate.try_enter().is_some());
}
