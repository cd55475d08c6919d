//! What operations cost, in counts that do not depend on the machine: allocations, copies, requests.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::ops::ControlFlow;
use std::sync::Arc;

use dfly_alloc_count::allocator_calls;
use dfly_bio::{BlockDevice, MemDisk};
use dfly_hal::ThreadWait;
use dfly_hammer::{Hammer, MountOptions};
use dfly_hammer_image::{Builder, Content, Shape};
use dfly_vfs::{Call, FileSystem, Name, NodeId};

const FILE_BYTES: u64 = 4 << 20;

fn mount(cache_bytes: usize) -> Hammer {
    let mut fs = Builder::default();
    let root = fs.root();
    let dir = fs.directory(root, "dir");
    for n in 0..300 {
        fs.file(dir, format!("file{n}"), Content::pattern(n, 2000));
    }
    fs.file(root, "big", Content::pattern(1, FILE_BYTES));
    fs.shape(Shape::DEEP);
    let image = fs.finish().unwrap();
    let mut disk = dfly_bio::Image::new(image.volumes[0].size());
    for (at, chunk) in image.volumes[0].chunks() {
        disk.write(at, chunk).unwrap();
    }
    let devices: Vec<Arc<dyn BlockDevice>> = vec![Arc::new(MemDisk::from_image(512, disk))];
    let mut options = MountOptions::default();
    options.cache_bytes = cache_bytes;
    Hammer::mount(&devices, options, &mut ThreadWait::new()).unwrap()
}

fn look_up(fs: &Hammer, w: &mut ThreadWait, dir: NodeId, name: &str) -> NodeId {
    fs.nresolve(&mut Call::new(w), dir, Name::new(name).unwrap()).unwrap().node
}

fn read_all(fs: &Hammer, w: &mut ThreadWait, node: NodeId) -> u64 {
    fs.read(&mut Call::new(w), node, 0, u64::MAX, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_warm_lookup_and_read_allocate_nothing() {
    let fs = mount(64 << 20);
    let mut w = ThreadWait::new();
    let all = |w: &mut ThreadWait| {
        let dir = look_up(&fs, w, fs.root(), "dir");
        for name in ["file0", "file150", "file299"] {
            let file = look_up(&fs, w, dir, name);
            assert_eq!(read_all(&fs, w, file), 2000);
        }
        let big = look_up(&fs, w, fs.root(), "big");
        assert_eq!(read_all(&fs, w, big), FILE_BYTES);
        let mut entries = 0;
        fs.readdir(&mut Call::new(w), dir, 0, &mut |_| {
            entries += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(entries, 302);
    };
    all(&mut w);
    let misses = fs.cache_stats().misses;
    assert_eq!(allocator_calls(|| all(&mut w)), 0);
    assert_eq!(fs.cache_stats().misses, misses, "everything was in the cache");
}

#[test]
fn reading_through_a_full_cache_allocates_nothing() {
    // The file is larger than the cache: every page is read from the device again, into the memory of another.
    let fs = mount(1 << 20);
    let mut w = ThreadWait::new();
    let big = look_up(&fs, &mut w, fs.root(), "big");
    read_all(&fs, &mut w, big);
    let before = fs.cache_stats();
    assert_eq!(allocator_calls(|| assert_eq!(read_all(&fs, &mut w, big), FILE_BYTES)), 0);
    let after = fs.cache_stats();
    assert!(after.misses - before.misses >= FILE_BYTES / 16384, "{after:?}");
    assert_eq!(after.resident_pages, before.resident_pages);
}

#[test]
fn bytes_are_handed_out_where_the_cache_holds_them() {
    let fs = mount(64 << 20);
    let mut w = ThreadWait::new();
    let big = look_up(&fs, &mut w, fs.root(), "big");
    let addresses = |w: &mut ThreadWait| {
        let mut seen = Vec::new();
        fs.read(&mut Call::new(w), big, 0, 1 << 20, &mut |bytes| {
            seen.push((bytes.as_ptr() as usize, bytes.len()));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    };
    let (first, second) = (addresses(&mut w), addresses(&mut w));
    assert_eq!(first, second);
    assert!(
        first.iter().all(|(at, len)| at % 4096 == 0 && *len == 16384),
        "whole pages, aligned for a device"
    );
}
