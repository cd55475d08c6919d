//! Images that DragonFly's own HAMMER code wrote, read against their manifests.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use dfly_bio::{BlockDevice, DiskServer, FileDiskOptions, MemDisk, Reap};
use dfly_golden::{CompactEntry, Entry, Golden, IMAGES, Kind, Listing, Times};
use dfly_hal::ThreadWait;
use dfly_hammer::check::{Event, Options as CheckOptions, Severity, check};
use dfly_hammer::{Hammer, MountError, MountOptions};
use dfly_vfs::{self as vfs, Attr, Call, FileSystem, FsServer, NodeId, Walk, walk};
use sha2::{Digest, Sha256};

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.each("every view holds what its manifest lists", IMAGES, views);
        suite.each("every view reads equal behind a port", BEHIND_A_PORT, views_behind_a_port);
        suite.test("btree-deep holds what its manifest lists", btree_deep);
        suite.test("hugefile reads at every offset", hugefile);
        suite.test("recovered images hold what the real recovery left", recovered);
        suite.test("history lists the transactions of a file", history_of_a_file);
        suite.test("pseudo file systems and snapshots are listed", pfs_and_snapshots);
        suite.each("a copy that is written to stays sound", IMAGES, written_copies);
    })
}

fn mount(paths: &[std::path::PathBuf]) -> Result<Hammer> {
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for path in paths {
        let disk = FileDiskOptions::new().open(path).with_context(|| path.display().to_string())?;
        devices.push(Arc::new(disk));
    }
    Ok(Hammer::mount(&devices, MountOptions::default(), &mut ThreadWait::new())?)
}

fn views(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let fs = mount(&golden.volumes(image)?)?;
    for view in manifest.views() {
        compare(&fs, &view.root, view.entries, view.times).with_context(|| format!("view {}", view.root))?;
    }
    Ok(())
}

/// Small ones of every kind: what is new is the way to the file system, not the images.
const BEHIND_A_PORT: &[&str] = &["basic", "history", "pfs", "multivol", "compat-v1", "crash-redo-1"];

/// The file system runs in a thread of its own, and so does each of its disks.
fn views_behind_a_port(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let mut threads = Vec::new();
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for path in golden.volumes(image)? {
        let (server, disk) = DiskServer::new(FileDiskOptions::new().open(path)?, 4, Reap::Elsewhere);
        threads.push(thread::spawn(move || server.run(&mut ThreadWait::new())));
        devices.push(Arc::new(disk));
    }
    let hammer = Hammer::mount(&devices, MountOptions::default(), &mut ThreadWait::new())?;
    drop(devices);
    let (server, fs) = FsServer::new(Arc::new(hammer), 4);
    threads.push(thread::spawn(move || server.run(&mut ThreadWait::new())));
    for view in manifest.views() {
        compare(&fs, &view.root, view.entries, view.times).with_context(|| format!("view {}", view.root))?;
    }
    // The end of the file system is the end of its server, of its disks, and of theirs.
    drop(fs);
    for thread in threads {
        ensure!(thread.join().is_ok(), "a server panicked");
    }
    Ok(())
}

fn compare(fs: &dyn FileSystem, root: &str, expected: &[Entry], times: Times) -> Result<()> {
    let mut expected = expected.iter();
    tree(fs, root, &mut |path, attr, w| {
        let want = expected.next().with_context(|| format!("{path} is not in the manifest"))?;
        let got = describe(fs, path, attr, w)?;
        let mut want = want.clone();
        if times == Times::CtimeInAll {
            ensure!(want.mtime_us == want.ctime_us && want.atime_us == want.ctime_us, "manifest of {path}");
        }
        want.rmajor = want.rmajor.or(got.rmajor.filter(|&n| n == 0));
        want.rminor = want.rminor.or(got.rminor.filter(|&n| n == 0));
        ensure!(got == want, "{path}:\n got {got:?}\nwant {want:?}");
        Ok(())
    })?;
    match expected.next() {
        Some(missing) => bail!("{} is missing", missing.path),
        None => Ok(()),
    }
}

