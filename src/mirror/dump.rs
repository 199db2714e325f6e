//! What a stream holds (`mirror-dump`): the records, checked to follow each other as they must,
//! and their text.

use super::wire::{Record, Records, broken};
use crate::error::Result;
use crate::format::mrecord::Body;
use crate::format::node::{Base, LeafElement};
use crate::format::{Key, Localization};
use std::fmt;
use std::io::Read;

/// What a stream's next record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A batch or the end.
    Between,
    /// The second PFSD.
    Opening,
    /// Records of the B-Tree, or the end of the batch.
    Bulk,
    /// Nothing.
    Over,
}

/// Checks that the records of a stream follow each other as they must (mirroring.md §6.1), and that
/// keys ascend within a batch: a target that applied others would delete what it should keep.
#[derive(Debug)]
pub struct Grammar {
    state: State,
    /// End of the last record of the batch; the flag: the next one may begin right there.
    last: Option<(Key, bool)>,
    /// Batches that ended with SYNC.
    pub synced: u64,
    /// Batches that ended otherwise: without work, or stopped.
    pub unsynced: u64,
    /// Whether the last batch was stopped: TERM without SYNC or IDLE.
    pub stopped: bool,
}

impl Default for Grammar {
    fn default() -> Grammar {
        Grammar {
            state: State::Between,
            last: None,
            synced: 0,
            unsynced: 0,
            stopped: false,
        }
    }
}

impl Grammar {
    /// Takes the next record; `at` is its byte offset. Errors are of class `Protocol`.
    pub fn take(&mut self, body: &Body<'_>, at: u64) -> Result<()> {
        self.state = match (self.state, body) {
            (State::Between, Body::Pfsd(pfsd)) if pfsd.version.get() == 1 => State::Opening,
            (State::Opening, Body::Pfsd(pfsd)) if pfsd.version.get() == 1 => {
                self.last = None;
                State::Bulk
            }
            (_, Body::Pfsd(pfsd)) if pfsd.version.get() != 1 => {
                let version = pfsd.version.get();
                return Err(broken(at, format!("PFSD of version {version}, not 1")));
            }
            (State::Between, Body::Term) => State::Over,
            (State::Opening | State::Bulk, Body::Term) => {
                self.unsynced += 1;
                self.stopped = true;
                State::Over
            }
            (State::Bulk, Body::Sync) => {
                self.synced += 1;
                State::Between
            }
            (State::Bulk, Body::Idle) => {
                self.unsynced += 1;
                State::Between
            }
            (State::Bulk, Body::Record { nodata: true, .. }) => {
                return Err(broken(
                    at,
                    "a record without its data, as only prescans have",
                ));
            }
            (State::Bulk, Body::Record { leaf, .. } | Body::Pass(leaf)) => {
                self.ascend(&leaf.base, &leaf.base, false, at)?;
                State::Bulk
            }
            (State::Bulk, Body::Skip { from, to }) => {
                self.ascend(from, to, true, at)?;
                State::Bulk
            }
            (state, body) => {
                let expected = match state {
                    State::Between => "the PFSD of a batch or TERM",
                    State::Opening => "the second PFSD of a batch or TERM",
                    State::Bulk => "REC, PASS, SKIP, SYNC, IDLE or TERM",
                    State::Over => "the end of the bytes behind TERM",
                };
                return Err(broken(
                    at,
                    format!("{} where {expected} belongs", name(body)),
                ));
            }
        };
        Ok(())
    }

    /// Takes the end of the bytes, at byte `at`.
    pub fn end(&self, at: u64) -> Result<()> {
        match self.state {
            State::Over => Ok(()),
            _ => Err(broken(at, "it ends without TERM; it was cut off")),
        }
    }

    fn ascend(&mut self, from: &Base, to: &Base, before: bool, at: u64) -> Result<()> {
        let (from, to) = (local(from), local(to));
        let in_order = match self.last {
            None => true,
            Some((last, true)) => from >= last,
            Some((last, false)) => from > last,
        };
        if !in_order || from > to {
            return Err(broken(at, format!("keys do not ascend at {from}")));
        }
        self.last = Some((to, before));
        Ok(())
    }
}

