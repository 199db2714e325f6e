//! What the integration tests share.
#![allow(dead_code)]

pub mod build;
pub mod busy;
pub mod changing;
pub mod companion;
pub mod crash;
pub mod far;
pub mod fresh;
pub mod golden;
pub mod link;
pub mod listing;
pub mod live;
pub mod loopdev;
pub mod oracle;
pub mod patch;
pub mod program;
pub mod raw;
pub mod readers;
pub mod receiver;
pub mod records;
pub mod session;
pub mod slave;
pub mod streams;
pub mod tally;
pub mod unpack;
pub mod victim;

/// How many cases a random test tries: `cases`, times what `make soak` says in `MALLET_SOAK`.
pub fn soak(cases: u64) -> u64 {
    let times = std::env::var("MALLET_SOAK").map_or(1, |n| n.parse().expect("a number"));
    cases.saturating_mul(times)
}