/// Visits every path below `root`, each directory before its entries, in the order of `readdir`.
fn tree(
    fs: &dyn FileSystem,
    root: &str,
    visit: &mut dyn FnMut(&str, &Attr, &mut ThreadWait) -> Result<()>,
) -> Result<()> {
    let mut w = ThreadWait::new();
    let start = walk(fs, &mut Call::new(&mut w), fs.root(), root.as_bytes(), &Walk::default())?;
    let mut stack = vec![(String::from("/"), start.node)];
    while let Some((path, node)) = stack.pop() {
        let attr = fs.getattr(&mut Call::new(&mut w), node)?;
        visit(&path, &attr, &mut w)?;
        if attr.kind != vfs::Kind::Directory {
            continue;
        }
        let mut entries: Vec<(String, NodeId)> = Vec::new();
        fs.readdir(&mut Call::new(&mut w), node, 2, &mut |e| {
            let name = String::from_utf8(e.name.to_vec()).expect("golden names are UTF-8");
            entries.push((format!("{}/{name}", path.trim_end_matches('/')), e.node));
            ControlFlow::Continue(())
        })?;
        for (path, listed) in entries.iter() {
            // A look-up by name leads to the node that the listing names.
            let name = path.rsplit('/').next().unwrap_or_default();
            let found = fs.nresolve(&mut Call::new(&mut w), node, vfs::Name::new(name)?)?;
            ensure!(found.node == *listed, "{path} leads elsewhere by name");
        }
        stack.extend(entries.into_iter().rev());
    }
    Ok(())
}

fn sha256(
    fs: &dyn FileSystem,
    node: NodeId,
    w: &mut ThreadWait,
    range: std::ops::Range<u64>,
) -> Result<(String, u64)> {
    let mut hash = Sha256::new();
    let len = range.end - range.start;
    let n = fs.read(&mut Call::new(w), node, range.start, len, &mut |bytes| {
        hash.update(bytes);
        ControlFlow::Continue(())
    })?;
    Ok((hash.finalize().iter().map(|b| format!("{b:02x}")).collect(), n))
}

fn describe(fs: &dyn FileSystem, path: &str, attr: &Attr, w: &mut ThreadWait) -> Result<Entry> {
    let kind = match attr.kind {
        vfs::Kind::Directory => Kind::Directory,
        vfs::Kind::Regular => Kind::Regular,
        vfs::Kind::Symlink => Kind::Symlink,
        vfs::Kind::Fifo => Kind::Fifo,
        vfs::Kind::CharDevice => Kind::CharDevice,
        vfs::Kind::BlockDevice => Kind::BlockDevice,
        other => bail!("{path} is a {other:?}"),
    };
    let mut target = None;
    if kind == Kind::Symlink {
        let mut text = Vec::new();
        fs.readlink(&mut Call::new(w), attr.node, &mut |b| text.extend_from_slice(b))?;
        target = Some(String::from_utf8(text)?);
    }
    let sha256 = if kind == Kind::Regular {
        let (hash, n) = sha256(fs, attr.node, w, 0..attr.size)?;
        ensure!(n == attr.size, "{path} ends early");
        Some(hash)
    } else {
        None
    };
    let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    Ok(Entry {
        path: path.into(),
        kind,
        obj_id: attr.fileid,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        uflags: attr.flags.bits(),
        mtime_us: attr.mtime.as_micros() as u64,
        ctime_us: attr.ctime.as_micros() as u64,
        atime_us: attr.atime.as_micros() as u64,
        rmajor: device.then_some(attr.rdev.major),
        rminor: device.then_some(attr.rdev.minor),
        target,
        sha256,
    })
}

fn btree_deep(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("btree-deep")?;
    let Listing::Compact(expected) = &manifest.files else { bail!("manifest without its list") };
    let mut expected: std::collections::HashMap<_, _> =
        expected.iter().map(|(p, e)| (p.as_str(), e)).collect();
    let fs = mount(&golden.volumes("btree-deep")?)?;
    tree(&fs, "/", &mut |path, attr, w| {
        match expected.remove(path).with_context(|| format!("{path} is not in the manifest"))? {
            CompactEntry::Directory { obj_id } => {
                ensure!(attr.kind == vfs::Kind::Directory && attr.fileid == *obj_id, "{path}: {attr:?}");
            }
            CompactEntry::Regular { obj_id, nlink, size, sha256_start } => {
                ensure!((attr.fileid, attr.nlink, attr.size) == (*obj_id, *nlink, *size), "{path}: {attr:?}");
                ensure!((attr.mode, attr.uid, attr.gid) == (0o644, 0, 0), "{path}: {attr:?}");
                let (hash, _) = sha256(&fs, attr.node, w, 0..attr.size)?;
                ensure!(hash.starts_with(sha256_start.as_str()), "{path}: content");
            }
        }
        Ok(())
    })?;
    ensure!(expected.is_empty(), "{} paths are missing", expected.len());
    Ok(())
}

