//! From block devices to a checked set of volumes.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use dfly_bio::BlockDevice;
use dfly_hal::Wait;
use zerocopy::FromBytes;

use crate::error::MountError;
use crate::media::Volume;
use crate::ondisk::volume::{SIGNATURE, SIGNATURE_SWAPPED, VolumeHeader};
use crate::ondisk::{BUFFER_SIZE, MAX_VOLUMES, VERSION_MAX};

/// Volume 0 owns everything that there is one of.
const ROOT_VOLUME: usize = 0;

/// Reads and checks the headers of `devices`, given in any order, and returns the volumes by number. Blocks.
pub(crate) fn open_volumes(
    devices: &[Arc<dyn BlockDevice>],
    w: &mut dyn Wait,
) -> Result<(Vec<Option<Volume>>, VolumeHeader), MountError> {
    if devices.is_empty() || devices.len() > MAX_VOLUMES {
        return Err(MountError::VolumeCount { given: devices.len() });
    }
    let mut volumes: Vec<Option<Volume>> = Vec::new();
    let mut fsid = None;
    for (index, device) in devices.iter().enumerate() {
        let volume = open_volume(index, device.clone(), w)?;
        let header = &volume.header;
        if header.vol_fsid != *fsid.get_or_insert(header.vol_fsid) {
            return Err(MountError::OtherFileSystem { index });
        }
        let number = header.vol_no.get();
        let wrong = MountError::Header { index, what: "volume number", value: number as u64 };
        let at = usize::try_from(number).ok().filter(|n| *n < MAX_VOLUMES).ok_or(wrong)?;
        volumes.resize_with(volumes.len().max(at + 1), || None);
        let slot = volumes.get_mut(at).ok_or(wrong)?;
        if slot.is_some() {
            return Err(MountError::Duplicate { index, number: number as u8 });
        }
        *slot = Some(volume);
    }
    let root = volumes.get(ROOT_VOLUME).and_then(Option::as_ref).ok_or(MountError::NoRootVolume)?;
    let header = root.header.clone();
    // Only the root volume's count counts: a crash while a volume was being added or removed leaves others elsewhere.
    let expected = header.vol_count.get();
    if usize::try_from(expected) != Ok(devices.len()) {
        return Err(MountError::Missing { expected, given: devices.len() });
    }
    Ok((volumes, header))
}

fn open_volume(index: usize, device: Arc<dyn BlockDevice>, w: &mut dyn Wait) -> Result<Volume, MountError> {
    let limits = device.limits();
    let bytes = limits.bytes();
    let needed = BUFFER_SIZE as u64;
    if bytes < needed {
        return Err(MountError::TooSmall { index, bytes, needed });
    }
    let mut buffer = vec![0; BUFFER_SIZE];
    dfly_bio::read_at(&*device, w, 0, &mut buffer).map_err(|error| MountError::Device { index, error })?;
    let too_small = MountError::TooSmall { index, bytes, needed };
    let (header, _) = VolumeHeader::read_from_prefix(&buffer).map_err(|_| too_small)?;

    match header.vol_signature.get() {
        SIGNATURE => {}
        SIGNATURE_SWAPPED => return Err(MountError::ByteOrder { index }),
        found => return Err(MountError::NotHammer { index, found }),
    }
    let version = header.vol_version.get();
    if !(1..=VERSION_MAX).contains(&version) {
        return Err(MountError::Version { index, version });
    }
    if header.vol_rootvol.get() != ROOT_VOLUME as u32 {
        let value = header.vol_rootvol.get().into();
        return Err(MountError::Header { index, what: "root volume", value });
    }
    let (start, end) = (header.vol_buf_beg.get(), header.vol_buf_end.get());
    let wrong_buffers = |value: i64| MountError::Header { index, what: "buffer area", value: value as u64 };
    let buffers_start = u64::try_from(start).map_err(|_| wrong_buffers(start))?;
    let buffers_end = u64::try_from(end).map_err(|_| wrong_buffers(end))?;
    let buffers_len = buffers_end.checked_sub(buffers_start).ok_or(wrong_buffers(end))?;
    if buffers_start < BUFFER_SIZE as u64 {
        return Err(wrong_buffers(start));
    }
    if buffers_end > bytes {
        return Err(MountError::TooSmall { index, bytes, needed: buffers_end });
    }
    let block_bytes = limits.block_bytes;
    let block = u64::from(block_bytes.max(1));
    if !buffers_start.is_multiple_of(block) || !(BUFFER_SIZE as u64).is_multiple_of(block) {
        return Err(MountError::BlockSize { index, block_bytes });
    }
    Ok(Volume { device, header, buffers_start, buffers_len })
}

