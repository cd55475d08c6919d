//! Placeholder until the crate lands.
#![no_std]
