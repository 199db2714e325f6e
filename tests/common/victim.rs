//! A small slave and the streams for it, made with the library alone: what hostile streams are made
//! of and applied to. The volume has another PFS beside the slave, which must not notice.

use mallet::btree::{Cursor, good_data};
use mallet::error::Result;
use mallet::format::node::LeafElement;
use mallet::format::record::{PfsData, rt};
use mallet::format::{Key, Tid};
use mallet::fs::change::{self, Owner, Removal};
use mallet::fs::import::{self, Origin};
use mallet::fs::newfs::{NewFs, newfs};
use mallet::fs::operation::{self, Operation};
use mallet::fs::pfs;
use mallet::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::mirror::wire::Sink;
use mallet::mirror::write::{Edge, Report, Request, write};
use mallet::mirror::{self, Clock, SourcePfs, Window};
use mallet::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::io::Cursor as Bytes;
use std::time::Duration;

/// The master, on the source's volume, and the slave, on the victim.
pub const PFS: u16 = 1;
/// The PFS beside the slave.
pub const OTHER: u16 = 2;
/// Microseconds since 1970.
pub const NOW: u64 = 1_700_000_000_000_000;
const OWNER: Owner = Owner {
    uid: 1001,
    gid: 1002,
};

/// What is tried, and on what.
pub struct Victim {
    /// The volume, with a slave that has what `first` brings.
    pub disk: SimDisk,
    /// All of the master's history, at first and in the end.
    pub first: Vec<u8>,
    pub full: Vec<u8>,
    /// What lies between.
    pub between: Vec<u8>,
    /// The windows' ends.
    pub ends: [Tid; 2],
}

impl Victim {
    /// Makes all of it anew.
    pub fn new(version: u32) -> Victim {
        let source = volume(version);
        master(&source, PFS);
        fill(&source, PFS);
        let first_end = end(&source);
        let first = stream(&source, Tid(1), first_end);
        alter(&source, PFS);
        let last_end = end(&source);
        let disk = volume(version);
        slave(&disk, shared(&source));
        master(&disk, OTHER);
        fill(&disk, OTHER);
        let (report, ended) = apply(&disk, &first, true);
        ended.expect("a stream that is applied");
        assert_eq!(report.acknowledged, Some(first_end));
        Victim {
            disk,
            full: stream(&source, Tid(1), last_end),
            between: stream(&source, first_end.next(), last_end),
            first,
            ends: [first_end, last_end],
        }
    }
}

/// A fresh file system.
pub fn volume(version: u32) -> SimDisk {
    let disk = SimDisk::new(192 << 20);
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    let what = NewFs {
        label: b"victim".to_vec(),
        version,
        undo_bytes: Some(8 << 20),
        fsid: [7; 16],
        now: NOW,
    };
    newfs(&mut devices, &what).expect("a file system");
    disk.forget_log();
    disk
}

/// The disk opened for writing, with so little memory that long transactions come in parts.
pub fn open(disk: &SimDisk) -> Result<Store> {
    let set = VolumeSet::open(vec![Box::new(disk.device(1))])?;
    let options = StoreOptions {
        cache_bytes: 4 << 20,
        readahead_bytes: 1 << 20,
        dirty_bytes: 256 << 10,
        ..StoreOptions::default()
    };
    Store::open(set, &options)
}

/// The disk read.
pub fn view(disk: &SimDisk) -> Result<View> {
    let set = VolumeSet::open(vec![Box::new(disk.reader(1))])?;
    View::open(set, &ViewOptions::default())
}

fn sound(disk: &SimDisk) -> Store {
    open(disk).expect("a sound volume")
}

fn create(disk: &SimDisk, id: u16, kind: Kind, shared: [u8; 16]) {
    let settings = Settings {
        shared_uuid: Some(shared),
        label: Some(format!("pfs{id}").into_bytes()),
        ..Settings::default()
    };
    let new = NewPfs {
        kind,
        id: Some(id),
        fresh: [shared, [id as u8 ^ 0x55; 16]],
        settings: &settings,
        link: None,
    };
    pfs_ops::create(&mut sound(disk), &new, NOW).expect("a PFS");
}

/// Makes a master PFS.
pub fn master(disk: &SimDisk, id: u16) {
    create(disk, id, Kind::Master, [id as u8; 16]);
}

/// Makes the slave of the master with this uuid.
pub fn slave(disk: &SimDisk, shared: [u8; 16]) {
    create(disk, PFS, Kind::Slave, shared);
}

fn record(disk: &SimDisk) -> pfs::Pfs {
    let mut view = view(disk).expect("a sound volume");
    pfs::load(&mut view, PFS).expect("a table").expect("a PFS")
}

fn shared(disk: &SimDisk) -> [u8; 16] {
    record(disk).data.shared_uuid
}

/// The last TID that PFS 1 can give, or has.
pub fn end(disk: &SimDisk) -> Tid {
    record(disk).sync_end
}

