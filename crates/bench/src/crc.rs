//! The checksums of HAMMER's structures (bar H6).

use std::hint::black_box;

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc, Table};

use crate::harness::{Bar, Effort, Group, Unit};

static TABLE_ISO: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
static TABLE_ISCSI: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

pub(crate) fn bench(effort: Effort) {
    for kib in [4, 16] {
        let bytes: Vec<u8> = (0..kib * 1024).map(|i| (i * 31 % 251) as u8).collect();
        let bytes = bytes.as_slice();
        let mut iso = Group::new(format!("CRC-32 (ISO) of {kib} KiB"), Unit::Operation);
        let ours = iso.add("dfly_hammer::crc::iso", || dfly_hammer::crc::iso(black_box(bytes)));
        let fast = iso.add("crc32fast", || crc32fast::hash(black_box(bytes)));
        let folding = iso.add("crc-fast", || crc_fast::crc32_iso_hdlc(black_box(bytes)));
        let table = iso.add("crc Table<16>", || TABLE_ISO.checksum(black_box(bytes)));
        iso.ratio(ours, fast, Bar::TimeAtMost(1.05), "H6");
        iso.ratio(ours, folding, Bar::None, "the library that ours calls");
        iso.ratio(ours, table, Bar::None, "what ours is on bare targets");
        iso.run(effort);

        let mut iscsi = Group::new(format!("CRC-32C (iSCSI) of {kib} KiB"), Unit::Operation);
        let ours = iscsi.add("dfly_hammer::crc::iscsi", || dfly_hammer::crc::iscsi(black_box(bytes)));
        let c = iscsi.add("crc32c", || crc32c::crc32c(black_box(bytes)));
        let folding = iscsi.add("crc-fast", || crc_fast::crc32_iscsi(black_box(bytes)));
        let table = iscsi.add("crc Table<16>", || TABLE_ISCSI.checksum(black_box(bytes)));
        iscsi.ratio(ours, c, Bar::TimeAtMost(0.55), "H6");
        iscsi.ratio(ours, folding, Bar::None, "the library that ours calls");
        iscsi.ratio(ours, table, Bar::None, "what ours is on bare targets");
        iscsi.run(effort);
    }
}
