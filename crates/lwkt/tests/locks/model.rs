//! Each lock against a plain model of itself: whatever is tried, in whatever order, both answer the same.

use std::pin::Pin;
use std::task::Poll;

use dfly_hal::{Instant, TimedOut, Wait};
use dfly_lwkt::lock::*;
use proptest::collection::vec;
use proptest::prelude::*;

use super::look;

const CASES: u32 = if cfg!(miri) { 2 } else { 256 };
const STEPS: usize = if cfg!(miri) { 16 } else { 80 };

#[derive(Clone, Debug)]
enum Step {
    TryExclusive,
    TryShared,
    /// Drops a guard, or gives a place up.
    Drop(usize),
    /// Looks at a place.
    Look(usize),
    Enqueue,
    EnqueueShared,
    Abort(usize),
    Upgrade(usize),
    Downgrade(usize),
    Again(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        1 => Just(Step::TryExclusive),
        1 => Just(Step::TryShared),
        3 => which.clone().prop_map(Step::Drop),
        3 => which.clone().prop_map(Step::Look),
        2 => Just(Step::Enqueue),
        2 => Just(Step::EnqueueShared),
        1 => which.clone().prop_map(Step::Abort),
        1 => which.clone().prop_map(Step::Upgrade),
        1 => which.clone().prop_map(Step::Downgrade),
        1 => which.prop_map(Step::Again),
    ]
}

