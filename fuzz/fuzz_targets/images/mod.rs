//! Images with faults in them: they are built, and the input is a list of faults. Checksums are made right again after
//! each, so that the faults reach what lies behind the checks.

use std::sync::Arc;

use dfly_bio::{BlockDevice, JobList, Limits, MemDisk, Op};
use dfly_hammer::Tid;
use dfly_hammer::ondisk::Offset;
use dfly_hammer::ondisk::node::{Element, NODE_SIZE, TYPE_LEAF};
use dfly_hammer::ondisk::record::{InodeData, RecType};
use dfly_hammer_image::{Builder, Content, Damage, Format, Image, Seal, Shape, crash};
use zerocopy::IntoBytes;

/// Faults of one input.
const FAULTS: usize = 8;

/// The bytes of the input, followed by zeroes without end.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(u16::from_le_bytes(self.bytes())) % end.max(1)
    }

    /// Overwrites one, two, four or eight bytes.
    pub fn overwrite(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        let width = 1 << (self.byte() % 4);
        let value: [u8; 8] = self.bytes();
        for (byte, value) in bytes[at..].iter_mut().zip(&value[..width]) {
            *byte = *value;
        }
    }
}

/// A sound image, and where things lie in it.
pub struct Base {
    pub image: Image,
    /// A transaction before the last.
    pub past: Tid,
    disks: Vec<dfly_bio::Image>,
    nodes: Vec<(Offset, usize)>,
    records: Vec<(Offset, usize)>,
    samples: Vec<Damage>,
}

impl Base {
    /// One input's image, and its past: the first bytes choose it, the others break it.
    pub fn broken<'b>(bases: &'b [Self], input: &mut Input<'_>) -> (&'b Self, Image, Tid) {
        let base = &bases[input.below(bases.len())];
        let mut image = base.image.clone();
        for fault in 0..FAULTS {
            if input.0.is_empty() {
                break;
            }
            base.break_it(&mut image, input, fault);
        }
        (base, image, base.past)
    }

    fn new((image, past): (Image, Tid)) -> Self {
        let nodes = image.nodes().unwrap();
        let records = nodes.iter().filter(|node| node.node.node_type == TYPE_LEAF);
        let records =
            records.flat_map(|leaf| (0..leaf.node.count.get() as usize).map(|index| (leaf.at, index)));
        Self {
            disks: image.volumes.iter().map(disk_image).collect(),
            records: records.collect(),
            nodes: nodes.iter().map(|node| (node.at, node.node.count.get() as usize)).collect(),
            samples: Damage::samples(),
            past,
            image,
        }
    }

    /// One fault. What does not fit the image any more is left out.
    fn break_it(&self, image: &mut Image, input: &mut Input<'_>, fault: usize) {
        let _ = match input.byte() % 6 {
            // Finds its place by walking the tree, which only a sound image can promise to end.
            0 if fault == 0 => {
                let sample = input.below(self.samples.len());
                self.samples[sample].apply(image, if input.byte() == 0 { Seal::Fresh } else { Seal::Stale })
            }
            1 => {
                let volume = input.below(image.volumes.len());
                image.header(volume).and_then(|mut header| {
                    input.overwrite(header.as_mut_bytes());
                    image.put_header(volume, &header)
                })
            }
            2 => {
                let (at, _) = self.nodes[input.below(self.nodes.len())];
                let (from, _) = self.nodes[input.below(self.nodes.len())];
                // Nodes of a built tree change places.
                image.node(from).and_then(|node| image.put_node(at, &node))
            }
            3 => {
                let (leaf, index) = self.records[input.below(self.records.len())];
                self.break_data(image, input, leaf, index)
            }
            _ => {
                let (at, count) = self.nodes[input.below(self.nodes.len())];
                image.edit_node(at, Seal::Fresh, |node| {
                    let unused = node.elements.len().saturating_sub(count + 1) * size_of::<Element>();
                    input.overwrite(&mut node.as_mut_bytes()[..NODE_SIZE - unused]);
                })
            }
        };
    }

    /// Changes the data of a record, and makes its checksum right.
    fn break_data(
        &self,
        image: &mut Image,
        input: &mut Input<'_>,
        leaf: Offset,
        index: usize,
    ) -> dfly_hammer_image::Result<()> {
        let tail = *image.node(leaf)?.elements[index].as_leaf();
        let at = Offset(tail.data_offset.get());
        let mut data = image.read(at, tail.data_len.get().clamp(0, 65536) as usize)?;
        if data.is_empty() {
            return Ok(());
        }
        input.overwrite(&mut data);
        image.write(at, &data)?;
        let flavor = self.image.flavor()?;
        image.edit_node(leaf, Seal::Fresh, |node| {
            let element = node.elements[index];
            let covered = match RecType(element.base.rec_type.get()) {
                RecType::INODE => &data[..data.len().min(InodeData::CRC_LEN)],
                _ => &data[..],
            };
            let mut tail = *element.as_leaf();
            tail.data_crc = flavor.of(covered).into();
            node.elements[index] = Element::leaf(element.base, tail);
        })
    }

    /// Disks with the contents of `image`, which shares most of it with the sound one.
    pub fn devices(&self, image: &Image) -> Vec<Arc<dyn BlockDevice>> {
        let volumes = image.volumes.iter().enumerate().map(|(number, volume)| {
            let disk = if volume.size() == self.image.volumes[number].size() {
                let mut disk = self.disks[number].clone();
                let mut sound = self.image.volumes[number].chunks().peekable();
                for (at, bytes) in volume.chunks() {
                    let old = sound.next_if(|&(old_at, _)| old_at == at);
                    if !old.is_some_and(|(_, old)| std::ptr::eq(bytes, old)) {
                        disk.write(at, bytes).unwrap();
                    }
                }
                disk
            } else {
                disk_image(volume)
            };
            Arc::new(ReadOnly(MemDisk::from_image(512, disk))) as Arc<dyn BlockDevice>
        });
        volumes.collect()
    }
}

