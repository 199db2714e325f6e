//! Copies of one PFS and the passes between them: the source's scan with a begin below and one
//! above the cursor, the target's rules, the cursor's.

use crate::tree::{Key, MAX, MIN, Rec, Step, Tree};

/// How an interrupted pass is continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The whole range, with one begin below the cursor's key and another from it on.
    TwoBegins,
    /// From the cursor's key on, up to the interrupted pass's end.
    SuffixToOldEnd,
    /// From the cursor's key on, up to the end that there is now.
    SuffixToNewEnd,
}

/// The rules; every field but the first is `true` where they are right.
///
/// (A mention without deletion that takes an unpublished deletion back is no substitute for
/// `strays`: a younger version that nobody mentions stays, and hides it.)
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub resume: Resume,
    /// What is not mentioned goes also where a later deletion stands, or where the window's last
    /// TID made it.
    pub gaps: bool,
    /// Skipped ranges have their node's own bounds.
    pub own_bounds: bool,
    /// A target takes no deletion from behind the window's end.
    pub clip: bool,
    /// A source that is not the cursor's makes the target roll back first.
    pub roll_back: bool,
    /// What lies above a slave's TID without a cursor is rolled back before a pass: who knows whose
    /// it is.
    pub strays: bool,
}

pub const RIGHT: Rules = Rules {
    resume: Resume::TwoBegins,
    gaps: true,
    own_bounds: true,
    clip: true,
    roll_back: true,
    strays: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub key: Key,
    /// `u32::MAX`: roll back first.
    pub end: u32,
    source: usize,
    source_leaf: u32,
}

/// One copy of the PFS.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    pub id: usize,
    pub tree: Tree,
    /// A slave's sync TID; a master's last TID.
    pub end: u32,
    /// The `create_tid` of a master's PFS record; 0 for slaves.
    pub leaf: u32,
    pub cursor: Option<Cursor>,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Record(Rec),
    Pass(Rec),
    Skip(Key, Key),
}

/// How a pass goes for a target.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Whole,
    /// Stopped after so many records, the last `lost` of which were not durable.
    Stopped {
        after: usize,
        lost: usize,
    },
}

impl Copy {
    fn is_master(&self) -> bool {
        self.leaf != 0
    }

    /// Takes back everything after `to`, or only the first `some` records of that.
    pub fn roll_back(&mut self, to: u32, some: usize) {
        let later = |rec: &Rec| rec.key.1 > to || rec.delete > to;
        for rec in self.tree.all().into_iter().filter(later).take(some) {
            match rec.key.1 > to {
                true => self.tree.remove(rec.key, 0),
                false => self.tree.set_deleted(rec.key, 0),
            }
        }
    }

    /// Gets ready for a pass from `source`: whether the cursor is good for it.
    fn settle(&mut self, source: &Copy, rules: &Rules) {
        let Some(cursor) = self.cursor else {
            if rules.strays {
                self.roll_back(self.end, usize::MAX);
            }
            return;
        };
        let same = cursor.source == source.id && cursor.source_leaf == source.leaf;
        if cursor.end == u32::MAX || !same {
            if rules.roll_back {
                self.roll_back(self.end, usize::MAX);
            }
            self.cursor = None;
        }
    }

    /// Everything up to which TID `key` is as of.
    fn has(&self, key: Key) -> u32 {
        match self.cursor {
            Some(cursor) if key < cursor.key => cursor.end,
            _ => self.end,
        }
    }
}

/// The records of one scan for several targets: what each gets.
fn items(source: &Copy, targets: &[&mut Copy], end: u32, rules: &Rules) -> Vec<Vec<Item>> {
    let mut cuts: Vec<Key> = targets
        .iter()
        .filter_map(|t| t.cursor)
        .map(|c| c.key)
        .collect();
    cuts.extend([MIN, MAX]);
    cuts.sort_unstable();
    cuts.dedup();
    let mut given = vec![Vec::new(); targets.len()];
    for part in cuts.windows(2) {
        let (from, to) = (part[0], part[1]);
        let begins: Vec<u32> = targets.iter().map(|t| t.has(from) + 1).collect();
        let least = *begins.iter().min().expect("targets");
        for step in source.tree.scan(from, to, least, !rules.own_bounds) {
            for (given, begin) in given.iter_mut().zip(&begins) {
                match &step {
                    Step::Skip(from, to) => given.push(Item::Skip(*from, *to)),
                    // Only for somebody else's sake.
                    Step::Leaf(_, (from, to), mirror) if begins.len() > 1 && mirror < begin => {
                        given.push(Item::Skip(*from, *to));
                    }
                    Step::Leaf(recs, ..) => {
                        let inside = recs.iter().filter(|r| r.key < to && r.key.1 <= end);
                        given.extend(inside.map(|rec| item(*rec, *begin, end)));
                    }
                }
            }
        }
    }
    given
}

