//! Conversations about what PFSs hold.

use mallet::format::record::PfsData;
use mallet::format::{Tid, record::rt};
use mallet::fs::pfs::Pfs;
use mallet::mirror::lag::Change;
use mallet::mirror::verify::{
    Answer, Ask, Depth, Entry, Message, Place, Range, Seen, Standing, Total, Wanted,
};

/// One with every kind of question and answer, and one about what changed.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |messages: &[Message]| {
        let mut out = Vec::new();
        messages.iter().for_each(|message| message.append(&mut out));
        out
    };
    let mut data = PfsData::default_for([3; 16]);
    data.mirror_flags.set(PfsData::SLAVE);
    let standing = Message::Standing(Box::new(Standing {
        version: 7,
        pfs: Pfs {
            id: 1,
            data,
            leaf: None,
            sync_end: Tid(0x100),
            unfinished: None,
        },
    }));
    let changed = [
        Message::Newest(Tid(1), Tid(0x100)),
        Message::Changed(Some(Change {
            tid: Tid(0x90),
            time: 1_600_000_000,
            bytes: 4096,
        })),
        Message::Newest(Tid(0x91), Tid(0x100)),
        Message::Changed(None),
    ];
    let changed = bytes(&[&[standing.clone()][..], &changed].concat());
    vec![
        ("ranges", bytes(&[&[standing][..], &ranges()].concat())),
        ("changes", changed),
    ]
}

fn ranges() -> [Message; 5] {
    let place = |obj_id| Place {
        class: 2,
        obj_id,
        rec_type: rt::DATA,
        key: 16384,
    };
    let total = |count| Total {
        count,
        damaged: 0,
        digest: [count as u8; 32],
    };
    let ask = |to, depth, wanted| Ask {
        range: Range {
            from: Place::MIN,
            to,
        },
        as_of: Tid(0x100),
        depth,
        wanted,
    };
    let entry = |obj_id| Entry {
        place: place(obj_id),
        create_tid: Tid(0x80),
        len: 16384,
        damaged: obj_id == 2,
        digest: [9; 32],
    };
    [
        Message::Asks(vec![
            ask(None, Depth::Sums, Wanted::Whole),
            ask(None, Depth::Data, Wanted::Pieces(16)),
            ask(Some(place(7)), Depth::Data, Wanted::Records),
        ]),
        Message::Answer(Answer::Whole(total(20))),
        Message::Seen(Seen {
            records: 20,
            bytes: 1 << 20,
            object: 5,
        }),
        Message::Answer(Answer::Pieces(vec![
            (place(1), total(16)),
            (place(9), total(4)),
        ])),
        Message::Answer(Answer::Records(vec![entry(1), entry(2), entry(3)])),
    ]
}
