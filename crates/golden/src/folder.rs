//! The golden folder: where it is and what is in it.

use std::{
    env,
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use liblzma::read::XzDecoder;

use crate::{
    manifest::{ImageFile, Manifest},
    unpack,
};

/// Every image of the golden folder, by the name that [`Golden`] takes.
///
/// A constant, so that tests have names and a number where the folder is missing; a test of this crate compares it
/// with the folder.
pub const IMAGES: &[&str] = &[
    "basic",
    "btree-deep",
    "compat-v1",
    "compat-v3",
    "compat-v5",
    "crash-in-recovery-1",
    "crash-meta-1",
    "crash-meta-2",
    "crash-meta-3",
    "crash-mix-1",
    "crash-mix-2",
    "crash-redo-1",
    "crash-redo-2",
    "crash-redo-3",
    "crash-wrap-1",
    "dedup",
    "empty-2vol",
    "empty-v6",
    "empty-v7",
    "history",
    "hugefile",
    "multivol",
    "nohistory",
    "pfs",
];

/// The variable that names the golden folder.
const VARIABLE: &str = "DFLY_GOLDEN";

/// The largest manifest or text that is read: a bound on what a damaged file may ask for.
const TEXT_MAX_BYTES: u64 = 256 << 20;

/// There is no golden folder on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no golden folder at {} (set {VARIABLE} to where it is)", .looked_at.display())]
pub struct Missing {
    /// Where it was expected.
    pub looked_at: PathBuf,
}

/// The golden folder and the scratch folder for what is unpacked from it.
#[derive(Debug, Clone)]
pub struct Golden {
    folder: PathBuf,
    scratch: PathBuf,
}

impl Golden {
    /// Finds the folder: the one that `DFLY_GOLDEN` names, else `shared/golden` beside the checkout.
    ///
    /// # Errors
    /// [`Missing`] where there is no such folder.
    pub fn find() -> Result<Self, Missing> {
        Self::at(match env::var_os(VARIABLE) {
            Some(folder) => folder.into(),
            None => beside_the_checkout(),
        })
    }

    /// The golden folder at `folder`.
    ///
    /// # Errors
    /// [`Missing`] where there is no such folder.
    pub fn at(folder: PathBuf) -> Result<Self, Missing> {
        match folder.is_dir() {
            true => Ok(Self { folder, scratch: target_dir().join("golden") }),
            false => Err(Missing { looked_at: folder }),
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of the images that the folder has a manifest for, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn images(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.folder).with_context(|| self.folder.display().to_string())? {
            let file = file?.file_name();
            let Some(file) = file.to_str() else { continue };
            names.extend(
                file.strip_suffix(".json").or_else(|| file.strip_suffix(".json.xz")).map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// What the manifest of `image` says.
    ///
    /// # Errors
    /// There is no such manifest, or it is not of the expected form.
    pub fn manifest(&self, image: &str) -> anyhow::Result<Manifest> {
        let plain = self.folder.join(format!("{image}.json"));
        let text = match plain.exists() {
            true => fs::read_to_string(&plain).with_context(|| plain.display().to_string())?,
            false => self.text(&format!("{image}.json.xz"))?,
        };
        serde_json::from_str(&text).with_context(|| format!("the manifest of {image}"))
    }

    /// The volumes of `image`, unpacked and checked, in the order of their numbers. Open them read-only.
    ///
    /// # Errors
    /// There is no such image, it does not have the size and SHA-256 of its manifest, or the scratch folder cannot
    /// be written.
    pub fn volumes(&self, image: &str) -> anyhow::Result<Vec<PathBuf>> {
        self.manifest(image)?.image_files.iter().map(|file| self.unpack(file)).collect()
    }

    /// The volume of `image` as DragonFly's own recovery left it, unpacked and checked; `None` where the folder
    /// does not keep it. Open it read-only.
    ///
    /// # Errors
    /// As [`volumes`](Self::volumes).
    pub fn recovered(&self, image: &str) -> anyhow::Result<Option<PathBuf>> {
        let manifest = self.manifest(image)?;
        let Some(recovered) = manifest.recovered_image else { return Ok(None) };
        let Some(file) = recovered.file else { return Ok(None) };
        let [crashed] = manifest.image_files.as_slice() else {
            bail!("{image}: recovery of several volumes")
        };
        self.unpack(&ImageFile { file, raw_size: crashed.raw_size, raw_sha256: recovered.raw_sha256 })
            .map(Some)
    }

    /// What DragonFly's `hammer show` printed for `image`; `None` where the folder does not keep it.
    ///
    /// # Errors
    /// The file cannot be read or is not text.
    pub fn show(&self, image: &str) -> anyhow::Result<Option<String>> {
        let name = format!("{image}.show.txt.xz");
        self.folder.join(&name).exists().then(|| self.text(&name)).transpose()
    }

    /// The content of any `*.xz` file of the folder, such as a mirror stream.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is larger than 256 MiB.
    pub fn bytes(&self, xz_file: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(xz_file)?
            .take(TEXT_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| xz_file.to_owned())?;
        ensure!(bytes.len() as u64 <= TEXT_MAX_BYTES, "{xz_file}: larger than {TEXT_MAX_BYTES} bytes");
        Ok(bytes)
    }

    fn text(&self, xz_file: &str) -> anyhow::Result<String> {
        String::from_utf8(self.bytes(xz_file)?).with_context(|| xz_file.to_owned())
    }

    fn unpack(&self, file: &ImageFile) -> anyhow::Result<PathBuf> {
        unpack::once(&self.scratch, file, || self.open(&file.file)).with_context(|| file.file.clone())
    }

    fn open(&self, xz_file: &str) -> anyhow::Result<impl Read + use<>> {
        let path = self.folder.join(xz_file);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(XzDecoder::new_multi_decoder(BufReader::new(file)))
    }
}

/// `../shared/golden`, seen from the root of the checkout that this crate was built in.
fn beside_the_checkout() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.extend(["..", "..", "..", "shared", "golden"]);
    path
}

/// The target directory that the running test lies in: cargo marks it with a `CACHEDIR.TAG`. Elsewhere the
/// directory for temporary files.
fn target_dir() -> PathBuf {
    let test = env::current_exe().unwrap_or_default();
    match test.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").is_file()) {
        Some(target) => target.to_path_buf(),
        None => env::temp_dir().join("dfly"),
    }
}
