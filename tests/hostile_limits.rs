//! Numbers at the ends of their ranges, on the medium and asked for: refused or carried out, and
//! nothing overflows, is given out twice or used up.

mod common;

use common::patch::Image;
use common::slave::assert_sound;
use common::victim::{self, NOW, OTHER, PFS, Victim};
use mallet::error::Class;
use mallet::format::crc::crc32;
use mallet::format::mark::{Cursor, Intent};
use mallet::format::mrecord;
use mallet::format::namehash::NameHash;
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{PfsData, data_sum, rt};
use mallet::format::{CrcKind, Key, Localization, Offset, Tid, Zone};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::recover::{self, OpenOptions};
use mallet::fs::{Tree, change, pfs};
use mallet::io::sim::SimDisk;
use mallet::store::{Store, StoreOptions, View, VolumeSet};
use std::collections::BTreeSet;
use std::mem::offset_of;
use zerocopy::FromZeros;

fn open(disk: &SimDisk) -> Store {
    let set = VolumeSet::open(vec![Box::new(disk.device(1))]).expect("a volume");
    let options = OpenOptions {
        store: StoreOptions::default(),
        redo: true,
        now: NOW,
    };
    recover::open(set, &options).expect("a volume that opens").0
}

/// A volume with one master PFS without files.
fn plain(version: u32) -> SimDisk {
    let disk = victim::volume(version);
    victim::master(&disk, OTHER);
    disk
}

fn object(view: &mut View, path: &str) -> mallet::fs::Inode {
    let tree = Tree {
        pfs: OTHER,
        asof: Tid::MAX,
    };
    let found = resolve(view, tree, path.as_bytes(), Final::Itself);
    found.expect("an object").inode
}

#[test]
fn object_ids_run_out_and_are_not_given_twice() {
    let disk = plain(7);
    Image::of(disk.clone()).edit_header(|header| header.next_tid.set(i64::MAX as u64 - 150));
    let mut store = victim::open(&disk).expect("a volume");
    let mut ids = BTreeSet::new();
    let mut refused = 0;
    for n in 0..10 {
        let path = format!("/file{n}");
        let made = victim::change(&mut store, OTHER, |op| {
            victim::put(op, path.as_bytes(), b"x")
        });
        match made {
            Ok(()) => assert!(ids.insert(object(store.view(), &path).id.obj)),
            Err(error) => {
                assert_eq!(error.class(), Class::NoSpace, "{error}");
                refused += 1;
            }
        }
    }
    assert!(ids.len() > 1 && refused > 1, "{ids:x?}");
    drop(store);
    assert_sound(&disk);
}

/// A stream of one record of `obj`, created at `tid`.
fn one_record(victim: &Victim, obj: i64, tid: u64, end: u64) -> Vec<u8> {
    let mut data = {
        let mut view = victim::view(&victim.disk).expect("a view");
        let slave = pfs::load(&mut view, PFS).expect("a table");
        slave.expect("the slave").data
    };
    data.sync_beg_tid.set(1);
    data.sync_end_tid.set(end);
    let mut out = Vec::new();
    for _ in 0..2 {
        mrecord::append_pfsd(&mut out, &data, 0);
    }
    let mut leaf = LeafElement::new_zeroed();
    leaf.base = Base::from_key(Key {
        localization: Localization::new(PFS, Localization::MISC),
        obj_id: obj,
        rec_type: rt::DATA,
        key: 16,
        create_tid: Tid(tid),
    });
    leaf.data_offset.set(1);
    leaf.data_len.set(16);
    leaf.data_crc
        .set(data_sum(rt::DATA, &[7; 16], CrcKind::Castagnoli));
    mrecord::append_record(&mut out, &leaf, &[7; 16], 0);
    mrecord::append_mark(&mut out, mrecord::Kind::Sync);
    mrecord::append_mark(&mut out, mrecord::Kind::Term);
    out
}

