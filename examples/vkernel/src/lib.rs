//! The dfly kernel in a process of the host, after DragonFly's virtual kernel.
//!
//! ```text
//!   CPU          a host thread that runs the kernel's threads, each on a stack of its own
//!   NVMe disk    Drive: a model of the controller, over a file that is never written, or memory
//!   AHCI disk    Adapter: likewise
//!   memory       the process's; a device's address is the CPU's
//!   interrupt    the model calls the kernel's Irq
//!   terminal     Console: a host thread reads lines, with editing where a person sits
//! ```
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use kernel::{Session, Verdict};
//! use vkernel::{Console, Drive, Vkernel, tour};
//!
//! let shown = Arc::new(Mutex::new(Vec::new()));
//! let to = shown.clone();
//! let terminal = Console::new(move |bytes: &[u8]| to.lock().unwrap().extend(bytes), |_prompt: &str| None)?;
//! let machine = Vkernel {
//!     cpus: 2,
//!     drives: vec![Drive::volume(tour::disk()?)],
//!     adapters: Vec::new(),
//!     terminal: Arc::new(terminal),
//!     session: Session::Script((*b"mount -r nvme0 /mnt\ncat /mnt/docs/notes\n").into()),
//! };
//! assert_eq!(machine.boot()?.join(), Verdict::Success);
//! assert!(String::from_utf8_lossy(&shown.lock().unwrap()).contains("Wednesday: began anew."));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod ahci;
mod drive;
mod editor;
mod host;
mod machine;
mod panics;
mod terminal;
pub mod tour;

pub use ahci::{Adapter, AdapterBack};
pub use drive::{BackSide, Drive, ReadOnly};
pub use editor::{console, restore_terminal};
pub use machine::{Running, StartError, Vkernel};
pub use panics::{EXIT_CODE, exit_on_panic};
pub use terminal::{Ask, Console, Show};
