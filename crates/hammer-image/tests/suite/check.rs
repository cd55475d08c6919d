//! A small checker of finished images, written straight on bytes: it shares no layout and no checksum with the
//! builder. Offsets are numbers, as the format has them.

use std::collections::{BTreeMap, BTreeSet};

use dfly_hammer_image::{Image, Volume};

const BIG: u64 = 8 << 20;
const BUF: u64 = 16 << 10;
/// An address without zone and volume, and without zone.
const BYTE: u64 = (1 << 52) - 1;
const LONG: u64 = (1 << 60) - 1;

/// What a sound image holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    pub(crate) depth: usize,
    pub(crate) records: usize,
    pub(crate) empty_leaves: usize,
    pub(crate) narrow_nodes: usize,
    /// Big-blocks in use, by zone.
    pub(crate) blocks: BTreeMap<u8, u64>,
    pub(crate) least_free: i64,
}

type Key = (u32, i64, u16, i64, u64);
type Found<T> = Result<T, String>;

const BEGIN: Key = (0, i64::MIN, 0, i64::MIN, 1);
const END: Key = (u32::MAX, i64::MAX, u16::MAX, i64::MAX, u64::MAX);

macro_rules! ensure {
    ($ok:expr, $($what:tt)*) => {
        if !$ok { return Err(format!($($what)*)); }
    };
}

/// Checks an image all over.
pub(crate) fn check(image: &Image) -> Found<Report> {
    let mut checker = Checker::open(image)?;
    let records = checker.tree()?;
    let free = checker.freemap()?;
    checker.space(free)?;
    checker.names(&records)?;
    checker.fifo()?;
    Ok(checker.report)
}

/// What recovery finds: the FIFO's UNDO records applied backward, from the end that sequence numbers tell.
pub(crate) fn recover(image: &Image) -> Found<Image> {
    let mut found = image.clone();
    let head = bytes(&image.volumes[0], 0, 1928)?;
    let version = u32_at(&head, 152);
    let map = &head[264 + 3 * 40..][..40];
    let size = u64_at(map, 24) & LONG;
    let (first, next) = (u64_at(map, 8) & LONG, u64_at(map, 16) & LONG);
    let begin = u64_at(&head, 24);
    let record = |at: u64| {
        let block = u64_at(&head, 904 + 8 * (at / BIG) as usize) & BYTE;
        let place = begin + block + at % BIG;
        let head = bytes(&image.volumes[0], place, 16)?;
        ensure!(u16_at(&head, 0) == 0xc84e, "FIFO {at:#x}: signature");
        bytes(&image.volumes[0], place, u32_at(&head, 4).clamp(8, 512).into())
    };
    let numbers = |at: u64| -> Found<Vec<(u64, u32)>> {
        let (mut pos, mut all) = (at, Vec::new());
        while pos < at + 512 {
            let record = record(pos)?;
            if u16_at(&record, 2) != 0x8040 {
                all.push((pos, u32_at(&record, 8)));
            }
            pos += record.len() as u64;
        }
        Ok(all)
    };
    let sector = (first + size - 1) % size / 512 * 512;
    let behind = |&&(at, _): &&(u64, u32)| at < sector + 512 && (at < first || first <= sector);
    let mut seq = numbers(sector)?.iter().rev().find(behind).ok_or("no record before the first")?.1;
    let mut log = Vec::new();
    let mut at = first % size;
    loop {
        if version < 4 && at == next % size {
            break;
        }
        let bytes = record(at)?;
        if u16_at(&bytes, 2) != 0x8040 {
            seq = if version < 4 { seq } else { seq.wrapping_add(1) };
            if version >= 4 && u32_at(&bytes, 8) != seq {
                break;
            }
            let sum = crc(version, &bytes[..12]) ^ crc(version, &bytes[16..]);
            ensure!(u32_at(&bytes, 12) == sum, "FIFO {at:#x}: crc");
            log.push(bytes.clone());
        }
        at = (at + bytes.len() as u64) % size;
    }
    for record in log.iter().rev().filter(|r| u16_at(r, 2) == 0x43) {
        let (target, len) = (u64_at(record, 16), u32_at(record, 24) as usize);
        let volume = (target >> 52 & 0xff) as usize;
        let zone = target >> 60;
        ensure!(matches!(zone, 1 | 2), "UNDO to {target:#x}");
        let byte = (target & BYTE) + if zone == 2 { begin } else { 0 };
        ensure!(byte / BUF == (byte + len as u64 - 1) / BUF, "UNDO to {target:#x}+{len}");
        found.volumes[volume].write_at(byte, &record[32..32 + len]).map_err(|e| e.to_string())?;
    }
    // The header's checksum is not among what is restored.
    let header = found.header(0).map_err(|e| e.to_string())?;
    found.put_header(0, &header).map_err(|e| e.to_string())?;
    Ok(found)
}

