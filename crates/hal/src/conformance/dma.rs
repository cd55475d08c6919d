//! The promises of [`Dma`].

use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};
use core::ptr::NonNull;

use super::Violation;
use crate::dma::{CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, Segment, shared};

/// How the suite looks at memory as a device does: through an IOMMU's tables, an identity mapping, or a device that
/// copies. `false` where nothing is mapped.
pub trait Device {
    /// Reads.
    fn read(&mut self, from: DevAddr, to: &mut [u8]) -> bool;
    /// Writes.
    fn write(&mut self, to: DevAddr, from: &[u8]) -> bool;
}

const ALLOC: &str = "Dma::alloc_coherent";
const MAP: &str = "Dma::map";
const UNMAP: &str = "Dma::unmap";
const TO_CPU: &str = "Dma::sync_for_cpu";
const TO_DEVICE: &str = "Dma::sync_for_device";

/// The device forms that the suite tries. An implementation may decline any but the first.
const FORMS: [Constraints; 5] = [
    Constraints::ANY,
    // NVMe's PRP lists.
    Constraints { align: 4, inner_align: 4096, max_segment: 4096, max_segments: 512, ..Constraints::ANY },
    // AHCI's scatter lists, by a controller that reaches 4 GiB.
    Constraints {
        addr_mask: u32::MAX as u64,
        align: 2,
        max_segment: 4 << 20,
        max_segments: 168,
        ..Constraints::ANY
    },
    // IDE bus masters.
    Constraints { align: 2, boundary: 65536, max_segment: 65536, max_segments: 32, ..Constraints::ANY },
    // A queue on a page, and a device that sees no cache.
    Constraints { align: 4096, boundary: 4096, max_segment: 4096, coherent: false, ..Constraints::ANY },
];

/// Checks direct memory access. With a `device` it also checks that bytes arrive; without, only what can be seen from the
/// CPU's side. Needs about 100 KiB of coherent memory and of mappings.
pub fn check_dma(dma: &dyn Dma, mut device: Option<&mut dyn Device>) -> Result<(), Violation> {
    dma.wmb();
    dma.rmb();
    refuses_nonsense(dma)?;
    for form in &FORMS {
        coherent(dma, form, &mut device)?;
        mappings(dma, form, &mut device)?;
    }
    stops_when_told(dma)?;
    gives_back(dma)
}

fn declined(error: DmaError, form: &Constraints) -> bool {
    *form != Constraints::ANY && matches!(error, DmaError::Unmappable(_) | DmaError::Exhausted)
}

/// The lengths of coherent memory that the suite tries. Miri takes a millisecond for each hundred bytes.
const LENGTHS: &[usize] = if cfg!(miri) { &[4, 64, 96, 100] } else { &[4, 64, 96, 4096, 2048, 1000] };

/// The buffers that it tries: offset within a page, and length.
const SHAPES: &[(usize, usize)] = if cfg!(miri) {
    &[(0, 1), (4000, 200)]
} else {
    &[(0, 4096), (0, 1), (512, 512), (1024, 7168), (4, 508), (0, 3 * 4096), (2048, 8192)]
};

/// More than any machine has. (Miri gives up at less, unless no layout is that long.)
const ABSURD: usize = if cfg!(miri) { usize::MAX } else { isize::MAX as usize - 65535 };

fn refuses_nonsense(dma: &dyn Dma) -> Result<(), Violation> {
    let crooked = Constraints { align: 3, ..Constraints::ANY };
    for (len, form, what) in [
        (0, Constraints::ANY, "a length of 0"),
        (64, crooked, "an alignment of 3"),
        (ABSURD, Constraints::ANY, "half of the address space"),
    ] {
        if let Ok(mem) = dma.alloc_coherent(len, &form) {
            // SAFETY: it came just now, and nobody uses it.
            unsafe { dma.free_coherent(mem) };
            return Err(Violation::Accepted { call: ALLOC, what });
        }
    }
    let buf = Buffer::new(0, 1536);
    let short = Constraints { max_segment: 512, max_segments: 2, ..Constraints::ANY };
    for (len, form, what) in [
        (0, Constraints::ANY, "a length of 0"),
        (64, crooked, "an alignment of 3"),
        (1536, short, "more segments than allowed"),
    ] {
        let mut seen = 0;
        let mut sink = |_| {
            seen += 1;
            ControlFlow::Continue(())
        };
        // SAFETY: the bytes are the buffer's, which outlives the mapping, and are left alone.
        match unsafe { dma.map(buf.at(0), len, Direction::ToDevice, &form, &mut sink) } {
            Ok(mapping) => {
                // SAFETY: made just now; no device was told.
                unsafe { dma.unmap(mapping) };
                return Err(Violation::Accepted { call: MAP, what });
            }
            Err(_) if seen > 0 => return Err(Violation::ReportedThenFailed { segments: seen }),
            Err(_) => {}
        }
    }
    Ok(())
}

