//! The bytes of the NVM Express base specification 1.4 (sections in brackets) and nothing else: registers, queue
//! entries, data structures, status codes.
//!
//! Every bit pattern is a value: a number that is not listed here is representable. Fields that count from zero end in
//! `_z`.

mod command;
mod identify;
mod regs;
mod status;

pub use command::{Command, Completion, Feature, IdentifyWhat, Opcode, StatusField};
pub use identify::{IdentifyController, IdentifyNamespace, LbaFormat};
pub use regs::*;
pub use status::{Generic, Media, StatusCode};
