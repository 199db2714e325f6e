//! The corruption matrix: for every rule one planted fault that violates it, on a copy in memory of
//! a volume made by DragonFly's kernel. `check` must name exactly that rule (others may follow from
//! it), and no reader may panic or run for ever on any of these volumes.

mod common;

use common::golden;
use common::patch::{Image, Place};
use common::readers;
use mallet::check::{Options, Severity};
use mallet::format::node::{Base, Element, INTERNAL, LeafElement};
use mallet::format::record::{InodeData, ObjType, PfsData, rt};
use mallet::format::{BIGBLOCK, BUFFER, NODE_SIZE, Offset, ROOT_OBJ, Rule, Zone};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use zerocopy::FromBytes;

/// A planted fault: the rule that must be named, how bad it is, and how it is planted.
struct Case {
    rule: Rule,
    severity: Severity,
    /// Rules whose violation follows from it; no other may be named as an error.
    also: &'static [Rule],
    image: &'static str,
    plant: fn(&Image),
}

const SMALL: &str = "small/small-v7.img";
const CRASHED: &str = "crash/crash-v7-n031.img";
const CRASHED_OLD: &str = "crash/crash-v3-n036.img";
const SLAVE: &str = "mirror/slaveA.img";
const FILES: &str = "edge/edge.img";

const fn error(rule: Rule, plant: fn(&Image)) -> Case {
    Case {
        rule,
        severity: Severity::Error,
        also: &[],
        image: SMALL,
        plant,
    }
}

const fn warn(rule: Rule, plant: fn(&Image)) -> Case {
    Case {
        severity: Severity::Warn,
        ..error(rule, plant)
    }
}

const fn on(image: &'static str, case: Case) -> Case {
    Case { image, ..case }
}

const fn with(also: &'static [Rule], case: Case) -> Case {
    Case { also, ..case }
}

fn is(leaf: &LeafElement, rec_type: u16) -> bool {
    leaf.base.rec_type.get() == rec_type
}

fn live(leaf: &LeafElement, rec_type: u16) -> bool {
    is(leaf, rec_type) && leaf.base.delete_tid().is_zero()
}

fn inode(image: &Image, place: &Place) -> InodeData {
    InodeData::from_bytes(&image.data(place)).expect("an inode")
}

/// A live inode of this type, not a root.
fn object(image: &Image, kind: ObjType, test: impl Fn(&InodeData) -> bool) -> Place {
    let all = image.records().into_iter();
    let mut found = all.filter(|p| {
        live(&p.leaf, rt::INODE)
            && p.leaf.base.obj_id.get() != ROOT_OBJ
            && p.leaf.base.obj_type == kind as u8
            && test(&inode(image, p))
    });
    found.next().expect("such an object")
}

fn edit_inode(image: &Image, place: &Place, change: impl FnOnce(&mut InodeData)) {
    image.edit_data(place, |data| {
        change(InodeData::mut_from_bytes(data).expect("an inode"));
    });
}

/// A live block of a live file for whose inode and block `test` holds.
fn block(image: &Image, test: impl Fn(&InodeData, &LeafElement) -> bool) -> (Place, Place) {
    let records = image.records();
    let files = records
        .iter()
        .filter(|p| live(&p.leaf, rt::INODE) && p.leaf.base.obj_type == ObjType::File as u8);
    for file in files {
        let data = inode(image, file);
        let mut blocks = records.iter().filter(|p| {
            live(&p.leaf, rt::DATA)
                && p.leaf.base.obj_id == file.leaf.base.obj_id
                && test(&data, &p.leaf)
        });
        if let Some(block) = blocks.next() {
            return (*file, *block);
        }
    }
    panic!("no such block");
}

/// A live entry whose name has no hash neighbours that the change could upset.
fn entry(image: &Image, kind: ObjType) -> Place {
    image.find(|l| live(l, rt::DIRENTRY) && l.base.obj_type == kind as u8)
}

/// The last 8 bytes of a record before `first_offset`, on the device.
fn before_first(image: &Image) -> Offset {
    let header = image.header();
    let first = Offset(header.zone(Zone::UNDO).first_offset.get()).short();
    fifo(
        image,
        (first + header.undo_bytes() - 8) % header.undo_bytes(),
    )
}

