//! The builder against an independent checker, the fact sheet's worked examples, and every damage.
#![cfg(test)]

mod check;
mod damage;
mod description;
mod images;
mod pack;