fn hugefile(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("hugefile")?;
    let fs = mount(&golden.volumes("hugefile")?)?;
    let mut w = ThreadWait::new();
    ensure!(!manifest.range_reads.is_empty() && !manifest.sizes.is_empty(), "manifest without its reads");
    for (path, size) in &manifest.sizes {
        let attr = walk(&fs, &mut Call::new(&mut w), fs.root(), path.as_bytes(), &Walk::default())?;
        ensure!(attr.size == *size, "{path} has {} bytes", attr.size);
    }
    for (root, reads) in &manifest.range_reads {
        for read in reads {
            let path = format!("{root}{}", read.path);
            let attr = walk(&fs, &mut Call::new(&mut w), fs.root(), path.as_bytes(), &Walk::default())?;
            let (hash, n) =
                sha256(&fs, attr.node, &mut w, read.read_offset..read.read_offset + read.requested)?;
            ensure!((n, &hash) == (read.returned, &read.sha256), "{path} at {}: {n} bytes", read.read_offset);
        }
    }
    // Holes are found without reading them.
    let attr = walk(&fs, &mut Call::new(&mut w), fs.root(), b"/huge".as_slice(), &Walk::default())?;
    let mut stretches = Vec::new();
    let mut at = 0;
    while let Some(data) = fs.next_data(&mut Call::new(&mut w), attr.node, at)? {
        at = data.end;
        stretches.push(data);
    }
    let wanted = [0, 1048476, 2147483641, 4294967286, 1099511627781, 1125899906908159];
    for offset in wanted {
        ensure!(stretches.iter().any(|s| s.contains(&offset)), "no data at {offset}: {stretches:?}");
    }
    Ok(())
}

fn recovered(golden: &Golden) -> Result<()> {
    let mut seen = 0;
    for image in IMAGES {
        let Some(path) = golden.recovered(image)? else { continue };
        let manifest = golden.manifest(image)?;
        let expected = manifest.view_after_rw_recovery.context("no view of the recovered image")?;
        let fs = mount(&[path])?;
        ensure!(!fs.recovery().crashed, "{image}: a clean image counts as crashed");
        compare(&fs, "/", &expected, Times::OnMedia).with_context(|| image.to_string())?;
        seen += 1;
    }
    ensure!(seen == 4, "{seen} recovered images");
    Ok(())
}

fn history_of_a_file(golden: &Golden) -> Result<()> {
    let fs = mount(&golden.volumes("history")?)?;
    let mut w = ThreadWait::new();
    let attr = walk(&fs, &mut Call::new(&mut w), fs.root(), b"/h".as_slice(), &Walk::default())?;
    let mut tids = std::collections::BTreeSet::new();
    fs.versions(&mut w, attr.node, &mut |v| {
        tids.insert(v.created.0);
        tids.extend(v.deleted.map(|t| t.0));
    })?;
    let manifest = golden.manifest("history")?;
    let asof: Vec<u64> = manifest
        .views()
        .iter()
        .filter_map(|v| u64::from_str_radix(v.root.strip_prefix("/@@0x")?, 16).ok())
        .collect();
    ensure!(asof.len() == 11, "{} as-of views", asof.len());
    ensure!(tids.contains(&asof[0]), "the first flush made no record: {tids:x?}");
    Ok(())
}

