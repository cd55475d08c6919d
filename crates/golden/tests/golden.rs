//! The golden folder is what this crate says it is.

use std::{fs, process::ExitCode};

use anyhow::{Result, ensure};
use dfly_golden::{CompactEntry, Golden, IMAGES, Kind, Listing, Times};

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.test("the_known_images_are_those_of_the_folder", |golden| {
            ensure!(golden.images()? == IMAGES);
            Ok(())
        });
        suite.each("manifest", IMAGES, every_fact_of_a_manifest_is_read);
        suite.each("volumes", &["empty-2vol", "hugefile"], volumes_unpack_in_order);
        suite.test("recovered/crash-meta-1", |golden| {
            let recovered = golden.recovered("crash-meta-1")?.is_some_and(|path| path.is_file());
            ensure!(recovered && golden.recovered("crash-meta-2")?.is_none());
            Ok(())
        });
        suite.test("show/pfs", |golden| {
            ensure!(
                golden.show("pfs")?.is_some_and(|text| text.contains("vol_label\tPFS")),
                "no text of hammer show"
            );
            ensure!(golden.show("multivol")?.is_none());
            Ok(())
        });
        suite.test("bytes/pfs1-incr", |golden| {
            ensure!(golden.bytes("pfs1-incr.stream.raw.xz")?.len() == 197_168);
            Ok(())
        });
    })
}

fn every_fact_of_a_manifest_is_read(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    ensure!(manifest.image == image);
    ensure!((1..=7).contains(&manifest.hammer_version));

    let views = manifest.views();
    let expected = match image {
        "btree-deep" | "hugefile" | "crash-in-recovery-1" => 0,
        "compat-v1" | "compat-v3" | "compat-v5" => 2,
        "history" => 12,
        "pfs" => 7,
        _ => 1,
    };
    ensure!(views.len() == expected, "{} views", views.len());
    for view in &views {
        ensure!(
            view.entries[0].path == "/" && view.entries[0].kind == Kind::Directory,
            "{}: no root",
            view.root
        );
        for entry in view.entries {
            let told =
                (entry.sha256.is_some(), entry.target.is_some(), entry.rmajor.and(entry.rminor).is_some());
            let expected = match entry.kind {
                Kind::Regular => (true, false, false),
                Kind::Symlink => (false, true, false),
                Kind::CharDevice | Kind::BlockDevice => (false, false, true),
                Kind::Directory | Kind::Fifo => (false, false, false),
            };
            ensure!(told == expected, "{}{}: {entry:?}", view.root, entry.path);
            let ctime_in_all = entry.mtime_us == entry.ctime_us && entry.atime_us == entry.ctime_us;
            ensure!(view.times == Times::OnMedia || ctime_in_all, "{}{}: {entry:?}", view.root, entry.path);
        }
    }

    match image {
        "btree-deep" => {
            let Listing::Compact(files) = &manifest.files else { anyhow::bail!("not compact") };
            ensure!(files.len() == 125_031);
            ensure!(files[0] == ("/".into(), CompactEntry::Directory { obj_id: 1 }));
        }
        "hugefile" => {
            let reads: Vec<_> =
                manifest.range_reads.iter().map(|(root, reads)| (root.as_str(), reads.len())).collect();
            ensure!(reads == [("/", 8), ("/@@0x0000000100008020", 8)]);
            ensure!(manifest.sizes.contains(&("/edge".into(), 9_223_372_036_854_644_836)));
        }
        "history" => ensure!(views[1].root == "/@@0x0000000100018080"),
        "crash-redo-1" => ensure!(manifest.fsynced_since_last_sync[0].after_op == 21),
        _ => {}
    }
    Ok(())
}

fn volumes_unpack_in_order(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    let volumes = golden.volumes(image)?;
    ensure!(volumes.len() == manifest.image_files.len());
    for (number, (path, file)) in volumes.iter().zip(&manifest.image_files).enumerate() {
        ensure!(fs::metadata(path)?.len() == file.raw_size);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ensure!(volumes.len() == 1 || name.contains(&format!(".vol{number}")), "{name} is volume {number}");
    }
    Ok(())
}
