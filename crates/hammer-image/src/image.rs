//! A finished image: sparse volumes, and typed access to what lies in them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use dfly_hammer::crc::Flavor;
use dfly_hammer::ondisk::node::{Node, TYPE_INTERNAL};
use dfly_hammer::ondisk::volume::{HEADER_SIZE, VolumeHeader};
use dfly_hammer::ondisk::{BIG_BLOCK_SIZE, Offset, VERSION_CRC32C, Zone};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Error, Result};

/// Volumes are stored in pieces of this many bytes; pieces that were never written are zero.
pub const CHUNK: usize = 16 * 1024;

/// A volume in memory. It costs what was written to it, and a clone shares all of that.
#[derive(Clone)]
pub struct Volume {
    size: u64,
    chunks: BTreeMap<u64, Arc<[u8; CHUNK]>>,
}

/// The volumes of a file system, in order of their numbers.
#[derive(Clone, Debug)]
pub struct Image {
    /// Volume 0 is the root volume.
    pub volumes: Vec<Volume>,
}

/// A node of an image's B-tree and its place.
#[derive(Clone)]
pub struct NodeAt {
    /// The node's address.
    pub at: Offset,
    /// Its distance from the root.
    pub depth: usize,
    /// Its bytes.
    pub node: Node,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("size", &self.size).field("stored", &self.stored()).finish()
    }
}

impl Volume {
    /// A volume of `size` zero bytes.
    pub fn new(size: u64) -> Self {
        Self { size, chunks: BTreeMap::new() }
    }

    /// Its size, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that it takes in memory, shared ones included.
    pub fn stored(&self) -> u64 {
        (self.chunks.len() * CHUNK) as u64
    }

    /// Cuts the volume off, or lengthens it by zeros.
    pub fn resize(&mut self, size: u64) {
        let tail = (size % CHUNK as u64) as usize;
        self.chunks.split_off(&size.div_ceil(CHUNK as u64));
        if let Some(last) = self.chunks.get_mut(&(size / CHUNK as u64)) {
            Arc::make_mut(last)[tail..].fill(0);
        }
        self.size = size;
    }

    /// Fills `buf` from byte `at` on.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.check(at, buf.len())?;
        each_piece(at, buf.len(), |chunk, within, range| match self.chunks.get(&chunk) {
            Some(bytes) => buf[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => buf[range].fill(0),
        });
        Ok(())
    }

    /// Puts `data` at byte `at`.
    pub fn write_at(&mut self, at: u64, data: &[u8]) -> Result<()> {
        self.check(at, data.len())?;
        each_piece(at, data.len(), |chunk, within, range| {
            let bytes = self.chunks.entry(chunk).or_insert_with(|| Arc::new([0; CHUNK]));
            Arc::make_mut(bytes)[within..within + range.len()].copy_from_slice(&data[range]);
        });
        Ok(())
    }

    /// The pieces that are stored, with their places in bytes. The last one may reach behind the end.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, &[u8; CHUNK])> {
        self.chunks.iter().map(|(&n, bytes)| (n * CHUNK as u64, &**bytes))
    }

    /// Writes the volume to a new file, with holes where nothing is stored.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.size)?;
        for (at, bytes) in self.chunks() {
            let len = (self.size - at).min(CHUNK as u64) as usize;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes[..len])?;
        }
        Ok(())
    }

    /// Loads a volume from a file. Pieces that are all zero are not stored.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut volume = Self::new(file.metadata()?.len());
        let mut buf = [0; CHUNK];
        for chunk in 0..volume.size.div_ceil(CHUNK as u64) {
            let len = (volume.size - chunk * CHUNK as u64).min(CHUNK as u64) as usize;
            buf[len..].fill(0);
            file.read_exact(&mut buf[..len])?;
            if buf.iter().any(|&b| b != 0) {
                volume.chunks.insert(chunk, Arc::new(buf));
            }
        }
        Ok(volume)
    }

    /// Stores one piece `count` times from byte `at` on, without copying it.
    pub(crate) fn repeat(&mut self, at: u64, piece: [u8; CHUNK], count: u64) {
        let first = at / CHUNK as u64;
        let piece = Arc::new(piece);
        self.chunks.extend((first..first + count).map(|n| (n, Arc::clone(&piece))));
    }

    /// The piece at `at`, if it is stored.
    pub(crate) fn chunk(&self, at: u64) -> Option<&Arc<[u8; CHUNK]>> {
        self.chunks.get(&(at / CHUNK as u64))
    }

    fn check(&self, at: u64, len: usize) -> Result<()> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::OutsideVolume { at, len }),
        }
    }
}

/// Splits a range at the borders of chunks: chunk, position in it, range of the caller's buffer.
fn each_piece(at: u64, len: usize, mut f: impl FnMut(u64, usize, core::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let pos = at + done as u64;
        let within = (pos % CHUNK as u64) as usize;
        let n = (CHUNK - within).min(len - done);
        f(pos / CHUNK as u64, within, done..done + n);
        done += n;
    }
}

