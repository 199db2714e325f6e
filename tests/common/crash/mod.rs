//! Crashes of volumes under the library's hands: what happened in order ([`timeline`]), what a state
//! is ([`state`]), what to run
//! ([`scenario`], [`scenarios`]), and the trial of every state that a power cut may
//! leave ([`trial`]).

pub mod raw_ops;
pub mod scenario;
pub mod scenarios;
pub mod state;
pub mod timeline;
pub mod trial;
