use super::*;
use proptest::prelude::*;

fn place() -> impl Strategy<Value = Place> {
    any::<(u16, i64, u16, i64)>().prop_map(|(class, obj_id, rec_type, key)| Place {
        class,
        obj_id,
        rec_type,
        key,
    })
}

fn total() -> impl Strategy<Value = Total> {
    any::<(u64, u64, [u8; 32])>().prop_map(|(count, damaged, digest)| Total {
        count,
        damaged,
        digest,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (place(), any::<(u64, u32, bool, [u8; 32])>()).prop_map(
        |(place, (tid, len, damaged, digest))| Entry {
            place,
            create_tid: Tid(tid),
            len,
            damaged,
            digest,
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let wanted = prop_oneof![
        Just(Wanted::Whole),
        (1u64..).prop_map(Wanted::Pieces),
        Just(Wanted::Records),
    ];
    let depth = prop_oneof![Just(Depth::Sums), Just(Depth::Data)];
    let range = (place(), prop::option::of(place())).prop_filter_map("a range", |(from, to)| {
        to.is_none_or(|to| from < to).then_some(Range { from, to })
    });
    (range, any::<u64>(), depth, wanted).prop_map(|(range, tid, depth, wanted)| Ask {
        range,
        as_of: Tid(tid),
        depth,
        wanted,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        total().prop_map(Answer::Whole),
        prop::collection::vec((place(), total()), 0..20).prop_map(Answer::Pieces),
        prop::collection::vec(entry(), 0..70).prop_map(Answer::Records),
    ]
}

/// Any bytes are a record's, as far as this is concerned.
fn standing() -> impl Strategy<Value = Standing> {
    let bytes = |size: usize| prop::collection::vec(any::<u8>(), size);
    let data = bytes(size_of::<PfsData>());
    let leaf = prop::option::of(bytes(size_of::<LeafElement>()));
    let rest = any::<(u32, u16, u64, Option<u64>)>();
    (data, leaf, rest).prop_map(|(data, leaf, (version, id, end, unfinished))| Standing {
        version,
        pfs: Pfs {
            id,
            data: PfsData::from_bytes(&data),
            leaf: leaf.map(|leaf| LeafElement::read_from_bytes(&leaf).expect("its size")),
            sync_end: Tid(end),
            unfinished: unfinished.map(Tid),
        },
    })
}

fn message() -> impl Strategy<Value = Message> {
    let change = prop::option::of(any::<(u64, u32, u64)>());
    prop_oneof![
        standing().prop_map(|standing| Message::Standing(Box::new(standing))),
        prop::collection::vec(ask(), 0..=ASKS_MAX).prop_map(Message::Asks),
        answer().prop_map(Message::Answer),
        any::<(u64, u64, i64)>().prop_map(|(records, bytes, object)| {
            Message::Seen(Seen {
                records,
                bytes,
                object,
            })
        }),
        any::<(u64, u64)>().prop_map(|(first, last)| Message::Newest(Tid(first), Tid(last))),
        change.prop_map(|change| {
            let change = change.map(|(tid, time, bytes)| Change {
                tid: Tid(tid),
                time,
                bytes,
            });
            Message::Changed(change)
        }),
    ]
}

fn bytes(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.append(&mut out));
    out
}

/// Everything that `bytes` say; the error, if they end with one.
fn read(bytes: &[u8]) -> (Vec<Message>, Option<Error>) {
    let mut incoming = Incoming::new(bytes);
    let mut messages = Vec::new();
    loop {
        match incoming.next() {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {
                assert_eq!(incoming.bytes(), bytes.len() as u64);
                return (messages, None);
            }
            Err(error) => return (messages, Some(error)),
        }
    }
}

proptest! {
    #[test]
    fn what_is_said_is_heard(messages in prop::collection::vec(message(), 0..6)) {
        let sent = bytes(&messages);
        let (heard, error) = read(&sent);
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(bytes(&heard), sent);
        prop_assert_eq!(format!("{heard:?}"), format!("{messages:?}"));
    }

    /// However few bytes come at a time.
    #[test]
    fn drops_make_messages(messages in prop::collection::vec(message(), 1..4)) {
        struct Drops<'b>(&'b [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let most = buf.len().min(3);
                self.0.read(&mut buf[..most])
            }
        }
        let sent = bytes(&messages);
        let mut incoming = Incoming::new(Drops(&sent));
        let mut heard = Vec::new();
        while let Some(message) = incoming.next().expect("a message") {
            heard.push(message);
        }
        prop_assert_eq!(bytes(&heard), sent);
    }

    #[test]
    fn sizes_are_those_of_the_bytes(
        answer in answer(),
        asks in prop::collection::vec(ask(), 1..200),
    ) {
        prop_assert_eq!(answer_size(&answer), bytes(&[Message::Answer(answer)]).len() as u64);
        let parts = asks.chunks(ASKS_MAX).map(|some| Message::Asks(some.to_vec()));
        let sent = bytes(&parts.collect::<Vec<_>>());
        prop_assert_eq!(asks_size(asks.len()), sent.len() as u64);
    }

    /// A byte that is not what it was is noticed, wherever it is.
    #[test]
    fn wrong_bytes_are_refused(message in message(), at: prop::sample::Index, flip in 1u8..) {
        let mut sent = bytes(&[message]);
        let at = at.index(sent.len());
        sent[at] ^= flip;
        let (heard, error) = read(&sent);
        prop_assert!(heard.is_empty());
        let error = error.expect("an error");
        prop_assert_eq!(error.class(), Class::Protocol, "{}", error);
    }

    #[test]
    fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 1..400)) {
        let (heard, error) = read(&garbage);
        prop_assert!(heard.is_empty());
        prop_assert_eq!(error.expect("an error").class(), Class::Protocol);
    }

    /// A body that is any bytes, with a head that is right.
    #[test]
    fn bodies_of_anything_do_no_harm(kind: u8, body in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Some(message) = Message::parse(kind, &body) {
            let again = bytes(&[message]);
            prop_assert_eq!(again[1], kind);
            // What need not be there may be anything.
            prop_assert_eq!(again.len(), HEAD + body.len());
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let sent = bytes(&[
        Message::Newest(Tid(1), Tid(9)),
        Message::Asks(vec![Ask {
            range: Range::ALL,
            as_of: Tid(9),
            depth: Depth::Data,
            wanted: Wanted::Records,
        }]),
        Message::Changed(None),
    ]);
    let mut whole = 0;
    for cut in 0..sent.len() {
        let (heard, error) = read(&sent[..cut]);
        match error {
            None => assert_eq!(bytes(&heard).len(), cut),
            Some(error) => {
                assert_eq!(error.class(), Class::Protocol, "cut at {cut}");
                let text = error.to_string();
                let start = format!("at byte {}: it ends", bytes(&heard).len());
                assert!(text.contains(&start), "cut at {cut}: {text}");
            }
        }
        whole = whole.max(heard.len());
    }
    assert_eq!(whole, 2);
}

/// What a right CRC does not excuse.
#[test]
fn lies_are_refused() {
    let framed = |kind: u8, body: &[u8]| {
        let mut out = vec![VERSION, kind, 0, 0];
        out.extend((body.len() as u32).to_le_bytes());
        let sum = CrcKind::Ieee.sum2(&out, body);
        out.extend(sum.to_le_bytes());
        out.extend(body);
        out
    };
    let ask = |change: &dyn Fn(&mut Ask)| {
        let mut ask = Ask {
            range: Range::ALL,
            as_of: Tid(9),
            depth: Depth::Sums,
            wanted: Wanted::Whole,
        };
        change(&mut ask);
        bytes(&[Message::Asks(vec![ask])])
    };
    assert_eq!(read(&ask(&|_| {})).0.len(), 1);
    let mut many = ((ASKS_MAX + 1) as u16).to_le_bytes().to_vec();
    many.resize(2 + (ASKS_MAX + 1) * ASK, 0);
    let mut records = vec![2];
    records.extend(((PARTS_MAX + 1) as u32).to_le_bytes());
    records.resize(5 + (PARTS_MAX + 1) * ENTRY, 0);
    let lies = [
        ("no pieces", ask(&|ask| ask.wanted = Wanted::Pieces(0))),
        (
            "an empty range",
            ask(&|ask| ask.range.to = Some(ask.range.from)),
        ),
        ("too many questions", framed(2, &many)),
        ("too many records", framed(3, &records)),
        ("a count without records", framed(3, &[2, 255, 255, 0, 0])),
        ("an unknown kind", framed(99, &[])),
        ("more than a body", framed(5, &[0; 17])),
        ("less than a body", framed(5, &[0; 15])),
        ("a flag of 2", framed(6, &[2; 21])),
    ];
    for (what, sent) in lies {
        let (heard, error) = read(&sent);
        assert!(heard.is_empty(), "{what}: {heard:?}");
        let error = error.expect(what);
        assert_eq!(error.class(), Class::Protocol, "{what}: {error}");
    }
    // A length that nothing has: refused before there is room made for it.
    let mut sent = framed(3, &[]);
    sent[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = read(&sent).1.expect("an error").to_string();
    assert!(error.contains("a message of up to"), "{error}");
    // Something else speaks there.
    let error = read(b"Welcome to attic\n").1.expect("an error").to_string();
    assert!(error.contains("expected 1, the version"), "{error}");
}
