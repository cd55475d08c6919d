//! `newfs`: held against the image builder, which lays volumes out by rules of its own; refusals; interruptions.

use std::sync::Arc;

use dfly_bio::{BlockDevice, Cut, Fault, FaultInjector, JobList, Limits, MemDisk, Op, PowerCut, Rule};
use dfly_hal::ThreadWait;
use dfly_hammer::format::{FormatError, Options, Plan, newfs};
use dfly_hammer::ondisk::{BUFFER_SIZE, Offset};
use dfly_hammer::{Hammer, MountError, MountOptions};
use dfly_hammer_image::{Builder, Format};

const MIB: u64 = 1 << 20;
/// Device byte of the first big-block.
const BEGIN: u64 = 557_056;

fn devices(disks: &[Arc<MemDisk>]) -> Vec<Arc<dyn BlockDevice>> {
    disks.iter().map(|d| d.clone() as _).collect()
}

fn alone(disk: &Arc<impl BlockDevice + 'static>) -> [Arc<dyn BlockDevice>; 1] {
    [disk.clone()]
}

fn options(label: &[u8], undo_bytes: u64) -> Options<'_> {
    let mut options = Options::new(label, Format::default().fsid, 1_600_000_000_000_000);
    options.undo_bytes = Some(undo_bytes);
    options
}

/// Formats blank disks and compares them with what the builder makes of the same wishes.
fn same_as_built(sizes: &[u64], version: u32, label: &str, undo_bytes: u64) {
    let mut wanted = options(label.as_bytes(), undo_bytes);
    wanted.version = version;
    let disks: Vec<_> = sizes.iter().map(|s| Arc::new(MemDisk::new(512, s / 512))).collect();
    newfs(&devices(&disks), &wanted, &mut ThreadWait::new()).unwrap();

    let format = Format {
        version,
        label: label.into(),
        volumes: sizes.to_vec(),
        fifo_bytes: undo_bytes.next_multiple_of(8 * MIB),
        ..Format::default()
    };
    let mut fs = Builder::new(format);
    fs.inode_in_place(fs.root(), |inode| {
        let now = wanted.now_us.into();
        (inode.ctime, inode.mtime, inode.atime) = (now, now, now);
    });
    fs.records_mut().for_each(|r| r.create_ts = (wanted.now_us / 1_000_000) as u32);
    let mut built = fs.finish().unwrap();
    // The builder counts the root records' transaction; newfs does not.
    let root = Offset(built.header(0).unwrap().vol0_btree_root.get());
    let mut leaf = built.node(root).unwrap();
    leaf.mirror_tid = 0.into();
    built.put_node(root, &leaf).unwrap();
    built.edit_header(0, |h| h.vol0_next_tid = 0x1_0000_0000.into()).unwrap();

    let (mut a, mut b) = ([0; BUFFER_SIZE], [0; BUFFER_SIZE]);
    for (number, (volume, disk)) in built.volumes.iter().zip(&disks).enumerate() {
        let image = disk.image();
        // What is at hand in one of them is compared; the rest is zero in both.
        let last = volume.chunks().last().unwrap().0;
        for at in (0..volume.size().min(last + 2 * MIB)).step_by(BUFFER_SIZE) {
            let len = (volume.size() - at).min(BUFFER_SIZE as u64) as usize;
            image.read(at, &mut a[..len]);
            volume.read_at(at, &mut b[..len]).unwrap();
            assert!(a[..len] == b[..len], "{sizes:?} version {version}: volume {number}, buffer at {at:#x}");
        }
        assert!(image.resident_bytes() <= volume.stored() + MIB, "{sizes:?}: volume {number}");
    }
}

#[test]
fn equals_the_image_builder_for_sizes_versions_labels_and_volumes() {
    for size in [BEGIN + 40 * MIB, 64 * MIB, 64 * MIB + 512, 100_000_256] {
        same_as_built(&[size], 7, "T", 8 * MIB);
    }
    for version in 1..=7 {
        same_as_built(&[48 * MIB], version, "", 1);
    }
    same_as_built(&[96 * MIB, BEGIN + 8 * MIB, 71 * MIB], 6, &"x".repeat(63), 33 * MIB);
}