/// Changes PFS `id`.
pub fn change<T>(
    store: &mut Store,
    id: u16,
    body: impl FnOnce(&mut Operation<'_>) -> Result<T>,
) -> Result<T> {
    operation::run(store, id, NOW, body).map(|(value, _)| value)
}

/// Calls `work` with the request to copy these bytes.
fn request<T>(bytes: &[u8], path: &[u8], work: impl FnOnce(import::Request<'_>) -> T) -> T {
    work(import::Request {
        origin: Origin::Stream(Box::new(Bytes::new(bytes.to_vec()))),
        path,
        keep_tail: false,
        volumes: &[],
        owner: OWNER,
        events: &mut |_, _| {},
        progress: &mut (),
    })
}

/// Writes a file.
pub fn put(op: &mut Operation<'_>, path: &[u8], bytes: &[u8]) -> Result<()> {
    request(bytes, path, |request| import::put(op, request)).map(|_| ())
}

/// Writes behind the end of a file.
pub fn append(op: &mut Operation<'_>, path: &[u8], bytes: &[u8]) -> Result<()> {
    request(bytes, path, |request| import::append(op, request)).map(|_| ())
}

/// Removes a path with everything below.
pub fn remove(op: &mut Operation<'_>, path: &[u8]) -> Result<()> {
    let how = Removal {
        recursive: true,
        missing_ok: false,
    };
    change::remove(op, path, how, &mut ()).map(|_| ())
}

/// Makes a directory.
pub fn directory(op: &mut Operation<'_>, path: &[u8]) -> Result<()> {
    change::make_directory(op, path, false, OWNER)
}

/// Directories, files of some sizes, links and symlinks; enough for a tree of two levels.
pub fn fill(disk: &SimDisk, id: u16) {
    let mut store = sound(disk);
    let made = change(&mut store, id, |op| {
        for dir in 0..4 {
            let path = format!("/dir{dir}");
            directory(op, path.as_bytes())?;
            for (n, size) in [10, 9000, 40_000, 17, 1_200_000].into_iter().enumerate() {
                let size = if dir > 0 { size.min(9000) } else { size };
                let path = format!("{path}/file{n}");
                put(op, path.as_bytes(), &vec![b'a' + n as u8; size])?;
            }
        }
        change::link(op, b"/dir0/file0", b"/dir1/linked")?;
        change::symlink(op, b"dir0/file1", b"/symlink", OWNER)
    });
    made.expect("files");
    disk.forget_log();
}

/// Changes something of everything, in a few operations.
pub fn alter(disk: &SimDisk, id: u16) {
    let mut store = sound(disk);
    let altered = change(&mut store, id, |op| {
        put(op, b"/dir0/file2", &[b'x'; 45_000])?;
        append(op, b"/dir1/file1", &[b'y'; 9000])?;
        remove(op, b"/dir2")?;
        change::rename(op, b"/dir0/file3", b"/dir3/moved")
    });
    altered.expect("changes");
    let altered = change(&mut store, id, |op| {
        directory(op, b"/new")?;
        put(op, b"/new/file", &[b'z'; 20_000])?;
        remove(op, b"/dir1/linked")
    });
    altered.expect("changes");
    disk.forget_log();
}

/// Time stands still.
struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

/// PFS 1 as a stream.
pub fn stream(disk: &SimDisk, begin: Tid, end: Tid) -> Vec<u8> {
    let mut view = view(disk).expect("a sound volume");
    let pfs = SourcePfs::from(&record(disk));
    let request = mirror::Request {
        pfs,
        window: Window {
            begin,
            end,
            resume: None,
        },
        split: None,
        accept_damage: false,
        live: false,
    };
    let mut out = Vec::new();
    let mut edge = mirror::Edge {
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_| {},
    };
    let mut sink = Sink::new(&mut out, None);
    mirror::run(&mut view, &request, &mut sink, &mut edge).expect("a stream");
    out
}

/// Applies a stream to the slave; the report, and how it ended.
pub fn apply(disk: &SimDisk, stream: &[u8], force: bool) -> (Report, Result<()>) {
    let mut report = Report::default();
    let mut store = match open(disk) {
        Ok(store) => store,
        Err(error) => return (report, Err(error)),
    };
    let mut edge = Edge {
        now: &mut || NOW,
        progress: &mut (),
        events: &mut |_| Ok(()),
        make: &mut |_, _: &PfsData| Ok(()),
    };
    let request = Request {
        pfs: PFS,
        force,
        terms: Default::default(),
        announces: Default::default(),
        group: Default::default(),
    };
    let ended = write(&mut store, stream, None, &request, &mut edge, &mut report);
    disk.forget_log();
    (report, ended)
}

/// The elements of a PFS with their data, but the slave's own PFS record.
pub fn elements(view: &mut View, id: u16) -> Vec<(LeafElement, Vec<u8>)> {
    let mut cursor = Cursor::new(Key::pfs_min(id), Key::pfs_max(id));
    let mut all = Vec::new();
    while let Some(leaf) = cursor.next(view).expect("a readable tree") {
        let own =
            leaf.base.rec_type.get() == rt::PFS && leaf.base.key.get() == PfsData::record_key(PFS);
        if !(own && id == 0) {
            let data = good_data(view, &leaf).expect("good data");
            all.push((leaf, data.to_vec()));
        }
    }
    all
}