/// In how many bytes two images differ: in use by the second, outside of the FIFO and of the header's borders of it.
pub(crate) fn different_bytes(a: &Image, b: &Image) -> usize {
    let checker = Checker::open(b).map(|mut c| c.freemap().map(|_| c));
    let Ok(Ok(checker)) = checker else { return usize::MAX };
    let mut different = 0;
    for (&(volume, block), &(zone, append, _)) in &checker.blocks {
        if zone != 3 {
            let at = checker.buffers[volume as usize] + block * BIG;
            let (a, b) =
                [a, b].map(|i| bytes(&i.volumes[volume as usize], at, append).unwrap_or_default()).into();
            different += a.iter().zip(&b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len());
        }
    }
    let (a, b) = [a, b].map(|i| bytes(&i.volumes[0], 0, 1928).unwrap_or_default()).into();
    let skipped =
        |at: &usize| !(156..160).contains(at) && !(248..256).contains(at) && !(384..424).contains(at);
    different + (0..1928).filter(skipped).filter(|&at| a[at] != b[at]).count()
}

struct Checker<'a> {
    volumes: &'a [Volume],
    head: Vec<u8>,
    buffers: Vec<u64>,
    version: u32,
    blocks: BTreeMap<(u8, u64), (u8, u64, i64)>,
    /// Address, length, count of everything that the tree refers to.
    references: BTreeMap<u64, (u64, u64)>,
    report: Report,
}

struct Record {
    key: Key,
    delete_tid: u64,
    obj_type: u8,
    data: Vec<u8>,
}

impl<'a> Checker<'a> {
    fn open(image: &'a Image) -> Found<Self> {
        let volumes = &image.volumes[..];
        let heads: Vec<Vec<u8>> = volumes.iter().map(|v| bytes(v, 0, 1928)).collect::<Found<_>>()?;
        let version = u32_at(&heads[0], 152);
        let mut buffers = Vec::new();
        for (n, head) in heads.iter().enumerate() {
            ensure!(head[..8] == [0x31, 0x30, 0x52, 0xc5, 0x4d, 0x4d, 0x41, 0xc8], "volume {n}: signature");
            ensure!(head[48..80] == heads[0][48..80], "volume {n}: of another file system");
            ensure!(u32_at(head, 144) == n as u32, "volume {n}: number");
            ensure!(u32_at(head, 148) == volumes.len() as u32, "volume {n}: count");
            ensure!(u32_at(head, 152) == version && (1..=7).contains(&version), "volume {n}: version");
            ensure!(u32_at(head, 164) == 0, "volume {n}: root volume");
            ensure!(
                u32_at(head, 156) == crc(version, &head[..156]) ^ crc(version, &head[160..]),
                "volume {n}: crc"
            );
            let (begin, end) = (u64_at(head, 24), u64_at(head, 32));
            ensure!(
                begin == 557_056 && end == volumes[n].size() / BUF * BUF && end > begin,
                "volume {n}: area"
            );
            ensure!(n == 0 || head[200..].iter().all(|&b| b == 0), "volume {n}: fields of the root volume");
            buffers.push(begin);
        }
        let (blocks, references) = (BTreeMap::new(), BTreeMap::new());
        let report = Report { least_free: BIG as i64, ..Report::default() };
        let head = heads.into_iter().next().ok_or("no volume")?;
        Ok(Self { volumes, head, buffers, version, blocks, references, report })
    }

