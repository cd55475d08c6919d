//! The queues of one CPU beside a model of them: lists by channel.

use std::boxed::Box;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use proptest::prelude::*;

use super::ident::{Channel, Domain, Ident};
use super::queue::{Left, Place, Sleeper, Sleepers};
use super::request::{Count, ROOM, Request};

struct Item(usize, Place<Item>);

impl Sleeper for Item {
    fn place(&self) -> &Place<Self> {
        &self.1
    }
    fn is_urgent(&self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// Kept where Miri finds them.
fn items(count: usize) -> Vec<&'static Item> {
    static ALL: Mutex<Vec<&Item>> = Mutex::new(Vec::new());
    let items: Vec<_> = (0..count).map(|i| &*Box::leak(Box::new(Item(i, Place::new())))).collect();
    ALL.lock().unwrap_or_else(PoisonError::into_inner).extend(&items);
    items
}

/// Three channels of one bucket, and one of another.
fn channels() -> Vec<Channel> {
    let all = (0..).map(|n| Channel::from(Ident(n)));
    let other = Ident(0).in_domain(Domain(7));
    assert_ne!(other.bucket(), 0);
    all.filter(|channel| channel.bucket() == 0).take(3).chain([other]).collect()
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(usize, usize),
    FallAsleep(usize),
    Leave(usize),
    Ask(usize, Count),
    AskTooMuch,
    Serve,
}

fn step() -> impl Strategy<Value = Step> {
    let (item, channel) = (0..6_usize, 0..4_usize);
    prop_oneof![
        4 => (item.clone(), channel.clone()).prop_map(|(i, c)| Step::Enter(i, c)),
        4 => item.clone().prop_map(Step::FallAsleep),
        2 => item.prop_map(Step::Leave),
        2 => channel.clone().prop_map(|c| Step::Ask(c, Count::All)),
        2 => channel.prop_map(|c| Step::Ask(c, Count::One)),
        1 => Just(Step::AskTooMuch),
        4 => Just(Step::Serve),
    ]
}

#[derive(Default)]
struct Model {
    /// Who is where, and sleeps, by order of arrival.
    listed: Vec<(usize, usize, bool)>,
    /// Who was taken out.
    woken: Vec<usize>,
    asked: Vec<(usize, Count)>,
    overflow: bool,
}

impl Model {
    fn serve(&mut self) -> Vec<usize> {
        let mut run = Vec::new();
        let everybody = core::mem::take(&mut self.overflow);
        let asked = core::mem::take(&mut self.asked);
        let all = (0..4).filter(|_| everybody).map(|channel| (channel, Count::All));
        for (channel, count) in all.collect::<Vec<_>>().into_iter().chain(asked) {
            let mut enough = false;
            self.listed.retain(|&(item, on, asleep)| {
                if on != channel || enough {
                    return true;
                }
                enough = asleep && count == Count::One;
                self.woken.push(item);
                run.extend(asleep.then_some(item));
                false
            });
        }
        run
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 512 }, failure_persistence: None, ..Default::default() })]
    #[test]
    fn the_queues_do_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let (items, channels, mut model) = (items(6), channels(), Model::default());
        let sleepers = Sleepers::new();
        for step in steps {
            let urgent = model.listed.iter().any(|(item, ..)| item.is_multiple_of(2));
            prop_assert_eq!(sleepers.any_urgent(), urgent);
            match step {
                Step::Enter(i, c) => {
                    // As `Cx::interlock` does.
                    sleepers.leave(items[i]);
                    model.listed.retain(|&(item, ..)| item != i);
                    model.woken.retain(|&item| item != i);
                    let was_empty = sleepers.enter(items[i], channels[c]);
                    let bucket = channels[c].bucket();
                    let neighbours = model.listed.iter().filter(|&&(_, on, _)| channels[on].bucket() == bucket);
                    prop_assert_eq!(was_empty, neighbours.count() == 0);
                    model.listed.push((i, c, false));
                }
                Step::FallAsleep(i) => {
                    items[i].place().fall_asleep();
                    model.listed.iter_mut().filter(|&&mut (item, ..)| item == i).for_each(|entry| entry.2 = true);
                }
                Step::Leave(i) => {
                    let left = sleepers.leave(items[i]);
                    let on = model.listed.iter().find(|&&(item, ..)| item == i).map(|&(_, on, _)| channels[on].bucket());
                    model.listed.retain(|&(item, ..)| item != i);
                    let others = |bucket| model.listed.iter().any(|&(_, on, _)| channels[on].bucket() == bucket);
                    let expected = match on {
                        Some(bucket) if others(bucket) => Left::Listed,
                        Some(bucket) => Left::Emptied(bucket),
                        None if model.woken.contains(&i) => Left::Woken,
                        None => Left::WasOut,
                    };
                    model.woken.retain(|&item| item != i);
                    prop_assert_eq!(left, expected);
                }
                Step::Ask(c, count) => {
                    sleepers.ask(Request { channel: channels[c], count, from_elsewhere: true });
                    if model.asked.len() < ROOM { model.asked.push((c, count)) } else { model.overflow = true }
                }
                Step::AskTooMuch => {
                    let request = Request { channel: channels[3], count: Count::All, from_elsewhere: false };
                    (0..=ROOM).for_each(|_| sleepers.ask(request));
                    model.asked.resize(ROOM, (3, Count::All));
                    model.overflow = true;
                }
                Step::Serve => {
                    let (mut run, mut emptied) = (Vec::new(), Vec::new());
                    sleepers.serve(&mut |item: &Item, _| run.push(item.0), &mut |bucket| emptied.push(bucket));
                    let mut expected = model.serve();
                    // When all are woken, they are so by bucket.
                    run.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(run, expected);
                    let left = |bucket| model.listed.iter().any(|&(_, on, _)| channels[on].bucket() == bucket);
                    prop_assert!(!emptied.into_iter().any(left), "a bucket with sleepers has lost its bit");
                    prop_assert!(!sleepers.is_asked());
                }
            }
        }
    }
}

#[test]
fn of_sleepers_on_one_channel_the_first_is_woken_first() {
    let items = items(3);
    let sleepers = Sleepers::new();
    for &item in &items {
        sleepers.enter(item, Ident(1).into());
        item.place().fall_asleep();
    }
    let one = Request { channel: Ident(1).into(), count: Count::One, from_elsewhere: false };
    (0..4).for_each(|_| sleepers.ask(one));
    let (mut run, mut emptied) = (Vec::new(), Vec::new());
    sleepers.serve(&mut |item: &Item, _| run.push(item.0), &mut |bucket| emptied.push(bucket));
    assert_eq!(run, [0, 1, 2]);
    assert_eq!(emptied, [one.channel.bucket()]);
}
