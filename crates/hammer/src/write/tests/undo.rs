//! The FIFO as it is written, read by recovery.

use std::vec;
use std::vec::Vec;

use dfly_hal::ThreadWait;

use super::{Dice, fresh, look};
use crate::media::Media;
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};
use crate::recovery::recover;
use crate::write::undo::{UndoWriter, worst_case};

const TARGET: Offset = Offset::new(Zone::RAW_BUFFER, 0, 0x200_0000);

fn write_out(media: &Media, undo: &mut UndoWriter) {
    let w = &mut ThreadWait::new();
    media.write(w, undo.take_buffers().unwrap()).unwrap();
    media.pages().clear();
}

#[test]
fn what_was_logged_is_found_and_gives_the_old_bytes_back() {
    let w = &mut ThreadWait::new();
    let (media, at) = look(fresh(7, 64 << 20), 512).unwrap();
    let mut undo = UndoWriter::open(&media, w, at.end, at.next_seq.unwrap()).unwrap();
    let mut dice = Dice(11);
    let old: Vec<u8> = (0..BUFFER_SIZE).map(|_| dice.roll(256) as u8).collect();
    let mut new = old.clone();
    let mut logged = 0;
    for round in 0..40 {
        let before = new.clone();
        for _ in 0..dice.roll(200) + 1 {
            let (from, len) = (dice.roll(BUFFER_SIZE as u64) as usize, dice.roll(600) as usize + 1);
            let end = (from + len).min(BUFFER_SIZE);
            new[from..end].fill(dice.roll(256) as u8);
        }
        logged += undo.log_changes(TARGET, &before, &new).unwrap();
        write_out(&media, &mut undo);
        let found = recover(&media, w).unwrap();
        assert!(found.found.crashed);
        assert_eq!(found.end, undo.position(), "round {round}");
        assert_eq!(found.end, logged);
        let mut bytes = new.clone();
        found.overlay.restore(TARGET, &mut bytes);
        assert!(bytes == old, "round {round}");
    }
}

#[test]
fn it_goes_round_many_times_and_its_end_is_found_every_time() {
    let w = &mut ThreadWait::new();
    let (mut media, at) = look(fresh(7, 64 << 20), 512).unwrap();
    let mut undo = UndoWriter::open(&media, w, at.end, at.next_seq.unwrap()).unwrap();
    let mut dice = Dice(5);
    let (old, mut new) = (vec![1; BUFFER_SIZE], vec![1; BUFFER_SIZE]);
    let mut rounds = 0;
    let mut first = 0;
    while rounds < 3 {
        new.fill(1);
        for _ in 0..dice.roll(60) + 1 {
            new[dice.roll(BUFFER_SIZE as u64 / 8) as usize * 8] = 2;
        }
        undo.log_changes(TARGET, &old, &new).unwrap();
        write_out(&media, &mut undo);
        rounds += u32::from(undo.position() < first);
        if dice.roll(20) == 0 || undo.room_before(first) < 1 << 20 {
            first = undo.position();
        }
        let mut header = media.header().clone();
        header.vol0_blockmap[3].first_offset = Offset::new(Zone::UNDO, 0, first).0.into();
        media.recover(Default::default(), header);
        let found = recover(&media, w).unwrap();
        assert_eq!((found.end, found.found.crashed), (undo.position(), undo.position() != first));
    }
}

#[test]
fn no_changes_take_more_than_the_worst_case() {
    let w = &mut ThreadWait::new();
    let (media, at) = look(fresh(6, 64 << 20), 512).unwrap();
    let mut undo = UndoWriter::open(&media, w, at.end, at.next_seq.unwrap()).unwrap();
    let old = vec![0; 4096];
    for stride in (8..600).step_by(8) {
        let mut new = old.clone();
        new.iter_mut().step_by(stride).for_each(|b| *b = 1);
        let took = undo.log_changes(TARGET, &old, &new).unwrap();
        assert!(took <= worst_case(4096), "{took} bytes with a change every {stride}");
    }
}

#[test]
fn a_changed_field_costs_a_field_not_a_node() {
    let w = &mut ThreadWait::new();
    let (media, at) = look(fresh(7, 64 << 20), 512).unwrap();
    let mut undo = UndoWriter::open(&media, w, at.end, at.next_seq.unwrap()).unwrap();
    let old = vec![0; 4096];
    let mut new = old.clone();
    new[0..4].fill(1);
    new[2000..2008].fill(1);
    assert_eq!(undo.log_changes(TARGET, &old, &new).unwrap(), 2 * 48);
}
