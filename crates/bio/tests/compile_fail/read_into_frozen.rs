//! A read cannot fill memory that others read.

use dfly_bio::{Bio, SharedBuf};

fn read(page: &SharedBuf, mut bio: Bio) {
    bio.read(0, page.freeze());
}

fn main() {}