fn disk_image(volume: &dfly_hammer_image::Volume) -> dfly_bio::Image {
    let mut disk = dfly_bio::Image::new(volume.size());
    for (at, bytes) in volume.chunks() {
        disk.write(at, bytes).unwrap();
    }
    disk
}

/// A disk that nobody writes to.
struct ReadOnly(MemDisk);

impl BlockDevice for ReadOnly {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn submit(&self, mut batch: JobList) {
        let mut checked = JobList::new();
        while let Some(job) = batch.pop() {
            assert_eq!(job.op(), Op::Read);
            checked.push(job);
        }
        self.0.submit(checked);
    }

    fn poll(&self) -> usize {
        self.0.poll()
    }
}

/// Sound images: old and new rules, two volumes, and one that crashed.
pub fn bases() -> Vec<Base> {
    let two_volumes = Format { volumes: vec![48 << 20, 32 << 20], ..Format::default() };
    let formats =
        [Format { version: 1, ..Format::default() }, Format { version: 6, ..Format::default() }, two_volumes];
    let finished = |format: &Format| {
        let (builder, past) = filled(format);
        (builder.finish().unwrap(), past)
    };
    let mut images: Vec<(Image, Tid)> = formats.iter().map(finished).collect();
    let (mut builder, past) = filled(&Format::default());
    let before = builder.finish().unwrap();
    let root = builder.root();
    builder.unlink(root, "f3");
    builder.file(root, "late", Content::pattern(9, 30_000));
    builder.commit();
    let after = builder.finish().unwrap();
    images.push((crash(&before, &after, |_, at| at / 16384 % 2 == 0).unwrap(), past));
    images.into_iter().map(Base::new).collect()
}

/// Every kind of object and record, in a tree of few elements a node.
fn filled(format: &Format) -> (Builder, Tid) {
    let mut fs = Builder::new(format.clone());
    fs.shape(Shape::DEEP);
    let root = fs.root();
    for number in 0..12u64 {
        fs.file(root, format!("f{number}"), Content::pattern(number, number * number * 700));
    }
    let directory = fs.directory(root, "directory");
    let file = fs.file(directory, "sparse", Content::hole(1 << 40).with_bytes(1 << 30, *b"data"));
    fs.link(root, "link", file);
    fs.symlink(directory, "short", "../f1");
    fs.symlink(directory, "long", "../directory/".repeat(9));
    let past = fs.commit();
    fs.write(file, 12_345, b"changed");
    fs.truncate(file, 1 << 35);
    fs.rename((directory, "short"), (root, "moved"));
    fs.commit();
    if format.version >= 6 {
        fs.snapshot(0, past, "past");
    }
    let pfs = fs.pfs_master(1, "one");
    fs.file(pfs, "inside", Content::pattern(5, 20_000));
    fs.symlink(root, "pfs1", "@@PFS00001");
    fs.commit();
    (fs, past)
}