#[test]
fn streams_do_not_use_up_the_ids() {
    let victim = Victim::new(7);
    let limit = Tid::LIMIT.0;
    for (obj, tid, end, taken) in [
        (0x1000, limit, limit, true),
        (limit as i64, limit, limit, true),
        (limit as i64 + 1, limit, limit, false),
        (i64::MAX, limit, limit, false),
        (0x1000, limit + 1, limit + 1, false),
        (0x1000, i64::MAX as u64, i64::MAX as u64, false),
        (0x1000, 1 << 40, limit + 1, false),
        (0x1000, 1 << 40, u64::MAX, false),
    ] {
        let disk = victim.disk.snapshot();
        let stream = one_record(&victim, obj, tid, end);
        let (report, ended) = victim::apply(&disk, &stream, false);
        assert_eq!(ended.is_ok(), taken, "{obj:x} {tid:x} {end:x}: {ended:?}");
        assert_eq!(report.acknowledged.is_some(), taken);
        let mut store = victim::open(&disk).expect("a volume");
        let made = victim::change(&mut store, OTHER, |op| victim::directory(op, b"/a"));
        made.expect("a directory");
        let made = victim::change(&mut store, OTHER, |op| victim::directory(op, b"/b"));
        made.expect("a directory");
        let [a, b] = ["/a", "/b"].map(|path| object(store.view(), path).id.obj);
        assert!(a < b && b < i64::MAX);
    }
}

/// Marks with good checksums and ends at the top of their range: whoever opens the volume does not
/// believe them.
#[test]
fn absurd_pfs_records_are_not_believed() {
    let victim = Victim::new(7);
    let before = {
        let mut view = victim::view(&victim.disk).expect("a view");
        victim::elements(&mut view, OTHER)
    };
    for case in 0..5 {
        let disk = victim.disk.snapshot();
        let image = Image::of(disk.clone());
        let next = image.header().next_tid.get();
        let id = if case < 2 { PFS } else { OTHER };
        let place = image.find(|leaf| {
            leaf.base.rec_type.get() == rt::PFS
                && leaf.base.key.get() == PfsData::record_key(id)
                && leaf.base.delete_tid().is_zero()
        });
        let own_leaf = place.leaf.base.create_tid();
        let cursor = Cursor {
            key: Key::pfs_min(id),
            end: Tid::MAX,
            source: 0,
            source_leaf: Tid::ZERO,
            own_leaf,
        };
        let intent = |tid| Intent {
            tid: Tid(tid),
            next_tid: Tid(next),
            own_leaf,
        };
        let mark = match case {
            0 | 1 => cursor.to_bytes(),
            // Older than the record that it stands in; never given out.
            2 => intent(2).to_bytes(),
            3 => intent(u64::MAX).to_bytes(),
            _ => [0; 64],
        };
        image.edit_data(&place, |data| {
            let at = offset_of!(PfsData, reserved03);
            data[at..at + 64].copy_from_slice(&mark);
            if [0, 4].contains(&case) {
                let at = offset_of!(PfsData, sync_end_tid);
                let end = if case == 0 {
                    u64::MAX
                } else {
                    0xFFFF_FFFF_FEFF_FFFF
                };
                data[at..at + 8].copy_from_slice(&end.to_le_bytes());
            }
        });
        let mut store = open(&disk);
        assert!(
            victim::elements(store.view(), OTHER) == before,
            "case {case}"
        );
        let made = victim::change(&mut store, OTHER, |op| victim::directory(op, b"/made"));
        made.expect("a directory");
        let made = object(store.view(), "/made").id.obj;
        assert!(made < 1 << 40, "case {case}: {made:x}");
    }
}

/// Counts in the header and the freemap that are sealed and impossible.
#[test]
fn absurd_counts_do_not_overflow() {
    for case in 0..8 {
        let disk = plain(7);
        let image = Image::of(disk.clone());
        let meta = image.owned_by(Zone::META);
        match case {
            0 => image.edit_header(|header| header.stat_freebigblocks.set(i64::MIN)),
            1 => image.edit_header(|header| header.stat_freebigblocks.set(i64::MAX)),
            2 => image.edit_header(|header| header.stat_bigblocks.set(i64::MIN)),
            3 => image.edit_header(|header| header.stat_inodes.set(i64::MAX)),
            4 => image.edit_layer2(meta, |entry| entry.append_off.set(u32::MAX)),
            5 => image.edit_layer2(meta, |entry| entry.bytes_free.set(i32::MIN)),
            6 => image.edit_layer2(meta, |entry| entry.bytes_free.set(i32::MAX)),
            _ => image.edit_header(|header| {
                let zone = usize::from(Zone::META.0);
                header.blockmap[zone]
                    .next_offset
                    .set(Offset::new(Zone::META, 255, u64::MAX >> 12).0);
            }),
        }
        let mut store = victim::open(&disk).expect("a volume");
        for round in 0..3 {
            let path = format!("/file{round}");
            let made = victim::change(&mut store, OTHER, |op| {
                victim::put(op, path.as_bytes(), &[1; 300_000])
            });
            let gone = made.and_then(|()| {
                victim::change(&mut store, OTHER, |op| victim::remove(op, path.as_bytes()))
            });
            if let Err(error) = gone {
                let classes = [Class::Damage, Class::NoSpace];
                assert!(classes.contains(&error.class()), "case {case}: {error}");
            }
        }
    }
}

