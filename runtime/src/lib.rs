//! TODO

pub mod config;
