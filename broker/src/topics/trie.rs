//! Subscriptions by topic filter: a tree whose nodes are where filters end or part, so that a subscription adds two
//! nodes at most, however many levels its filter has.
//!
//! What a subscription costs is [`cost`], and the broker accounts it; a test holds the tree to it.

use std::{collections::HashMap, mem::take};

use crate::packet::subscribe::SubscriptionOptions;

/// A subscription at the node where its filter ends.
#[derive(Clone, Debug)]
pub(crate) struct Subscription<S> {
    /// Tells subscribers apart, and is their order in every list.
    pub serial: u64,
    pub subscriber: S,
    pub options: SubscriptionOptions,
}

/// Which subscribers a topic reaches. `S` is a handle to a subscriber.
pub(crate) struct Trie<S> {
    root: Node<S>,
    len: usize,
}

/// Bytes that a subscription costs beside the text of its filter: 320 in the tree, whose tables may just have grown to
/// twice what they need, and 256 in its session.
const OVERHEAD: usize = 320 + 256;

/// Bytes that a subscription to this filter makes the broker hold, in the tree and in its session, which has the text
/// too.
pub(crate) fn cost(filter: &str) -> usize {
    OVERHEAD + 2 * filter.len()
}

/// Children from which on a node has a hash table for them.
const WIDE: usize = 17;

struct Node<S> {
    /// The levels between the one that names this node and the node itself, each behind a `/`; `+` may be among them.
    run: Box<str>,
    children: Children<S>,
    /// The child that the level `+` names.
    any: Option<Box<Node<S>>>,
    /// Subscriptions that end here.
    here: Vec<Subscription<S>>,
    /// Subscriptions that end in `#` one level below: they match here and everything below.
    below: Vec<Subscription<S>>,
}

/// The children of a node by the level that names them.
enum Children<S> {
    /// In order.
    Few(Vec<(Box<str>, Node<S>)>),
    #[expect(clippy::box_collection, reason = "every node is smaller for it, and few are wide")]
    Many(Box<HashMap<Box<str>, Node<S>>>),
}

impl<S> Default for Trie<S> {
    fn default() -> Self {
        Self { root: Node::new(""), len: 0 }
    }
}

impl<S> Trie<S> {
    /// Subscriptions in the tree.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a subscription, or replaces its options and returns false if there was one.
    pub fn insert(&mut self, filter: &str, serial: u64, subscriber: S, options: SubscriptionOptions) -> bool {
        let Path { mut levels, ends_in_hash } = Path::of(filter);
        let mut node = &mut self.root;
        while let Some(text) = levels {
            let (level, rest) = split(text);
            let (child, rest) = node.child_for(level, rest);
            (node, levels) = (child, rest);
        }
        let list = if ends_in_hash { &mut node.below } else { &mut node.here };
        match list.binary_search_by_key(&serial, |subscription| subscription.serial) {
            Ok(at) => {
                list[at].options = options;
                false
            }
            Err(at) => {
                grow(list);
                list.insert(at, Subscription { serial, subscriber, options });
                self.len += 1;
                true
            }
        }
    }

