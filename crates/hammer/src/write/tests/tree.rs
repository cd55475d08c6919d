//! The tree against a map.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Bench, Dice, check, element, fresh, look, some_key};
use crate::btree::Source;
use crate::error::Error;
use crate::ondisk::Offset;
use crate::ondisk::node::{Element, Key, Tid};

fn as_list(model: &BTreeMap<Key, u64>) -> Vec<(Key, u64)> {
    model.iter().map(|(k, d)| (*k, *d)).collect()
}

fn listed(elements: &[Element]) -> Vec<(Key, u64)> {
    elements.iter().map(|e| (e.base.key(), e.base.delete_tid.get())).collect()
}

/// The model of a disk: what its tree holds to begin with.
fn model_of(bench: &mut Bench) -> BTreeMap<Key, u64> {
    listed(&bench.check()).into_iter().collect()
}

fn step(bench: &mut Bench, model: &mut BTreeMap<Key, u64>, key: Key, what: u64) {
    match (model.contains_key(&key), what) {
        (false, 0..=5) => {
            bench.run(|op, w| op.insert(w, &element(key))).unwrap();
            model.insert(key, 0);
        }
        (true, 0..=1) => {
            let again = bench.run(|op, w| op.insert(w, &element(key)));
            assert!(matches!(again, Err(Error::Corrupt { .. })), "{again:?}");
        }
        (true, 2..=3) => {
            let tid = bench.engine().group.tid;
            bench
                .run(|op, w| {
                    let (tid, now_s) = (op.tid, op.now_s());
                    op.update(w, &key, |e| {
                        e.base.delete_tid = tid.0.into();
                        e.as_leaf_mut().delete_ts = now_s.into();
                    })
                })
                .unwrap();
            model.insert(key, tid.0);
        }
        (true, _) => {
            let gone = bench.run(|op, w| {
                let gone = op.remove(w, &key)?;
                // The records of a fresh disk have data.
                match gone.as_leaf() {
                    leaf if leaf.data_len.get() == 0 => {}
                    leaf => op.free(w, Offset(leaf.data_offset.get()), leaf.data_len.get() as usize)?,
                }
                Ok(gone)
            });
            assert_eq!(gone.unwrap().base.key(), key);
            model.remove(&key);
        }
        (false, _) => {
            let missing = bench.run(|op, w| op.remove(w, &key));
            assert!(matches!(missing, Err(Error::Corrupt { .. })));
        }
    }
}

#[test]
fn thousands_of_changes_leave_the_tree_of_a_map_and_no_fault_after_any() {
    let mut bench = Bench::open(fresh(7, 128 << 20)).unwrap();
    let mut model = model_of(&mut bench);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for n in 0..6000 {
        // It grows, shrinks to nearly nothing, and grows again.
        let growing = !(2500..4500).contains(&n);
        let key = match model.keys().nth(dice.roll(model.len() as u64 * 2) as usize) {
            Some(key) if !growing || n % 5 == 0 => *key,
            _ => some_key(&mut dice, 20),
        };
        let what = if growing { dice.roll(6) } else { 3 + dice.roll(5) };
        step(&mut bench, &mut model, key, what);
        if n % 97 == 0 {
            bench.commit().unwrap();
        }
        if n % 7 == 0 {
            assert_eq!(listed(&bench.check()), as_list(&model), "after step {n}");
        }
    }
    assert_eq!(listed(&bench.check()), as_list(&model));
}

#[test]
fn a_deep_tree_splits_and_empties_on_every_level() {
    let disk = fresh(7, 256 << 20);
    let mut bench = Bench::open(disk.clone()).unwrap();
    let mut model = model_of(&mut bench);
    let mut dice = Dice(4);
    while model.len() < 9000 {
        let key = some_key(&mut dice, 200);
        step(&mut bench, &mut model, key, 0);
    }
    assert_eq!(listed(&bench.check()), as_list(&model));
    // From the left, from the right, from the middle: every kind of gap.
    let keys: Vec<Key> = model.keys().copied().collect();
    let thirds = keys.len() / 3;
    for key in keys[..thirds].iter().chain(keys[2 * thirds..].iter().rev()) {
        step(&mut bench, &mut model, *key, 4);
    }
    assert_eq!(listed(&bench.check()), as_list(&model));
    // What is inserted now falls into the gaps.
    for _ in 0..3000 {
        let key = some_key(&mut dice, 200);
        step(&mut bench, &mut model, key, 0);
    }
    assert_eq!(listed(&bench.check()), as_list(&model));
    for key in model.keys().copied().collect::<Vec<_>>() {
        step(&mut bench, &mut model, key, 4);
    }
    assert!(bench.check().is_empty());
    assert!(bench.run(|op, w| { op.node(w, op.root()).map(|n| n.is_leaf()) }).unwrap());
    bench.sync().unwrap();
    let (media, recovered) = look(disk, 512).unwrap();
    assert!(!recovered.found.crashed);
    assert!(check(&media).is_empty());
}

#[test]
fn an_operation_that_fails_in_its_middle_changes_nothing() {
    let mut bench = Bench::open(fresh(7, 64 << 20)).unwrap();
    let mut dice = Dice(7);
    for _ in 0..500 {
        let key = some_key(&mut dice, 9).at(Tid(0x1_0000_0000 + dice.roll(1 << 20)));
        bench.run(|op, w| op.insert(w, &element(key))).unwrap();
    }
    bench.commit().unwrap();
    let before = (listed(&bench.check()), bench.engine().figures);
    let failed = bench.run(|op, w| {
        for key in 0..200 {
            let key = Key { localization: 1, obj_id: 1000, rec_type: 1, key, create_tid: Tid(0x2_0000_0000) };
            op.insert(w, &element(key))?;
        }
        Err::<(), _>(Error::NoSpace)
    });
    assert_eq!(failed, Err(Error::NoSpace));
    assert_eq!((listed(&bench.check()), bench.engine().figures), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_leaves_the_tree_of_a_map(
        seed in 1u64..,
        spread in 1u64..60,
        steps in prop::collection::vec(0u64..8, 1..400),
    ) {
        let mut bench = Bench::open(fresh(6, 64 << 20)).unwrap();
        let mut model = model_of(&mut bench);
        let mut dice = Dice(seed);
        for (n, what) in steps.into_iter().enumerate() {
            let key = some_key(&mut dice, spread);
            step(&mut bench, &mut model, key, what);
            if n % 50 == 49 {
                bench.commit().unwrap();
            }
            prop_assert_eq!(listed(&bench.check()), as_list(&model));
        }
    }
}
