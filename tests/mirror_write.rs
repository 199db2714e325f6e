//! Streams applied to slaves: those that the kernel made, against the slaves that the kernel made of
//! them; and what must not be applied.

mod common;

use common::golden;
use common::listing::{Mask, compare_asof};
use common::slave::{SLAVE, apply, assert_sound, elements, fresh, master_of, synced, view};
use mallet::format::Tid;
use mallet::io::sim::SimDisk;
use std::path::Path;

const END_5: Tid = Tid(0x1_0002_8320);
const END_10: Tid = Tid(0x1_0005_8630);
const END_20: Tid = Tid(0x1_000a_0cd0);

fn golden_stream(dir: &Path, name: &str) -> Vec<u8> {
    golden::bytes(dir, name)
}

/// Applies golden streams in turn; after each the slave is as the listing says.
fn follow(dir: &Path, disk: &SimDisk, rounds: &[(&str, &str, Tid)], mask: Mask) {
    for (stream, listing, end) in rounds {
        let report = apply(disk, &golden_stream(dir, stream));
        assert_eq!(report.acknowledged, Some(*end), "{stream}: {report:?}");
        assert_eq!(synced(disk), *end);
        compare_asof(&mut view(disk), dir, listing, SLAVE, *end, mask);
        assert_sound(disk);
    }
}

const SLAVE_A: [(&str, &str, Tid); 3] = [
    ("mirror/full-5.mir", "mirror/slaveA-full-5.lst", END_5),
    ("mirror/inc-5-10.mir", "mirror/slaveA-inc-5-10.lst", END_10),
    (
        "mirror/inc-10-20.mir",
        "mirror/slaveA-inc-10-20.lst",
        END_20,
    ),
];
const SLAVE_B: [(&str, &str, Tid); 1] =
    [("mirror/fullB-20.mir", "mirror/slaveB-full-20.lst", END_20)];

/// Every element with its data is what the kernel's own slave has.
#[test]
fn slaves_are_the_kernels() {
    let Some(dir) = golden::dir() else { return };
    for (rounds, image) in [(&SLAVE_A[..], "slaveA"), (&SLAVE_B[..], "slaveB")] {
        let disk = fresh(7, master_of(&golden_stream(&dir, rounds[0].0)));
        follow(&dir, &disk, rounds, Mask::Mtime);
        let path = golden::file(&dir, &format!("mirror/{image}.img"));
        let mut kernels = common::streams::view(&path);
        let theirs = elements(&mut kernels, SLAVE);
        let ours = elements(&mut view(&disk), SLAVE);
        for ((our, our_data), (their, their_data)) in ours.iter().zip(&theirs) {
            let place = their.data_offset.get() != 0;
            assert_eq!(our.data_offset.get() != 0, place);
            let mut our = *our;
            our.data_offset = their.data_offset;
            assert_eq!(our, *their);
            assert_eq!(our_data, their_data);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}