impl Image {
    /// Writes every volume to the file of the same position.
    pub fn write_files<P: AsRef<Path>>(&self, paths: &[P]) -> Result<()> {
        self.volumes.iter().zip(paths).try_for_each(|(volume, path)| volume.write_file(path))
    }

    /// Loads an image from the files of its volumes, volume 0 first.
    pub fn read_files<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        Ok(Self { volumes: paths.iter().map(Volume::read_file).collect::<Result<_>>()? })
    }

    /// Volume and device byte of an address.
    pub fn locate(&self, at: Offset) -> Result<(usize, u64)> {
        let bad = || Error::BadOffset(at);
        let at = match at.zone() {
            Zone::UNDO => {
                let block = self.fifo_blocks()?.get((at.byte() / BIG_BLOCK_SIZE) as usize).copied();
                block.and_then(|b| b.checked_add(at.in_big_block())).ok_or_else(bad)?
            }
            _ => at,
        };
        let volume = usize::from(at.volume());
        match at.zone() {
            Zone::RAW_VOLUME if volume < self.volumes.len() => Ok((volume, at.byte())),
            zone if zone.is_direct() && volume < self.volumes.len() => {
                let begin = u64::try_from(self.header(volume)?.vol_buf_beg.get()).map_err(|_| bad())?;
                Ok((volume, begin.checked_add(at.byte()).ok_or_else(bad)?))
            }
            _ => Err(bad()),
        }
    }

    /// `len` bytes from an address on.
    pub fn read(&self, at: Offset, len: usize) -> Result<Vec<u8>> {
        let (volume, byte) = self.locate(at)?;
        let mut buf = vec![0; len];
        self.volumes[volume].read_at(byte, &mut buf)?;
        Ok(buf)
    }

    /// Puts `data` at an address. Checksums are not touched.
    pub fn write(&mut self, at: Offset, data: &[u8]) -> Result<()> {
        let (volume, byte) = self.locate(at)?;
        self.volumes[volume].write_at(byte, data)
    }

    /// The structure that lies at an address.
    pub fn view<T: FromBytes>(&self, at: Offset) -> Result<T> {
        T::read_from_bytes(&self.read(at, size_of::<T>())?).map_err(|_| Error::BadOffset(at))
    }

    /// The header of a volume.
    pub fn header(&self, volume: usize) -> Result<VolumeHeader> {
        let mut buf = [0; HEADER_SIZE];
        let bad = Error::NotThere("such volume");
        self.volumes.get(volume).ok_or(bad)?.read_at(0, &mut buf)?;
        VolumeHeader::read_from_bytes(&buf).map_err(|_| Error::NotThere("volume header"))
    }

    /// Replaces the header of a volume, with its checksum set right.
    pub fn put_header(&mut self, volume: usize, header: &VolumeHeader) -> Result<()> {
        let mut header = header.clone();
        let flavor = self.flavor()?;
        let bytes = header.as_bytes();
        header.vol_crc = (flavor.of(&bytes[..156]) ^ flavor.of(&bytes[160..])).into();
        self.volumes.get_mut(volume).ok_or(Error::NotThere("such volume"))?.write_at(0, header.as_bytes())
    }

    /// The checksum that the root volume's version writes; that of version 7 while the volume is empty.
    pub fn flavor(&self) -> Result<Flavor> {
        Ok(match self.header(0)?.vol_version.get() {
            1..VERSION_CRC32C => Flavor::Iso,
            _ => Flavor::Iscsi,
        })
    }

    /// The node at an address, whatever is wrong with it.
    pub fn node(&self, at: Offset) -> Result<Node> {
        self.view(at)
    }

    /// Replaces a node, with its checksum set right.
    pub fn put_node(&mut self, at: Offset, node: &Node) -> Result<()> {
        let mut node = node.clone();
        node.crc = self.flavor()?.of(&node.as_bytes()[4..]).into();
        self.write(at, node.as_bytes())
    }

    /// All nodes of a sound B-tree, parents before children and in key order.
    pub fn nodes(&self) -> Result<Vec<NodeAt>> {
        let mut nodes = Vec::new();
        let mut todo = vec![(Offset(self.header(0)?.vol0_btree_root.get()), 0)];
        while let Some((at, depth)) = todo.pop() {
            let node = self.node(at)?;
            if node.node_type == TYPE_INTERNAL {
                let children = node.elements.iter().take(node.count.get().max(0) as usize);
                todo.extend(
                    children.rev().map(|e| (Offset(e.as_internal().subtree_offset.get()), depth + 1)),
                );
            }
            nodes.push(NodeAt { at, depth, node });
        }
        Ok(nodes)
    }

    /// Addresses of the FIFO's big-blocks.
    pub(crate) fn fifo_blocks(&self) -> Result<Vec<Offset>> {
        let header = self.header(0)?;
        let bytes = Offset(header.vol0_blockmap[3].alloc_offset.get()).byte();
        let array = header.vol0_undo_array.iter().take((bytes / BIG_BLOCK_SIZE) as usize);
        Ok(array.map(|a| Offset(a.get())).collect())
    }

    /// Writes the structure `T` at an address, as it is.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, at: Offset, value: &T) -> Result<()> {
        self.write(at, value.as_bytes())
    }
}