/// The zone-2 address of a byte of the FIFO.
fn fifo(image: &Image, at: u64) -> Offset {
    let slot = image.header().undo_array[(at / BIGBLOCK) as usize].get();
    Offset(slot + at % BIGBLOCK)
}

fn edit_child(image: &Image, index: usize, change: impl FnOnce(&mut Element)) {
    image.edit_node(image.root(), |node| {
        assert_eq!(node.kind, INTERNAL);
        change(&mut node.elms[index]);
    });
}

/// Points child `index` of the root at `at`.
fn redirect(image: &Image, index: usize, at: Offset) {
    edit_child(image, index, |e| {
        e.rest[8..16].copy_from_slice(&at.0.to_le_bytes())
    });
}

const CASES: &[Case] = &[
    error(Rule::VolumeSignature, |i| {
        i.header_raw(|h| h.signature.set(5))
    }),
    error(Rule::VolumeRange, |i| {
        let size = i.disk.size() as i64;
        i.edit_header(|h| h.buf_end.set(size + BUFFER as i64));
    }),
    error(Rule::VolumeType, |i| i.edit_header(|h| h.fstype[0] ^= 1)),
    error(Rule::VolumeVersion, |i| i.edit_header(|h| h.version.set(8))),
    error(Rule::VolumeSet, |i| i.edit_header(|h| h.vol_count.set(2))),
    warn(Rule::VolumeCrc, |i| i.header_raw(|h| h.label[60] ^= 1)),
    warn(Rule::BlockmapCrc, |i| {
        i.edit_header(|_| ());
        i.header_raw(|h| h.blockmap[9].entry_crc.set(1));
    }),
    error(Rule::Blockmap, |i| {
        i.edit_header(|h| h.blockmap[9].next_offset.set(0x8000_0000_0200_0000))
    }),
    with(
        &[Rule::Layer2Owner],
        error(Rule::UndoArray, |i| {
            let undo = i.owned_by(Zone::UNDO);
            i.edit_layer2(undo, |e| e.zone = Zone::FREEMAP.0);
        }),
    ),
    error(Rule::Fifo, |i| i.flip(before_first(i))),
    on(
        CRASHED,
        error(Rule::Fifo, |i| {
            let first = Offset(i.header().zone(Zone::UNDO).first_offset.get()).short();
            i.flip(fifo(i, first + 100));
        }),
    ),
    on(
        CRASHED_OLD,
        with(
            &[Rule::NodeBounds, Rule::NodeCrc, Rule::DataCrc],
            error(Rule::Fifo, |i| {
                let first = Offset(i.header().zone(Zone::UNDO).first_offset.get()).short();
                i.flip(fifo(i, first + 100));
            }),
        ),
    ),
    warn(Rule::Fifo, |i| i.flip(fifo(i, 6 << 20))),
    error(Rule::Layer1Crc, |i| {
        i.flip(Offset(i.layer1_place(Offset(0)).0 + 16))
    }),
    error(Rule::Layer1Pointer, |i| {
        i.edit_layer1(Offset(0), |e| e.phys_offset.set(0x2000_0000_0000_4000))
    }),
    error(Rule::Layer1Free, |i| {
        i.edit_layer1(Offset(0), |e| e.blocks_free.set(e.blocks_free.get() + 1))
    }),
    error(Rule::Layer2Crc, |i| {
        let (place, _) = i.layer2(i.owned_by(Zone::META));
        i.flip(Offset(place.0 + 2));
    }),
    with(
        &[Rule::Layer1Free, Rule::StatFree],
        error(Rule::Layer2Owner, |i| {
            i.edit_layer2(i.owned_by(Zone::FREE), |e| e.zone = 7)
        }),
    ),
    error(Rule::Layer2Canonical, |i| {
        i.edit_layer2(i.owned_by(Zone::FREE), |e| e.append_off.set(64))
    }),
    error(Rule::Layer2Append, |i| {
        i.edit_layer2(i.owned_by(Zone::META), |e| {
            e.append_off.set(BIGBLOCK as u32 + 16)
        })
    }),
    with(
        &[Rule::Layer2Sum],
        error(Rule::Layer2Free, |i| {
            i.edit_layer2(i.owned_by(Zone::META), |e| {
                e.bytes_free.set(BIGBLOCK as i32 + 16)
            })
        }),
    ),
    with(
        &[Rule::Layer1Free, Rule::StatFree],
        error(Rule::Layer2End, |i| {
            let end = i.header().buffer_space() / BIGBLOCK * BIGBLOCK;
            i.edit_layer2(Offset::new(Zone::RAW_BUFFER, 0, end), |e| {
                (e.zone, e.append_off, e.bytes_free) = (0, 0.into(), (BIGBLOCK as i32).into());
            });
        }),
    ),
    error(Rule::Layer2Sum, |i| {
        i.edit_layer2(i.owned_by(Zone::META), |e| {
            e.bytes_free.set(e.bytes_free.get() - 16)
        })
    }),
    error(Rule::StatFree, |i| {
        i.edit_header(|h| h.stat_freebigblocks.set(h.stat_freebigblocks.get() + 1))
    }),
    error(Rule::StatBigblocks, |i| {
        i.edit_header(|h| h.stat_bigblocks.set(h.stat_bigblocks.get() - 1))
    }),
    error(Rule::StatInodes, |i| {
        i.edit_header(|h| h.stat_inodes.set(h.stat_inodes.get() + 1))
    }),
    error(Rule::NodeAddress, |i| {
        let child = i.children()[3];
        redirect(i, 3, Offset(child.0 + 512));
    }),
    error(Rule::NodeRead, |i| {
        let at = i.byte(i.children()[3]);
        i.disk.set_unreadable(at..at + 512);
    }),
    error(Rule::NodeCrc, |i| i.flip(Offset(i.children()[3].0 + 3000))),
    error(Rule::NodeType, |i| {
        edit_child(i, 3, |e| e.base.btype = INTERNAL)
    }),
    error(Rule::NodeCount, |i| {
        i.edit_node(i.children()[3], |n| n.count.set(64))
    }),
    error(Rule::NodeShared, |i| redirect(i, 3, i.children()[2])),
    error(Rule::NodeShared, |i| redirect(i, 3, i.root())),
    error(Rule::NodeParent, |i| {
        i.edit_node(i.children()[3], |n| n.parent.set(n.parent.get() + 4096))
    }),
    error(Rule::NodeOrder, |i| {
        i.edit_node(i.children()[3], |n| n.elms.swap(3, 4))
    }),
    error(Rule::NodeBounds, |i| {
        // The separator between two leaves moves above the right one's first record.
        let first = i.node(i.children()[4]).base(1);
        edit_child(i, 4, |e| {
            e.base = Base {
                btype: e.base.btype,
                ..first
            }
        });
    }),
    error(Rule::NodeDepth, |i| deepen(i, 3)),
    warn(Rule::MirrorTid, |i| {
        let highest = i.node(i.root()).mirror_tid().0;
        i.edit_node(i.children()[3], |n| n.mirror_tid.set(highest + 16));
    }),
    error(Rule::LeafBtype, |i| {
        i.edit_leaf(&i.find(|l| live(l, rt::DATA)), |l| l.base.btype = b'L')
    }),
    error(Rule::LeafRecType, |i| {
        let last = i.records().pop().expect("records");
        i.edit_leaf(&last, |l| l.base.rec_type.set(0x30));
    }),
    error(Rule::LeafLocalization, |i| {
        let last = i.records().pop().expect("records");
        i.edit_leaf(&last, |l| l.base.localization.set(3));
    }),
    error(Rule::LeafTid, |i| {
        i.edit_leaf(&i.find(|l| live(l, rt::DATA)), |l| {
            l.base.delete_tid = l.base.create_tid
        })
    }),
    with(
        &[Rule::StatInodes],
        error(Rule::LeafVersions, |i| {
            let records = i.records();
            let pair = records.windows(2).find(|w| {
                let (a, b) = (w[0].leaf.base.key(), w[1].leaf.base.key());
                is(&w[0].leaf, rt::INODE) && a.cmp_record(&b).is_eq()
            });
            i.edit_leaf(&pair.expect("two versions")[0], |l| {
                l.base.delete_tid.set(0)
            });
        }),
    ),
    // On a slave the master's pruning can leave that.
    on(
        SLAVE,
        warn(Rule::LeafVersions, |i| {
            let records = i.records();
            let pair = records.windows(2).find(|w| {
                let (a, b) = (w[0].leaf.base.key(), w[1].leaf.base.key());
                a.localization.pfs() == 1 && is(&w[0].leaf, rt::INODE) && a.cmp_record(&b).is_eq()
            });
            let pair = pair.expect("two versions");
            let later = pair[1].leaf.base.create_tid().0 + 16;
            i.edit_leaf(&pair[0], |l| l.base.delete_tid.set(later));
        }),
    ),
    error(Rule::LeafZone, |i| {
        i.edit_leaf(&entry(i, ObjType::File), |l| {
            l.data_offset
                .set(l.data_offset().in_zone(Zone::SMALL_DATA).0)
        })
    }),
    error(Rule::LeafLength, |i| {
        i.edit_leaf(&object(i, ObjType::File, |_| true), |l| l.data_len.set(120))
    }),
    error(Rule::LeafAddress, |i| {
        i.edit_leaf(&entry(i, ObjType::File), |l| {
            l.data_offset.set(l.data_offset.get() + 8)
        })
    }),
    error(Rule::DataRead, |i| {
        let (_, block) = block(i, |_, l| l.data_len.get() == 16384);
        let at = i.byte(block.leaf.data_offset());
        i.disk.set_unreadable(at..at + 512);
    }),
    error(Rule::DataCrc, |i| {
        let (_, block) = block(i, |_, l| l.data_len.get() == 16384);
        i.flip(Offset(block.leaf.data_offset().0 + 77));
    }),
    error(Rule::DataCrc, |i| {
        i.flip(entry(i, ObjType::File).leaf.data_offset())
    }),
    with(
        &[Rule::Layer2Sum],
        error(Rule::ExtentOwner, |i| {
            i.edit_layer2(i.owned_by(Zone::SMALL_DATA), |e| e.zone = Zone::META.0)
        }),
    ),
    error(Rule::ExtentAppend, |i| {
        i.edit_layer2(i.owned_by(Zone::META), |e| {
            e.append_off.set(e.append_off.get() - 16)
        })
    }),
    with(
        &[Rule::DataCrc],
        error(Rule::ExtentOverlap, |i| {
            // An entry's data is moved 16 bytes up, onto the data of the record behind it.
            let records = i.records();
            let end = |l: &LeafElement| {
                l.data_offset.get() + mallet::format::align16(l.data_len.get() as u64)
            };
            let mut entries = records.iter().filter(|p| live(&p.leaf, rt::DIRENTRY));
            let entry = entries.find(|p| {
                records
                    .iter()
                    .any(|q| q.leaf.data_offset.get() == end(&p.leaf))
            });
            let entry = entry.expect("neighbours");
            let data = i.data(entry);
            let at = Offset(entry.leaf.data_offset().0 + 16);
            i.write(at, &data);
            i.edit_leaf(entry, |l| l.data_offset.set(at.0));
        }),
    ),
    on(
        FILES,
        with(
            &[Rule::FileShape],
            error(Rule::FileOverlap, |i| {
                // The second block of a file is said to be one that ends 8 KiB earlier.
                let (_, block) = block(i, |f, l| f.size.get() > 65536 && l.base.key.get() == 32768);
                i.edit_leaf(&block, |l| l.base.key.set(32768 - 8192));
            }),
        ),
    ),
    error(Rule::FileShape, |i| {
        let (_, block) = block(i, |f, l| f.size.get() <= 8000 && l.base.key.get() > 32);
        let len = block.leaf.data_len.get();
        // Longer by what follows it: 16 bytes more than the file has.
        let mut data = i.data(&block);
        data.extend_from_slice(&[0; 16]);
        grow(i, &block, &data, len + 16);
    }),
    on(
        FILES,
        with(
            &[Rule::FileTail],
            error(Rule::FileEnd, |i| {
                let (file, _) = block(i, |f, l| f.size.get() > 65536 && l.base.key.get() > 65536);
                edit_inode(i, &file, |f| f.size.set(20000));
            }),
        ),
    ),
    error(Rule::FileTail, |i| {
        let (file, block) = block(i, |f, l| {
            let end = l.base.key.get() as u64;
            f.size.get() < end && l.data_len.get() as u64 == end
        });
        let size = inode(i, &file).size.get() as usize;
        i.edit_data(&block, |data| data[size] = 1);
    }),
    with(
        &[Rule::EntryTarget, Rule::StatInodes],
        error(Rule::FileOwner, |i| {
            let (file, _) = block(i, |_, _| true);
            i.edit_leaf(&file, |l| {
                l.base.delete_tid.set(l.base.create_tid.get() + 1)
            });
        }),
    ),
    error(Rule::Inode, |i| {
        let file = object(i, ObjType::File, |_| true);
        edit_inode(i, &file, |f| f.version.set(2));
    }),
    error(Rule::Inode, |i| {
        let dir = object(i, ObjType::Directory, |_| true);
        edit_inode(i, &dir, |f| f.size.set(5));
    }),
    error(Rule::Nlinks, |i| {
        let file = object(i, ObjType::File, |_| true);
        edit_inode(i, &file, |f| f.nlinks.set(f.nlinks.get() + 1));
    }),
    with(
        &[Rule::Nlinks],
        error(Rule::EntryTarget, |i| {
            let entry = entry(i, ObjType::File);
            i.edit_data(&entry, |data| data[0] ^= 1);
        }),
    ),
    error(Rule::EntryType, |i| {
        i.edit_leaf(&entry(i, ObjType::File), |l| {
            l.base.obj_type = ObjType::Fifo as u8
        })
    }),
    error(Rule::EntryLocalization, |i| {
        i.edit_data(&entry(i, ObjType::File), |data| data[10] = 5)
    }),
    error(Rule::EntryKey, |i| {
        i.edit_data(&entry(i, ObjType::File), |data| data[16] ^= 1)
    }),
    with(
        &[Rule::EntryKey],
        error(Rule::EntryName, |i| {
            i.edit_data(&entry(i, ObjType::File), |data| data[16] = b'/')
        }),
    ),
    error(Rule::EntryDuplicate, duplicate_name),
    error(Rule::DirectoryParent, |i| {
        let dir = object(i, ObjType::Directory, |_| true);
        edit_inode(i, &dir, |f| f.parent_obj_id.set(f.parent_obj_id.get() + 1));
    }),
    warn(Rule::SymlinkTarget, |i| {
        let link = i.find(|l| live(l, rt::FIX));
        i.edit_leaf(&link, |l| {
            l.base.delete_tid.set(l.base.create_tid.get() + 1)
        });
    }),
    error(Rule::PfsRecord, |i| {
        let record = i.find(|l| live(l, rt::PFS));
        i.edit_data(&record, |data| {
            let (pfs, _) = PfsData::mut_from_prefix(data).expect("a PFS record");
            pfs.mirror_flags.set(0x40);
        });
    }),
    warn(Rule::Snapshot, |i| {
        let record = i.find(|l| live(l, rt::SNAPSHOT));
        i.edit_data(&record, |data| data[0] ^= 1);
    }),
    error(Rule::NextTid, |i| {
        i.edit_header(|h| h.next_tid.set(0x1_0000_0100))
    }),
];