    fn at(&self, address: u64, len: u64) -> Found<Vec<u8>> {
        let (zone, volume, byte) = (address >> 60, (address >> 52 & 0xff) as usize, address & BYTE);
        ensure!(matches!(zone, 2 | 8..=11) && volume < self.volumes.len(), "{address:#x}: not an address");
        bytes(&self.volumes[volume], self.buffers[volume] + byte, len)
    }

    fn freemap(&mut self) -> Found<u64> {
        let map = &self.head[264 + 4 * 40..][..40];
        ensure!(u64_at(map, 0) == 2 << 60, "freemap's address");
        let layer1 = self.at(2 << 60, BIG)?;
        let mut free = 0;
        let mut seen_tables = 0;
        let mut last = &[][..];
        for (slot, entry) in layer1.chunks(32).enumerate() {
            let sealed = entry == last || u32_at(entry, 28) == crc(self.version, &entry[..28]);
            ensure!(sealed, "layer 1 slot {slot}: crc");
            last = entry;
            let (blocks_free, table) = (u64_at(entry, 0), u64_at(entry, 8));
            let (volume, within) = (slot / 1024, slot as u64 % 1024);
            let exists = volume < self.volumes.len()
                && within << 19 < (self.volumes[volume].size() / BUF * BUF - self.buffers[volume]) / BIG;
            if !exists {
                ensure!(blocks_free == 0 && table == u64::MAX, "layer 1 slot {slot}: should not exist");
                continue;
            }
            seen_tables += 1;
            let whole = (self.volumes[volume].size() / BUF * BUF - self.buffers[volume]) / BIG;
            let mut free_here = 0;
            let layer2 = self.at(table, BIG)?;
            let mut last = &[][..];
            for (n, entry) in layer2.chunks(16).enumerate() {
                let block = within * (1 << 19) + n as u64;
                let sealed = entry == last || u32_at(entry, 12) == crc(self.version, &entry[..12]);
                ensure!(sealed, "layer 2 {volume}:{block}: crc");
                last = entry;
                let (zone, append, unused) = (entry[0], u64::from(u32_at(entry, 4)), u32_at(entry, 8) as i32);
                let state = (zone, append, i64::from(unused));
                if block >= whole {
                    ensure!(state == (15, BIG, 0), "layer 2 {volume}:{block}: behind the end, {state:?}");
                } else if zone == 0 {
                    ensure!(state == (0, 0, BIG as i64), "layer 2 {volume}:{block}: free, {state:?}");
                    free_here += 1;
                } else {
                    self.blocks.insert((volume as u8, block), state);
                    *self.report.blocks.entry(zone).or_default() += 1;
                    self.report.least_free = self.report.least_free.min(state.2);
                }
            }
            ensure!(free_here == blocks_free, "layer 1 slot {slot}: {blocks_free} free, not {free_here}");
            free += free_here;
            self.own(table, 4)?;
        }
        ensure!(self.report.blocks.get(&4) == Some(&(seen_tables + 1)), "big-blocks of the freemap");
        self.own(2 << 60, 4)?;
        Ok(free)
    }

    fn own(&self, address: u64, zone: u8) -> Found<()> {
        let block = self.blocks.get(&((address >> 52 & 0xff) as u8, (address & BYTE) / BIG));
        ensure!(block.is_some_and(|b| b.0 == zone), "{address:#x}: owned by {block:?}, not zone {zone}");
        Ok(())
    }

