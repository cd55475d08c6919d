//! Tests of the engine below the file system's interface: a disk in memory, and a check of everything on it.

mod commit;
mod space;
mod tree;
mod undo;

use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use dfly_bio::{BlockDevice, MemDisk};
use dfly_hal::ThreadWait;
use dfly_hammer_image::{Builder, Format};
use dfly_vfs::Timestamp;

use super::{Engine, Op, Writer};
use crate::error::Error;
use crate::inspect::Nodes;
use crate::media::Media;
use crate::ondisk::node::{BaseElement, Element, Key, LeafTail, NODE_SIZE, TYPE_RECORD, Tid};
use crate::ondisk::{BIG_BLOCK_SIZE, Offset, Zone};
use crate::pages::Pages;
use crate::recovery::{Recovered, recover};
use crate::{freemap, mount};

const NOW_US: i64 = 1_600_000_000_000_000;

/// A fresh disk of `volumes`, with a FIFO of 8 MiB and nothing but a root directory.
pub(super) fn fresh(version: u32, volume_bytes: u64) -> Arc<MemDisk> {
    let format = Format { version, volumes: vec![volume_bytes], ..Format::default() };
    let image = Builder::new(format).finish().unwrap();
    let volume = &image.volumes[0];
    let mut disk = dfly_bio::Image::new(volume.size());
    for (at, chunk) in volume.chunks() {
        let len = usize::try_from(volume.size() - at).unwrap().min(chunk.len());
        disk.write(at, &chunk[..len]).unwrap();
    }
    Arc::new(MemDisk::from_image(512, disk))
}

/// A mounted disk that is written.
pub(super) struct Bench {
    pub(super) media: Media,
    writer: Writer,
    pub(super) w: ThreadWait,
}

/// The media of a disk, and what recovery finds there.
pub(super) fn look(disk: Arc<dyn BlockDevice>, pages: usize) -> Result<(Media, Recovered), Error> {
    let mut w = ThreadWait::new();
    let (volumes, header) = mount::open_volumes(&[disk], &mut w).unwrap();
    let mut media = Media::new(volumes, header, Pages::new(pages)?);
    let mut recovered = recover(&media, &mut w)?;
    media.recover(core::mem::take(&mut recovered.overlay), recovered.header.clone());
    Ok((media, recovered))
}

impl Bench {
    pub(super) fn open(disk: Arc<dyn BlockDevice>) -> Result<Self, Error> {
        Self::with_pages(disk, 2048, 512)
    }

    pub(super) fn with_pages(disk: Arc<dyn BlockDevice>, pages: usize, dirty: usize) -> Result<Self, Error> {
        let mut w = ThreadWait::new();
        let (mut media, recovered) = look(disk, pages)?;
        let engine = Engine::start(&mut media, &mut w, &recovered, dirty)?;
        let clock = || Timestamp::from_micros(NOW_US);
        Ok(Self { media, writer: Writer::new(engine, Box::new(clock)), w })
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        self.writer.engine.get_mut()
    }

    pub(super) fn run<R>(
        &mut self,
        work: impl FnOnce(&mut Op<'_, '_>, &mut dyn dfly_hal::Wait) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.writer.operate(&self.media, &mut self.w, work)
    }

    pub(super) fn commit(&mut self) -> Result<(), Error> {
        self.writer.commit(&self.media, &mut self.w)
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.writer.sync(&self.media, &mut self.w)
    }

    /// Checks the tree as it is in memory; returns the elements of its leaves.
    pub(super) fn check(&mut self) -> Vec<Element> {
        self.writer.engine.get_mut().group.seal(&self.media, &mut self.w).unwrap();
        check(&self.media)
    }
}

