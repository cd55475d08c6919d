//! The read side on images that the project builds itself.

mod common;
mod damage;
mod views;
