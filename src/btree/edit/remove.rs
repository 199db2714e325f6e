//! Physical removal: an element, and nodes that it leaves empty (format.md §10.7).

use super::place::{children, records};
use super::{Edit, Editor};
use crate::error::Result;
use crate::format::NODE_SIZE;
use crate::format::node::{DELETED, LEAF};

impl Editor {
    /// Takes the element at `index` out of the leaf.
    pub(super) fn take_out<T: Edit + ?Sized>(&mut self, txn: &mut T, index: usize) -> Result<()> {
        let leaf = self.place.leaf_mut();
        let count = leaf.node.count();
        if count == 1 {
            return self.unlink(txn);
        }
        records(&mut leaf.node).copy_within(index + 1..count, index);
        leaf.node.count.set(count as i32 - 1);
        leaf.write_head(txn)?;
        leaf.write_elements(txn, index..count - 1)
    }

    /// Removes the leaf and every node above it that has no other child. A root that loses its last
    /// child becomes an empty leaf.
    fn unlink<T: Edit + ?Sized>(&mut self, txn: &mut T) -> Result<()> {
        let levels = &mut self.place.levels;
        let others = |count: usize| count > 1;
        let bottom = levels.len() - 1;
        let parent = levels[..bottom]
            .iter()
            .rposition(|l| others(l.node.count()));
        let first_gone = match parent {
            Some(parent) => {
                let gone = levels[parent + 1].node.mirror_tid.get();
                let level = &mut levels[parent];
                let (index, count) = (level.index, level.node.count());
                let elements = children(&mut level.node);
                // What incremental mirroring must not miss in the space that was the node's.
                let carried = elements[index].mirror_tid.get().max(gone);
                let heir = if index > 0 { index - 1 } else { 1 };
                let kept = elements[heir].mirror_tid.get();
                elements[heir].mirror_tid.set(kept.max(carried));
                elements.copy_within(index + 1..count + 1, index);
                level.node.count.set(count as i32 - 1);
                level.write_head(txn)?;
                let first = if kept < carried {
                    index.saturating_sub(1)
                } else {
                    index
                };
                level.write_elements(txn, first..count)?;
                parent + 1
            }
            None => {
                let root = &mut levels[0];
                root.node.kind = LEAF;
                root.node.count.set(0);
                root.write_head(txn)?;
                1
            }
        };
        for mut level in levels.drain(first_gone..) {
            level.node.kind = DELETED;
            level.node.count.set(0);
            level.write_head(txn)?;
            txn.free(level.at, NODE_SIZE)?;
        }
        Ok(())
    }
}