    /// Every sector holds a chain of records, and begins with one that has a number.
    fn fifo(&self) -> Found<()> {
        let map = &self.head[264 + 3 * 40..][..40];
        let (first, next, end) = (u64_at(map, 8), u64_at(map, 16), u64_at(map, 24));
        ensure!(u64_at(map, 0) == u64::MAX && end > 3 << 60 && first <= end && next <= end, "FIFO's borders");
        let blocks = (end - (3 << 60)) / BIG;
        ensure!(self.report.blocks.get(&3) == Some(&blocks), "big-blocks of the FIFO");
        for n in 0..128 {
            let block = u64_at(&self.head, 904 + 8 * n);
            if n as u64 >= blocks {
                ensure!(block == u64::MAX, "FIFO block {n}");
                continue;
            }
            self.own(block, 3)?;
            for (s, sector) in self.at(block, BIG)?.chunks(512).enumerate() {
                let mut at = 0;
                while at < 512 {
                    let (kind, size) = (u16_at(sector, at + 2), u32_at(sector, at + 4) as usize);
                    let place = format!("FIFO block {n} sector {s} byte {at}");
                    ensure!(u16_at(sector, at) == 0xc84e, "{place}: signature");
                    ensure!(size % 8 == 0 && size >= 8 && at + size <= 512, "{place}: size {size}");
                    let tail = &sector[at + size - 8..at + size];
                    let sign = if size == 8 { 0xc84e } else { 0xc74f };
                    ensure!(u16_at(tail, 0) == sign && u16_at(tail, 2) == kind, "{place}: tail");
                    ensure!(u32_at(tail, 4) as usize == size, "{place}: tail's size");
                    if kind == 0x8040 {
                        ensure!(at != 0, "{place}: PAD at a sector's start");
                    } else {
                        ensure!(size >= 24, "{place}: no room for head and tail");
                        let record = &sector[at..at + size];
                        let sum = crc(self.version, &record[..12]) ^ crc(self.version, &record[16..]);
                        ensure!(u32_at(record, 12) == sum, "{place}: crc");
                        ensure!(matches!(kind, 0x41 | 0x43 | 0x44), "{place}: type {kind:#x}");
                    }
                    at += size;
                }
            }
        }
        Ok(())
    }