fn pfs_and_snapshots(golden: &Golden) -> Result<()> {
    let fs = mount(&golden.volumes("pfs")?)?;
    let mut w = ThreadWait::new();
    let all = fs.pseudo_file_systems(&mut w)?;
    let ids: Vec<_> =
        all.iter().map(|p| (p.id, p.is_slave(), String::from_utf8_lossy(p.label()).into_owned())).collect();
    let expected = [
        (0, false, "PFS"),
        (1, false, "master pfs"),
        (2, true, "slave of pfs1"),
        (3, false, "third pfs (master, no slave)"),
    ];
    ensure!(ids == expected.map(|(id, slave, label)| (id, slave, label.to_string())), "{ids:?}");
    let labels: Vec<_> =
        fs.snapshots(&mut w, 1)?.iter().map(|s| String::from_utf8_lossy(s.label()).into_owned()).collect();
    ensure!(labels.contains(&"pfs1-t1".to_string()), "{labels:?}");

    let fs = mount(&golden.volumes("history")?)?;
    let text = fs.config(&mut w, 0)?.context("no configuration")?;
    ensure!(text.starts_with(b"snapshots 1d 60d"), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// Mounts a copy for writing: it shows what a reader's mount shows, takes changes, and keeps its past. Crashed images are
/// recovered on the way. Those that cannot be written say so.
fn written_copies(golden: &Golden, image: &str) -> Result<()> {
    let paths = golden.volumes(image)?;
    let reader = mount(&paths)?;
    let before = outline(&reader, "/")?;
    let manifest = golden.manifest(image)?;
    let past: Vec<String> =
        manifest.views().iter().filter(|v| v.root.contains("@@0x")).map(|v| v.root.clone()).collect();
    let past_before = past.iter().map(|root| outline(&reader, root)).collect::<Result<Vec<_>>>()?;

    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for volume in &dfly_hammer_image::Image::read_files(&paths)?.volumes {
        let mut disk = dfly_bio::Image::new(volume.size());
        for (at, chunk) in volume.chunks() {
            let len = chunk.len().min((volume.size() - at) as usize);
            disk.write(at, &chunk[..len])?;
        }
        devices.push(Arc::new(MemDisk::from_image(512, disk)));
    }
    let mut w = ThreadWait::new();
    let clock = || vfs::Timestamp::from_micros(1_800_000_000_000_000);
    let fs = Hammer::mount_writable(&devices, MountOptions::default(), Box::new(clock), &mut w);
    let version = reader.header().vol_version.get();
    if version < 6 || reader.recovery().redo_pending {
        ensure!(matches!(fs, Err(MountError::NotWritable { .. })), "version {version}: {:?}", fs.err());
        return Ok(());
    }
    let fs = fs?;
    ensure!(outline(&fs, "/")? == before, "another tree than a reader sees");
    let c = &mut Call::new(&mut w);
    let dir = fs.nmkdir(c, fs.root(), vfs::Name::new("made by this test")?, 0o755)?.node;
    for n in 0..40 {
        let name = format!("file {n}");
        let name = vfs::Name::new(&name)?;
        let file = fs.ncreate(c, dir, name, 0o644)?.node;
        fs.write(c, file, vfs::WriteAt::Offset(n * 7000), &vec![n as u8; 5000])?;
        if n % 5 == 0 {
            fs.nremove(c, dir, name)?;
            fs.sync(c)?;
        }
    }
    // Something that was there goes.
    let mut old = None;
    fs.readdir(c, fs.root(), 2, &mut |e| {
        if e.kind == vfs::Kind::Regular {
            old = Some(e.name.to_vec());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if let Some(old) = &old {
        fs.nremove(c, fs.root(), vfs::Name::new(old)?)?;
    }
    let after = outline(&fs, "/")?;
    ensure!(after.len() == before.len() + 1 + 32 - usize::from(old.is_some()), "{} paths", after.len());
    fs.unmount(&mut w)?;

    let mut first = None;
    let report = check(&devices, &CheckOptions::default(), &mut w, &mut |event| {
        if let Event::Found(finding) = event
            && finding.kind.severity() != Severity::Note
        {
            first.get_or_insert(finding);
        }
    })?;
    if let Some(finding) = first {
        bail!("{} warnings, {} errors; {finding}", report.warnings, report.errors);
    }
    let reader = Hammer::mount(&devices, MountOptions::default(), &mut w)?;
    ensure!(!reader.recovery().crashed && outline(&reader, "/")? == after, "another tree after unmounting");
    for (root, before) in past.iter().zip(&past_before) {
        ensure!(outline(&reader, root)? == *before, "{root} has changed");
    }
    Ok(())
}

/// What a tree holds, but for the contents of files and the times.
fn outline(fs: &Hammer, root: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    tree(fs, root, &mut |path, attr, _| {
        let Attr { fileid, kind, mode, uid, gid, nlink, size, .. } = attr;
        all.push(format!("{path} {fileid} {kind:?} {mode:o} {uid} {gid} {nlink} {size}"));
        Ok(())
    })?;
    Ok(all)
}