/// Puts one more level between the root and its child `index`, in the free space at the end of a
/// B-Tree big-block.
fn deepen(image: &Image, index: usize) {
    let child = image.children()[index];
    let (root, at) = (image.root(), image.owned_by(Zone::BTREE));
    let (_, entry) = image.layer2(at);
    let end = entry.append_off.get().next_multiple_of(NODE_SIZE as u32);
    let middle = Offset(at.0 + u64::from(end)).in_zone(Zone::BTREE);
    let bounds = (
        image.node(root).elms[index],
        image.node(root).elms[index + 1],
    );
    image.write(middle, &[0; NODE_SIZE]);
    image.edit_node(middle, |node| {
        node.kind = INTERNAL;
        node.count.set(1);
        node.parent.set(root.0);
        node.mirror_tid = image.node(child).mirror_tid;
        (node.elms[0], node.elms[1]) = bounds;
    });
    image.edit_node(child, |node| node.parent.set(middle.0));
    edit_child(image, index, |e| e.base.btype = INTERNAL);
    redirect(image, index, middle);
    image.edit_layer2(at, |e| {
        e.append_off.set(end + NODE_SIZE as u32);
        e.bytes_free.set(e.bytes_free.get() - NODE_SIZE as i32);
    });
}

/// Moves a record's data, `len` bytes now, to the end of its big-block.
fn grow(image: &Image, place: &Place, data: &[u8], len: i32) {
    let at = place.leaf.data_offset();
    let (_, entry) = image.layer2(at);
    let end = entry.append_off.get().next_multiple_of(BUFFER as u32);
    let to = Offset(at.bigblock().0 + u64::from(end));
    let old = mallet::format::align16(place.leaf.data_len.get() as u64) as i32;
    let new = mallet::format::align16(len as u64) as i32;
    image.edit_layer2(at, |e| {
        e.append_off.set(end + new as u32);
        e.bytes_free.set(e.bytes_free.get() + old - new);
    });
    image.write(to, data);
    image.edit_leaf(place, |leaf| {
        leaf.data_offset.set(to.0);
        leaf.data_len.set(len);
    });
    let moved = Place {
        leaf: LeafElement {
            data_offset: to.0.into(),
            data_len: len.into(),
            ..place.leaf
        },
        ..*place
    };
    image.edit_data(&moved, |_| ());
}