    fn tree(&mut self) -> Found<Vec<Record>> {
        struct Todo {
            at: u64,
            parent: u64,
            btype: u8,
            left: Key,
            right: Key,
            mirror: u64,
            depth: usize,
            alone: bool,
        }
        let root = u64_at(&self.head, 240);
        let mut records: Vec<Record> = Vec::new();
        let mut leaf_depth = None;
        let (left, right) = (BEGIN, END);
        let mut todo = vec![Todo {
            at: root,
            parent: 0,
            btype: 0,
            left,
            right,
            mirror: u64::MAX,
            depth: 0,
            alone: true,
        }];
        while let Some(t) = todo.pop() {
            let node = self.at(t.at, 4096)?;
            let place = format!("node {:#x}", t.at);
            ensure!(t.at >> 60 == 8 && t.at % 4096 == 0, "{place}: address");
            ensure!(!self.references.contains_key(&t.at), "{place}: met twice");
            self.references.insert(t.at, (4096, 1));
            ensure!(u32_at(&node, 0) == crc(self.version, &node[4..]), "{place}: crc");
            ensure!(u64_at(&node, 8) == t.parent, "{place}: parent");
            ensure!(t.parent == 0 || node[20] == t.btype, "{place}: type");
            let mirror = u64_at(&node, 56);
            ensure!(mirror <= t.mirror, "{place}: mirror_tid above the parent's");
            let count = u32_at(&node, 16) as usize;
            let elements: Vec<&[u8]> = node[64..].chunks(64).collect();
            self.report.nodes += 1;
            self.report.depth = self.report.depth.max(t.depth + 1);
            if node[20] == b'I' {
                ensure!((1..=62).contains(&count), "{place}: count {count}");
                let keys: Vec<Key> = elements[..=count].iter().map(|e| key(e)).collect();
                ensure!(keys.windows(2).all(|w| w[0] < w[1]), "{place}: order");
                ensure!(t.left <= keys[0] && keys[count] <= t.right, "{place}: bounds");
                if t.parent == 0 {
                    ensure!(keys[0] == BEGIN && keys[count] == END, "{place}: bounds of the tree");
                    ensure!(u64_at(elements[0], 24) == 1, "{place}: deletion of the left bound");
                }
                self.report.narrow_nodes += usize::from(t.left < keys[0] || keys[count] < t.right);
                ensure!(elements[count][35] == 0, "{place}: right bound's type");
                for n in (0..count).rev() {
                    let element = elements[n];
                    ensure!(keys[n].4 != 1 || keys[n] == BEGIN, "{place}: separator {n} has creation 1");
                    ensure!(u64_at(element, 40) <= mirror, "{place}: element {n}'s mirror_tid");
                    todo.push(Todo {
                        at: u64_at(element, 48),
                        parent: t.at,
                        btype: element[35],
                        left: keys[n],
                        right: keys[n + 1],
                        mirror: u64_at(element, 40),
                        depth: t.depth + 1,
                        alone: count == 1,
                    });
                }
            } else {
                ensure!(node[20] == b'L' && count <= 63, "{place}: type {:#x}, count {count}", node[20]);
                ensure!(*leaf_depth.get_or_insert(t.depth) == t.depth, "{place}: leaf on another level");
                ensure!(count != 0 || t.alone, "{place}: empty, but not an only child");
                self.report.empty_leaves += usize::from(count == 0);
                for element in &elements[..count] {
                    let record = self.record(element, mirror)?;
                    ensure!(
                        t.left <= record.key && record.key < t.right,
                        "{place}: {:x?} out of bounds",
                        record.key
                    );
                    if let Some(last) = records.last() {
                        let (a, b) = (last.key, record.key);
                        ensure!(a < b, "{place}: {a:x?} before {b:x?}");
                        let same = (a.0, a.1, a.2, a.3) == (b.0, b.1, b.2, b.3);
                        let apart = last.delete_tid != 0 && last.delete_tid <= b.4;
                        ensure!(!same || apart, "{b:x?}: two versions at a time");
                    }
                    records.push(record);
                }
            }
        }
        self.report.records = records.len();
        let highest = records.iter().map(|r| r.key.4.max(r.delete_tid)).max().unwrap_or(0);
        ensure!(u64_at(&self.head, 248) >= highest, "next_tid");
        let inodes = records.iter().filter(|r| r.key.2 == 1 && r.delete_tid == 0).count() as u64;
        ensure!(u64_at(&self.head, 224) == inodes, "number of inodes");
        Ok(records)
    }

    fn record(&mut self, element: &[u8], mirror: u64) -> Found<Record> {
        let key = key(element);
        let place = format!("record {key:x?}");
        let delete_tid = u64_at(element, 24);
        ensure!(element[35] == b'R', "{place}: btype");
        ensure!(key.4 > 1 && (delete_tid == 0 || delete_tid > key.4), "{place}: deleted {delete_tid:#x}");
        ensure!((delete_tid == 0) == (u32_at(element, 44) == 0), "{place}: time of deletion");
        ensure!(key.4.max(delete_tid) <= mirror, "{place}: above the leaf's mirror_tid");
        let (at, len) = (u64_at(element, 48), u64::from(u32_at(element, 56)));
        ensure!((1..=65536).contains(&len), "{place}: length {len}");
        let zone = match key.2 {
            0x10 if len >= 16384 => 10,
            0x10 => 11,
            1 | 0x11 | 0x14..=0x17 => 9,
            other => return Err(format!("{place}: type {other:#x}")),
        };
        ensure!(at >> 60 == zone && at % 16 == 0, "{place}: data at {at:#x}");
        let unit = if len <= BUF { BUF } else { BIG };
        ensure!(at % unit + len <= unit, "{place}: data at {at:#x} crosses a border");
        let data = self.at(at, len)?;
        let covered = if key.2 == 1 { 112.min(data.len()) } else { data.len() };
        let stored = u32_at(element, 60);
        let new = crc(self.version, &data[..covered]);
        ensure!(stored == new || stored == crc(1, &data[..covered]), "{place}: data crc");
        let reference = self.references.entry(at).or_insert((len, 0));
        ensure!(reference.0 == len, "{place}: data overlaps");
        reference.1 += 1;
        ensure!(reference.1 == 1 || key.2 == 0x10, "{place}: data shared");
        let lengths = match key.2 {
            1 => len == 128,
            0x11 => (17..=16 + 255).contains(&len),
            0x15 => len == 292,
            0x16 => len == 128,
            0x17 => len == 1024,
            _ => true,
        };
        ensure!(lengths, "{place}: length {len}");
        Ok(Record { key, delete_tid, obj_type: element[34], data })
    }