/// Like [`open_volumes`], but takes whatever it is given: a header that cannot be right is replaced by what a new file
/// system would have, and said to `ignored` by its place in the list; a volume that ends too early ends there. Blocks.
pub(crate) fn open_damaged(
    devices: &[Arc<dyn BlockDevice>],
    w: &mut dyn Wait,
    ignored: &mut dyn FnMut(usize),
) -> Result<(Vec<Option<Volume>>, VolumeHeader), MountError> {
    if devices.is_empty() || devices.len() > MAX_VOLUMES {
        return Err(MountError::VolumeCount { given: devices.len() });
    }
    let mut volumes: Vec<Option<Volume>> = Vec::new();
    volumes.resize_with(MAX_VOLUMES, || None);
    let (mut version, mut homeless) = (VERSION_MAX, Vec::new());
    for (index, device) in devices.iter().enumerate() {
        let limits = device.limits();
        let bytes = limits.bytes();
        let block_bytes = limits.block_bytes;
        if bytes < BUFFER_SIZE as u64 {
            return Err(MountError::TooSmall { index, bytes, needed: BUFFER_SIZE as u64 });
        }
        if block_bytes == 0 || !(BUFFER_SIZE as u32).is_multiple_of(block_bytes) {
            return Err(MountError::BlockSize { index, block_bytes });
        }
        let mut buffer = vec![0; BUFFER_SIZE];
        let read = dfly_bio::read_at(&**device, w, 0, &mut buffer);
        let header = read.ok().and_then(|()| VolumeHeader::read_from_prefix(&buffer).ok()).map(|(h, _)| h);
        let home = header.and_then(|header| {
            let number = usize::try_from(header.vol_no.get()).ok()?;
            let (start, end) = (header.vol_buf_beg.get(), header.vol_buf_end.get());
            let start = u64::try_from(start).ok().filter(|s| s.is_multiple_of(block_bytes.into()))?;
            let end = u64::try_from(end).ok()?.min(bytes);
            let buffers_len = end.checked_sub(start)?;
            let sane = header.vol_signature.get() == SIGNATURE
                && (1..=VERSION_MAX).contains(&header.vol_version.get())
                && (BUFFER_SIZE as u64..end).contains(&start)
                && volumes.get(number).is_some_and(Option::is_none);
            let volume = Volume { device: device.clone(), buffers_start: start, buffers_len, header };
            sane.then_some((number, volume))
        });
        match home {
            Some((number, volume)) => {
                version = volume.header.vol_version.get();
                if let Some(slot) = volumes.get_mut(number) {
                    *slot = Some(volume);
                }
            }
            None => homeless.push((index, device)),
        }
    }
    for (index, device) in homeless {
        ignored(index);
        let bytes = device.limits().bytes();
        let number = volumes.iter().position(Option::is_none).unwrap_or(0);
        let header = crate::format::likely_header(number, version, bytes);
        let start = (header.vol_buf_beg.get() as u64).min(bytes);
        let volume =
            Volume { device: device.clone(), buffers_start: start, buffers_len: bytes - start, header };
        if let Some(slot) = volumes.get_mut(number) {
            *slot = Some(volume);
        }
    }
    let root = volumes.first().and_then(Option::as_ref).map(|v| v.header.clone());
    Ok((volumes, root.unwrap_or_else(|| crate::format::likely_header(ROOT_VOLUME, version, 0))))
}