/// The key as targets see it: which PFS it came from does not matter to them.
fn local(base: &Base) -> Key {
    let mut key = base.key();
    key.localization = Localization(u32::from(key.localization.class()));
    key
}

/// A record's name.
pub fn name(body: &Body<'_>) -> &'static str {
    match body {
        Body::Record { .. } => "REC",
        Body::Pfsd(_) => "PFSD",
        Body::Update(_) => "UPDATE",
        Body::Sync => "SYNC",
        Body::Skip { .. } => "SKIP",
        Body::Pass(_) => "PASS",
        Body::Term => "TERM",
        Body::Idle => "IDLE",
        Body::Source(_) => "SOURCE",
        Body::Cursor { .. } => "CURSOR",
        Body::Alive => "ALIVE",
        Body::Unreadable { .. } => "UNREADABLE",
    }
}

/// A whole stream, record by record.
pub struct Dump<R> {
    records: Records<R>,
    grammar: Grammar,
}

impl<R: Read> Dump<R> {
    /// Reads the stream that `from` gives.
    pub fn new(from: R) -> Dump<R> {
        Dump {
            records: Records::new(from),
            grammar: Grammar::default(),
        }
    }

    /// The next record; `None` at the end of a whole stream. Errors are of class `Protocol` (these
    /// bytes are no stream, or end too early) or `Io`.
    #[allow(clippy::should_implement_trait)] // what is given borrows from the reader
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        let at = self.records.offset();
        match self.records.next()? {
            Some(record) => {
                self.grammar.take(&record.body, record.at)?;
                Ok(Some(record))
            }
            None => {
                self.grammar.end(at)?;
                Ok(None)
            }
        }
    }

    /// What is known of the batches so far.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }
}

/// A record as the lines that the original prints for it (mirroring.md §9.9); nothing for records
/// of the session. Bad data is marked whatever flag says so; the original knows one that its own
/// kernel does not set.
pub struct Text<'a, 'b>(pub &'a Body<'b>);

impl fmt::Display for Text<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Body::Record { leaf, bad, .. } => {
                let mark = if *bad { " (BAD CRC)" } else { "" };
                element(f, "Record", leaf, mark)
            }
            Body::Pass(leaf) => element(f, "Pass  ", leaf, ""),
            Body::Skip { from, to } => {
                bound(f, "Skip  ", from)?;
                writeln!(f, " to")?;
                bound(f, "      ", to)?;
                writeln!(f)
            }
            _ => Ok(()),
        }
    }
}

fn bound(f: &mut fmt::Formatter<'_>, word: &str, base: &Base) -> fmt::Result {
    write!(
        f,
        "{word} lo={:08x} obj={:016x} key={:016x} rt={:02x}",
        base.localization, base.obj_id, base.key, base.rec_type
    )
}