fn item(rec: Rec, begin: u32, end: u32) -> Item {
    if rec.key.1 < begin {
        return Item::Pass(rec);
    }
    let delete = if rec.delete > end { 0 } else { rec.delete };
    Item::Record(Rec { delete, ..rec })
}

/// The target's side of a pass.
struct Applier<'a> {
    copy: &'a mut Copy,
    end: u32,
    rules: &'a Rules,
    /// Resolved up to here; the flag: this key included.
    at: (Key, bool),
}

impl Applier<'_> {
    /// Ends the life of what is not mentioned before `to`.
    fn gap(&mut self, to: Key) {
        let (at, included) = self.at;
        for rec in self.copy.tree.all() {
            let inside = rec.key < to && (at < rec.key || (at == rec.key && !included));
            if !inside || rec.key.1 > self.end {
                continue;
            }
            let later = rec.delete > self.end && self.rules.gaps;
            if rec.delete != 0 && !later {
                continue;
            }
            if rec.key.1 < self.end {
                self.copy.tree.set_deleted(rec.key, self.end);
            } else if self.rules.gaps && self.end > self.copy.end {
                self.copy.tree.remove(rec.key, 0);
            }
        }
    }

    fn existing(&mut self, rec: &Rec) -> bool {
        let Some(own) = self.copy.tree.find(rec.key) else {
            return false;
        };
        let clipped = self.rules.clip && rec.delete > self.end;
        if rec.delete != 0 && rec.delete != own.delete && !clipped {
            self.copy.tree.set_deleted(rec.key, rec.delete);
        }
        true
    }

    fn apply(&mut self, item: Item) {
        match item {
            Item::Skip(from, to) => {
                self.gap(from);
                self.at = (to, false);
            }
            Item::Pass(rec) => {
                self.gap(rec.key);
                self.existing(&rec);
                self.at = (rec.key, true);
            }
            Item::Record(rec) => {
                self.gap(rec.key);
                if !self.existing(&rec) {
                    self.copy.tree.insert(rec);
                }
                self.at = (rec.key, true);
            }
        }
    }
}

/// One pass from `source`, in one view, to all of `targets`, up to `end` (which may be earlier than
/// what the source has). Says of each whether it was acknowledged.
pub fn pass(
    source: &Copy,
    targets: &mut [&mut Copy],
    fates: &[Fate],
    end: u32,
    rules: &Rules,
) -> Vec<bool> {
    for target in targets.iter_mut() {
        target.settle(source, rules);
    }
    let cursor_ends = targets.iter().filter_map(|t| t.cursor).map(|c| c.end);
    let end = match (rules.resume, targets[0].cursor) {
        (Resume::SuffixToOldEnd, Some(cursor)) => cursor.end,
        _ => cursor_ends.fold(end, u32::max),
    };
    let given = items(source, targets, end, rules);
    let acknowledged = targets.iter_mut().zip(given).zip(fates);
    acknowledged
        .map(|((target, items), fate)| {
            end > target.end && one(source, target, items, end, *fate, rules)
        })
        .collect()
}

fn one(
    source: &Copy,
    target: &mut Copy,
    mut items: Vec<Item>,
    end: u32,
    fate: Fate,
    rules: &Rules,
) -> bool {
    let old = target.cursor;
    let mut at = (MIN, false);
    if let (Some(cursor), true) = (old, rules.resume != Resume::TwoBegins) {
        items.retain(|item| match item {
            Item::Record(rec) | Item::Pass(rec) => rec.key >= cursor.key,
            Item::Skip(from, _) => *from >= cursor.key,
        });
        at = (cursor.key, false);
    }
    let durable = match fate {
        Fate::Whole => items.len(),
        Fate::Stopped { after, lost } => after.min(items.len()).saturating_sub(lost),
    };
    let mut applier = Applier {
        copy: target,
        end,
        rules,
        at,
    };
    for item in items.drain(..durable) {
        applier.apply(item);
    }
    if let Fate::Stopped { .. } = fate {
        let key = applier.at.0;
        // What is resolved inclusively is below a cursor right behind it; one at it is as good.
        if old.is_none_or(|old| key >= old.key) && key > MIN {
            let (source, source_leaf) = (source.id, source.leaf);
            applier.copy.cursor = Some(Cursor {
                key,
                end,
                source,
                source_leaf,
            });
        }
        return false;
    }
    applier.gap(MAX);
    target.end = end;
    target.cursor = None;
    assert!(!target.is_master());
    true
}