fn coherent(
    dma: &dyn Dma,
    form: &Constraints,
    device: &mut Option<&mut dyn Device>,
) -> Result<(), Violation> {
    let mut all: Vec<CoherentMem> = Vec::new();
    let mut result = Ok(());
    for &len in LENGTHS {
        match dma.alloc_coherent(len, form) {
            Ok(mem) => {
                result = check_new(&mem, len, form, &all);
                all.push(mem);
            }
            Err(error) if declined(error, form) => {}
            Err(error) => {
                result = Err(Violation::Failed { call: ALLOC, len, constraints: *form, error });
            }
        }
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = coherent_bytes(&all, device);
    }
    for mem in all {
        // SAFETY: it came from `dma`; the device and we are done with it.
        unsafe { dma.free_coherent(mem) };
    }
    result
}

fn check_new(
    mem: &CoherentMem,
    len: usize,
    form: &Constraints,
    all: &[CoherentMem],
) -> Result<(), Violation> {
    let (addr, bytes) = (mem.device, len as u64);
    let broken = |constraint| Violation::Constraint { call: ALLOC, constraint, addr, len: bytes };
    if mem.len != len {
        return Err(broken("the length asked for"));
    }
    if !mem.cpu.addr().get().is_multiple_of(8) {
        return Err(broken("the CPU's alignment to 8"));
    }
    if !addr.0.is_multiple_of(form.align.into()) {
        return Err(broken("align"));
    }
    let Some(last) = addr.checked_add(bytes - 1) else { return Err(broken("addr_mask")) };
    if last.0 & !form.addr_mask != 0 {
        return Err(broken("addr_mask"));
    }
    if form.boundary != 0 && addr.0 / form.boundary != last.0 / form.boundary {
        return Err(broken("boundary"));
    }
    let cpu = |m: &CoherentMem| m.cpu.addr().get() as u64;
    let apart = |a: u64, a_len: usize, b: u64, b_len: usize| a + a_len as u64 <= b || b + b_len as u64 <= a;
    for other in all {
        if !apart(cpu(mem), len, cpu(other), other.len) || !apart(addr.0, len, other.device.0, other.len) {
            return Err(Violation::Overlap { call: ALLOC, addr, len: bytes });
        }
    }
    match peek(mem).iter().position(|&byte| byte != 0) {
        Some(offset) => Err(Violation::NotZeroed { offset }),
        None => Ok(()),
    }
}

fn peek(mem: &CoherentMem) -> Vec<u8> {
    let mut bytes = alloc::vec![0; mem.len];
    // SAFETY: the memory is ours, and a device that uses it does so from outside the program.
    unsafe { shared::load(mem.cpu, &mut bytes) };
    bytes
}

fn coherent_bytes(all: &[CoherentMem], device: &mut Option<&mut dyn Device>) -> Result<(), Violation> {
    let direction = Direction::Bidirectional;
    for (mem, seed) in all.iter().zip(1..) {
        // SAFETY: as in `peek`.
        unsafe { shared::store(mem.cpu, &pattern(seed, mem.len)) };
    }
    for (mem, seed) in all.iter().zip(1..) {
        lost(&peek(mem), &pattern(seed, mem.len), ALLOC, direction)?;
        let Some(device) = device else { continue };
        let unreachable = Violation::Unreachable { call: ALLOC, addr: mem.device };
        let mut seen = alloc::vec![0; mem.len];
        if !device.read(mem.device, &mut seen) {
            return Err(unreachable);
        }
        lost(&seen, &pattern(seed, mem.len), ALLOC, direction)?;
        if !device.write(mem.device, &pattern(seed + 100, mem.len)) {
            return Err(unreachable);
        }
        lost(&peek(mem), &pattern(seed + 100, mem.len), ALLOC, direction)?;
    }
    Ok(())
}

