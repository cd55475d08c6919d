//! Commits survive a power cut, whole.

use std::format;
use std::sync::Arc;
use std::vec::Vec;

use dfly_bio::{BlockDevice, Cut, Fault, FaultInjector, MemDisk, Op as DeviceOp, PowerCut, Rule};
use dfly_hal::ThreadWait;

use super::{Bench, Dice, check, element, fresh, look, some_key};
use crate::error::Error;
use crate::ondisk::node::{Element, Key, Tid};
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};

fn listed(elements: &[Element]) -> Vec<(Key, u64)> {
    elements.iter().map(|e| (e.base.key(), e.base.delete_tid.get())).collect()
}

type State = Vec<(Key, u64)>;

/// Some changes: insertions, ends of records, removals.
fn change(bench: &mut Bench, dice: &mut Dice, state: &mut State) -> Result<(), Error> {
    for _ in 0..dice.roll(40) + 1 {
        let tid = bench.engine().group.tid;
        match dice.roll(4) {
            0 if state.len() > 3 => {
                // The first two are the root's inode and the pseudo file system, which have data.
                let (key, _) = state[3 + dice.roll(state.len() as u64 - 3) as usize];
                bench.run(|op, w| op.remove(w, &key).map(drop))?;
                state.retain(|(k, _)| *k != key);
            }
            1 if state.len() > 3 => {
                let i = 3 + dice.roll(state.len() as u64 - 3) as usize;
                let key = state[i].0;
                bench.run(|op, w| op.update(w, &key, |e| e.base.delete_tid = tid.0.into()))?;
                state[i].1 = tid.0;
            }
            _ => {
                let mut key = some_key(dice, 50).at(Tid(0x1_0000_0000 + dice.roll(1 << 30)));
                key.localization = 0x1_0000;
                if state.iter().all(|(k, _)| *k != key) {
                    bench.run(|op, w| op.insert(w, &element(key)))?;
                    state.push((key, 0));
                }
            }
        }
    }
    state.sort();
    Ok(())
}

/// What a run has promised, and what it may also have left.
#[derive(Default)]
struct Promises {
    /// The state at the last sync that returned.
    synced: State,
    /// All states at commits that began since then.
    later: Vec<State>,
}

/// Works on a disk until it is done or the power goes.
fn work(disk: Arc<dyn BlockDevice>, seed: u64, out: &mut Promises) -> Result<(), Error> {
    let mut bench = Bench::open(disk)?;
    let mut dice = Dice(seed);
    let mut state = listed(&bench.check());
    *out = Promises { synced: state.clone(), later: Vec::new() };
    for _ in 0..12 {
        change(&mut bench, &mut dice, &mut state)?;
        out.later.push(state.clone());
        if dice.roll(3) == 0 {
            bench.sync()?;
            *out = Promises { synced: state.clone(), later: Vec::new() };
        } else {
            bench.commit()?;
        }
    }
    Ok(())
}

