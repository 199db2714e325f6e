//! Power cuts while a stream is applied.

mod common;

use common::slave::{
    NOW, SLAVE, apply, apply_as, fresh, made, plain, store, synced, view, visible,
};
use common::soak;
use mallet::format::Tid;
use mallet::io::sim::{CrashPlan, SimDisk};
use mallet::mirror::write::{Edge, Event, Report, Request, write};

/// A power cut at any moment: what was acknowledged is there, what is published is whole, and the
/// same stream again completes the slave.
#[test]
fn power_cuts() {
    let first = made(0x2000, 0x1000, 0..3000);
    let second = made(0x3000, 0x2800, 1000..4500);
    let third = made(0x4000, 0x2800, 1000..4400);
    let disk = fresh(7, [3; 16]);
    apply(&disk, &first);
    let stream = [&second[..second.len() - 24], &third].concat();
    let shown = |disk: &SimDisk, asof: Tid| visible(&mut view(disk), SLAVE, asof);
    let mut expected = vec![(Tid(0x2000), shown(&disk, Tid(0x2000)))];
    let mut acknowledged = Vec::new();
    {
        let (log, mut report) = (disk.clone(), Report::default());
        let mut open = store(&disk);
        let mut edge = Edge {
            now: &mut || NOW,
            progress: &mut (),
            events: &mut |event| {
                if let Event::Acknowledged(tid, _) = event {
                    acknowledged.push((log.now(), *tid));
                }
                Ok(())
            },
            make: &mut |_, _| panic!("the slave is there"),
        };
        write(
            &mut open,
            &stream[..],
            None,
            &plain(),
            &mut edge,
            &mut report,
        )
        .expect("a stream");
        assert_eq!(report.batches, (2, 2));
    }
    for tid in [Tid(0x3000), Tid(0x4000)] {
        expected.push((tid, shown(&disk, tid)));
    }
    let plan = CrashPlan {
        singles: 2,
        subsets: soak(1) as usize,
        torn: soak(1) as usize,
        seed: 1,
    };
    let mut states = 0;
    for image in disk.crash_images(plan) {
        let image = image.expect("an image");
        let what = format!("cut at {}, {:?}", image.cut, image.survive);
        drop(store(&image.disk));
        let synced = synced(&image.disk);
        let told = acknowledged.iter().rfind(|(at, _)| *at <= image.cut);
        assert!(told.is_none_or(|(_, tid)| *tid <= synced), "{what}");
        let published = expected.iter().find(|(tid, _)| *tid == synced);
        let (_, published) = published.unwrap_or_else(|| panic!("{what}: as of {synced}"));
        assert!(shown(&image.disk, synced) == *published, "{what}");
        if states % 16 == 0 {
            let again = Request {
                force: true,
                ..plain()
            };
            let (_, ended) = apply_as(&image.disk, &stream[..], &again);
            ended.expect("the same stream again");
            assert!(shown(&image.disk, Tid(0x4000)) == expected[2].1, "{what}");
        }
        states += 1;
    }
    assert!(states > 50, "{states} states");
    println!("{states} states");
}
