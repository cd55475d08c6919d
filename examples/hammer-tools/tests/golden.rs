//! The command on images that DragonFly's own HAMMER code wrote: its output against their manifests and against the
//! output of DragonFly's own `hammer`.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, ensure};
use dfly_golden::{CompactEntry, Entry, Golden, IMAGES, Kind, Listing};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The images whose `hammer show` is kept.
const SHOWN: &[&str] =
    &["basic", "dedup", "empty-2vol", "empty-v6", "empty-v7", "history", "hugefile", "pfs"];

/// The images whose manifest has no list of what a read-only mount shows. The first and the last have tests of their own.
const NOT_LISTED: &[&str] = &["btree-deep", "crash-in-recovery-1", "hugefile"];

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        let listed: Vec<&str> = IMAGES.iter().copied().filter(|i| !NOT_LISTED.contains(i)).collect();
        suite.each("tree lists every view as the manifest does", &listed, tree);
        suite.test("tree lists all of btree-deep", tree_of_btree_deep);
        suite.test("tree's objects have exactly the manifest's keys", keys);
        suite.each("show prints what DragonFly's own does", SHOWN, show);
        suite.test("show begins at a key", show_from_a_key);
        suite.test("cat reads any part of huge files", cat);
        suite.test("history lists the transactions of the manifest", history);
        suite.test("cp-out copies what the manifest lists", cp_out);
        suite.test("cp-out keeps holes", cp_out_keeps_holes);
        suite.test("cp-out joins thousands of names of one file", cp_out_of_btree_deep);
        suite.test("an older view is copied as it was", cp_out_of_an_older_view);
    })
}

fn run(golden: &Golden, image: &str, before: &[&str], after: &[&str]) -> Result<Output> {
    let volumes = golden.volumes(image)?;
    let volumes: Vec<_> = volumes.iter().map(|path| path.as_os_str()).collect();
    let volumes = volumes.join(std::ffi::OsStr::new(":"));
    Ok(Command::new(env!("CARGO_BIN_EXE_hammer")).args(before).arg(volumes).args(after).output()?)
}

/// What the command prints when it has nothing to complain about.
fn stdout(golden: &Golden, image: &str, before: &[&str], after: &[&str]) -> Result<Vec<u8>> {
    let output = run(golden, image, before, after)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(0) && complaint.is_empty(), "{before:?} {after:?}: {complaint}");
    Ok(output.stdout)
}

fn tree(golden: &Golden, image: &str) -> Result<()> {
    let manifest = golden.manifest(image)?;
    ensure!(!manifest.views().is_empty());
    for view in manifest.views() {
        let text = stdout(golden, image, &["tree", "--json", "--sha256"], &[&view.root])?;
        let found: Vec<Entry> = serde_json::from_slice(&text).with_context(|| view.root.clone())?;
        for (found, expected) in found.iter().zip(view.entries) {
            // Where a device is numbered 0, the manifest may say nothing.
            let numbers = |e: &Entry| (e.rmajor.unwrap_or(0), e.rminor.unwrap_or(0));
            let same = Entry { rmajor: expected.rmajor, rminor: expected.rminor, ..found.clone() };
            let ok = same == *expected && numbers(found) == numbers(expected);
            ensure!(ok, "{}:\n got {found:?}\nwant {expected:?}", view.root);
        }
        ensure!(found.len() == view.entries.len(), "{}: {} paths", view.root, found.len());
    }
    Ok(())
}

fn tree_of_btree_deep(golden: &Golden) -> Result<()> {
    let Listing::Compact(expected) = golden.manifest("btree-deep")?.files else {
        anyhow::bail!("no compact list")
    };
    let mut expected: BTreeMap<String, CompactEntry> = expected.into_iter().collect();
    expected.remove("/");
    let text = stdout(golden, "btree-deep", &["tree", "--json"], &[])?;
    let found: Vec<Entry> = serde_json::from_slice(&text)?;
    for e in found.iter().filter(|e| e.path != "/") {
        let got = match (e.kind, expected.remove(&e.path)) {
            (Kind::Directory, Some(CompactEntry::Directory { obj_id })) => obj_id == e.obj_id,
            (Kind::Regular, Some(CompactEntry::Regular { obj_id, nlink, size, .. })) => {
                (obj_id, nlink, size) == (e.obj_id, e.nlink, e.size)
            }
            _ => false,
        };
        ensure!(got, "{e:?}");
    }
    ensure!(expected.is_empty(), "{} paths are missing", expected.len());
    Ok(())
}

