#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod content;
mod crash;
mod damage;
mod demo;
mod error;
mod fifo;
mod image;
mod layout;
mod objects;
mod pack;
mod record;
mod silent;
mod tree;

pub use content::Content;
pub use crash::crash;
pub use damage::{Damage, Seal};
pub use demo::demo;
pub use error::{Error, Result};
pub use fifo::{Hint, Journal, Redo};
pub use image::{CHUNK, Image, NodeAt, Volume};
pub use layout::Format;
pub use objects::{Builder, Object};
pub use pack::pack;
pub use record::{Data, Record};
pub use silent::Silent;
pub use tree::Shape;