    /// Freemap and references agree, nothing overlaps, and the allocator stands behind everything.
    fn space(&self, free: u64) -> Found<()> {
        let mut used: BTreeMap<(u8, u64), (u64, u64)> = BTreeMap::new();
        let mut last_end = 0;
        let mut by_place: Vec<_> =
            self.references.iter().map(|(&a, &(l, n))| (a << 4 >> 4, a, l, n)).collect();
        by_place.sort_unstable();
        for (long, at, len, count) in by_place {
            ensure!(long >= last_end, "{at:#x}: overlaps what lies before");
            last_end = long + len.next_multiple_of(16);
            self.own(at, (at >> 60) as u8)?;
            let block = ((at >> 52 & 0xff) as u8, (at & BYTE) / BIG);
            let sum = used.entry(block).or_default();
            sum.0 += len.next_multiple_of(16) * count;
            sum.1 = sum.1.max(last_end - (last_end - 1) / BIG * BIG);
        }
        for (block, &(zone, append, unused)) in &self.blocks {
            let &(sum, end) =
                used.get(block).unwrap_or(&(BIG * u64::from(zone < 8), BIG * u64::from(zone < 8)));
            ensure!(sum > 0, "big-block {block:?}: zone {zone}, but nothing in it");
            ensure!(unused == BIG as i64 - sum as i64, "big-block {block:?}: {unused} free, {sum} used");
            ensure!(append >= end, "big-block {block:?}: append at {append}, in use up to {end}");
        }
        let data = self.blocks.values().filter(|b| b.0 >= 8).count() as u64;
        ensure!(u64_at(&self.head, 208) == free, "header's free big-blocks");
        ensure!(u64_at(&self.head, 200) == free + data, "header's big-blocks");
        for zone in 0..16u64 {
            let entry = &self.head[264 + 40 * zone as usize..][..40];
            if matches!(zone, 3 | 4 | 8..) {
                ensure!(u32_at(entry, 36) == crc(self.version, &entry[..36]), "blockmap {zone}: crc");
            }
            if zone >= 8 {
                let next = u64_at(entry, 16);
                ensure!(u64_at(entry, 8) == zone << 60 && next >> 60 == zone, "blockmap {zone}");
                let place = ((next >> 52 & 0xff) as u8, (next & BYTE) / BIG);
                let behind = self
                    .blocks
                    .iter()
                    .filter(|(_, b)| u64::from(b.0) == zone)
                    .all(|(&at, b)| at < place || at == place && b.1 <= next % BIG);
                ensure!(behind, "blockmap {zone}: next allocation amid used space");
            }
        }
        Ok(())
    }

