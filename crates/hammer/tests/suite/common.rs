//! Test disks, and a plain way to read everything on them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use dfly_bio::{BioJob, BlockDevice, Completion, JobList, Limits, MemDisk};
use dfly_hal::ThreadWait;
use dfly_hammer::{Hammer, MountError, MountOptions};
use dfly_hammer_image::{Image, Volume};
use dfly_vfs::{self as vfs, Attr, Call, FileSystem, Kind, NodeId, Walk, walk};

/// A disk in memory with the contents of a volume.
pub(crate) fn disk(volume: &Volume, completion: Completion) -> Arc<MemDisk> {
    let mut image = dfly_bio::Image::new(volume.size());
    for (at, chunk) in volume.chunks() {
        let len = usize::try_from(volume.size().saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
        image.write(at, &chunk[..len]).unwrap();
    }
    Arc::new(MemDisk::from_image(512, image).completing(completion))
}

/// A disk that must not be written.
pub(crate) struct Untouched(pub(crate) Arc<MemDisk>);

impl BlockDevice for Untouched {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn submit(&self, mut batch: JobList) {
        let mut out = JobList::new();
        while let Some(job) = batch.pop() {
            assert!(!BioJob::op(&job).is_write(), "a read-only mount wrote: {job:?}");
            out.push(job);
        }
        self.0.submit(out);
    }

    fn poll(&self) -> usize {
        self.0.poll()
    }
}

/// The devices of an image, reads only.
pub(crate) fn disks(image: &Image) -> Vec<Arc<dyn BlockDevice>> {
    let untouched = |v| Arc::new(Untouched(disk(v, Completion::Inline))) as Arc<dyn BlockDevice>;
    image.volumes.iter().map(untouched).collect()
}

pub(crate) fn mount_with(image: &Image, options: MountOptions) -> Result<Hammer, MountError> {
    Hammer::mount(&disks(image), options, &mut ThreadWait::new())
}

pub(crate) fn mount(image: &Image) -> Result<Hammer, MountError> {
    mount_with(image, MountOptions::default())
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Other(Kind),
}

pub(crate) type Tree = BTreeMap<String, Found>;

/// The attributes of what `path` leads to.
pub(crate) fn stat(fs: &impl FileSystem, path: &str) -> vfs::Result<Attr> {
    let mut w = ThreadWait::new();
    walk(fs, &mut Call::new(&mut w), fs.root(), path.as_bytes(), &Walk::default())
}

pub(crate) fn read(fs: &impl FileSystem, node: NodeId, size: u64) -> vfs::Result<Vec<u8>> {
    let mut w = ThreadWait::new();
    let mut bytes = Vec::new();
    fs.read(&mut Call::new(&mut w), node, 0, size, &mut |b| {
        bytes.extend_from_slice(b);
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}

pub(crate) fn names(fs: &impl FileSystem, node: NodeId) -> vfs::Result<Vec<(String, NodeId)>> {
    let mut w = ThreadWait::new();
    let mut names = Vec::new();
    fs.readdir(&mut Call::new(&mut w), node, vfs::FIRST_COOKIE, &mut |e| {
        names.push((String::from_utf8_lossy(e.name).into_owned(), e.node));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Everything below `root`. Stops at the first error.
pub(crate) fn tree(fs: &impl FileSystem, root: &str) -> vfs::Result<Tree> {
    let mut w = ThreadWait::new();
    let mut all = Tree::new();
    let mut stack = vec![(String::new(), stat(fs, root)?.node)];
    while let Some((path, node)) = stack.pop() {
        let attr = fs.getattr(&mut Call::new(&mut w), node)?;
        let found = match attr.kind {
            Kind::Directory => {
                for (name, node) in names(fs, node)? {
                    stack.push((format!("{path}/{name}"), node));
                }
                Found::Directory
            }
            // Damage can make a file of any size: what is not there reads as zeros, and is not worth collecting.
            Kind::Regular => Found::File(read(fs, node, attr.size.min(1 << 20))?),
            Kind::Symlink => {
                let mut target = Vec::new();
                fs.readlink(&mut Call::new(&mut w), node, &mut |b| target.extend_from_slice(b))?;
                Found::Symlink(target)
            }
            kind => Found::Other(kind),
        };
        // A damaged directory may list itself.
        if all.insert(path, found).is_some() || all.len() > 10_000 {
            return Ok(all);
        }
    }
    Ok(all)
}