/// Gives an entry that stands beside another with the same hash the other's name.
fn duplicate_name(image: &Image) {
    let records = image.records();
    let pair = records.windows(2).find(|w| {
        let (a, b) = (w[0].leaf.base.key(), w[1].leaf.base.key());
        live(&w[0].leaf, rt::DIRENTRY)
            && live(&w[1].leaf, rt::DIRENTRY)
            && a.obj_id == b.obj_id
            && b.key == a.key + 1
            && w[0].leaf.data_len == w[1].leaf.data_len
    });
    let pair = pair.expect("names that collide");
    let name = image.data(&pair[0])[16..].to_vec();
    image.edit_data(&pair[1], |data| data[16..].copy_from_slice(&name));
}

fn test(dir: &Path, case: &Case) -> Result<(), String> {
    let image = Image::over(&golden::file(dir, case.image));
    (case.plant)(&image);
    let options = Options {
        data: true,
        ..Options::default()
    };
    let (findings, _) = readers::check(image.device(), &options);
    let named =
        |f: &&mallet::check::Finding| f.fault.rule == case.rule && f.severity == case.severity;
    let all: Vec<String> = findings
        .iter()
        .map(|f| format!("  {} {} ({})", f.severity.name(), f.fault, f.detail))
        .collect();
    println!("{} on {}:\n{}", case.rule, case.image, all.join("\n"));
    let _ = readers::read_everything(image.device());
    let other = |f: &&mallet::check::Finding| {
        let expected = f.fault.rule == case.rule || case.also.contains(&f.fault.rule);
        f.severity == Severity::Error && !expected
    };
    if findings.iter().any(|f| named(&f)) && !findings.iter().any(|f| other(&f)) {
        return Ok(());
    }
    let all = all.join("\n");
    Err(format!(
        "{} on {} is not named, or others are:\n{all}",
        case.rule, case.image
    ))
}