    /// Live entries name live objects by the right hash, and link counts are right.
    fn names(&self, records: &[Record]) -> Found<()> {
        let live = || records.iter().filter(|r| r.delete_tid == 0);
        let inode = |r: &&Record| r.key.2 == 1;
        let inodes: BTreeMap<(u32, i64), &Record> =
            live().filter(inode).map(|r| ((r.key.0 >> 16, r.key.1), r)).collect();
        let mut links: BTreeMap<(u32, i64), u64> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for r in live().filter(|r| r.key.2 == 0x11) {
            let place = format!("entry {:x?}", r.key);
            let pfs = r.key.0 >> 16;
            let parent = inodes.get(&(pfs, r.key.1)).ok_or(format!("{place}: no directory"))?;
            let flags = parent.data[65];
            ensure!(parent.obj_type == 1, "{place}: not in a directory");
            ensure!(r.key.0 & 0xffff == if flags & 4 != 0 { 1 } else { 2 }, "{place}: domain");
            let name = &r.data[16..];
            let first = hash(name, flags & 3);
            let most = if flags & 3 == 1 { 0xff_ffff } else { 0xffff_ffff };
            ensure!((first..=first + most).contains(&r.key.3), "{place}: hash of {name:?} is {first:x}");
            ensure!(names.insert((pfs, r.key.1, name.to_vec())), "{place}: name twice");
            let target = (u32_at(&r.data, 8) >> 16, u64_at(&r.data, 0) as i64);
            let inode = inodes.get(&target).ok_or(format!("{place}: no inode"))?;
            ensure!(target.0 == pfs && inode.obj_type == r.obj_type, "{place}: type or PFS of the target");
            *links.entry(target).or_default() += 1;
        }
        for (at, r) in &inodes {
            let roots = u64::from(at.1 == 1);
            let count = links.get(at).copied().unwrap_or(0) + roots;
            ensure!(u64_at(&r.data, 72) == count, "inode {at:x?}: {count} names");
            ensure!(r.data[64] == r.obj_type, "inode {at:x?}: type");
        }
        // File data lies on the grid and does not overlap.
        let mut last = ((0, 0), 0);
        for r in live().filter(|r| r.key.2 == 0x10) {
            let file = (r.key.0, r.key.1);
            let (end, len) = (r.key.3 as u64, r.data.len() as u64);
            let start = end - len;
            let size = inodes
                .get(&(file.0 >> 16, file.1))
                .map(|i| u64_at(&i.data, 80))
                .ok_or("data without inode")?;
            let unit = if start < 1 << 20 { 16384 } else { 65536 };
            let short = start == 0 && size <= 8192 && len == size.next_multiple_of(16);
            ensure!(short || len == unit && start % unit == 0, "data {:x?}: {start}+{len} of {size}", r.key);
            ensure!(last.0 != file || last.1 <= start, "data {:x?} overlaps", r.key);
            let kept = size.saturating_sub(start).min(len) as usize;
            ensure!(
                start < size && r.data[kept..].iter().all(|&b| b == 0),
                "data {:x?}: behind the end",
                r.key
            );
            last = (file, end);
        }
        Ok(())
    }
}

fn key(element: &[u8]) -> Key {
    let (obj, key) = (u64_at(element, 0) as i64, u64_at(element, 8) as i64);
    (u32_at(element, 36), obj, u16_at(element, 32), key, u64_at(element, 16))
}

fn hash(name: &[u8], algorithm: u8) -> i64 {
    let (high, low) = if algorithm == 0 {
        (crc(1, name), 0)
    } else {
        let words = name.split(|b| b".-_~".contains(b)).filter(|w| !w.is_empty());
        let whole = crc(1, name);
        (words.fold(0, |sum: u32, w| sum.wrapping_add(crc(1, w))), (whole ^ whole << 16) & 0xffff_0000)
    };
    let key = i64::from(high & 0x7fff_ffff) << 32 | i64::from(low);
    if key >> 32 == 0 { key | 1 << 32 } else { key }
}

/// The checksum of a version.
fn crc(version: u32, data: &[u8]) -> u32 {
    const fn table(polynomial: u32) -> [u32; 256] {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ polynomial } else { value >> 1 };
                bit += 1;
            }
            table[n] = value;
            n += 1;
        }
        table
    }
    static OLD: [u32; 256] = table(0xedb8_8320);
    static NEW: [u32; 256] = table(0x82f6_3b78);
    let table = if version == 7 { &NEW } else { &OLD };
    !data.iter().fold(!0, |crc, &b| crc >> 8 ^ table[((crc ^ u32::from(b)) & 0xff) as usize])
}

fn bytes(volume: &Volume, at: u64, len: u64) -> Found<Vec<u8>> {
    let mut buf = vec![0; len as usize];
    volume.read_at(at, &mut buf).map_err(|e| e.to_string())?;
    Ok(buf)
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}