fn keys(golden: &Golden) -> Result<()> {
    for (image, manifest) in [
        ("compat-v1", std::fs::read(golden.folder().join("compat-v1.json"))?),
        ("basic", golden.bytes("basic.json.xz")?),
    ] {
        let manifest: Value = serde_json::from_slice(&manifest)?;
        let text = stdout(golden, image, &["tree", "--json", "--sha256"], &["/"])?;
        let found: Value = serde_json::from_slice(&text)?;
        ensure!(found == *manifest.get("files").context("files")?, "{image} differs");
    }
    Ok(())
}

fn show(golden: &Golden, image: &str) -> Result<()> {
    let expected = golden.bytes(&format!("{image}.show.txt.xz"))?;
    let found = stdout(golden, image, &["show"], &[])?;
    let mut found = found.split(|&b| b == b'\n');
    for (number, want) in expected.split(|&b| b == b'\n').enumerate() {
        let got = found.next().context("too few lines")?;
        // The real tool takes a link's target of 24 bytes for a C string and goes on behind it.
        let overrun = want.windows(10).position(|w| w == b" symlink=\"").map(|at| at + 10 + 24);
        let want = match overrun {
            Some(end) if want.len() > end + 1 => [want.get(..end).unwrap_or_default(), b"\""].concat(),
            _ => want.to_vec(),
        };
        ensure!(
            got == want,
            "line {}:\n got {}\nwant {}",
            number + 1,
            String::from_utf8_lossy(got),
            String::from_utf8_lossy(&want)
        );
    }
    ensure!(found.next().is_none(), "too many lines");
    Ok(())
}

fn show_from_a_key(golden: &Golden) -> Result<()> {
    let all = String::from_utf8(stdout(golden, "pfs", &["show"], &[])?)?;
    let part = String::from_utf8(stdout(golden, "pfs", &["show"], &["00010002:000000010001846e:10"])?)?;
    let mut lines = part.lines().skip_while(|l| !l.starts_with("arg="));
    let announced = "arg=\"00010002:000000010001846e:10\" lo=00010002 objid=000000010001846e rt=10";
    ensure!(lines.next() == Some(announced));
    // The root, then the first leaf that may hold the key, then all that comes after it.
    let nodes: Vec<&str> = lines.clone().filter(|l| l.contains(" NODE ")).collect();
    let of_all: Vec<&str> = all.lines().filter(|l| l.contains(" NODE ")).collect();
    ensure!(nodes.first() == of_all.first() && nodes.len() < of_all.len());
    ensure!(of_all.ends_with(nodes.get(1..).unwrap_or_default()));
    // What matches is marked: as many elements as there are, each on its second line.
    let wanted = "R lo=00010002 objid=000000010001846e rt=10 ";
    let matching = all.lines().filter(|l| l.contains(wanted)).count();
    let lines: Vec<&str> = lines.collect();
    let marked = |pair: &&[&str]| pair[1].contains("dataoff=") && pair[1].ends_with(" *");
    let marks: Vec<_> = lines.windows(2).filter(marked).collect();
    ensure!(marks.iter().all(|pair| pair[0].contains(wanted)) && marks.len() == matching && matching > 3);
    Ok(())
}

fn cat(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("hugefile")?;
    let mut reads = 0;
    for (view, list) in &manifest.range_reads {
        for read in list {
            let path = format!("{view}{}", read.path).replace("//", "/");
            let (offset, length) = (read.read_offset.to_string(), format!("{:#x}", read.requested));
            let bytes =
                stdout(golden, "hugefile", &["cat", "--offset", &offset, "--length", &length], &[&path])?;
            ensure!(bytes.len() as u64 == read.returned, "{path} at {offset}: {} bytes", bytes.len());
            ensure!(sha256(&bytes) == read.sha256, "{path} at {offset}: other bytes");
            reads += 1;
        }
    }
    ensure!(reads > 10);
    Ok(())
}

fn history(golden: &Golden) -> Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(golden.folder().join("history.json"))?)?;
    let files = manifest.get("history_ioctl").and_then(Value::as_object).context("history_ioctl")?;
    for (path, facts) in files {
        let text = String::from_utf8(stdout(golden, "history", &["history"], &[path])?)?;
        for fact in facts.get("inode").and_then(Value::as_array).into_iter().flatten() {
            let fact = fact.as_str().context("a fact")?;
            let tid = fact.split(' ').nth(1).context("a TID")?;
            ensure!(text.lines().any(|l| l.starts_with(tid)), "{path}: {tid} is not in\n{text}");
        }
    }
    let churn = String::from_utf8(stdout(golden, "history", &["history"], &["/h/churn"])?)?;
    ensure!(churn.starts_with("0x00000001000184c0  2021-05-03 09:00:00  made, +1 block\n"), "{churn}");
    Ok(())
}