fn mappings(
    dma: &dyn Dma,
    form: &Constraints,
    device: &mut Option<&mut dyn Device>,
) -> Result<(), Violation> {
    for &(offset, len) in SHAPES {
        for direction in [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional] {
            let buf = Buffer::new(offset, len);
            let trial = Trial { dma, buf: &buf, direction };
            let (mapping, list) = match trial.map(form) {
                Ok(mapped) => mapped,
                Err(error) if declined(error, form) => continue,
                Err(error) => return Err(Violation::Failed { call: MAP, len, constraints: *form, error }),
            };
            let result = check_list(&mapping, &list, form, &trial);
            let result = result.and_then(|()| match device {
                Some(device) => trial.while_mapped(&mapping, &list, *device),
                None => Ok(()),
            });
            // SAFETY: made above; the device is done.
            unsafe { dma.unmap(mapping) };
            result?;
            trial.when_unmapped(device.is_some())?;
        }
    }
    Ok(())
}

fn check_list(m: &Mapping, list: &[Segment], form: &Constraints, trial: &Trial<'_>) -> Result<(), Violation> {
    let asked = trial.buf.len;
    let covered = list.iter().map(|s| u64::from(s.len)).sum::<u64>();
    let same = m.len == asked && m.cpu == trial.buf.at(0) && m.direction == trial.direction;
    if covered != asked as u64 || !same || list.iter().any(|s| s.len == 0) {
        return Err(Violation::Coverage { asked, covered });
    }
    for (i, &Segment { addr, len }) in list.iter().enumerate() {
        let len = u64::from(len);
        let broken = |constraint| Err(Violation::Constraint { call: MAP, constraint, addr, len });
        let Some(last) = addr.checked_add(len - 1) else { return broken("addr_mask") };
        let (first, end) = (i == 0, i + 1 == list.len());
        if last.0 & !form.addr_mask != 0 {
            return broken("addr_mask");
        }
        if !addr.0.is_multiple_of(form.align.into()) {
            return broken("align");
        }
        if !first && !addr.0.is_multiple_of(form.inner_align.into()) {
            return broken("inner_align, at the start");
        }
        if !end && last.0 % u64::from(form.inner_align) != u64::from(form.inner_align) - 1 {
            return broken("inner_align, at the end");
        }
        if form.boundary != 0 && addr.0 / form.boundary != last.0 / form.boundary {
            return broken("boundary");
        }
        if len > form.max_segment.into() {
            return broken("max_segment");
        }
        if i >= form.max_segments.into() {
            return broken("max_segments");
        }
        let overlaps = |other: &Segment| addr.0 < other.addr.0 + u64::from(other.len) && other.addr <= last;
        if list.iter().take(i).any(overlaps) {
            return Err(Violation::Overlap { call: MAP, addr, len });
        }
    }
    Ok(())
}

/// One mapping of one buffer.
struct Trial<'a> {
    dma: &'a dyn Dma,
    buf: &'a Buffer,
    direction: Direction,
}

