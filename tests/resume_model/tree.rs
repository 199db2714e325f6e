//! A B-Tree of records with versions, as HAMMER keeps it: narrow nodes whose bounds can be narrower
//! than their parent's, `mirror_tid` in every node and every element (format.md §10.3–10.8).

use std::collections::BTreeMap;

/// What a record is found by: a key and the TID that created it.
pub type Key = (u16, u32);
pub const MIN: Key = (0, 0);
pub const MAX: Key = (u16::MAX, u32::MAX);

const LEAF: usize = 4;
const INNER: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rec {
    pub key: Key,
    /// 0: not deleted.
    pub delete: u32,
    pub data: u64,
}

#[derive(Clone, Debug)]
enum Body {
    Leaf(Vec<Rec>),
    /// Children and the right boundary.
    Inner(Vec<Elm>, Key),
}

#[derive(Clone, Debug)]
struct Node {
    mirror: u32,
    body: Body,
}

#[derive(Clone, Debug)]
struct Elm {
    base: Key,
    mirror: u32,
    child: Node,
}

#[derive(Clone, Debug)]
pub struct Tree {
    root: Node,
}

/// What a scan finds.
#[derive(Clone, Debug)]
pub enum Step {
    /// Records of a leaf in the range; what the parent says of the leaf: bounds and `mirror_tid`.
    Leaf(Vec<Rec>, (Key, Key), u32),
    Skip(Key, Key),
}

/// The versions visible as of a TID: per key the youngest, if it is not deleted.
pub type View = BTreeMap<u16, (u32, u64)>;

impl Default for Tree {
    fn default() -> Tree {
        Tree {
            root: Node {
                mirror: 0,
                body: Body::Leaf(Vec::new()),
            },
        }
    }
}

impl Node {
    fn full(&self) -> bool {
        match &self.body {
            Body::Leaf(recs) => recs.len() == LEAF,
            Body::Inner(elms, _) => elms.len() == INNER,
        }
    }

    fn empty(&self) -> bool {
        match &self.body {
            Body::Leaf(recs) => recs.is_empty(),
            Body::Inner(elms, _) => elms.is_empty(),
        }
    }

    /// The upper half and the key it begins at. Both halves keep the greater `mirror_tid`.
    fn split(&mut self, mirror: u32) -> (Key, Node) {
        self.mirror = self.mirror.max(mirror);
        let (separator, body) = match &mut self.body {
            Body::Leaf(recs) => {
                let upper = recs.split_off(recs.len() / 2);
                (upper[0].key, Body::Leaf(upper))
            }
            Body::Inner(elms, right) => {
                let upper = elms.split_off(elms.len() / 2);
                let separator = upper[0].base;
                let bound = std::mem::replace(right, separator);
                (separator, Body::Inner(upper, bound))
            }
        };
        let mirror = self.mirror;
        (separator, Node { mirror, body })
    }

    fn insert(&mut self, rec: Rec, bounds: (Key, Key)) -> bool {
        let inserted = match &mut self.body {
            Body::Leaf(recs) => match recs.binary_search_by_key(&rec.key, |r| r.key) {
                Ok(_) => return false,
                Err(at) => {
                    recs.insert(at, rec);
                    rec.key.1.max(rec.delete)
                }
            },
            Body::Inner(elms, right) => {
                if rec.key < elms[0].base {
                    elms[0].base = bounds.0;
                }
                if rec.key >= *right {
                    *right = bounds.1;
                }
                let mut at = elms.partition_point(|e| e.base <= rec.key) - 1;
                if elms[at].child.full() {
                    let elm = &mut elms[at];
                    let (base, child) = elm.child.split(elm.mirror);
                    elm.mirror = child.mirror;
                    let mirror = child.mirror;
                    elms.insert(
                        at + 1,
                        Elm {
                            base,
                            mirror,
                            child,
                        },
                    );
                    at += usize::from(rec.key >= base);
                }
                let next = elms.get(at + 1).map_or(*right, |e| e.base);
                let elm = &mut elms[at];
                if !elm.child.insert(rec, (elm.base, next)) {
                    return false;
                }
                elm.mirror = elm.mirror.max(elm.child.mirror);
                elm.mirror
            }
        };
        self.mirror = self.mirror.max(inserted);
        true
    }

    /// Changes the record at `key`, which exists, and raises `mirror_tid` to `raise` on its way;
    /// removes it if `change` says so.
    fn change(&mut self, key: Key, raise: u32, change: &mut dyn FnMut(&mut Rec) -> bool) {
        match &mut self.body {
            Body::Leaf(recs) => {
                let at = recs.binary_search_by_key(&key, |r| r.key).expect("exists");
                if change(&mut recs[at]) {
                    recs.remove(at);
                }
            }
            Body::Inner(elms, _) => {
                let at = elms.partition_point(|e| e.base <= key) - 1;
                elms[at].child.change(key, raise, change);
                elms[at].mirror = elms[at].mirror.max(raise);
                if elms[at].child.empty() && elms.len() > 1 {
                    let gone = elms.remove(at);
                    let heir = &mut elms[at.saturating_sub(1)];
                    heir.mirror = heir.mirror.max(gone.mirror);
                } else if elms[at].child.empty() {
                    elms.clear();
                }
            }
        }
        self.mirror = self.mirror.max(raise);
    }

