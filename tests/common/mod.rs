//! What the integration tests share.
#![allow(dead_code)]

pub mod golden;
pub mod program;
pub mod streams;
