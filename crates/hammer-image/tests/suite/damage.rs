//! Every damage breaks something, and only what it says.

use super::check::check;
use dfly_hammer_image::{Builder, Damage, Error, Format, Image, Redo, Seal, Shape, crash, demo};

/// An image with an inner root, two volumes and a dirty FIFO: every damage finds its place.
fn victim() -> Image {
    let format = Format { volumes: vec![64 << 20, 48 << 20], ..Format::default() };
    let mut fs = demo(format);
    fs.shape(Shape { leaf: 10, internal: 5, ..Shape::default() });
    let before = fs.finish().unwrap();
    let root = fs.root();
    fs.unlink(root, "home");
    let after = fs.finish().unwrap();
    crash(&before, &after, |_, _| false).unwrap()
}

#[test]
fn every_damage_is_found_by_a_careful_reader() {
    let sound = victim();
    check(&sound).unwrap();
    let mut applied = 0;
    for damage in Damage::samples() {
        for seal in [Seal::Stale, Seal::Fresh] {
            let mut image = sound.clone();
            match damage.apply(&mut image, seal) {
                Ok(()) => applied += 1,
                Err(Error::NotThere(_)) => {
                    assert!(check(&image).is_ok(), "{damage:?}: not there, but changed");
                    continue;
                }
                Err(error) => panic!("{damage:?}: {error}"),
            }
            match (&damage, seal) {
                // Legal but for its height, which is not the checker's business.
                (Damage::TooDeep(_), _) => assert!(check(&image).unwrap().depth > 200),
                // Different data with a right checksum is just different data, and so are old bytes.
                (Damage::DataByte(..) | Damage::FifoByte | Damage::UndoTarget(_), Seal::Fresh) => (),
                // The borders lie in the FIFO; only what stands there does not fit.
                (Damage::FifoRange(3, 3), _) => (),
                _ => assert!(check(&image).is_err(), "{damage:?}, {seal:?}"),
            }
        }
    }
    assert!(applied > 150, "{applied}");
}

#[test]
fn damage_that_has_no_place_leaves_the_image_alone() {
    let mut image = Builder::default().finish().unwrap();
    for damage in
        [Damage::Cycle, Damage::MissingVolume, Damage::ForeignFsid, Damage::FifoByte, Damage::Child(0)]
    {
        assert!(matches!(damage.apply(&mut image, Seal::Fresh), Err(Error::NotThere(_))), "{damage:?}");
    }
    check(&image).unwrap();
}

#[test]
fn redo_records_are_sound_records() {
    let fs = demo(Format::default());
    let root = fs.root();
    let file = fs.lookup(root, "docs/notes").unwrap();
    let mut image = fs.finish().unwrap();
    let mut journal = image.journal().unwrap();
    let first = journal.redo(file, &Redo::Write(0, &[b'x'; 5000])).unwrap();
    journal.redo(file, &Redo::Sync(first.byte())).unwrap();
    journal.redo(file, &Redo::Truncate(100)).unwrap();
    journal.redo(file, &Redo::WriteDone(0, 16384)).unwrap();
    journal.redo(file, &Redo::TruncateDone(16384)).unwrap();
    journal.finish(dfly_hammer_image::Hint::Exact).unwrap();
    if let Some(folder) = std::env::var_os("HAMMER_IMAGE_ZOO") {
        image.volumes[0].write_file(std::path::Path::new(&folder).join("redo.0.img")).unwrap();
    }
    check(&image).unwrap();
}