impl Trial<'_> {
    fn map(&self, form: &Constraints) -> Result<(Mapping, Vec<Segment>), DmaError> {
        let mut list = Vec::new();
        let mut sink = |segment| {
            list.push(segment);
            ControlFlow::Continue(())
        };
        // SAFETY: the buffer outlives the mapping; it is only touched between `sync` calls, through its pointer.
        let mapping = unsafe { self.dma.map(self.buf.at(0), self.buf.len, self.direction, form, &mut sink) }?;
        Ok((mapping, list))
    }

    /// The middle of the buffer, which goes its own way.
    fn middle(&self) -> Range<usize> {
        self.buf.len / 4..self.buf.len * 3 / 4
    }

    /// The device leaves the last byte of what it may write alone, if there is more than one.
    fn written(&self) -> usize {
        if self.buf.len > 1 { self.buf.len - 1 } else { 1 }
    }

    fn while_mapped(&self, m: &Mapping, list: &[Segment], device: &mut dyn Device) -> Result<(), Violation> {
        let Self { dma, buf, direction } = *self;
        let middle = self.middle();
        if direction.device_reads() {
            let mut expected = pattern(Buffer::SEED, buf.len);
            lost(&gather(list, buf.len, device)?, &expected, MAP, direction)?;
            let change = pattern(77, middle.len());
            buf.write(middle.start, &change);
            // SAFETY: the range lies inside; the device does nothing by itself.
            unsafe { dma.sync_for_device(m, middle.clone()) };
            expected.splice(middle.clone(), change);
            lost(&gather(list, buf.len, device)?, &expected, TO_DEVICE, direction)?;
        }
        if direction.device_writes() {
            let answer = pattern(55, self.written());
            scatter(list, &answer, device)?;
            // SAFETY: as above.
            unsafe { dma.sync_for_cpu(m, middle.clone()) };
            let seen = buf.read(middle.start, middle.len());
            lost(&seen, answer.get(middle).unwrap_or_default(), TO_CPU, direction)?;
        }
        Ok(())
    }

    fn when_unmapped(&self, had_device: bool) -> Result<(), Violation> {
        let Self { buf, direction, .. } = *self;
        let overwritten = |offset| Err(Violation::Overwritten { call: UNMAP, direction, offset });
        if let Some(offset) = buf.touched_around() {
            return overwritten(offset);
        }
        let seen = buf.read(0, buf.len);
        let mut kept = pattern(Buffer::SEED, buf.len);
        if had_device && direction.device_reads() {
            let middle = self.middle();
            kept.splice(middle.clone(), pattern(77, middle.len()));
        }
        if !direction.device_writes() {
            return match first_difference(&seen, &kept) {
                Some(offset) => overwritten(offset as isize),
                None => Ok(()),
            };
        }
        let written = if had_device { self.written() } else { 0 };
        lost(seen.get(..written).unwrap_or_default(), &pattern(55, written), UNMAP, direction)?;
        // The rest keeps its value, or is filler: one byte all over.
        let rest = seen.get(written..).unwrap_or_default();
        let filler = rest.iter().all(|&byte| Some(&byte) == rest.first());
        match first_difference(rest, kept.get(written..).unwrap_or_default()) {
            Some(offset) if !filler => overwritten((written + offset) as isize),
            _ => Ok(()),
        }
    }
}

fn stops_when_told(dma: &dyn Dma) -> Result<(), Violation> {
    let buf = Buffer::new(0, 8192);
    let form = Constraints { max_segment: 4096, inner_align: 4096, ..Constraints::ANY };
    let mut calls = 0;
    let mut sink = |_| {
        calls += 1;
        ControlFlow::Break(())
    };
    // SAFETY: the buffer outlives the mapping and is left alone.
    match unsafe { dma.map(buf.at(0), buf.len, Direction::ToDevice, &form, &mut sink) } {
        Ok(mapping) => {
            // SAFETY: made just now; no device was told.
            unsafe { dma.unmap(mapping) };
            Err(Violation::StopIgnored)
        }
        Err(DmaError::Refused) if calls == 1 => Ok(()),
        // It cannot do this form.
        Err(DmaError::Unmappable(_) | DmaError::Exhausted) if calls == 0 => Ok(()),
        Err(_) => Err(Violation::StopIgnored),
    }
}

/// Over and over, also with a stop in between.
fn gives_back(dma: &dyn Dma) -> Result<(), Violation> {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 2000 };
    let buf = Buffer::new(0, 4096);
    for round in 0..ROUNDS {
        let mut stop = |_| ControlFlow::Break(());
        // SAFETY: the buffer outlives the mapping and is left alone.
        let stopped = unsafe { dma.map(buf.at(0), 4096, Direction::ToDevice, &Constraints::ANY, &mut stop) };
        if let Ok(mapping) = stopped {
            // SAFETY: made just now; no device was told.
            unsafe { dma.unmap(mapping) };
            return Err(Violation::StopIgnored);
        }
        let trial = Trial { dma, buf: &buf, direction: Direction::Bidirectional };
        match trial.map(&Constraints::ANY) {
            // SAFETY: made just now; no device was told.
            Ok((mapping, _)) => unsafe { dma.unmap(mapping) },
            Err(error) => return Err(Violation::Leak { call: MAP, round, error }),
        }
        match dma.alloc_coherent(4096, &Constraints::ANY) {
            // SAFETY: it came just now, and nobody uses it.
            Ok(mem) => unsafe { dma.free_coherent(mem) },
            Err(error) => return Err(Violation::Leak { call: ALLOC, round, error }),
        }
    }
    Ok(())
}

