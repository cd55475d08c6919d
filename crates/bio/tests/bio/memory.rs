//! Memory that changes hands: buffers, shared pages, scatter lists.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfly_bio::*;

use crate::common::{for_ever, page};

#[test]
fn an_allocation_is_zeroed_and_aligned_and_a_bad_one_is_an_error() {
    for (len, align) in [(0, 1), (1, 1), (512, 512), (4096, 65536)] {
        let b = Buf::alloc(len, align).unwrap();
        assert_eq!(b.len(), len);
        assert!(b.as_ptr().addr().is_multiple_of(align));
        assert!(b.iter().all(|&x| x == 0));
    }
    assert!(Buf::alloc(1, 3).is_err());
    assert!(Buf::alloc(usize::MAX, 1).is_err());
    let e = Buf::alloc(isize::MAX as usize, 4096).unwrap_err();
    assert_eq!(e.to_string(), format!("no memory for {} bytes aligned to 4096", isize::MAX));
}

#[test]
fn a_box_and_a_static_keep_their_bytes_and_address() {
    let b: Box<[u8]> = vec![1, 2, 3].into();
    let address = b.as_ptr();
    let mut buf = Buf::from_box(b);
    assert_eq!((buf.as_ptr(), &*buf), (address, &[1, 2, 3][..]));
    buf[0] = 9;
    assert_eq!(buf[0], 9);
    let fixed = for_ever(vec![7; 16]);
    assert_eq!(&*Buf::from_static(fixed), &[7; 16]);
    assert!(Buf::from_box(Box::default()).is_empty());
}

#[test]
fn a_foreign_owner_gets_its_memory_back_once() {
    static FREED: AtomicUsize = AtomicUsize::new(0);
    unsafe fn free(owner: *mut (), ptr: NonNull<u8>, len: usize) {
        assert_eq!((owner.addr(), len), (77, 8));
        FREED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: made from this box below.
        drop(unsafe { Box::from_raw(ptr.cast::<[u8; 8]>().as_ptr()) });
    }
    static OWNER: BufVtable = BufVtable::new(free);
    let memory = NonNull::from(Box::leak(Box::new([5u8; 8]))).cast();
    // SAFETY: the box's bytes, nobody else's until `free` makes a box of them again.
    let buf = unsafe { Buf::from_owner(memory, 8, std::ptr::without_provenance_mut(77), &OWNER) };
    let shared = SharedBuf::new(buf).unwrap();
    let frozen = shared.freeze();
    drop(shared);
    assert_eq!((&*frozen, FREED.load(Ordering::Relaxed)), (&[5; 8][..], 0));
    drop(frozen);
    assert_eq!(FREED.load(Ordering::Relaxed), 1);
}

#[test]
fn a_page_is_frozen_while_shared() {
    let mut p = page(4096, 1);
    let frozen = p.freeze();
    assert!(p.get_mut().is_none());
    assert_eq!(frozen[0], 1);
    p = p.try_into_buf().unwrap_err();
    let other = frozen.clone().into_shared();
    assert!(other.ptr_eq(&p));
    drop((frozen, other));
    p.get_mut().unwrap()[0] = 2;
    assert_eq!(p[0], 2);
}

#[test]
fn a_page_goes_to_a_buffer_and_back_at_the_same_address() {
    let p = page(4096, 3);
    let address = p.as_ptr();
    let mut buf = p.try_into_buf().unwrap();
    assert_eq!((buf.as_ptr(), buf.len()), (address, 4096));
    buf[4095] = 4;
    let p = buf.into_shared().unwrap();
    assert_eq!((p.as_ptr(), p[0], p[4095]), (address, 3, 4));
    // Dropped as a buffer, the page is freed too (Miri looks).
    drop(p.try_into_buf().unwrap());
    assert!(Buf::alloc(16, 1).unwrap().into_shared().is_err());
}

#[test]
fn handles_of_a_page_go_on_many_threads() {
    let p = page(64, 6);
    std::thread::scope(|s| {
        for _ in 0..4 {
            let p = p.clone();
            s.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(p.freeze()[63], 6);
                }
            });
        }
    });
    let mut p = p;
    p.get_mut().unwrap()[0] = 1;
}

/// Without the release of the last reader's drop, or the acquire of `get_mut`, Miri sees a race here.
#[test]
fn a_page_is_written_when_its_last_reader_is_gone() {
    let mut p = page(64, 6);
    let frozen = p.freeze();
    let reader = std::thread::spawn(move || frozen.iter().map(|&b| u32::from(b)).sum::<u32>());
    while p.get_mut().is_none() {
        std::thread::yield_now();
    }
    p.get_mut().unwrap().fill(1);
    assert_eq!(reader.join().unwrap(), 64 * 6);
}

#[test]
fn a_scatter_list_has_the_room_it_was_made_with() {
    let mut list = BufVec::with_capacity(2).unwrap();
    list.push(Buf::alloc(10, 1).unwrap()).unwrap();
    list.push(Buf::alloc(0, 1).unwrap()).unwrap();
    let room = list.capacity();
    for _ in 2..room {
        list.push(Buf::alloc(1, 1).unwrap()).unwrap();
    }
    assert_eq!(list.push(Buf::alloc(5, 1).unwrap()).unwrap_err().len(), 5);
    list.get_mut(0).unwrap()[9] = 1;
    assert_eq!((list.bytes(), list.parts()[0][9]), (10 + room - 2, 1));
    list.drain().for_each(drop);
    assert_eq!((list.bytes(), list.capacity(), list.pop().is_none()), (0, room, true));
    assert!(BufVec::with_capacity(usize::MAX).is_err());
}

#[test]
fn segments_of_a_list_come_front_to_back_without_empty_ones() {
    let mut list = BufVec::with_capacity(4).unwrap();
    for len in [0, 3, 0, 5] {
        list.push(Buf::alloc(len, 1).unwrap()).unwrap();
    }
    let want: Vec<_> =
        list.parts().iter().filter(|b| !b.is_empty()).map(|b| (b.as_ptr().addr(), b.len())).collect();
    let mut bio = Bio::new();
    bio.write(0, list);
    assert_eq!(bio.len(), 8);
    let (mut job, pending) = bio.waitable();
    let got: Vec<_> = job.segments().map(|s| (s.ptr.addr().get(), s.len)).collect();
    assert_eq!(got, want);
    assert!(job.data_mut().is_none(), "the memory of a write is not a device's to change");
    job.finish(Ok(()));
    let Payload::Many(list) = pending.try_take().unwrap().take() else { panic!("the list comes back") };
    assert_eq!(list.bytes(), 8);
}

#[test]
fn bytes_are_copied_across_runs() {
    let mut list = BufVec::with_capacity(3).unwrap();
    for len in [2, 3, 4] {
        list.push(Buf::alloc(len, 1).unwrap()).unwrap();
    }
    let mut bio = Bio::new();
    bio.read(0, list);
    let (mut job, pending) = bio.waitable();
    let mut to = job.data_mut().unwrap();
    assert_eq!(to.copy_from(&[1, 2, 3]), 3);
    to.skip_bytes(1);
    assert_eq!((to.fill(9, 2), to.remaining()), (2, 3));
    assert_eq!(to.copy_from(&[4; 10]), 3);
    let mut from = job.data();
    from.skip_bytes(1);
    let mut got = [0; 8];
    assert_eq!((from.copy_to(&mut got), got), (8, [2, 3, 0, 9, 9, 4, 4, 4]));
    job.finish(Ok(()));
    assert_eq!(pending.try_take().unwrap().bytes().remaining(), 9);
}