/// What somebody has of the lock, or waits for.
enum Real<'a> {
    Alone(ExclusiveGuard<'a, u32>),
    Share(SharedGuard<'a, u32>),
    Waits(Pin<Box<Acquire<'a, u32, Exclusive>>>),
    WaitsShared(Pin<Box<Acquire<'a, u32, Shared>>>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Plain {
    Alone,
    Share,
    Waits,
    WaitsShared,
    /// It has the lock and does not know.
    Given,
    GivenShared,
    Aborted,
}

/// The model: everybody, and the order in which those wait who wait.
#[derive(Default)]
struct Model {
    all: Vec<Plain>,
    line: Vec<usize>,
}

impl Model {
    fn count(&self, which: &[Plain]) -> u32 {
        self.all.iter().filter(|one| which.contains(one)).count() as u32
    }
    fn alone(&self) -> u32 {
        self.count(&[Plain::Alone, Plain::Given])
    }
    fn shares(&self) -> u32 {
        self.count(&[Plain::Share, Plain::GivenShared])
    }
    fn may(&self, shared: bool) -> bool {
        self.alone() == 0 && (shared || self.shares() == 0)
    }
    fn let_in(&mut self) {
        while let Some(&first) = self.line.first() {
            let shared = self.all[first] == Plain::WaitsShared;
            if !self.may(shared) {
                break;
            }
            self.all[first] = if shared { Plain::GivenShared } else { Plain::Given };
            self.line.remove(0);
        }
    }
    fn remove(&mut self, i: usize) {
        self.all.remove(i);
        self.line.retain(|&one| one != i);
        for one in &mut self.line {
            if *one > i {
                *one -= 1;
            }
        }
        self.let_in();
    }
    fn status(&self) -> (Holders, bool) {
        let holders = match (self.alone(), self.shares()) {
            (0, 0) => Holders::Nobody,
            (0, n) => Holders::Shared(n),
            (n, _) => Holders::Exclusive(n),
        };
        (holders, !self.line.is_empty())
    }
}

/// Looks at what waits. `None`: it waits still. Else: its guard, or that it was aborted.
fn look_at<'a>(one: &mut Real<'a>) -> Option<Option<Real<'a>>> {
    match one {
        Real::Waits(place) => match look(place.as_mut()) {
            Poll::Pending => None,
            Poll::Ready(Ok(guard)) => Some(Some(Real::Alone(guard))),
            Poll::Ready(Err(error)) => {
                assert_eq!(error.cause, Cause::Aborted);
                Some(None)
            }
        },
        Real::WaitsShared(place) => match look(place.as_mut()) {
            Poll::Pending => None,
            Poll::Ready(Ok(guard)) => Some(Some(Real::Share(guard))),
            Poll::Ready(Err(error)) => {
                assert_eq!(error.cause, Cause::Aborted);
                Some(None)
            }
        },
        Real::Alone(_) | Real::Share(_) => None,
    }
}

fn run_mtx(steps: &[Step]) {
    let lock = Mtx::new(0);
    let mut real: Vec<Real<'_>> = Vec::new();
    let mut model = Model::default();
    for step in steps {
        let n = real.len();
        match *step {
            Step::TryExclusive => {
                let guard = lock.try_lock();
                assert_eq!(guard.is_some(), model.may(false) && model.line.is_empty());
                if let Some(guard) = guard {
                    real.push(Real::Alone(guard));
                    model.all.push(Plain::Alone);
                }
            }
            Step::TryShared => {
                let guard = lock.try_lock_shared();
                assert_eq!(guard.is_some(), model.may(true) && model.line.is_empty());
                if let Some(guard) = guard {
                    real.push(Real::Share(guard));
                    model.all.push(Plain::Share);
                }
            }
            Step::Enqueue | Step::EnqueueShared => {
                let shared = matches!(step, Step::EnqueueShared);
                let mut one = match shared {
                    false => Real::Waits(Box::pin(lock.acquire())),
                    true => Real::WaitsShared(Box::pin(lock.acquire_shared())),
                };
                let at_once = look_at(&mut one).flatten();
                assert_eq!(at_once.is_some(), model.may(shared) && model.line.is_empty());
                model.all.push(match (at_once.is_some(), shared) {
                    (true, false) => Plain::Alone,
                    (true, true) => Plain::Share,
                    (false, false) => Plain::Waits,
                    (false, true) => Plain::WaitsShared,
                });
                if at_once.is_none() {
                    model.line.push(n);
                }
                real.push(at_once.unwrap_or(one));
            }
            _ if n == 0 => {}
            Step::Drop(i) => {
                drop(real.remove(i % n));
                model.remove(i % n);
            }
            Step::Look(i) => {
                let i = i % n;
                let seen = look_at(&mut real[i]);
                match model.all[i] {
                    Plain::Given | Plain::GivenShared => {
                        real[i] = seen.flatten().expect("it was given the lock");
                        model.all[i] = if model.all[i] == Plain::Given { Plain::Alone } else { Plain::Share };
                    }
                    Plain::Aborted => {
                        assert!(matches!(seen, Some(None)));
                        real.remove(i);
                        model.remove(i);
                    }
                    _ => assert!(seen.is_none()),
                }
            }
            Step::Abort(i) => {
                let i = i % n;
                let in_time = match &real[i] {
                    Real::Waits(place) => place.as_ref().abort(),
                    Real::WaitsShared(place) => place.as_ref().abort(),
                    _ => continue,
                };
                let waits = matches!(model.all[i], Plain::Waits | Plain::WaitsShared);
                assert_eq!(in_time, waits);
                if waits {
                    model.all[i] = Plain::Aborted;
                    model.line.retain(|&one| one != i);
                    model.let_in();
                }
            }
            Step::Upgrade(i) => {
                let i = i % n;
                if !matches!(real[i], Real::Share(_)) {
                    continue;
                }
                let Real::Share(share) = real.remove(i) else { unreachable!() };
                let upgraded = share.try_upgrade();
                assert_eq!(upgraded.is_ok(), model.shares() == 1);
                model.all[i] = if upgraded.is_ok() { Plain::Alone } else { Plain::Share };
                real.insert(i, upgraded.map_or_else(Real::Share, Real::Alone));
            }
            Step::Downgrade(i) => {
                let i = i % n;
                if !matches!(real[i], Real::Alone(_)) {
                    continue;
                }
                let Real::Alone(alone) = real.remove(i) else { unreachable!() };
                real.insert(i, Real::Share(alone.downgrade().unwrap()));
                model.all[i] = Plain::Share;
                model.let_in();
            }
            Step::Again(i) => match &mut real[i % n] {
                Real::Share(share) => {
                    let again = share.again();
                    real.push(Real::Share(again));
                    model.all.push(Plain::Share);
                }
                Real::Alone(alone) => {
                    let mut again = alone.again();
                    *again += 1;
                    assert_eq!(again.depth(), 2);
                }
                _ => {}
            },
        }
        let status = lock.status();
        assert_eq!((status.holders, status.queued), model.status(), "after {step:?}: {:?}", model.all);
    }
    drop(real);
    assert_eq!(lock.status().holders, Holders::Nobody);
    assert!(lock.try_lock().is_some());
}

/// Has no time at all: its deadline has passed when it begins to wait.
struct Hasty;

impl Wait for Hasty {
    fn wait(&mut self, _: Pin<&mut dyn Future<Output = ()>>, _: Option<Instant>) -> Result<(), TimedOut> {
        Err(TimedOut)
    }
}

fn run_lockmgr(steps: &[Step]) {
    let lock = Lockmgr::new(0);
    let (mut alone, mut shares, mut cancelling) = (None, Vec::new(), false);
    let past = Request::wait().until(Instant::from_nanos(0));
    for step in steps {
        // What keeps a request out that can neither have the lock nor wait for it.
        let out = |agrees: bool| if agrees && cancelling { Cause::Cancelled } else { Cause::TimedOut };
        let request = |agrees: bool| if agrees { past.cancelable() } else { past };
        match *step {
            Step::TryExclusive => {
                let guard = lock.try_exclusive();
                assert_eq!(guard.is_some(), alone.is_none() && shares.is_empty());
                alone = guard.or(alone);
            }
            Step::TryShared => {
                let guard = lock.try_shared();
                assert_eq!(guard.is_some(), alone.is_none() && !cancelling);
                shares.extend(guard);
            }
            Step::Look(i) => {
                let agrees = i % 2 == 0;
                let guard = lock.exclusive(request(agrees), &mut Hasty);
                let room = alone.is_none() && shares.is_empty();
                assert_eq!(
                    guard.as_ref().map(|_| ()).map_err(|e| e.cause),
                    room.then_some(()).ok_or(out(agrees))
                );
                alone = guard.ok().or(alone);
            }
            Step::Again(i) => {
                let agrees = i % 2 == 0;
                let guard = lock.shared(request(agrees), &mut Hasty);
                let room = alone.is_none() && !(cancelling && agrees);
                assert_eq!(
                    guard.as_ref().map(|_| ()).map_err(|e| e.cause),
                    room.then_some(()).ok_or(out(agrees))
                );
                shares.extend(guard.ok());
            }
            Step::Upgrade(i) => {
                let (agrees, only) = (i % 2 == 0, shares.len() == 1);
                match shares.pop().map(|share| share.upgrade(request(agrees), &mut Hasty)) {
                    Some(Ok(guard)) => {
                        assert!(only);
                        alone = Some(guard);
                    }
                    Some(Err(not)) => {
                        assert!(!only && not.error.cause == out(agrees));
                        shares.push(not.guard);
                    }
                    None => {}
                }
            }
            Step::Downgrade(_) => shares.extend(alone.take().and_then(|guard| guard.downgrade().ok())),
            Step::Enqueue => {
                if let Some(guard) = &alone {
                    guard.cancel_begin();
                    cancelling = true;
                }
            }
            Step::EnqueueShared => {
                if let Some(guard) = &alone {
                    guard.cancel_end();
                    cancelling = false;
                }
            }
            Step::Drop(i) if i < shares.len() => drop(shares.remove(i)),
            Step::Drop(_) | Step::Abort(_) => alone = None,
        }
        let holders = match (&alone, shares.len() as u32) {
            (Some(_), _) => Holders::Exclusive(1),
            (None, 0) => Holders::Nobody,
            (None, n) => Holders::Shared(n),
        };
        cancelling &= holders != Holders::Nobody;
        let status = lock.status();
        assert_eq!((status.holders, status.queued, status.cancelling), (holders, false, cancelling));
    }
}

fn run_spinlock(steps: &[Step]) {
    let lock = Spinlock::new(0);
    let (mut alone, mut shares) = (None, Vec::new());
    for step in steps {
        match *step {
            Step::TryExclusive | Step::Enqueue => {
                let guard = lock.try_lock();
                assert_eq!(guard.is_some(), alone.is_none() && shares.is_empty());
                alone = guard.or(alone);
            }
            Step::TryShared | Step::EnqueueShared => {
                let guard = lock.try_lock_shared();
                assert_eq!(guard.is_some(), alone.is_none());
                shares.extend(guard);
            }
            Step::Upgrade(_) => {
                if let Some(share) = shares.pop() {
                    let others = shares.len();
                    match share.try_upgrade() {
                        Ok(guard) => alone = Some(guard),
                        Err(share) => shares.push(share),
                    }
                    assert_eq!(alone.is_some(), others == 0);
                }
            }
            Step::Downgrade(_) => shares.extend(alone.take().map(SpinGuard::downgrade)),
            Step::Drop(i) if i < shares.len() => drop(shares.remove(i)),
            _ => alone = None,
        }
    }
}

fn run_serializer(steps: &[Step]) {
    let gate = Serializer::new(0_u32);
    let (mut inside, mut disabled, mut ran) = (None, false, 0);
    for step in steps {
        match step {
            Step::TryExclusive | Step::Enqueue => {
                let guard = gate.try_enter();
                assert_eq!(guard.is_some(), inside.is_none());
                inside = guard.or(inside);
            }
            Step::TryShared | Step::EnqueueShared => {
                let expected = match (disabled, inside.is_some()) {
                    (true, _) => Err(NotRun::Disabled),
                    (_, true) => Err(NotRun::Busy),
                    _ => Ok(()),
                };
                assert_eq!(gate.handler_try(|n| *n += 1), expected);
                ran += u32::from(expected.is_ok());
            }
            Step::Upgrade(_) => {
                gate.handler_disable();
                disabled = true;
            }
            Step::Downgrade(_) => {
                gate.handler_enable();
                disabled = false;
            }
            _ => inside = None,
        }
        assert_eq!(gate.handler_is_disabled(), disabled);
    }
    drop(inside);
    assert_eq!(gate.into_inner(), ran);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mtx_does_as_its_model(steps in vec(step(), 0..STEPS)) {
        run_mtx(&steps);
    }

    #[test]
    fn a_lockmgr_does_as_its_model(steps in vec(step(), 0..STEPS)) {
        run_lockmgr(&steps);
    }

    #[test]
    fn a_spinlock_does_as_its_model(steps in vec(step(), 0..STEPS)) {
        run_spinlock(&steps);
    }

    #[test]
    fn a_serializer_does_as_its_model(steps in vec(step(), 0..STEPS)) {
        run_serializer(&steps);
    }
}
