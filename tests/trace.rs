//! The order of writes of a checkpoint: what `on-disk-format.md` says of a transaction of one
//! record is what reaches the disk.

mod common;

use common::build::files;
use common::crash::scenario::{NOW, base, options, volumes};
use common::crash::state::{Plain, Source};
use common::slave;
use mallet::btree::Editor;
use mallet::btree::put::{self, NewRecord};
use mallet::format::freemap::{Layer1, Layer2, layer1_entry, layer2_entry};
use mallet::format::mrecord::Body;
use mallet::format::node::Base;
use mallet::format::record::{ObjType, rt};
use mallet::format::{BIGBLOCK, Key, Localization, Offset, ROOT_OBJ, Zone};
use mallet::io::sim::{Event, SimDisk};
use mallet::mirror::wire::Records;
use mallet::mirror::write::{Edge, Report, write};
use mallet::store::{Fetch, Store};
use std::io::Write;
use std::path::Path;
use zerocopy::{FromBytes, IntoBytes};

/// The trace in the document, below this heading: one event a line, words apart by spaces.
fn documented(heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("on-disk-format.md");
    let text = std::fs::read_to_string(path).expect("on-disk-format.md");
    let (_, rest) = text.split_once(heading).expect("the heading");
    let (_, rest) = rest.split_once("```text\n").expect("a block of text");
    let (block, _) = rest.split_once("```").expect("its end");
    let lines = block.lines().map(|line| {
        // What a line means follows behind a semicolon.
        let (event, _) = line.split_once(';').unwrap_or((line, ""));
        event.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// What lies at byte `at` of `disk`.
fn what(disk: &SimDisk, at: u64) -> String {
    if at == 0 {
        return "header -".into();
    }
    let images = [disk.clone()];
    let mut plain = Plain::new(&images);
    let root = plain.root();
    let short = at - root.buf_beg.get().cast_unsigned();
    let place = Offset::new(Zone::RAW_BUFFER, 0, short - short % BIGBLOCK);
    let freemap = Offset(root.zone(Zone::FREEMAP).phys_offset.get());
    let bytes = plain.get(layer1_entry(freemap, place), size_of::<Layer1>());
    let layer1 = Layer1::read_from_bytes(&bytes.expect("an entry")).expect("its length");
    let entry = layer2_entry(layer1.array(), place);
    let bytes = plain.get(entry, size_of::<Layer2>()).expect("an entry");
    let layer2 = Layer2::read_from_bytes(&bytes).expect("its length");
    let name = match layer2.owner() {
        Zone::UNDO => "log",
        Zone::FREEMAP => "freemap",
        Zone::BTREE => "nodes",
        Zone::META => "metadata",
        Zone::LARGE_DATA => "data",
        other => panic!("a write to zone {other:?}"),
    };
    format!("{name} {}", layer2.owner().0)
}

/// What a transaction of one record does to a volume of `version`.
fn traced(version: u32) -> Vec<String> {
    let disk = base(version, &[104 << 20], 1).remove(0);
    let set = volumes(std::slice::from_ref(&disk), 0).expect("a volume");
    let mut store = Store::open(set, &options()).expect("a store");
    let mut editor = Editor::new();
    let mut insert = |obj_id: i64, rec_type: u16, class: u16, key: i64, data: &[u8]| {
        let mut txn = store.begin(NOW).expect("a transaction");
        let mut base = Base::from_key(Key {
            localization: Localization::new(0, class),
            obj_id,
            rec_type,
            key,
            create_tid: txn.tid(),
        });
        base.obj_type = ObjType::File as u8;
        let record = NewRecord {
            base,
            create_ts: txn.now_seconds(),
            delete_ts: 0,
            data,
            crc: None,
        };
        put::create(&mut editor, &mut txn, &record).expect("a record");
        txn.commit().expect("a commit");
        let header = *store.view().header();
        header.zone(Zone::UNDO).next_offset.get() % 16384
    };
    let inode = files::inode(version, ObjType::File, ROOT_OBJ, mallet::format::Tid(1));
    let class = Localization::INODE;
    insert(1 << 40, rt::INODE, class, 0, inode.as_bytes());
    // The first transactions begin a session and big-blocks; then until a buffer of the log begins.
    let mut end = 0;
    let mut data = || {
        end += 16384;
        insert(
            1 << 40,
            rt::DATA,
            Localization::MISC,
            end,
            &[end as u8; 16384],
        )
    };
    while data() != 0 {}
    disk.forget_log();
    data();
    let events = disk.log().into_iter().map(|event| match event {
        Event::Write { at, bytes } => format!("write {} {}", what(&disk, at), bytes.len()),
        Event::Flush => "flush".to_owned(),
    });
    events.collect()
}

#[test]
fn a_transaction_of_one_record() {
    let heading = "### 18.3 ";
    let traced = traced(7);
    assert_eq!(
        traced,
        documented(heading),
        "traced:\n{}",
        traced.join("\n")
    );
}

/// Before version 4 the header must say where the log ends before anything else changes.
#[test]
fn a_transaction_before_version_4() {
    let mut expected = documented("### 18.3 ");
    let first = expected.iter().position(|line| line == "flush");
    let behind = first.expect("a flush") + 1;
    expected.splice(
        behind..behind,
        ["write header - 4096", "flush"].map(str::to_owned),
    );
    assert_eq!(traced(3), expected);
}

/// Notes what a slave says, and after how many events of its disk.
struct Said<'a> {
    disk: &'a SimDisk,
    records: Vec<(usize, String)>,
}

impl Write for Said<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let mut records = Records::new(buf);
        let record = records.next().expect("a sound record");
        let name = match record.expect("a whole one").body {
            Body::Pfsd(_) => "PFSD".to_owned(),
            Body::Update(tid) => format!("UPDATE {tid}"),
            other => panic!("a slave says {other:?}"),
        };
        self.records.push((self.disk.now(), name));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a slave has it says behind the last flush of the checkpoint, with nothing on its way; that
/// it has nothing new it says without writing anything.
#[test]
fn an_acknowledgement_comes_last() {
    let disk = slave::fresh(7, [3; 16]);
    let mut store = slave::store(&disk);
    for (stream, writes) in [(slave::made(20, 20, 0..3), true), (slave::idle(20), false)] {
        disk.forget_log();
        let (request, mut report) = (slave::plain(), Report::default());
        let mut edge = Edge {
            now: &mut || NOW,
            progress: &mut (),
            events: &mut |_| Ok(()),
            make: &mut |_, _| panic!("the slave is there"),
        };
        let mut said = Said {
            disk: &disk,
            records: Vec::new(),
        };
        let answers = Some(&mut said as &mut dyn Write);
        let ended = write(
            &mut store,
            &stream[..],
            answers,
            &request,
            &mut edge,
            &mut report,
        );
        ended.expect("a stream that is applied");
        let all = disk.log().len();
        let expected = [(0, "PFSD"), (all, "UPDATE 20")].map(|(at, name)| (at, name.to_owned()));
        assert_eq!(said.records, expected);
        assert_eq!(all > 0, writes);
        if writes {
            // The log; the changes; the header alone.
            let log = disk.log();
            let mut phases = log.split(|event| *event == Event::Flush);
            let header = phases.nth_back(1).expect("a phase");
            let at = |event: &Event| matches!(event, Event::Write { at: 0, .. });
            assert!(header.len() == 1 && at(&header[0]) && log.last() == Some(&Event::Flush));
        }
    }
}