#[test]
fn files_end_below_the_top() {
    let disk = plain(7);
    let mut store = victim::open(&disk).expect("a volume");
    let mut change =
        |body: &mut dyn FnMut(
            &mut mallet::fs::operation::Operation<'_>,
        ) -> mallet::error::Result<()>| { victim::change(&mut store, OTHER, body) };
    let most = i64::MAX as u64 - 65536;
    change(&mut |op| victim::put(op, b"/file", b"begin")).expect("a file");
    for size in [most + 1, i64::MAX as u64, 1 << 63, u64::MAX] {
        let error = change(&mut |op| change::truncate(op, b"/file", size)).expect_err("too large");
        assert_eq!(error.class(), Class::Other, "{error}");
    }
    change(&mut |op| change::truncate(op, b"/file", most - 10)).expect("a long file");
    change(&mut |op| victim::append(op, b"/file", b"0123456789")).expect("the last bytes");
    for _ in 0..2 {
        let error = change(&mut |op| victim::append(op, b"/file", b"x")).expect_err("too large");
        assert_eq!(error.class(), Class::Other, "{error}");
    }
    let inode = object(store.view(), "/file");
    assert_eq!(inode.size(), most);
    let mut bytes = [0; 12];
    let read = mallet::fs::file::read_at(store.view(), &inode, Tid::MAX, most - 12, &mut bytes);
    assert_eq!((read.expect("a read"), &bytes), (12, b"\0\x000123456789"));
    drop(store);
    assert_sound(&disk);
    let mut store = victim::open(&disk).expect("a volume");
    let cut = victim::change(&mut store, OTHER, |op| change::truncate(op, b"/file", 3));
    cut.expect("a short file");
    drop(store);
    assert_sound(&disk);
}

/// Names of 255 bytes with the same CRC-32 `target`.
fn colliding(target: u32, count: usize) -> Vec<Vec<u8>> {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |c, _| c >> 1 ^ (0xEDB8_8320 & (c & 1).wrapping_neg())))
        .collect();
    let mut steps = [0usize; 4];
    let mut register = !target;
    for step in steps.iter_mut().rev() {
        let found = table.iter().position(|entry| entry >> 24 == register >> 24);
        *step = found.expect("every high byte is in the table");
        register = (register ^ table[*step]) << 8;
    }
    let names = (0u64..).map(|n| {
        let mut name = vec![b'n'; 251];
        name[..20].copy_from_slice(format!("{n:020}").as_bytes());
        let mut register = !crc32(&name);
        for step in steps {
            name.push(register as u8 ^ step as u8);
            register = register >> 8 ^ table[step];
        }
        name
    });
    let usable = |name: &Vec<u8>| {
        !name
            .iter()
            .any(|b| matches!(b, 0 | b'/' | b'.' | b'-' | b'_' | b'~'))
    };
    names.filter(usable).take(count).collect()
}

/// The hash that leaves the least room: that of a name at the top of the keys.
#[test]
fn names_that_collide() {
    for (version, hash) in [(5, NameHash::Alg0), (7, NameHash::Alg1)] {
        let names = colliding(0x7FFF_FFFF, 60);
        let keys: BTreeSet<i64> = names.iter().map(|name| hash.key(name)).collect();
        assert_eq!(keys.len(), 1);
        let disk = plain(version);
        let mut store = victim::open(&disk).expect("a volume");
        let path = |name: &[u8]| [b"/", name].concat();
        let made = victim::change(&mut store, OTHER, |op| {
            names
                .iter()
                .try_for_each(|name| victim::put(op, &path(name), name))
        });
        made.expect("files");
        let gone = victim::change(&mut store, OTHER, |op| {
            let some = names.iter().step_by(3);
            some.into_iter()
                .try_for_each(|name| victim::remove(op, &path(name)))
        });
        gone.expect("fewer files");
        let again = victim::change(&mut store, OTHER, |op| {
            victim::put(op, &path(&names[0]), b"new")
        });
        again.expect("one again");
        let tree = Tree {
            pfs: OTHER,
            asof: Tid::MAX,
        };
        for (at, name) in names.iter().enumerate() {
            let found = resolve(store.view(), tree, &path(name), Final::Itself);
            let size = found.ok().map(|object| object.inode.size());
            let expected = match at {
                0 => Some(3),
                _ => (!at.is_multiple_of(3)).then_some(255),
            };
            assert_eq!(size, expected, "name {at}");
        }
        drop(store);
        assert_sound(&disk);
    }
}