#[test]
fn equals_the_image_builder_where_a_volume_has_several_tables() {
    let table = 4 << 40;
    for size in
        [BEGIN + table - 8 * MIB, BEGIN + table, BEGIN + table + 16384, BEGIN + table + 8 * MIB, 9 << 40]
    {
        same_as_built(&[size], 7, "HUGE", 8 * MIB);
    }
    same_as_built(&[64 * MIB, 5 << 40], 7, "HUGE", 8 * MIB);
}

#[test]
fn the_fifo_is_a_thousandth_of_the_root_volume_between_half_a_gibibyte_and_one() {
    let undo = |sizes: &[u64]| {
        let disks: Vec<_> = sizes.iter().map(|s| Arc::new(MemDisk::new(512, s / 512))).collect();
        let plan = Plan::new(&devices(&disks), &Options::new(b"T", [1; 16], 0)).unwrap();
        (plan.undo_bytes() / MIB, plan.preallocated_bytes() / MIB)
    };
    assert_eq!(undo(&[2 << 30]), (512, 528));
    assert_eq!(undo(&[600 << 30]), (616, 632));
    assert_eq!(undo(&[3 << 40]), (1024, 1040));
    assert_eq!(undo(&[5 << 40]), (1024, 1048));
    assert_eq!(undo(&[300 << 30, 400 << 30]), (512, 528));
}

/// A device that nobody may touch.
struct Sealed(Limits);

impl BlockDevice for Sealed {
    fn limits(&self) -> Limits {
        self.0
    }