/// Mounts what a cut left, twice: to look, and to write on.
fn judge(left: MemDisk, promises: &Promises, context: &str) {
    let left = Arc::new(left);
    let (media, _) = look(left.clone(), 1024).unwrap_or_else(|e| panic!("{context}: {e}"));
    let found = listed(&check(&media));
    let fits = found == promises.synced || promises.later.contains(&found);
    assert!(fits, "{context}: neither the state of the last sync nor one of {} later", promises.later.len());

    let mut bench = Bench::open(left.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
    let mut state = listed(&bench.check());
    assert_eq!(state, found, "{context}: recovered on the disk as in memory");
    change(&mut bench, &mut Dice(3), &mut state).unwrap();
    bench.sync().unwrap();
    let (media, recovered) = look(left, 1024).unwrap();
    assert!(!recovered.found.crashed, "{context}");
    assert_eq!(listed(&check(&media)), state, "{context}");
}

#[test]
fn after_a_cut_at_any_write_or_flush_the_disk_holds_a_commit_and_no_older_one_than_the_last_sync() {
    let base = fresh(7, 64 << 20).image();
    for seed in [1, 2, 3] {
        let whole = Arc::new(PowerCut::new(MemDisk::from_image(512, base.clone()), Cut::Never));
        work(whole.clone(), seed, &mut Promises::default()).unwrap();
        let stats = whole.stats();
        let cuts = (0..stats.writes).map(Cut::AtWrite).chain((0..stats.flushes).map(Cut::AtFlush));
        for (n, cut) in cuts.enumerate() {
            let disk = Arc::new(PowerCut::new(MemDisk::from_image(512, base.clone()), cut));
            let mut promises = Promises::default();
            let ended = work(disk.clone(), seed, &mut promises);
            assert!(matches!(ended, Err(Error::Device { .. })), "{ended:?}");
            for draw in 0..3 {
                let left = disk.survivor_disk(draw + 100 * n as u64 + 1).unwrap();
                judge(left, &promises, &format!("seed {seed}, {cut:?}, draw {draw}"));
            }
        }
    }
}

#[test]
fn a_cut_during_recovery_is_recovered_from() {
    let base = fresh(7, 64 << 20).image();
    let whole = Arc::new(PowerCut::new(MemDisk::from_image(512, base.clone()), Cut::Never));
    work(whole.clone(), 9, &mut Promises::default()).unwrap();
    let last_but_some = Cut::AtWrite(whole.stats().writes - 4);
    let first = Arc::new(PowerCut::new(MemDisk::from_image(512, base), last_but_some));
    let mut promises = Promises::default();
    work(first.clone(), 9, &mut promises).unwrap_err();
    let crashed = first.survivor_disk(4).unwrap().image();
    let counted = Arc::new(PowerCut::new(MemDisk::from_image(512, crashed.clone()), Cut::Never));
    Bench::open(counted.clone()).unwrap();
    assert!(counted.stats().writes > 2, "there is something to recover");
    for at in 0..counted.stats().writes {
        let disk = Arc::new(PowerCut::new(MemDisk::from_image(512, crashed.clone()), Cut::AtWrite(at)));
        assert!(Bench::open(disk.clone()).is_err());
        for draw in 1..5 {
            judge(
                disk.survivor_disk(draw).unwrap(),
                &promises,
                &format!("write {at} of the recovery, draw {draw}"),
            );
        }
    }
}

#[test]
fn a_failing_commit_stops_all_writing_and_what_was_synced_stays() {
    for op in [DeviceOp::Write, DeviceOp::Flush] {
        for after in 0..6 {
            let disk = fresh(7, 64 << 20);
            let faulty = Arc::new(FaultInjector::new(MemDisk::from_image(512, disk.image()), 1));
            let mut bench = Bench::open(faulty.clone()).unwrap();
            let mut state = listed(&bench.check());
            let mut dice = Dice(8);
            change(&mut bench, &mut dice, &mut state).unwrap();
            bench.sync().unwrap();
            let mut synced = state.clone();
            faulty.add(Rule::always(Fault::Fail(dfly_bio::Failure::Device)).on(op).after(after));
            let failed = (0..20).find_map(|_| {
                change(&mut bench, &mut dice, &mut state).and_then(|()| bench.sync()).err().or_else(|| {
                    synced.clone_from(&state);
                    None
                })
            });
            assert!(matches!(failed, Some(Error::Device { volume: 0, .. })), "{op:?} {after}: {failed:?}");
            let (writes, before) = (bench.engine().stats(), listed(&bench.check()));
            let again = change(&mut bench, &mut dice, &mut state);
            assert_eq!((again, bench.sync()), (Err(Error::Halted), Err(Error::Halted)));
            assert_eq!((bench.engine().stats(), listed(&bench.check())), (writes, before), "it can be read");
            let left = Arc::new(MemDisk::from_image(512, faulty.lower().image()));
            let (media, _) = look(left, 1024).unwrap();
            let found = listed(&check(&media));
            assert!(found == synced || found == state, "{op:?} {after}");
        }
    }
}

#[test]
fn a_group_closes_itself_before_it_outgrows_its_share_of_the_fifo() {
    let disk = fresh(7, 256 << 20);
    let mut bench = Bench::with_pages(disk.clone(), 8192, 6000).unwrap();
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let key = some_key(&mut dice, 1 << 40).at(Tid(0x1_0000_0000));
        bench.run(|op, w| op.insert(w, &element(key))).unwrap();
    }
    bench.sync().unwrap();
    let state = listed(&bench.check());
    // Then changes all over the tree.
    for _ in 0..20_000 {
        let key = state[3 + dice.roll(state.len() as u64 - 3) as usize].0;
        let tid = bench.engine().group.tid;
        bench.run(|op, w| op.update(w, &key, |e| e.base.delete_tid = tid.0.into())).unwrap();
        let first = bench.engine().first;
        assert!(bench.engine().undo.room_before(first) > bench.engine().undo.size() / 2);
    }
    assert!(bench.engine().stats().commits > 10, "{:?}", bench.engine().stats());
    bench.sync().unwrap();
    let state = listed(&bench.check());
    let (media, recovered) = look(disk, 4096).unwrap();
    assert!(!recovered.found.crashed);
    assert!(listed(&check(&media)) == state);
}

#[test]
fn whole_pages_of_data_are_written_where_they_were_allocated() {
    let disk = fresh(7, 128 << 20);
    let mut bench = Bench::open(disk.clone()).unwrap();
    let at = bench.run(|op, w| {
        let at = op.allocate(w, Zone::LARGE_DATA, BUFFER_SIZE)?;
        op.new_page(at)?.fill(7);
        Ok(at)
    });
    let at = at.unwrap();
    bench.sync().unwrap();
    let (media, _) = look(disk, 512).unwrap();
    let page =
        media.page(&mut ThreadWait::new(), at.in_zone(Zone::RAW_BUFFER), crate::Structure::Data).unwrap();
    assert!(page.bytes().iter().all(|b| *b == 7));
    assert_ne!(at, Offset::NONE);
}

#[test]
fn an_empty_sync_writes_nothing() {
    let disk = Arc::new(PowerCut::new(MemDisk::from_image(512, fresh(7, 64 << 20).image()), Cut::Never));
    let mut bench = Bench::open(disk.clone()).unwrap();
    bench.sync().unwrap();
    bench.commit().unwrap();
    assert_eq!((disk.stats().writes, disk.stats().flushes), (0, 0));
    change(&mut bench, &mut Dice(1), &mut Vec::new()).unwrap();
    bench.sync().unwrap();
    let after = disk.stats();
    bench.sync().unwrap();
    assert_eq!(disk.stats(), after);
}
