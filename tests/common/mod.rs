//! What the integration tests share.
#![allow(dead_code)]

pub mod build;
pub mod golden;
pub mod patch;
pub mod program;
pub mod raw;
pub mod readers;
pub mod streams;
pub mod unpack;