    /// Removes a subscription and every node that nobody needs any more; false if there was none.
    pub fn remove(&mut self, filter: &str, serial: u64) -> bool {
        let removed = self.root.remove(&Path::of(filter), serial);
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` with lists of subscriptions that match `name`, each ordered by serial; a subscriber may be in
    /// several of them.
    pub fn for_each_match<'a>(&'a self, name: &str, mut found: impl FnMut(&'a [Subscription<S>])) {
        let mut others = Vec::new();
        let mut next = if name.starts_with('$') {
            // [MQTT-4.7.2-1]: only the literal first level matches.
            let (level, rest) = split(name);
            self.root.children.get(level).and_then(|child| child.enter(rest))
        } else {
            Some((&self.root, Some(name)))
        };
        while let Some((node, levels)) = next {
            found(&node.below);
            let Some(levels) = levels else {
                found(&node.here);
                next = others.pop();
                continue;
            };
            let (level, rest) = split(levels);
            next = node.children.get(level).and_then(|child| child.enter(rest));
            if let Some(any) = node.any.as_deref().and_then(|child| child.enter(rest)) {
                others.extend(next.replace(any));
            }
            next = next.or_else(|| others.pop());
        }
    }
}

/// A filter as the tree looks at it.
struct Path<'a> {
    /// Without a `#`, and the `/` before it; `None` if that is nothing, which an empty level is not.
    levels: Option<&'a str>,
    ends_in_hash: bool,
}

impl<'a> Path<'a> {
    fn of(filter: &'a str) -> Self {
        match filter.strip_suffix('#') {
            Some(before) => Self { levels: before.strip_suffix('/'), ends_in_hash: true },
            None => Self { levels: Some(filter), ends_in_hash: false },
        }
    }
}

impl<S> Node<S> {
    fn new(run: &str) -> Self {
        Self {
            run: run.into(),
            children: Children::Few(Vec::new()),
            any: None,
            here: Vec::new(),
            below: Vec::new(),
        }
    }

    /// This node and the levels of a topic after it, if those that lead to it match what is left at the level that
    /// names it.
    fn enter<'n>(&self, rest: &'n str) -> Option<(&Self, Option<&'n str>)> {
        let left = match rest.strip_prefix(&*self.run) {
            Some(left) if left.is_empty() || left.starts_with('/') => left,
            _ if !self.run.contains('+') => return None,
            _ => {
                let mut left = rest;
                for level in self.run[1..].split('/') {
                    let (name, after) = split(left.strip_prefix('/')?);
                    if level != "+" && level != name {
                        return None;
                    }
                    left = after;
                }
                left
            }
        };
        Some((self, left.strip_prefix('/')))
    }

