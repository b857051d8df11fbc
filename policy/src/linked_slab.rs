//! Doubly linked lists whose nodes share one slab: O(1) at both ends and in the middle, no allocation in
//! steady state, and no `unsafe`. (Knuth, The Art of Computer Programming 1, section 2.2.5.)
//!
//! A node belongs to the list it was pushed on; whoever removes it names that list again.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// An emptied slab keeps room for this many nodes and gives the rest back.
const KEPT_NODES: usize = 64;

/// Where a node is in its slab, counted from one, so that an optional handle is no larger than one; valid until the
/// node is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle(NonZeroU32);

impl Handle {
    fn new(index: usize) -> Self {
        let count = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(count.expect("a slab of fewer than 2^32 nodes"))
    }

    #[inline]
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The ends of one list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    front: Option<Handle>,
    back: Option<Handle>,
}

impl List {
    pub(crate) fn front(&self) -> Option<Handle> {
        self.front
    }
}

#[derive(Debug)]
struct Node<T> {
    /// None while the node is free.
    value: Option<T>,
    previous: Option<Handle>,
    /// The next node of the list or, in a free node, the next free one.
    next: Option<Handle>,
}

/// The nodes of any number of lists.
#[derive(Debug)]
pub(crate) struct LinkedSlab<T> {
    nodes: Vec<Node<T>>,
    free: Option<Handle>,
    len: usize,
}

impl<T> LinkedSlab<T> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), free: None, len: 0 }
    }

    /// Nodes in use, over all lists.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Nodes that memory is held for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    #[inline]
    pub(crate) fn push_back(&mut self, list: &mut List, value: T) -> Handle {
        let node = Node { value: Some(value), previous: None, next: None };
        let at = match self.free {
            Some(at) => {
                let free = &mut self.nodes[at.index()];
                self.free = free.next;
                *free = node;
                at
            }
            None => {
                self.nodes.push(node);
                Handle::new(self.nodes.len() - 1)
            }
        };
        self.len += 1;
        self.link_back(list, at);
        at
    }

    #[inline]
    pub(crate) fn remove(&mut self, list: &mut List, at: Handle) -> T {
        self.unlink(list, at);
        let node = &mut self.nodes[at.index()];
        let value = node.value.take().expect("a handle to a node in use");
        node.next = self.free.replace(at);
        self.len -= 1;
        if self.len == 0 && self.nodes.capacity() > KEPT_NODES {
            *self = Self::new();
        }
        value
    }

    #[inline]
    pub(crate) fn move_to_back(&mut self, list: &mut List, at: Handle) {
        if list.back != Some(at) {
            self.unlink(list, at);
            self.link_back(list, at);
        }
    }

    /// The node behind this one in its list.
    #[inline]
    pub(crate) fn next(&self, at: Handle) -> Option<Handle> {
        self.nodes[at.index()].next
    }

    fn link_back(&mut self, list: &mut List, at: Handle) {
        let previous = list.back.replace(at);
        match previous {
            Some(previous) => self.nodes[previous.index()].next = Some(at),
            None => list.front = Some(at),
        }
        let node = &mut self.nodes[at.index()];
        node.previous = previous;
        node.next = None;
    }

    fn unlink(&mut self, list: &mut List, at: Handle) {
        let Node { previous, next, .. } = self.nodes[at.index()];
        match previous {
            Some(previous) => self.nodes[previous.index()].next = next,
            None => list.front = next,
        }
        match next {
            Some(next) => self.nodes[next.index()].previous = previous,
            None => list.back = previous,
        }
    }
}

impl<T> Index<Handle> for LinkedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: Handle) -> &T {
        self.nodes[at.index()].value.as_ref().expect("a handle to a node in use")
    }
}

impl<T> IndexMut<Handle> for LinkedSlab<T> {
    #[inline]
    fn index_mut(&mut self, at: Handle) -> &mut T {
        self.nodes[at.index()].value.as_mut().expect("a handle to a node in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents(slab: &LinkedSlab<u32>, list: &List) -> Vec<u32> {
        std::iter::successors(list.front(), |&at| slab.next(at)).map(|at| slab[at]).collect()
    }

    #[test]
    fn an_emptied_slab_gives_its_memory_back() {
        let (mut slab, mut list) = (LinkedSlab::new(), List::default());
        for value in 0..10_000 {
            slab.push_back(&mut list, value);
        }
        while let Some(front) = list.front() {
            slab.remove(&mut list, front);
        }
        assert!(slab.capacity() <= KEPT_NODES);
        slab.push_back(&mut list, 1);
        assert_eq!(contents(&slab, &list), [1]);
    }

    proptest! {
        /// Two lists in one slab behave as two plain vectors do.
        #[test]
        fn lists_match_vectors(
            steps in prop::collection::vec((0..3u8, 0..2usize, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut slab = LinkedSlab::new();
            let mut lists = [List::default(); 2];
            let mut model: [Vec<(Handle, u32)>; 2] = [Vec::new(), Vec::new()];
            for (number, (step, which, at)) in (0..).zip(steps) {
                let (list, model) = (&mut lists[which], &mut model[which]);
                if step == 0 || model.is_empty() {
                    model.push((slab.push_back(list, number), number));
                    continue;
                }
                let (handle, value) = model.remove(at.index(model.len()));
                if step == 1 {
                    prop_assert_eq!(slab.remove(list, handle), value);
                } else {
                    slab.move_to_back(list, handle);
                    model.push((handle, value));
                }
            }
            prop_assert_eq!(slab.len(), model[0].len() + model[1].len());
            for (list, model) in lists.iter().zip(model) {
                prop_assert_eq!(list.front().is_none(), model.is_empty());
                let expected: Vec<u32> = model.into_iter().map(|(_, value)| value).collect();
                prop_assert_eq!(contents(&slab, list), expected);
            }
        }
    }
}
