//! A bounded cache of 16 KiB metadata buffers.

use crate::format::{BUFFER, NODE_SIZE};
use crate::io::Bytes;
use rustc_hash::FxHashMap;

/// Nodes in a buffer: one "checked" bit each.
const NODES: usize = BUFFER / NODE_SIZE;

/// Metadata buffers by their zone-2 address, at most a set number of them; the clock algorithm
/// chooses which one goes.
pub(super) struct Cache {
    index: FxHashMap<u64, u32>,
    slots: Vec<Slot>,
    hand: usize,
    capacity: usize,
}

struct Slot {
    key: u64,
    bytes: Bytes,
    /// Which of the buffer's nodes were checked.
    checked: [bool; NODES],
    referenced: bool,
}

impl Cache {
    /// A cache of at most `bytes` bytes, at least eight buffers.
    pub fn new(bytes: usize) -> Cache {
        let capacity = (bytes / BUFFER).clamp(8, u32::MAX as usize);
        Cache {
            index: FxHashMap::default(),
            slots: Vec::new(),
            hand: 0,
            capacity,
        }
    }

    /// How many buffers fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the buffer is here; does not count as a use.
    pub fn contains(&self, key: u64) -> bool {
        self.index.contains_key(&key)
    }

    /// The buffer at `key`.
    pub fn get(&mut self, key: u64) -> Option<&Bytes> {
        let slot = self.slot(key)?;
        slot.referenced = true;
        Some(&slot.bytes)
    }

    /// The buffer at `key`, and whether node `node` of it was checked.
    pub fn get_node(&mut self, key: u64, node: usize) -> Option<(&Bytes, bool)> {
        let slot = self.slot(key)?;
        slot.referenced = true;
        Some((&slot.bytes, slot.checked[node % NODES]))
    }

    /// Notes that node `node` of the buffer at `key` was checked.
    pub fn set_checked(&mut self, key: u64, node: usize) {
        if let Some(slot) = self.slot(key) {
            slot.checked[node % NODES] = true;
        }
    }

    /// Puts a buffer in, in place of an older one if the cache is full.
    pub fn insert(&mut self, key: u64, bytes: Bytes) {
        let slot = Slot {
            key,
            bytes,
            checked: [false; NODES],
            referenced: false,
        };
        if let Some(index) = self.index.get(&key) {
            self.slots[*index as usize] = slot;
            return;
        }
        if self.slots.len() < self.capacity {
            self.index.insert(key, self.slots.len() as u32);
            self.slots.push(slot);
            return;
        }
        let victim = self.victim();
        self.index.remove(&self.slots[victim].key);
        self.index.insert(key, victim as u32);
        self.slots[victim] = slot;
    }

    /// Takes a buffer out.
    pub fn remove(&mut self, key: u64) {
        let Some(index) = self.index.remove(&key) else {
            return;
        };
        let index = index as usize;
        self.slots.swap_remove(index);
        if let Some(moved) = self.slots.get(index) {
            self.index.insert(moved.key, index as u32);
        }
    }

    fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        let index = *self.index.get(&key)?;
        self.slots.get_mut(index as usize)
    }

    /// The next slot not used since the hand last passed; two rounds at most.
    fn victim(&mut self) -> usize {
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if !slot.referenced {
                return self.hand;
            }
            slot.referenced = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(8 * BUFFER);
        for key in 0..8 {
            cache.insert(key, Bytes::zeroed(1));
        }
        for round in 8..40 {
            assert!(cache.get(3).is_some(), "round {round}");
            cache.insert(round, Bytes::zeroed(1));
        }
        assert_eq!(cache.slots.len(), 8);
    }

    proptest! {
        /// Whatever is found is what was put in last under that key, and never more than fits.
        #[test]
        fn never_wrong(ops in proptest::collection::vec((0u64..20, 0u8..4), 1..200)) {
            let mut cache = Cache::new(8 * BUFFER);
            let mut model = HashMap::new();
            for (number, (key, op)) in ops.into_iter().enumerate() {
                match op {
                    0 | 1 => {
                        cache.insert(key, Bytes::zeroed(number + 1));
                        model.insert(key, number + 1);
                    }
                    2 => {
                        cache.remove(key);
                        prop_assert!(!cache.contains(key));
                    }
                    _ => {
                        if let Some(bytes) = cache.get(key) {
                            prop_assert_eq!(Some(&bytes.len()), model.get(&key));
                        }
                    }
                }
                prop_assert!(cache.slots.len() <= 8);
                prop_assert_eq!(cache.slots.len(), cache.index.len());
            }
        }
    }
}