fn gather(list: &[Segment], len: usize, device: &mut dyn Device) -> Result<Vec<u8>, Violation> {
    let mut all = Vec::with_capacity(len);
    for segment in list {
        let mut piece = alloc::vec![0; segment.len as usize];
        if !device.read(segment.addr, &mut piece) {
            return Err(Violation::Unreachable { call: MAP, addr: segment.addr });
        }
        all.append(&mut piece);
    }
    Ok(all)
}

fn scatter(list: &[Segment], mut bytes: &[u8], device: &mut dyn Device) -> Result<(), Violation> {
    for segment in list {
        let (piece, rest) = bytes.split_at(bytes.len().min(segment.len as usize));
        if !piece.is_empty() && !device.write(segment.addr, piece) {
            return Err(Violation::Unreachable { call: MAP, addr: segment.addr });
        }
        bytes = rest;
    }
    Ok(())
}

/// Bytes that are never 0 and have no short period.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7 + i / 251 + seed * 31) % 255) as u8 + 1).collect()
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}

fn lost(seen: &[u8], expected: &[u8], call: &'static str, direction: Direction) -> Result<(), Violation> {
    match first_difference(seen, expected) {
        Some(offset) => Err(Violation::Lost { call, direction, offset }),
        None => Ok(()),
    }
}

/// Bytes in the middle of others that nobody may touch. Used through its pointer only, because a device may hold one.
struct Buffer {
    around: NonNull<[u64]>,
    start: usize,
    len: usize,
}

impl Buffer {
    const SEED: usize = 3;
    const AROUND: u8 = 0x5e;

    /// `len` bytes that begin `offset` bytes into a page.
    fn new(offset: usize, len: usize) -> Self {
        let memory = alloc::vec![0_u64; (len + offset + 3 * 4096) / 8].into_boxed_slice();
        let around = NonNull::from(alloc::boxed::Box::leak(memory));
        let base = around.cast::<u8>().addr().get();
        let start = (base + 64).next_multiple_of(4096) - base + offset;
        let this = Self { around, start, len };
        // SAFETY: the memory is ours, and this long.
        unsafe { around.cast::<u8>().write_bytes(Self::AROUND, this.size()) };
        this.write(0, &pattern(Self::SEED, len));
        this
    }

    fn size(&self) -> usize {
        self.around.len() * 8
    }

    /// Byte `i` of the buffer, which the caller has seen to lie inside.
    fn at(&self, i: usize) -> NonNull<u8> {
        // SAFETY: inside the memory: `new` made room for the buffer and a page after it.
        unsafe { self.around.cast::<u8>().add(self.start + i) }
    }

    fn write(&self, i: usize, bytes: &[u8]) {
        // SAFETY: inside the memory; nobody else uses it at this moment.
        unsafe { self.at(i).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    fn read(&self, i: usize, len: usize) -> Vec<u8> {
        // SAFETY: inside the memory, initialised; nobody else uses it at this moment.
        unsafe { core::slice::from_raw_parts(self.at(i).as_ptr(), len) }.to_vec()
    }

    /// The first byte before or after the buffer that has changed, counted from its start.
    fn touched_around(&self) -> Option<isize> {
        // SAFETY: all of the memory, initialised; nobody else uses it at this moment.
        let all = unsafe { core::slice::from_raw_parts(self.around.cast::<u8>().as_ptr(), self.size()) };
        let (before, rest) = all.split_at(self.start);
        let after = rest.get(self.len..).unwrap_or_default();
        let touched = |part: &[u8]| {
            let clean =
                part.chunks(256).take_while(|piece| **piece == [Self::AROUND; 256][..piece.len()]).count()
                    * 256;
            let dirty = part.iter().skip(clean).position(|&byte| byte != Self::AROUND)?;
            Some(clean + dirty)
        };
        let before = touched(before).map(|at| at as isize - self.start as isize);
        before.or_else(|| touched(after).map(|at| (self.len + at) as isize))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, and no mapping of it is left.
        drop(unsafe { alloc::boxed::Box::from_raw(self.around.as_ptr()) });
    }
}
