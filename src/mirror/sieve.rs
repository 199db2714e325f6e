//! What of a scan for several targets is for one of them.

use super::damage::Damage;
use super::source::Item;
use super::window::Window;
use crate::format::Key;
use crate::format::node::{Base, LeafElement};
use crate::io::Bytes;

/// What one target gets of an item.
pub(super) enum For<'i> {
    /// Nothing.
    Nothing,
    /// The element with its data, or what is wrong with it.
    Record(&'i LeafElement, Option<&'i Bytes>, Option<&'i Damage>),
    /// The element as it is now; the target has had it.
    Pass(&'i LeafElement),
    /// That nothing is said of a range, or nothing is known.
    Skip(&'i Base, &'i Base, Option<&'i Damage>),
}

/// Lets through what a target lacks.
pub(super) struct Sieve {
    window: Window,
    /// Items below are not for it: nothing of theirs is new to it.
    deaf_below: Option<Key>,
}

impl Sieve {
    /// For a target with this window.
    pub fn new(window: Window) -> Sieve {
        Sieve {
            window,
            deaf_below: None,
        }
    }

    /// What of `item`, the next one, is for the target.
    pub fn sieve<'i>(&mut self, item: &'i Item) -> For<'i> {
        let key = match item {
            Item::Record { leaf, .. } | Item::Pass(leaf) => leaf.base.key(),
            Item::Skip { from, .. } | Item::Quiet { from, .. } => from.key(),
        };
        if self.deaf_below.is_some_and(|below| key < below) {
            return For::Nothing;
        }
        let begin = self.window.begin_at(key);
        match item {
            Item::Quiet { changed, .. } if begin <= *changed => For::Nothing,
            Item::Quiet { from, to, .. } => {
                self.deaf_below = Some(to.key());
                For::Skip(from, to, None)
            }
            Item::Skip { from, to, damage } => For::Skip(from, to, damage.as_deref()),
            Item::Pass(leaf) => For::Pass(leaf),
            // Had, or could have been had, in an earlier pass.
            Item::Record { leaf, .. } if leaf.base.create_tid() < begin => For::Pass(leaf),
            Item::Record { leaf, data, damage } => {
                For::Record(leaf, data.as_ref(), damage.as_deref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Tid;
    use crate::mirror::window::Resume;
    use zerocopy::FromZeros;

    fn key(obj: i64) -> Key {
        Key {
            obj_id: obj,
            ..Key::pfs_min(1)
        }
    }

    fn record(obj: i64, create: u64) -> Item {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base = Base::from_key(Key {
            create_tid: Tid(create),
            ..key(obj)
        });
        Item::Record {
            leaf,
            data: None,
            damage: None,
        }
    }

    fn quiet(from: i64, to: i64, changed: u64) -> Item {
        Item::Quiet {
            from: Base::from_key(key(from)),
            to: Base::from_key(key(to)),
            changed: Tid(changed),
        }
    }

    /// A target that has everything up to 50, and below object 10 everything up to 80.
    #[test]
    fn each_gets_what_it_lacks() {
        let mut sieve = Sieve::new(Window {
            begin: Tid(51),
            end: Tid(100),
            resume: Some(Resume {
                key: key(10),
                end: Tid(80),
            }),
        });
        let mut got = |item: Item| match sieve.sieve(&item) {
            For::Nothing => "",
            For::Record(..) => "rec",
            For::Pass(_) => "pass",
            For::Skip(..) => "skip",
        };
        assert_eq!(got(quiet(1, 4, 90)), "");
        assert_eq!(got(record(2, 80)), "pass");
        assert_eq!(got(record(3, 81)), "rec");
        assert_eq!(got(quiet(4, 7, 80)), "skip");
        assert_eq!(got(record(5, 80)), "");
        assert_eq!(got(record(6, 20)), "");
        assert_eq!(got(record(7, 20)), "pass");
        assert_eq!(got(quiet(10, 20, 51)), "");
        assert_eq!(got(record(11, 51)), "rec");
        assert_eq!(got(record(12, 50)), "pass");
        assert_eq!(got(quiet(20, 30, 50)), "skip");
        assert_eq!(got(record(29, 50)), "");
        assert_eq!(got(record(30, 90)), "rec");
    }
}
