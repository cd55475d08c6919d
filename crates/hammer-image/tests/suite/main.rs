//! The builder against an independent checker, worked examples of the format, and every damage.
#![cfg(test)]

mod check;
mod damage;
mod description;
mod images;
mod pack;