#[test]
fn every_planted_fault_is_named() {
    let Some(dir) = golden::dir() else { return };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(text) = test(&dir, case) {
                        failures.lock().expect("no panic before").push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic before");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// An element that promises less than what is below it hides changes from incremental streams. That
/// is advisory, unless it is what was asked for.
#[test]
fn hidden_changes_are_errors_when_asked_for() {
    let image = Image::over(&golden::testdata("mirror/pfs.img"));
    let child = image.children()[1];
    let highest = image
        .node(child)
        .leaves()
        .iter()
        .map(|l| l.base.create_tid().max(l.base.delete_tid()))
        .max();
    let promise = highest.expect("records").0 - 1;
    edit_child(&image, 1, |e| {
        e.rest[..8].copy_from_slice(&promise.to_le_bytes())
    });
    for mirror_tid in [false, true] {
        let options = Options {
            mirror_tid,
            ..Options::default()
        };
        let (findings, report) = readers::check(image.device(), &options);
        let report = report.expect("a check that ends");
        let rules: BTreeSet<_> = findings.iter().map(|f| f.fault.rule).collect();
        assert_eq!(rules, BTreeSet::from([Rule::MirrorTid]), "{findings:?}");
        assert_eq!(report.errors(), u64::from(mirror_tid), "{findings:?}");
    }
}

/// A rule without a planted fault is a rule that nobody knows to work. Streams have theirs
/// elsewhere.
#[test]
fn every_rule_has_a_planted_fault() {
    let planted: BTreeSet<Rule> = CASES.iter().map(|c| c.rule).collect();
    let missing = Rule::ALL
        .iter()
        .filter(|r| **r != Rule::Stream && !planted.contains(r));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&Rule>::new());
}
