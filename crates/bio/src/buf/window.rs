//! The bytes of a request seen as segments: of its own payload, or of a piece of its parent's.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::owned::Buf;
use super::payload::Payload;
use super::scatter::Part;
use super::shared::Frozen;

/// One contiguous run of a request's memory, for a driver that maps it for DMA.
///
/// Having the pointer is safe; a driver may use it while it holds the job, reading for a write, writing for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts.
    pub ptr: NonNull<u8>,
    /// Bytes in it, never zero.
    pub len: usize,
}

#[derive(Clone, Copy)]
enum Source {
    Flat(NonNull<u8>),
    Bufs(NonNull<Buf>),
    Frozen(NonNull<Frozen>),
}

/// A view of `len` bytes of a payload, detached from its lifetime.
///
/// Invariants: `source` holds at least `skip + len` bytes, and whoever keeps a window keeps that payload alive, in
/// place and not otherwise borrowed mutably. If `writable`, no other window shows the same bytes.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    source: Source,
    skip: usize,
    len: usize,
    writable: bool,
}

// SAFETY: a window is a borrow of `Buf`s or `Frozen`s, which are `Send` and `Sync`.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    const EMPTY: Self = Self { source: Source::Flat(NonNull::dangling()), skip: 0, len: 0, writable: false };

    /// # Safety
    /// The window is used only while `payload`'s memory and list stay in place, and nobody writes the memory except
    /// through this window.
    unsafe fn of(payload: &Payload) -> Self {
        fn list<T>(parts: &[T]) -> NonNull<T> {
            NonNull::from(parts).cast()
        }
        let (source, writable) = match payload {
            Payload::None => return Self::EMPTY,
            Payload::One(b) => (Source::Flat(b.raw().0), true),
            Payload::Many(v) => (Source::Bufs(list(v.parts())), true),
            Payload::Frozen(f) => (Source::Flat(f.raw().0), false),
            Payload::ManyFrozen(v) => (Source::Frozen(list(v.parts())), false),
        };
        Self { source, skip: 0, len: payload.bytes(), writable }
    }

    /// The first `len` bytes (or as many as there are) as their own window; `self` goes on behind them.
    pub(super) fn split_front(&mut self, len: usize) -> Self {
        let len = len.min(self.len);
        let front = Self { len, ..*self };
        let mut left = len;
        while let Some(s) = self.next_segment(left) {
            left -= s.len;
        }
        front
    }

    /// The same bytes, to be read only: any number of these may exist.
    pub(super) fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    pub(super) fn segments(&self) -> Segments<'_> {
        Segments { rest: *self, of: PhantomData }
    }

    /// The next run of at most `max` bytes.
    fn next_segment(&mut self, max: usize) -> Option<Segment> {
        let max = max.min(self.len);
        if max == 0 {
            return None;
        }
        let (ptr, len) = match &mut self.source {
            Source::Flat(p) => {
                let here = *p;
                // SAFETY: `max <= self.len` bytes follow.
                *p = unsafe { here.add(max) };
                (here, max)
            }
            // SAFETY: the list holds `skip + len` bytes, and `max` of them are asked for.
            Source::Bufs(p) => unsafe { next_of_list(p, &mut self.skip, max) },
            // SAFETY: as above.
            Source::Frozen(p) => unsafe { next_of_list(p, &mut self.skip, max) },
        };
        self.len -= len;
        Some(Segment { ptr, len })
    }
}

/// # Safety
/// `part` points into a live list, and from there on at least `skip + max` bytes follow; `max` is not zero.
unsafe fn next_of_list<T: Part>(part: &mut NonNull<T>, skip: &mut usize, max: usize) -> (NonNull<u8>, usize) {
    loop {
        // SAFETY: bytes are left, so a part is.
        let (ptr, len) = unsafe { part.as_ref() }.raw();
        if *skip < len {
            // SAFETY: `skip < len`, the length of this part.
            let here = unsafe { ptr.add(*skip) };
            let run = max.min(len - *skip);
            *skip += run;
            return (here, run);
        }
        *skip -= len;
        // SAFETY: the part was used up and bytes are left, so another follows.
        *part = unsafe { part.add(1) };
    }
}

