//! The FIFO's records that recovery did not look at.

use dfly_hal::Wait;

use super::{Depth, Finding, Kind, Log};
use crate::media::Media;
use crate::recovery;

/// Findings about one FIFO, at most: a FIFO that was overwritten has millions of bad records.
const FINDINGS: usize = 100;

/// Looks at all records of the ring: each is a record by itself, whatever sequence it belongs to.
pub(super) fn ring(media: &Media, w: &mut dyn Wait, depth: Depth, log: &mut Log<'_>) {
    if depth == Depth::Quick {
        return;
    }
    let mut count = 0;
    recovery::survey(media, w, &mut |error| {
        count += 1;
        if count <= FINDINGS {
            log.found(Finding::new(Kind::FifoRecord, super::place(&error)));
        }
    });
}
