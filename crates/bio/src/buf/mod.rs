//! Memory that a request owns: [`Buf`], [`SharedBuf`], [`Frozen`], [`Scatter`], and [`Payload`] over them.
//!
//! All unsafe code of this crate is in this module.

mod carve;
mod owned;
mod payload;
mod scatter;
mod shared;
mod window;

pub use carve::Carver;
pub use owned::{AllocError, Buf, BufVtable};
pub use payload::{Payload, ReadTarget};
pub use scatter::{BufVec, FrozenVec, Part, Scatter};
pub use shared::{Frozen, SharedBuf};
pub(crate) use window::Data;
pub use window::{Bytes, BytesMut, Segment, Segments};