/// The memory that a travelling request refers to.
pub(crate) enum Data {
    /// Its own.
    Own(Payload),
    /// A part of its parent's, which the family keeps frozen until this child is done.
    Piece(Window),
}

impl Data {
    /// # Safety
    /// As for [`Window::of`]; a piece's window is the piece itself.
    pub(super) unsafe fn window(&self) -> Window {
        match self {
            // SAFETY: the caller's promise.
            Self::Own(payload) => unsafe { Window::of(payload) },
            Self::Piece(w) => *w,
        }
    }

    pub(crate) fn segments(&self) -> Segments<'_> {
        // SAFETY: the iterator borrows `self`, so the payload stays; nobody writes through it in safe code.
        Segments { rest: unsafe { self.window() }, of: PhantomData }
    }

    pub(crate) fn bytes(&self) -> Bytes<'_> {
        Bytes(self.segments())
    }

    /// `None` if the memory is frozen or shown to several children.
    pub(crate) fn bytes_mut(&mut self) -> Option<BytesMut<'_>> {
        // SAFETY: the iterator borrows `self` mutably, so nobody else reads or writes the bytes through it, and a
        // writable piece is shown to one child only.
        let rest = unsafe { self.window() };
        rest.writable.then_some(BytesMut { rest, of: PhantomData })
    }

    /// Forgets a piece, and takes the payload if there is one.
    pub(crate) fn take(&mut self) -> Payload {
        match core::mem::replace(self, Self::Own(Payload::None)) {
            Self::Own(payload) => payload,
            Self::Piece(_) => Payload::None,
        }
    }
}

/// The memory of a request as contiguous runs, front to back. See [`Segment`].
#[derive(Clone)]
pub struct Segments<'a> {
    rest: Window,
    of: PhantomData<&'a [u8]>,
}

/// The bytes of a request, run by run, front to back.
#[derive(Clone)]
pub struct Bytes<'a>(Segments<'a>);

/// The bytes of a request for writing, run by run, front to back.
pub struct BytesMut<'a> {
    rest: Window,
    of: PhantomData<&'a mut [u8]>,
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        self.rest.next_segment(usize::MAX)
    }
}

impl<'a> Iterator for Bytes<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let s = self.0.next()?;
        // SAFETY: initialised bytes of the request that `'a` borrows; they are written only through `&mut`.
        Some(unsafe { core::slice::from_raw_parts(s.ptr.as_ptr(), s.len) })
    }
}

impl<'a> Iterator for BytesMut<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let s = self.rest.next_segment(usize::MAX)?;
        // SAFETY: a writable window: bytes that `'a` borrows mutably, and every run comes out once.
        Some(unsafe { core::slice::from_raw_parts_mut(s.ptr.as_ptr(), s.len) })
    }
}

impl Bytes<'_> {
    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.0.rest.len
    }

    /// Passes over `n` bytes, or to the end.
    pub fn skip_bytes(&mut self, n: usize) {
        self.0.rest.split_front(n);
    }

    /// Copies the next bytes into `to`; returns how many there were.
    pub fn copy_to(&mut self, to: &mut [u8]) -> usize {
        let front = Self(Segments { rest: self.0.rest.split_front(to.len()), of: PhantomData });
        let mut done = 0;
        for run in front {
            if let Some(dst) = to.get_mut(done..done + run.len()) {
                dst.copy_from_slice(run);
            }
            done += run.len();
        }
        done
    }
}

impl BytesMut<'_> {
    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len
    }

    /// Passes over `n` bytes, or to the end.
    pub fn skip_bytes(&mut self, n: usize) {
        self.rest.split_front(n);
    }

    /// Copies `from` over the next bytes; returns how many found room.
    pub fn copy_from(&mut self, from: &[u8]) -> usize {
        let front = Self { rest: self.rest.split_front(from.len()), of: PhantomData };
        let mut done = 0;
        for run in front {
            if let Some(src) = from.get(done..done + run.len()) {
                run.copy_from_slice(src);
            }
            done += run.len();
        }
        done
    }

    /// Fills the next `n` bytes with `byte`; returns how many there were.
    pub fn fill(&mut self, byte: u8, n: usize) -> usize {
        let front = Self { rest: self.rest.split_front(n), of: PhantomData };
        front
            .map(|run| {
                run.fill(byte);
                run.len()
            })
            .sum()
    }
}