    fn submit(&self, batch: JobList) {
        panic!("{batch:?} reached the device");
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_touched() {
    let sealed = |size: u64| Arc::new(Sealed(Limits::new(512, size / 512))) as Arc<dyn BlockDevice>;
    let with = |edit: fn(&mut Limits)| {
        let mut limits = Limits::new(512, 1 << 18);
        edit(&mut limits);
        Arc::new(Sealed(limits)) as Arc<dyn BlockDevice>
    };
    let refusal = |devices: &[Arc<dyn BlockDevice>], options: &Options<'_>| {
        newfs(devices, options, &mut ThreadWait::new()).unwrap_err()
    };
    let good = options(b"T", 8 * MIB);
    let one = [sealed(64 * MIB)];
    assert_eq!(refusal(&[], &good), FormatError::VolumeCount { given: 0 });
    let many: Vec<_> = (0..257).map(|_| sealed(64 * MIB)).collect();
    assert_eq!(refusal(&many, &good), FormatError::VolumeCount { given: 257 });
    let twice = [one[0].clone(), sealed(64 * MIB), one[0].clone()];
    assert_eq!(refusal(&twice, &good), FormatError::Duplicate { index: 2 });

    let (bytes, needed) = (BEGIN + 40 * MIB - 512, BEGIN + 40 * MIB);
    assert_eq!(refusal(&[sealed(bytes)], &good), FormatError::TooSmall { index: 0, bytes, needed });
    for bytes in [0, 512, BEGIN - 512, BEGIN + 8 * MIB - 512] {
        let devices = [sealed(64 * MIB), sealed(bytes)];
        let needed = BEGIN + 8 * MIB;
        assert_eq!(refusal(&devices, &good), FormatError::TooSmall { index: 1, bytes, needed });
    }
    let usual = Options::new(b"T", [1; 16], 0);
    let (bytes, needed) = (544 * MIB, BEGIN + 68 * 8 * MIB);
    assert_eq!(refusal(&[sealed(bytes)], &usual), FormatError::TooSmall { index: 0, bytes, needed });
    let bytes = (4 << 50) + MIB;
    assert_eq!(refusal(&[sealed(bytes)], &good), FormatError::TooLarge { index: 0, bytes });

    let block_bytes = 32768;
    let large_blocks = [with(|l| l.block_bytes = 32768)];
    assert_eq!(refusal(&large_blocks, &good), FormatError::BlockSize { index: 0, block_bytes });
    let read_only = [with(|l| l.access = dfly_bio::Access::ReadOnly)];
    assert_eq!(refusal(&read_only, &good), FormatError::ReadOnly { index: 0 });

    for label in [&[b'x'; 64][..], b"a\0b"] {
        assert_eq!(refusal(&one, &options(label, 8 * MIB)), FormatError::Label);
    }
    for version in [0, 8, u32::MAX] {
        let mut odd = good;
        odd.version = version;
        assert_eq!(refusal(&one, &odd), FormatError::Version { version });
    }
    for bytes in [0, (1 << 30) + 1, u64::MAX] {
        assert_eq!(refusal(&one, &options(b"T", bytes)), FormatError::UndoSize { bytes });
    }
}

/// The old file system is gone with the first flush, and the new one is there with the last.
#[test]
fn a_power_cut_at_any_write_leaves_the_old_file_system_none_or_the_new_one() {
    let old = Arc::new(MemDisk::new(512, 64 * MIB / 512));
    let w = &mut ThreadWait::new();
    newfs(&alone(&old), &options(b"OLD", 8 * MIB), w).unwrap();
    let writes = {
        let disk = Arc::new(PowerCut::new(MemDisk::from_image(512, old.image()), Cut::Never));
        newfs(&alone(&disk), &options(b"NEW", 8 * MIB), w).unwrap();
        disk.stats().writes
    };
    for cut in 0..=writes {
        let disk = MemDisk::from_image(512, old.image());
        let disk = Arc::new(PowerCut::new(disk, Cut::AtWrite(cut)));
        let made = newfs(&alone(&disk), &options(b"NEW", 8 * MIB), w);
        assert_eq!(made.is_ok(), cut == writes);
        for seed in 0..3 {
            let survivor = Arc::new(disk.survivor_disk(seed + 10 * cut).unwrap());
            let label = match Hammer::mount(&[survivor], MountOptions::default(), w) {
                Ok(fs) => fs.header().label().to_vec(),
                Err(MountError::NotHammer { .. }) => Vec::new(),
                Err(e) => panic!("cut after {cut} writes of {writes}: {e}"),
            };
            let possible: &[&[u8]] = match cut {
                0 => &[b"OLD", b""],
                n if n == writes => &[b"NEW"],
                n if n == writes - 1 => &[b"", b"NEW"],
                _ => &[b""],
            };
            assert!(possible.contains(&&label[..]), "cut after {cut} writes of {writes}: {label:?}");
        }
    }
}

#[test]
fn every_failing_write_is_reported_and_leaves_no_file_system() {
    let w = &mut ThreadWait::new();
    for failing in 0..30 {
        let disk = Arc::new(FaultInjector::new(MemDisk::new(512, 64 * MIB / 512), failing));
        let fault = Fault::Fail(dfly_bio::Failure::Device);
        let rule = Rule::always(fault).on(Op::Write).after(failing).times(1);
        disk.add(rule);
        let made = newfs(&alone(&disk), &options(b"T", 8 * MIB), w);
        if disk.stats().faults == 0 {
            made.unwrap();
            assert!(failing > 20);
            return;
        }
        assert!(matches!(made, Err(FormatError::Device { index: 0, .. })), "{made:?}");
        let mounted = Hammer::mount(&[disk], MountOptions::default(), w).err();
        assert!(matches!(mounted, Some(MountError::NotHammer { .. })), "write {failing}: {mounted:?}");
    }
    panic!("more writes than expected");
}

#[test]
fn progress_ends_at_its_total() {
    let disks = [64, 48].map(|mib| Arc::new(MemDisk::new(512, mib * MIB / 512)));
    let wanted = options(b"T", 8 * MIB);
    let mut seen = Vec::new();
    let plan_devices = devices(&disks);
    let plan = Plan::new(&plan_devices, &wanted).unwrap();
    plan.write(&mut ThreadWait::new(), &mut |p| seen.push((p.done_bytes, p.total_bytes))).unwrap();
    assert!(seen.is_sorted() && seen.iter().all(|(_, total)| *total == seen[0].1));
    assert_eq!(seen.last().unwrap().0, seen[0].1);
}