fn element(f: &mut fmt::Formatter<'_>, word: &str, leaf: &LeafElement, mark: &str) -> fmt::Result {
    bound(f, word, &leaf.base)?;
    writeln!(f, " ot={:02x}{mark}", leaf.base.obj_type)?;
    writeln!(
        f,
        "       tids {:016x}:{:016x} data={}",
        leaf.base.create_tid, leaf.base.delete_tid, leaf.data_len
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::format::Tid;
    use crate::format::mrecord::{self, Kind};
    use crate::format::record::PfsData;
    use zerocopy::FromZeros;

    fn leaf(obj: i64) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base = Base::from_key(Key {
            localization: Localization::new(3, 2),
            obj_id: obj,
            rec_type: 0x10,
            key: -2,
            create_tid: Tid(0x50),
        });
        leaf.base.obj_type = 2;
        leaf.base.delete_tid.set(0x60);
        leaf.data_len.set(3);
        leaf.data_offset.set(1);
        leaf
    }

    /// A stream from a word a record; a digit makes a PASS of that object.
    fn stream(words: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for word in words.split_whitespace() {
            match word {
                "pfsd" => mrecord::append_pfsd(&mut out, &PfsData::default_for([1; 16]), 0),
                "rec" => mrecord::append_record(&mut out, &leaf(5), b"abc", 0),
                "bad" => mrecord::append_record(&mut out, &leaf(6), b"abc", 0xc000_0000),
                "nodata" => mrecord::append_record(&mut out, &leaf(6), b"", mrecord::NODATA),
                "skip" => mrecord::append_skip(&mut out, &leaf(7).base, &leaf(9).base),
                "backwards" => mrecord::append_skip(&mut out, &leaf(9).base, &leaf(7).base),
                "sync" => mrecord::append_mark(&mut out, Kind::Sync),
                "idle" => mrecord::append_mark(&mut out, Kind::Idle),
                "term" => mrecord::append_mark(&mut out, Kind::Term),
                "update" => mrecord::append_update(&mut out, 9),
                object => mrecord::append_pass(&mut out, &leaf(object.parse().unwrap())),
            }
        }
        out
    }

    fn dump(stream: &[u8]) -> Result<(String, bool)> {
        let mut dump = Dump::new(stream);
        let mut text = String::new();
        while let Some(record) = dump.next()? {
            text += &Text(&record.body).to_string();
        }
        Ok((text, dump.grammar().stopped))
    }

    #[test]
    fn lines() {
        let words = "pfsd pfsd 1 rec bad skip sync pfsd pfsd idle term";
        let (text, stopped) = dump(&stream(words)).unwrap();
        let tids = "       tids 0000000000000050:0000000000000060 data=3\n";
        let line = |obj| format!("lo=00030002 obj={obj:016x} key=fffffffffffffffe rt=10");
        let expected = [
            format!("Pass   {} ot=02\n{tids}", line(1)),
            format!("Record {} ot=02\n{tids}", line(5)),
            format!("Record {} ot=02 (BAD CRC)\n{tids}", line(6)),
            format!("Skip   {} to\n       {}\n", line(7), line(9)),
        ];
        assert_eq!(text, expected.concat());
        assert!(!stopped);
    }

    #[test]
    fn whole_streams_pass() {
        for words in ["term", "pfsd pfsd sync term", "pfsd pfsd skip 9 sync term"] {
            assert!(!dump(&stream(words)).unwrap().1, "{words}");
        }
        for words in ["pfsd term", "pfsd pfsd term", "pfsd pfsd 1 term"] {
            assert!(dump(&stream(words)).unwrap().1, "{words}: stopped");
        }
    }

    #[test]
    fn others_do_not() {
        for (words, complaint) in [
            ("", "without TERM"),
            ("pfsd", "without TERM"),
            ("pfsd pfsd 1", "without TERM"),
            ("pfsd pfsd 1 sync", "without TERM"),
            ("pfsd 1 sync term", "PASS where the second PFSD"),
            ("pfsd pfsd pfsd sync term", "PFSD where REC"),
            ("rec sync term", "REC where"),
            ("pfsd pfsd sync term term", "TERM where the end"),
            ("pfsd pfsd update term", "UPDATE where"),
            ("pfsd pfsd nodata sync term", "prescans"),
            ("pfsd pfsd 2 1 sync term", "do not ascend"),
            ("pfsd pfsd 2 2 sync term", "do not ascend"),
            ("pfsd pfsd skip 8 sync term", "do not ascend"),
            ("pfsd pfsd backwards sync term", "do not ascend"),
        ] {
            let error = dump(&stream(words)).unwrap_err();
            assert_eq!(error.class(), Class::Protocol);
            assert!(error.to_string().contains(complaint), "{words}: {error}");
        }
        // Two batches may be about the same keys.
        assert!(dump(&stream("pfsd pfsd 2 sync pfsd pfsd 1 sync term")).is_ok());
    }
}