    fn check(&self, bounds: (Key, Key)) {
        match &self.body {
            Body::Leaf(recs) => {
                let ascend = recs.windows(2).all(|pair| pair[0].key < pair[1].key);
                assert!(ascend, "{recs:?}");
                for rec in recs {
                    assert!(bounds.0 <= rec.key && rec.key < bounds.1);
                    assert!(self.mirror >= rec.key.1.max(rec.delete));
                }
            }
            Body::Inner(elms, right) => {
                assert!(bounds.0 <= elms[0].base && *right <= bounds.1);
                for (at, elm) in elms.iter().enumerate() {
                    let next = elms.get(at + 1).map_or(*right, |e| e.base);
                    assert!(elm.mirror >= elm.child.mirror && self.mirror >= elm.mirror);
                    elm.child.check((elm.base, next));
                }
            }
        }
    }

    fn each(&self, visit: &mut dyn FnMut(&Rec)) {
        match &self.body {
            Body::Leaf(recs) => recs.iter().for_each(visit),
            Body::Inner(elms, _) => elms.iter().for_each(|e| e.child.each(visit)),
        }
    }
}

impl Tree {
    pub fn insert(&mut self, rec: Rec) -> bool {
        if self.root.full() {
            let mut child = std::mem::take(self).root;
            let (base, upper) = child.split(0);
            let mirror = child.mirror;
            let elms = vec![
                Elm {
                    base: MIN,
                    mirror,
                    child,
                },
                Elm {
                    base,
                    mirror,
                    child: upper,
                },
            ];
            self.root = Node {
                mirror,
                body: Body::Inner(elms, MAX),
            };
        }
        self.root.insert(rec, (MIN, MAX))
    }

    /// Marks a record deleted; 0 undeletes.
    pub fn set_deleted(&mut self, key: Key, tid: u32) {
        self.root.change(key, tid, &mut |rec| {
            rec.delete = tid;
            false
        });
    }

    /// Takes a record away; `raise` is 0 unless slaves are to notice.
    pub fn remove(&mut self, key: Key, raise: u32) {
        self.root.change(key, raise, &mut |_| true);
        if self.root.empty() {
            self.root.body = Body::Leaf(Vec::new());
        }
    }

    pub fn all(&self) -> Vec<Rec> {
        let mut all = Vec::new();
        self.root.each(&mut |rec| all.push(*rec));
        all
    }

    pub fn find(&self, key: Key) -> Option<Rec> {
        let mut node = &self.root;
        loop {
            match &node.body {
                Body::Leaf(recs) => {
                    let at = recs.binary_search_by_key(&key, |r| r.key).ok()?;
                    return Some(recs[at]);
                }
                Body::Inner(elms, _) => {
                    let at = elms.partition_point(|e| e.base <= key).checked_sub(1)?;
                    node = &elms[at].child;
                }
            }
        }
    }

    pub fn view(&self, tid: u32) -> View {
        let mut view = View::new();
        for rec in self.all() {
            if rec.key.1 > tid {
                continue;
            }
            view.remove(&rec.key.0);
            if rec.delete == 0 || rec.delete > tid {
                view.insert(rec.key.0, (rec.key.1, rec.data));
            }
        }
        view
    }

    /// What lies in `[from, to]`, without what did not change since `begin` (mirroring.md §4.2).
    /// `wide`: skipped ranges have the parent's bounds, as the original says them.
    pub fn scan(&self, from: Key, to: Key, begin: u32, wide: bool) -> Vec<Step> {
        let mut scan = Scan {
            from,
            to,
            begin,
            wide,
            seeking: true,
            steps: Vec::new(),
        };
        scan.node(&self.root, (MIN, MAX), u32::MAX);
        scan.steps
    }

    /// Checks what every tree must hold to.
    pub fn check(&self) {
        self.root.check((MIN, MAX));
    }
}

struct Scan {
    from: Key,
    to: Key,
    begin: u32,
    wide: bool,
    seeking: bool,
    steps: Vec<Step>,
}

impl Scan {
    fn clip(&self, bounds: (Key, Key)) -> (Key, Key) {
        (bounds.0.max(self.from), bounds.1.min(self.to))
    }

    fn node(&mut self, node: &Node, bounds: (Key, Key), mirror: u32) {
        match &node.body {
            Body::Leaf(recs) => {
                self.seeking = false;
                let range = |rec: &&Rec| self.from <= rec.key && rec.key <= self.to;
                let recs: Vec<Rec> = recs.iter().filter(range).copied().collect();
                if !recs.is_empty() {
                    let bounds = self.clip(bounds);
                    self.steps.push(Step::Leaf(recs, bounds, mirror));
                }
            }
            Body::Inner(elms, right) => self.inner(elms, *right, bounds),
        }
    }

    fn inner(&mut self, elms: &[Elm], right: Key, bounds: (Key, Key)) {
        let base = |at: usize| elms.get(at).map_or(right, |e| e.base);
        let mut at = 0;
        if self.seeking {
            let above = (0..=elms.len()).filter(|at| base(*at) <= self.from).count();
            at = above.saturating_sub(1);
            self.seeking = above > 0 && above <= elms.len();
        }
        while at < elms.len() && elms[at].base <= self.to {
            let first = at;
            if self.seeking || elms[at].mirror >= self.begin {
                self.node(&elms[at].child, (base(at), base(at + 1)), elms[at].mirror);
                at += 1;
                continue;
            }
            while at < elms.len() && elms[at].mirror < self.begin {
                at += 1;
            }
            let mut skip = (base(first), base(at));
            if self.wide && first == 0 {
                skip.0 = bounds.0;
            }
            if self.wide && at == elms.len() {
                skip.1 = bounds.1;
            }
            let (from, to) = self.clip(skip);
            if from < to {
                self.steps.push(Step::Skip(from, to));
            }
        }
    }
}
