//! What goes over a link while two PFSs are compared, message by message.

use mallet::error::Class;
use mallet::format::CrcKind;
use mallet::mirror::verify::{Incoming, Message};

/// Bytes before a body, and those of them before the sum.
const HEAD: usize = 12;
const SUMMED: usize = 8;

/// A conversation as it comes, and with every message's sum put right.
pub fn questions(data: &[u8]) {
    walk(data);
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    walk(&repaired);
}

fn walk(data: &[u8]) {
    let mut incoming = Incoming::new(data);
    loop {
        let start = incoming.bytes() as usize;
        match incoming.next() {
            Ok(Some(message)) => same(&message, &data[start..incoming.bytes() as usize]),
            Ok(None) => {
                assert_eq!(start, data.len());
                return;
            }
            Err(error) => {
                assert_eq!(error.class(), Class::Protocol, "{error}");
                return;
            }
        }
    }
}

/// Said again, a message is as long, and means the same.
fn same(message: &Message, bytes: &[u8]) {
    let mut again = Vec::new();
    message.append(&mut again);
    assert_eq!(again.len(), bytes.len());
    let heard = Incoming::new(&again[..]).next().expect("a message");
    assert_eq!(
        format!("{:?}", Some(message)),
        format!("{:?}", heard.as_ref())
    );
}

fn repair(data: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = data.get_mut(at..).and_then(|b| b.first_chunk_mut::<HEAD>()) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let end = (at + HEAD).saturating_add(len);
        if end > data.len() {
            return;
        }
        data[at] = 1;
        data[at + 2..at + 4].fill(0);
        let sum = CrcKind::Ieee.sum2(&data[at..at + SUMMED], &data[at + HEAD..end]);
        data[at + SUMMED..at + HEAD].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}