fn cp_out(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("basic")?;
    let view = manifest.views().into_iter().next().context("a view")?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("copy");
    let name = target.to_str().context("a temporary folder with a plain name")?;
    let output = run(golden, "basic", &["cp-out"], &["/", name])?;
    ensure!(output.status.code() == Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut notices = 0;
    for e in view.entries {
        let path = target.join(e.path.trim_start_matches('/'));
        if !matches!(e.kind, Kind::Directory | Kind::Regular | Kind::Symlink) {
            ensure!(std::fs::symlink_metadata(&path).is_err(), "{}", e.path);
            notices += 1;
            continue;
        }
        check_copy(&path, e).with_context(|| e.path.clone())?;
    }
    ensure!(notices > 0 && String::from_utf8_lossy(&output.stderr).lines().count() == notices);
    // A second time nothing is overwritten, and nothing is lost either.
    let again = run(golden, "basic", &["cp-out"], &["/attrs/f2", name])?;
    ensure!(again.status.code() == Some(0));
    let again = run(golden, "basic", &["cp-out"], &["/attrs/f2", name])?;
    ensure!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("File exists"));
    let forced = run(golden, "basic", &["cp-out", "--force"], &["/attrs/f2", name])?;
    ensure!(forced.status.code() == Some(0), "{}", String::from_utf8_lossy(&forced.stderr));
    Ok(())
}

fn check_copy(path: &Path, e: &Entry) -> Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if e.kind == Kind::Symlink {
        ensure!(std::fs::read_link(path)?.to_str() == e.target.as_deref(), "target");
        return Ok(());
    }
    ensure!(found.is_dir() == (e.kind == Kind::Directory), "kind");
    ensure!(found.permissions().mode() & 0o7777 == u32::from(e.mode & 0o1777), "mode");
    let mtime_us = found.mtime() * 1_000_000 + found.mtime_nsec() / 1000;
    ensure!(mtime_us == e.mtime_us as i64, "mtime {mtime_us}");
    if e.kind == Kind::Regular {
        ensure!(found.nlink() == e.nlink, "{} links", found.nlink());
        // What its owner may not read is readable for root alone, who runs this in CI.
        if let Ok(bytes) = std::fs::read(path) {
            ensure!(Some(sha256(&bytes)) == e.sha256, "content");
        }
    }
    Ok(())
}

fn cp_out_keeps_holes(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("basic")?;
    let views = manifest.views();
    let sparse = |e: &&Entry| e.path.starts_with("/sparse/") && e.size > 1 << 20;
    let file = views.iter().flat_map(|v| v.entries).find(sparse).context("a sparse file")?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("file");
    stdout(golden, "basic", &["cp-out"], &[&file.path, target.to_str().context("a plain name")?])?;
    let found = std::fs::metadata(&target)?;
    ensure!(found.len() == file.size && found.blocks() * 512 < found.len() / 2, "{} blocks", found.blocks());
    ensure!(Some(sha256(&std::fs::read(&target)?)) == file.sha256);
    Ok(())
}

fn cp_out_of_btree_deep(golden: &Golden) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("copy");
    stdout(golden, "btree-deep", &["cp-out"], &["/", target.to_str().context("a plain name")?])?;
    let Listing::Compact(expected) = golden.manifest("btree-deep")?.files else {
        anyhow::bail!("no compact list")
    };
    // More names than some file systems of hosts let one file have: there it becomes several.
    for (path, entry) in expected.iter().filter(|(path, _)| path != "/") {
        let found = std::fs::symlink_metadata(target.join(path.trim_start_matches('/')))?;
        ensure!(found.is_dir() == matches!(entry, CompactEntry::Directory { .. }), "{path}");
    }
    Ok(())
}

fn cp_out_of_an_older_view(golden: &Golden) -> Result<()> {
    let manifest = golden.manifest("history")?;
    let views = manifest.views();
    let old =
        views.iter().filter(|v| v.root.contains("@@")).max_by_key(|v| v.entries.len()).context("a view")?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("then");
    stdout(golden, "history", &["cp-out"], &[&old.root, target.to_str().context("a plain name")?])?;
    for e in old.entries.iter().filter(|e| e.kind == Kind::Regular) {
        let bytes = std::fs::read(target.join(e.path.trim_start_matches('/')))?;
        ensure!(Some(sha256(&bytes)) == e.sha256, "{}", e.path);
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
