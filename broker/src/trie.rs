//! Subscriptions by topic filter: a tree with a node a level.

use std::collections::HashMap;

use crate::message::QoS;

/// How a subscription wants its messages (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<u32>,
}

/// Which subscribers a topic reaches. `S` names a subscriber.
pub(crate) struct Trie<S> {
    root: Node<S>,
    len: usize,
}

struct Node<S> {
    children: HashMap<Box<str>, Node<S>>,
    /// The child that the level `+` names.
    any: Option<Box<Node<S>>>,
    /// Subscriptions that end here.
    here: Vec<(S, Options)>,
    /// Subscriptions that end in `#` one level below: they match here and everything below.
    below: Vec<(S, Options)>,
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<S> Default for Trie<S> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<S: PartialEq> Trie<S> {
    /// Subscriptions in the tree.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a subscription, or replaces its options and returns false if there was one.
    pub fn insert(&mut self, filter: &str, subscriber: S, options: Options) -> bool {
        let mut node = &mut self.root;
        let mut ends_in_hash = false;
        for level in filter.split('/') {
            node = match level {
                "#" => {
                    ends_in_hash = true;
                    break;
                }
                "+" => node.any.get_or_insert_default(),
                _ if node.children.contains_key(level) => {
                    node.children.get_mut(level).expect("the key was just found")
                }
                _ => node.children.entry(level.into()).or_default(),
            };
        }
        let list = if ends_in_hash { &mut node.below } else { &mut node.here };
        if let Some((_, old)) = list.iter_mut().find(|(other, _)| *other == subscriber) {
            *old = options;
            return false;
        }
        list.push((subscriber, options));
        self.len += 1;
        true
    }

    /// Removes a subscription and every node that nobody needs any more; false if there was none.
    pub fn remove(&mut self, filter: &str, subscriber: &S) -> bool {
        let removed = self.root.remove(Some(filter), subscriber);
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` for every subscription that matches `name`; a subscriber may be found several times.
    pub fn for_each_match<'a>(&'a self, name: &str, mut found: impl FnMut(&'a S, &'a Options)) {
        if name.starts_with('$') {
            // [MQTT-4.7.2-1]: only the literal first level matches.
            let (level, rest) = split(name);
            if let Some(child) = self.root.children.get(level) {
                child.visit(rest, &mut found);
            }
        } else {
            self.root.visit(Some(name), &mut found);
        }
    }
}

impl<S: PartialEq> Node<S> {
    fn visit<'a>(&'a self, rest: Option<&str>, found: &mut impl FnMut(&'a S, &'a Options)) {
        for (subscriber, options) in &self.below {
            found(subscriber, options);
        }
        let Some(rest) = rest else {
            for (subscriber, options) in &self.here {
                found(subscriber, options);
            }
            return;
        };
        let (level, rest) = split(rest);
        if let Some(child) = self.children.get(level) {
            child.visit(rest, found);
        }
        if let Some(child) = &self.any {
            child.visit(rest, found);
        }
    }

    fn remove(&mut self, rest: Option<&str>, subscriber: &S) -> bool {
        let Some(rest) = rest else { return take(&mut self.here, subscriber) };
        let (level, rest) = split(rest);
        match level {
            "#" => take(&mut self.below, subscriber),
            "+" => {
                let Some(child) = &mut self.any else { return false };
                let removed = child.remove(rest, subscriber);
                if child.is_empty() {
                    self.any = None;
                }
                removed
            }
            _ => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let removed = child.remove(rest, subscriber);
                if child.is_empty() {
                    self.children.remove(level);
                    // Topics that came and went must not leave their table behind.
                    if self.children.capacity() > 4 * self.children.len().max(4) {
                        self.children.shrink_to_fit();
                    }
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

fn take<S: PartialEq>(list: &mut Vec<(S, Options)>, subscriber: &S) -> bool {
    let Some(at) = list.iter().position(|(other, _)| other == subscriber) else { return false };
    list.swap_remove(at);
    if list.capacity() > 4 * list.len().max(4) {
        list.shrink_to_fit();
    }
    true
}

/// The first level and what follows it, `None` at the last.
fn split(topic: &str) -> (&str, Option<&str>) {
    topic.split_once('/').map_or((topic, None), |(level, rest)| (level, Some(rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    fn matching(trie: &Trie<u32>, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        trie.for_each_match(name, |&subscriber, _| found.push(subscriber));
        found.sort_unstable();
        found
    }

    #[test]
    fn overlapping_filters_are_all_found() {
        let mut trie = Trie::default();
        for (subscriber, filter) in
            ["a/b", "a/+", "#", "a/#", "+/b", "a/b/#", "a", "a/b/c"].iter().enumerate()
        {
            assert!(trie.insert(filter, subscriber as u32, Options::default()));
        }
        assert_eq!(matching(&trie, "a/b"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(matching(&trie, "a"), [2, 3, 6]);
        assert_eq!(matching(&trie, "$a/b"), [] as [u32; 0]);
    }

    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_first() {
        let mut trie = Trie::default();
        assert!(trie.insert("a/+", 1, Options::default()));
        assert!(!trie.insert("a/+", 1, Options { qos: QoS::AtLeastOnce, ..Options::default() }));
        assert_eq!(trie.len(), 1);
        trie.for_each_match("a/b", |_, options| assert_eq!(options.qos, QoS::AtLeastOnce));
    }

    #[test]
    fn what_is_removed_leaves_no_node() {
        let mut trie = Trie::default();
        let filters = ["a/b/c", "a/+/c/#", "#", "//", "+/+/+"];
        for filter in filters {
            trie.insert(filter, 7, Options::default());
        }
        assert!(!trie.remove("a/b", &7));
        assert!(!trie.remove("a/b/c", &8));
        for filter in filters {
            assert!(trie.remove(filter, &7), "{filter}");
        }
        assert!(trie.root.is_empty());
        assert_eq!(trie.len(), 0);
    }

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "b", "$c"]).prop_map(str::to_owned)
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["", "a", "b", "$c", "+"]).prop_map(str::to_owned);
        (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".into());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds(
            filters in prop::collection::vec(filter(), 0..20),
            removed in prop::collection::vec(any::<bool>(), 20),
            names in prop::collection::vec(prop::collection::vec(level(), 1..6), 1..10),
        ) {
            let mut trie = Trie::default();
            for (subscriber, filter) in filters.iter().enumerate() {
                trie.insert(filter, subscriber as u32, Options::default());
            }
            for (subscriber, filter) in filters.iter().enumerate().filter(|(at, _)| removed[*at]) {
                prop_assert!(trie.remove(filter, &(subscriber as u32)));
            }
            for name in names {
                let name = name.join("/");
                let expected: Vec<u32> = (0..filters.len())
                    .filter(|&at| !removed[at] && topic::matches(&filters[at], &name))
                    .map(|at| at as u32)
                    .collect();
                prop_assert_eq!(matching(&trie, &name), expected);
            }
        }
    }
}
