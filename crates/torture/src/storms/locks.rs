//! All kinds of locks, some inside of others, waited for with and without deadlines, held over waits where that is allowed.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dfly_lwkt::Cx;
use dfly_lwkt::lock::{Lockmgr, Mtx, Request, Serializer, Spinlock, UpdateLock};

use super::Twin;
use crate::crew::{Crew, Hand};

const THREADS: u32 = 6;

/// One of each, with how often it has grown. Whoever takes two takes the first one first.
struct Locks {
    mtx: (Mtx<Twin>, AtomicU64),
    lockmgr: (Lockmgr<Twin>, AtomicU64),
    serializer: (Serializer<Twin>, AtomicU64),
    spin: (Spinlock<Twin>, AtomicU64),
    update: (UpdateLock<[AtomicU64; 2]>, AtomicU64),
}

impl Locks {
    fn new() -> Self {
        Self {
            mtx: Default::default(),
            lockmgr: Default::default(),
            serializer: Default::default(),
            spin: Default::default(),
            update: (UpdateLock::new(Default::default()), AtomicU64::new(0)),
        }
    }
}

pub(super) fn storm(crew: &mut Crew) {
    let locks = Arc::new(Locks::new());
    for cpu in crew.cpus() {
        for _ in 0..THREADS {
            let locks = locks.clone();
            crew.add(cpu, "locks".into(), move |cx, hand| {
                match hand.rng.below(5) {
                    0 => mtx(cx, hand, &locks),
                    1 => lockmgr(cx, hand, &locks),
                    2 => serializer(cx, hand, &locks),
                    3 => spin(hand, &locks),
                    _ => update(hand, &locks),
                }
                hand.dawdle(cx);
            });
        }
    }
    crew.check(move |cx| {
        let Locks { mtx, lockmgr, serializer, spin, update } = &*locks;
        let lockmgr_left = lockmgr.0.exclusive(Request::wait(), cx).map_or(u64::MAX, |twin| twin.left);
        let all = [
            ("mtx", mtx.0.lock(cx).left, &mtx.1),
            ("lockmgr", lockmgr_left, &lockmgr.1),
            ("serializer", serializer.0.enter(cx).left, &serializer.1),
            ("spinlock", spin.0.lock().left, &spin.1),
            ("update lock", update.0.read(|[left, _]| left.load(Relaxed)), &update.1),
        ];
        for (name, left, grown) in all {
            let grown = grown.load(Relaxed);
            if left != grown {
                return Err(format!("{name} was held {grown} times, and has grown {left} times"));
            }
        }
        Ok(())
    });
}

/// Has a twin alone.
fn grow(hand: &mut Hand, name: &str, twin: &mut Twin, grown: &AtomicU64) {
    let whole = twin.grow(|| hand.work());
    grown.fetch_add(1, Relaxed);
    hand.ensure(whole, || format!("{name} is held twice"));
}

/// Has a twin with others.
fn look(hand: &mut Hand, name: &str, twin: &Twin) {
    let before = core::hint::black_box(twin.left);
    hand.work();
    let same = twin.is_whole() && core::hint::black_box(twin.left) == before;
    hand.ensure(same, || format!("{name} changes while it is shared"));
}

fn mtx(cx: &mut Cx<'_>, hand: &mut Hand, locks: &Locks) {
    let (mtx, grown) = &locks.mtx;
    if hand.rng.once_in(3) {
        let deadline = hand.soon();
        if let Ok(twin) = mtx.lock_shared_until(cx, deadline) {
            look(hand, "mtx", &twin);
            hand.dawdle(cx);
            look(hand, "mtx", &twin);
        }
        return;
    }
    let alone = if hand.rng.once_in(3) {
        let deadline = hand.soon();
        mtx.lock_until(cx, deadline).ok()
    } else {
        Some(mtx.lock(cx))
    };
    let Some(mut twin) = alone else { return };
    grow(hand, "mtx", &mut twin, grown);
    hand.dawdle(cx);
    match hand.rng.below(4) {
        0 => lockmgr(cx, hand, locks),
        1 => spin(hand, locks),
        2 => grow(hand, "mtx", &mut twin.again(), grown),
        _ => {
            if let Ok(twin) = twin.downgrade() {
                hand.dawdle(cx);
                look(hand, "mtx", &twin);
            }
        }
    }
}

fn lockmgr(cx: &mut Cx<'_>, hand: &mut Hand, locks: &Locks) {
    let (lockmgr, grown) = &locks.lockmgr;
    if hand.rng.once_in(2) {
        let Ok(mut twin) = lockmgr.exclusive(Request::wait(), cx) else { return };
        grow(hand, "lockmgr", &mut twin, grown);
        hand.dawdle(cx);
        if hand.rng.once_in(4) {
            serializer(cx, hand, locks);
        }
        grow(hand, "lockmgr", &mut twin, grown);
        return;
    }
    let Ok(twin) = lockmgr.shared(Request::wait(), cx) else { return };
    look(hand, "lockmgr", &twin);
    hand.dawdle(cx);
    if hand.rng.once_in(2) {
        // Refused where another one upgrades.
        if let Ok(mut twin) = twin.upgrade(Request::wait(), cx) {
            grow(hand, "lockmgr", &mut twin, grown);
        }
    } else {
        look(hand, "lockmgr", &twin);
    }
}

fn serializer(cx: &mut Cx<'_>, hand: &mut Hand, locks: &Locks) {
    let (serializer, grown) = &locks.serializer;
    let mut twin = if hand.rng.once_in(2) { serializer.enter(cx) } else { serializer.adaptive_enter(cx) };
    grow(hand, "serializer", &mut twin, grown);
    hand.dawdle(cx);
    if hand.rng.once_in(4) {
        spin(hand, locks);
    }
}

fn spin(hand: &mut Hand, locks: &Locks) {
    let (spin, grown) = &locks.spin;
    if hand.rng.once_in(3) {
        look(hand, "spinlock", &spin.lock_shared());
    } else {
        grow(hand, "spinlock", &mut spin.lock(), grown);
    }
}

fn update(hand: &mut Hand, locks: &Locks) {
    let (lock, grown) = &locks.update;
    if hand.rng.once_in(2) {
        let [left, right] = lock.read(|both| both.each_ref().map(|count| count.load(Relaxed)));
        hand.ensure(left == right, || format!("an update was read in the middle: {left}, {right}"));
    } else {
        let both = lock.update();
        for count in &*both {
            let was = count.load(Relaxed);
            hand.work();
            count.store(was + 1, Relaxed);
        }
        grown.fetch_add(1, Relaxed);
    }
}