/// Checks every invariant of the tree and the freemap; returns the elements of the leaves.
pub(super) fn check(media: &Media) -> Vec<Element> {
    let w = &mut ThreadWait::new();
    let mut nodes = Nodes::new(media);
    let mut elements = Vec::new();
    let mut used: BTreeMap<Offset, i64> = BTreeMap::new();
    let mut use_up = |at: Offset, len: usize| {
        let block = Offset(at.0 - at.in_big_block());
        *used.entry(block).or_default() += len.next_multiple_of(16) as i64;
    };
    let mut leaf_depth = None;
    while let Some(report) = nodes.next(w) {
        let report = report.unwrap();
        let at = report.at;
        assert!(report.checksum.is_some(), "checksum of {at}");
        assert_eq!(report.fault, None, "{at}");
        use_up(at, NODE_SIZE);
        for i in 0..report.elements().len() {
            assert_eq!(nodes.element_fault(w, &report, i), None, "element {i} of {at}");
        }
        let keys: Vec<Key> = report.elements().iter().map(|e| e.base.key()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "order in {at}");
        let tids = |e: &Element| e.base.create_tid.get().max(e.base.delete_tid.get());
        if report.node.is_leaf() {
            assert_eq!(*leaf_depth.get_or_insert(report.depth), report.depth, "depth of {at}");
            assert!(report.depth == 0 || !report.node.slots().is_empty(), "{at} is empty");
            for e in report.node.slots() {
                // A fresh file system's only leaf has 0.
                let newest = report.node.mirror_tid.get();
                assert!(newest == 0 && report.depth == 0 || newest >= tids(e), "mirror_tid of {at}");
                let leaf = e.as_leaf();
                if leaf.data_len.get() > 0 {
                    assert_eq!(nodes.data(w, e).fault, None, "data of {:?}", e.base.key());
                    use_up(Offset(leaf.data_offset.get()), leaf.data_len.get() as usize);
                }
                elements.push(*e);
            }
        } else {
            for e in report.node.slots() {
                assert!(
                    e.as_internal().mirror_tid.get() <= report.node.mirror_tid.get(),
                    "mirror_tid of {at}"
                );
            }
            if report.depth == 0 {
                assert_eq!(keys.first(), Some(&Key::BEGIN), "left bound of the root");
                assert_eq!(keys.last(), Some(&Key::END), "right bound of the root");
            }
        }
    }
    let volume = media.volume(0).unwrap();
    let mut free = 0;
    for n in 0..volume.buffers_len / BIG_BLOCK_SIZE {
        let raw = Offset::new(Zone::RAW_BUFFER, 0, n * BIG_BLOCK_SIZE);
        let layer2 = freemap::layer2(media, w, raw).unwrap().unwrap();
        let zone = Zone(layer2.zone);
        match zone {
            Zone::FREE => {
                free += 1;
                assert_eq!((layer2.append_off.get(), layer2.bytes_free.get()), (0, BIG_BLOCK_SIZE as i32));
            }
            Zone::FREEMAP | Zone::UNDO => {}
            _ => {
                let in_use = used.remove(&raw.in_zone(zone)).unwrap_or(0);
                assert!(in_use > 0, "big-block {n} belongs to {zone:?}, and nothing is in it");
                assert_eq!(
                    BIG_BLOCK_SIZE as i64 - i64::from(layer2.bytes_free.get()),
                    in_use,
                    "big-block {n}"
                );
            }
        }
    }
    assert!(used.is_empty(), "in big-blocks of other zones: {used:?}");
    let layer1 = freemap::layer1(media, w, Offset::new(Zone::RAW_BUFFER, 0, 0)).unwrap().unwrap();
    assert_eq!(layer1.blocks_free.get(), free);
    elements
}

/// A record's element without data.
pub(super) fn element(key: Key) -> Element {
    let base = BaseElement {
        obj_id: key.obj_id.into(),
        key: key.key.into(),
        create_tid: key.create_tid.0.into(),
        delete_tid: 0.into(),
        rec_type: key.rec_type.into(),
        obj_type: 0,
        btype: TYPE_RECORD,
        localization: key.localization.into(),
    };
    let tail = LeafTail {
        create_ts: 1.into(),
        delete_ts: 0.into(),
        data_offset: 0.into(),
        data_len: 0.into(),
        data_crc: 0.into(),
    };
    Element::leaf(base, tail)
}

/// Numbers that look random and are the same every time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// A key in a small space, so that keys are neighbours and meet again.
pub(super) fn some_key(dice: &mut Dice, spread: u64) -> Key {
    Key {
        localization: 1 + dice.roll(2) as u32,
        obj_id: dice.roll(spread) as i64 - 3,
        rec_type: [1, 0x10, 0x11][dice.roll(3) as usize],
        key: dice.roll(40) as i64 - 20,
        create_tid: Tid(0x1_0000_0000 + dice.roll(3)),
    }
}