    /// The child on the way of a filter that goes on with this level and then this, made or divided as need be, and the
    /// levels of the filter after it.
    fn child_for<'f>(&mut self, level: &str, rest: &'f str) -> (&mut Self, Option<&'f str>) {
        if self.child(level).is_none() {
            return (self.insert_child(level, Self::new(rest)), None);
        }
        let child = self.child(level).expect("it was just found");
        let common = common_levels(&child.run, rest);
        if common < child.run.len() {
            child.divide(common);
        }
        (child, rest[common..].strip_prefix('/'))
    }

    /// Ends this node's run after some of its bytes: what it was is its only child.
    fn divide(&mut self, at: usize) {
        let mut upper = Self::new(&self.run[..at]);
        std::mem::swap(self, &mut upper);
        let mut lower = upper;
        let run = take(&mut lower.run);
        let (level, rest) = split(&run[at + 1..]);
        lower.run = rest.into();
        self.insert_child(level, lower);
    }

    /// Becomes one node with its only child, if it is there for nothing else.
    fn join(&mut self) {
        if !(self.here.is_empty() && self.below.is_empty()) {
            return;
        }
        let (level, child) = match (&mut self.children, self.any.take()) {
            (Children::Few(children), None) if children.len() == 1 => {
                children.pop().expect("there is one child")
            }
            (Children::Few(children), Some(any)) if children.is_empty() => ("+".into(), *any),
            (_, any) => {
                self.any = any;
                return;
            }
        };
        let run = [&*self.run, "/", &*level, &*child.run].concat().into();
        *self = Self { run, ..child };
    }

    fn child(&mut self, level: &str) -> Option<&mut Self> {
        if level == "+" { self.any.as_deref_mut() } else { self.children.get_mut(level) }
    }

    /// Adds a child that is not there.
    fn insert_child(&mut self, level: &str, child: Self) -> &mut Self {
        if level == "+" { self.any.insert(Box::new(child)) } else { self.children.insert(level, child) }
    }

    /// As deep as a filter has levels.
    fn remove(&mut self, path: &Path<'_>, serial: u64) -> bool {
        let Some(levels) = path.levels else {
            let list = if path.ends_in_hash { &mut self.below } else { &mut self.here };
            let Ok(at) = list.binary_search_by_key(&serial, |subscription| subscription.serial) else {
                return false;
            };
            list.remove(at);
            shrink(list);
            return true;
        };
        let (level, rest) = split(levels);
        let Some(child) = self.child(level) else { return false };
        if common_levels(&child.run, rest) < child.run.len() {
            return false;
        }
        let path = Path { levels: rest[child.run.len()..].strip_prefix('/'), ..*path };
        let removed = child.remove(&path, serial);
        if !child.is_empty() {
            child.join();
        } else if level == "+" {
            self.any = None;
        } else {
            self.children.remove(level);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.children.len() == 0 && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

impl<S> Children<S> {
    fn len(&self) -> usize {
        match self {
            Self::Few(children) => children.len(),
            Self::Many(children) => children.len(),
        }
    }

    fn get(&self, level: &str) -> Option<&Node<S>> {
        match self {
            Self::Few(children) => find(children, level).ok().map(|at| &children[at].1),
            Self::Many(children) => children.get(level),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Node<S>> {
        match self {
            Self::Few(children) => find(children, level).ok().map(|at| &mut children[at].1),
            Self::Many(children) => children.get_mut(level),
        }
    }

    /// Adds a child that is not there.
    fn insert(&mut self, level: &str, child: Node<S>) -> &mut Node<S> {
        if let Self::Few(children) = self
            && children.len() + 1 == WIDE
        {
            *self = Self::Many(Box::new(take(children).into_iter().collect()));
        }
        match self {
            Self::Few(children) => {
                let at = find(children, level).unwrap_or_else(|at| at);
                grow(children);
                children.insert(at, (level.into(), child));
                &mut children[at].1
            }
            Self::Many(children) => children.entry(level.into()).insert_entry(child).into_mut(),
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::Few(children) => {
                if let Ok(at) = find(children, level) {
                    children.remove(at);
                    shrink(children);
                }
            }
            Self::Many(children) => {
                children.remove(level);
                // Well below `WIDE`, so that a child that comes and goes does not rebuild the table each time.
                if children.len() < WIDE / 2 {
                    let mut few: Vec<_> = children.drain().collect();
                    few.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                    *self = Self::Few(few);
                } else if children.capacity() > 4 * children.len() {
                    // Topics that came and went must not leave their table behind.
                    children.shrink_to_fit();
                }
            }
        }
    }
}

fn find<S>(children: &[(Box<str>, Node<S>)], level: &str) -> Result<usize, usize> {
    children.binary_search_by(|(name, _)| (**name).cmp(level))
}

/// Makes room for one more: by half of what is there, since most lists are short.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 2).max(1));
    }
}

fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > 2 * list.len() {
        list.shrink_to_fit();
    }
}

/// The first level, and what follows it with the `/` before it.
fn split(levels: &str) -> (&str, &str) {
    levels.split_at(levels.find('/').unwrap_or(levels.len()))
}

/// Bytes of `run` with which `rest` begins, in whole levels.
fn common_levels(run: &str, rest: &str) -> usize {
    let ends = |text: &str, at| text.len() == at || text.as_bytes()[at] == b'/';
    let mut common = run.bytes().zip(rest.bytes()).take_while(|(one, other)| one == other).count();
    while !(ends(run, common) && ends(rest, common)) {
        common = run.as_bytes()[..common].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    }
    common
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{message::QoS, topics::topic};

    fn insert(trie: &mut Trie<()>, filter: &str, serial: u64) -> bool {
        trie.insert(filter, serial, (), SubscriptionOptions::default())
    }

    fn matching(trie: &Trie<()>, name: &str) -> Vec<u64> {
        let mut found = Vec::new();
        trie.for_each_match(name, |list| {
            assert!(list.is_sorted_by(|one, next| one.serial < next.serial));
            found.extend(list.iter().map(|subscription| subscription.serial));
        });
        found.sort_unstable();
        found
    }

    impl<S> Node<S> {
        /// Calls `seen` for this node and all below it.
        fn for_each(&self, seen: &mut impl FnMut(&Self)) {
            seen(self);
            match &self.children {
                Children::Few(children) => children.iter().for_each(|(_, child)| child.for_each(seen)),
                Children::Many(children) => children.values().for_each(|child| child.for_each(seen)),
            }
            self.any.iter().for_each(|child| child.for_each(seen));
        }
    }

    impl<S> Trie<S> {
        fn nodes(&self) -> usize {
            let mut nodes = 0;
            self.root.for_each(&mut |_| nodes += 1);
            nodes - 1 // the root is always there
        }

        /// Bytes that the tree has allocated.
        fn heap(&self) -> usize {
            /// Of a text, with what an allocator rounds up to.
            fn text(text: &str) -> usize {
                text.len().next_multiple_of(16)
            }
            let entry = size_of::<(Box<str>, Node<S>)>();
            let mut bytes = 0;
            self.root.for_each(&mut |node| {
                bytes += text(&node.run);
                bytes += (node.here.capacity() + node.below.capacity()) * size_of::<Subscription<S>>();
                bytes += match &node.children {
                    Children::Few(children) => {
                        let levels: usize = children.iter().map(|(level, _)| text(level)).sum();
                        children.capacity() * entry + levels
                    }
                    Children::Many(children) => {
                        let levels: usize = children.keys().map(|level| text(level)).sum();
                        let buckets = (children.capacity() * 8 / 7).next_power_of_two();
                        size_of::<HashMap<Box<str>, Node<S>>>() + buckets * (entry + 1) + levels
                    }
                };
                bytes += node.any.as_ref().map_or(0, |_| size_of::<Node<S>>());
            });
            bytes
        }
    }

    #[test]
    fn overlapping_filters_are_all_found() {
        let mut trie = Trie::default();
        for (serial, filter) in (0..).zip(["a/b", "a/+", "#", "a/#", "+/b", "a/b/#", "a", "a/b/c"]) {
            assert!(insert(&mut trie, filter, serial));
        }
        assert_eq!(matching(&trie, "a/b"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(matching(&trie, "a"), [2, 3, 6]);
        assert_eq!(matching(&trie, "$a/b"), [] as [u64; 0]);
    }

    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_first() {
        let mut trie = Trie::default();
        assert!(insert(&mut trie, "a/+", 1));
        assert!(!trie.insert(
            "a/+",
            1,
            (),
            SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() }
        ));
        assert_eq!(trie.len(), 1);
        trie.for_each_match("a/b", |list| {
            assert!(list.iter().all(|subscription| subscription.options.qos == QoS::AtLeastOnce));
        });
    }

    #[test]
    fn what_is_removed_leaves_no_node() {
        let mut trie = Trie::default();
        let filters = ["a/b/c", "a/+/c/#", "#", "//", "+/+/+", "a/b/c/d/e", "a/b/c/d/f"];
        for filter in filters {
            insert(&mut trie, filter, 7);
        }
        for unknown in ["a/b", "a/b/c/d", "a/b/c/d/e/f", "a/b/c/#"] {
            assert!(!trie.remove(unknown, 7), "{unknown}");
        }
        assert!(!trie.remove("a/b/c", 8));
        for filter in filters {
            assert!(trie.remove(filter, 7), "{filter}");
        }
        assert!(trie.root.is_empty());
        assert_eq!((trie.len(), trie.nodes()), (0, 0));
    }

    #[test]
    fn a_subscription_adds_two_nodes_at_most_however_deep_it_is() {
        let mut trie = Trie::default();
        let mut added = Vec::new();
        // Each parts from the one before it one level earlier.
        for parts_at in (1..200).rev() {
            let levels: Vec<_> = (0..200).map(|at| if at == parts_at { "x" } else { "+" }).collect();
            let before = trie.nodes();
            insert(&mut trie, &levels.join("/"), 1);
            added.push(trie.nodes() - before);
        }
        assert!(added.iter().all(|&nodes| nodes <= 2), "{added:?}");
        assert_eq!(matching(&trie, &["x"; 200].join("/")).len(), 199);
        // Removing them joins what had parted.
        for parts_at in 2..200 {
            let levels: Vec<_> = (0..200).map(|at| if at == parts_at { "x" } else { "+" }).collect();
            assert!(trie.remove(&levels.join("/"), 1));
        }
        assert_eq!((trie.len(), trie.nodes()), (1, 1));
    }

    /// What a session has of each subscription: its entry in a table that has just grown, with the count that its text
    /// is shared by, and a cursor.
    const IN_THE_SESSION: usize = 256;

    #[test]
    fn the_tree_takes_no_more_than_is_accounted() {
        let deep = |last: String| format!("{}{last}", "l/".repeat(61));
        type Shape = Box<dyn Fn(usize) -> String>;
        let shapes: [(&str, Shape); 7] = [
            ("short", Box::new(|at| format!("{at}"))),
            ("wildcards", Box::new(|at| format!("{at}/+/+"))),
            ("deep and alike", Box::new(move |at| deep(at.to_string()))),
            ("deep and different", Box::new(|at| format!("{at}/{}", "l/".repeat(60)))),
            ("pairs that part", Box::new(|at| format!("{}/a/{}", at / 2, at % 2))),
            ("one below the other", Box::new(|at| "a/".repeat(at % 200) + &(at / 200).to_string())),
            ("many that part late", Box::new(|at| format!("{}/+/+/{}", at / 20, at % 20))),
        ];
        for (name, filter) in shapes {
            let mut trie = Trie::<usize>::default();
            let mut accounted = 0;
            for at in 0..3_000 {
                let filter = filter(at);
                assert!(trie.insert(&filter, 1, at, SubscriptionOptions::default()), "{name}: {filter}");
                accounted += cost(&filter) - filter.len() - IN_THE_SESSION;
                // After the root's own first table.
                if at > 20 {
                    assert!(trie.heap() <= accounted, "{name}: {} of {accounted} at {at}", trie.heap());
                }
            }
        }
    }

    #[test]
    fn wide_nodes_come_and_go() {
        let mut trie = Trie::default();
        for round in 0..3 {
            for at in 0..1_000 {
                assert!(insert(&mut trie, &format!("wide/{at}"), round));
            }
            for at in 0..1_000 {
                assert_eq!(matching(&trie, &format!("wide/{at}")), [round]);
                assert!(trie.remove(&format!("wide/{at}"), round));
                assert_eq!(trie.len(), 999 - at);
            }
            assert_eq!((trie.nodes(), trie.heap()), (0, 0));
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "ab", "é", "è", "$c"]).prop_map(str::to_owned)
    }

    fn filter() -> impl Strategy<Value = String> {
        // Few levels, so that filters share their beginnings and part everywhere.
        let level =
            prop::sample::select(vec!["", "a", "ab", "é", "è", "$c", "+", "+"]).prop_map(str::to_owned);
        (prop::collection::vec(level, 0..8), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds(
            filters in prop::collection::vec(filter(), 0..40),
            removed in prop::collection::vec(any::<bool>(), 40),
            names in prop::collection::vec(prop::collection::vec(level(), 1..8), 1..10),
        ) {
            let mut trie = Trie::default();
            for (serial, filter) in (0..).zip(&filters) {
                prop_assert!(insert(&mut trie, filter, serial));
            }
            for (serial, filter) in (0..).zip(&filters).filter(|(serial, _)| removed[*serial as usize]) {
                prop_assert!(trie.remove(filter, serial));
                prop_assert!(!trie.remove(filter, serial));
            }
            let left: Vec<_> = (0..filters.len()).filter(|&at| !removed[at]).collect();
            prop_assert_eq!(trie.len(), left.len());
            prop_assert!(trie.nodes() <= 2 * left.len());
            for name in names {
                let name = name.join("/");
                let expected: Vec<u64> = left
                    .iter()
                    .filter(|&&at| topic::matches(&filters[at], &name))
                    .map(|&at| at as u64)
                    .collect();
                prop_assert_eq!(matching(&trie, &name), expected);
            }
        }
    }
}
