//! A stream applied to a slave: what the target side does with whatever a source says.

use crate::victim::{self, OTHER, Victim};
use mallet::check;
use mallet::error::Class;
use mallet::format::mrecord::{self, HEAD};
use std::hint::black_box;
use std::sync::OnceLock;

/// Bytes of a patch.
const PATCH: usize = 14;
/// Patches applied of one input.
const PATCHES_MAX: usize = 64;

/// Which stream (byte 0) to apply how (byte 1, bit 0: by force; bit 1: and then the right one; bit 2:
/// and check the volume); then patches. Stream 3 and above: the rest is the stream itself, its sums
/// put right.
pub fn apply(data: &[u8]) {
    let [choice, mode, rest @ ..] = data else {
        return;
    };
    let victim = victim();
    let stream = match choice % 4 {
        0 => patched(&victim.first, rest),
        1 => patched(&victim.full, rest),
        2 => patched(&victim.between, rest),
        _ => sealed(rest),
    };
    let disk = victim.disk.snapshot();
    let others = |disk| {
        let mut view = victim::view(disk).expect("a volume that opens");
        [0, OTHER].map(|id| victim::elements(&mut view, id))
    };
    let before = others(&disk);
    let (report, ended) = victim::apply(&disk, &stream, mode & 1 != 0);
    if let Err(error) = ended {
        let expected = [Class::Protocol, Class::Incompatible, Class::Brake];
        assert!(expected.contains(&error.class()), "{error}");
        black_box(error.to_string());
    }
    assert!(others(&disk) == before, "another PFS has changed");
    let synced = report.acknowledged.unwrap_or(victim.ends[0]);
    assert_eq!(victim::end(&disk), synced);
    if mode & 2 != 0 {
        let (_, ended) = victim::apply(&disk, &victim.full, true);
        ended.expect("the right stream");
        assert_eq!(victim::end(&disk), victim.ends[1]);
    }
    if mode & 4 != 0 {
        let mut view = victim::view(&disk).expect("a volume that opens");
        let report = check::run(&mut view, &Default::default(), &mut |_| {}, &mut ());
        assert!(report.expect("a check that ends").complete);
    }
}

/// Made once: it is never changed.
fn victim() -> &'static Victim {
    static VICTIM: OnceLock<Victim> = OnceLock::new();
    VICTIM.get_or_init(|| Victim::new(7))
}

/// The stream with records changed, moved and left out as `bytes` says.
fn patched(stream: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut all = parts(stream);
    for patch in bytes.chunks_exact(PATCH).take(PATCHES_MAX) {
        let [how, kind, i0, i1, o0, o1, value @ ..] = patch else {
            continue;
        };
        if all.is_empty() {
            break;
        }
        let at = usize::from(u16::from_le_bytes([*i0, *i1])) % all.len();
        let offset = usize::from(u16::from_le_bytes([*o0, *o1]));
        match how % 8 {
            0 => drop(all.remove(at)),
            1 => {
                let other = offset % all.len();
                all.swap(at, other);
            }
            2 => all.insert(at, all[offset % all.len()].clone()),
            3 => all[at].0 = u32::from(*kind),
            4 => all[at].1.truncate(offset),
            _ => {
                let body = &mut all[at].1;
                let start = offset % body.len().max(1);
                let width = [1, 2, 4, 8][usize::from(kind % 4)].min(body.len() - start);
                body[start..start + width].copy_from_slice(&value[..width]);
            }
        }
    }
    let mut out = Vec::new();
    for (kind, body) in all {
        mrecord::append(&mut out, kind, &[&body]);
    }
    out
}

/// Kinds and bodies of what can be told apart as records.
fn parts(stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = stream;
    while let Some(head) = rest.first_chunk::<HEAD>() {
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let size = word(8) as usize;
        let Some(record) = rest.get(..size).filter(|_| size >= HEAD) else {
            break;
        };
        all.push((word(12), record[HEAD..].to_vec()));
        rest = rest.get(mrecord::padded(size)..).unwrap_or_default();
    }
    all
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in parts(bytes) {
        mrecord::append(&mut out, kind, &[&body]);
    }
    out
}
