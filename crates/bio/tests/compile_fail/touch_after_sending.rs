//! The memory of a request is the device's until the request is back.

use dfly_bio::{Bio, BlockDevice, Buf};

fn read(dev: &dyn BlockDevice, mut bio: Bio, mut buf: Buf) {
    bio.read(0, buf);
    let _pending = bio.start(dev);
    buf[0] = 1;
    bio.take();
}

fn main() {}
