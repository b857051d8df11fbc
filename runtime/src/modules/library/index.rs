//! Who has which module, in memory: quotas, the order of use, and what requests wait for. Knows no files.

use super::{ENTRY_COST, NotKept, Owner};
use lru::LruCache;
use offload_protocol::request::{Digest, StoredModule};
use std::collections::HashMap;
use std::time::SystemTime;

/// Who has which module.
pub struct Index {
    /// Bytes that one owner may be charged with.
    quota: u64,
    /// Bytes of all contents and entries.
    max_total: u64,
    /// All that anybody has, in the order of its last use.
    used: LruCache<(Owner, Digest), ()>,
    owners: HashMap<Owner, Owned>,
    contents: HashMap<Digest, Content>,
    total: u64,
}

/// What one owner has.
struct Owned {
    /// In the order of their last use.
    modules: LruCache<Digest, Entry>,
    /// Bytes of the modules, and of the entries.
    charged: u64,
}

struct Entry {
    last_used: SystemTime,
    /// Requests that wait for it.
    pins: usize,
    /// Its owner has removed it. It goes when no request waits for it, and is charged until then.
    is_removed: bool,
}

struct Content {
    bytes: u64,
    owners: usize,
}

/// Whether an owner has a module already.
pub enum Found {
    /// It has.
    Here,
    /// It has not, or not any more, and there is room for it.
    Room,
}

/// What an owner has no more.
pub struct Gone {
    /// The owner.
    pub owner: Owner,
    /// Of the module.
    pub digest: Digest,
    /// Nobody else has it either.
    pub is_last: bool,
}

impl Index {
    /// An empty one, with these bounds in bytes.
    pub fn new(quota: u64, max_total: u64) -> Index {
        Index {
            quota,
            max_total,
            used: LruCache::unbounded(),
            owners: HashMap::new(),
            contents: HashMap::new(),
            total: 0,
        }
    }

    /// Whether the owner has the module.
    pub fn has(&self, owner: Owner, digest: Digest) -> bool {
        self.peek(owner, digest).is_some_and(|entry| !entry.is_removed)
    }

    /// Whether anybody has the module.
    pub fn is_stored(&self, digest: &Digest) -> bool {
        self.contents.contains_key(digest)
    }

    /// Uses the module, if the owner has it.
    pub fn touch(&mut self, owner: Owner, digest: Digest, now: SystemTime) -> bool {
        let entry = self.owners.get_mut(&owner).and_then(|owned| owned.modules.get_mut(&digest));
        let Some(entry) = entry.filter(|entry| !entry.is_removed) else { return false };
        entry.last_used = now;
        self.used.promote(&(owner, digest));
        true
    }

    /// What the owner has, the last used first.
    pub fn list(&self, owner: Owner) -> Vec<StoredModule> {
        let entries = self.owners.get(&owner).into_iter().flat_map(|owned| &owned.modules);
        let there = entries.filter(|(_, entry)| !entry.is_removed);
        there.map(|(digest, entry)| self.describe(*digest, entry)).collect()
    }

    fn describe(&self, digest: Digest, entry: &Entry) -> StoredModule {
        let bytes = self.contents.get(&digest).map_or(0, |content| content.bytes);
        let last_used = entry.last_used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        StoredModule { digest, bytes, last_used: last_used.as_millis().try_into().unwrap_or(u64::MAX) }
    }

    /// What was used since then, and when.
    pub fn used_since(&self, since: SystemTime) -> Vec<(Owner, Digest, SystemTime)> {
        let used = self.used.iter().map_while(|(&(owner, digest), ())| {
            let entry = self.peek(owner, digest).filter(|entry| entry.last_used >= since)?;
            Some((owner, digest, entry.last_used))
        });
        used.collect()
    }

    /// Whether one owner may have a module of this size.
    pub fn takes(&self, bytes: u64) -> Result<(), NotKept> {
        let most = self.quota.saturating_sub(ENTRY_COST);
        if bytes <= most { Ok(()) } else { Err(NotKept::TooLarge { bytes, most }) }
    }

    /// Evicts what must go so that `owner` can have this module; what has gone is added to `gone`, in any case.
    pub fn make_room(
        &mut self,
        owner: Owner,
        digest: Digest,
        bytes: u64,
        gone: &mut Vec<Gone>,
    ) -> Result<Found, NotKept> {
        self.takes(bytes)?;
        match self.peek(owner, digest) {
            Some(Entry { is_removed: false, .. }) => return Ok(Found::Here),
            // It is charged still.
            Some(Entry { is_removed: true, .. }) => return Ok(Found::Room),
            None => {}
        }
        while let Some(owned) = self.owners.get(&owner)
            && owned.charged + bytes + ENTRY_COST > self.quota
        {
            let oldest = owned.modules.iter().rev().find(|(_, entry)| entry.pins == 0);
            let (&oldest, _) = oldest.ok_or(NotKept::NoRoom)?;
            gone.extend(self.take_out(owner, oldest));
        }
        loop {
            let stored = if self.contents.contains_key(&digest) { 0 } else { bytes };
            if self.total + stored + ENTRY_COST <= self.max_total {
                return Ok(Found::Room);
            }
            let is_free = |&(owner, digest): &(Owner, Digest)| {
                self.peek(owner, digest).is_none_or(|entry| entry.pins == 0)
            };
            let oldest = self.used.iter().rev().map(|(key, ())| *key).find(is_free);
            let (owner, oldest) = oldest.ok_or(NotKept::NoRoom)?;
            gone.extend(self.take_out(owner, oldest));
        }
    }

    /// The owner has the module from now on, or still; there is room for it.
    pub fn insert(&mut self, owner: Owner, digest: Digest, bytes: u64, now: SystemTime) -> StoredModule {
        self.used.put((owner, digest), ());
        let empty = || Owned { modules: LruCache::unbounded(), charged: 0 };
        let owned = self.owners.entry(owner).or_insert_with(empty);
        if let Some(entry) = owned.modules.get_mut(&digest) {
            (entry.last_used, entry.is_removed) = (now, false);
        } else {
            owned.modules.put(digest, Entry { last_used: now, pins: 0, is_removed: false });
            owned.charged += bytes + ENTRY_COST;
            let content = self.contents.entry(digest).or_insert(Content { bytes, owners: 0 });
            if content.owners == 0 {
                self.total += bytes;
            }
            content.owners += 1;
            self.total += ENTRY_COST;
        }
        let entry = Entry { last_used: now, pins: 0, is_removed: false };
        self.describe(digest, &entry)
    }

    /// The owner removes a module. What a request waits for goes later.
    pub fn remove(&mut self, owner: Owner, digest: Digest) -> Vec<Gone> {
        match self.entry(owner, digest) {
            Some(entry) if entry.pins > 0 => {
                entry.is_removed = true;
                Vec::new()
            }
            _ => self.take_out(owner, digest).into_iter().collect(),
        }
    }

    /// Takes a module from all that have it.
    pub fn forget(&mut self, digest: Digest) -> Vec<Gone> {
        let owners = self.owners.iter().filter(|(_, owned)| owned.modules.contains(&digest));
        let owners: Vec<Owner> = owners.map(|(owner, _)| *owner).collect();
        owners.into_iter().filter_map(|owner| self.take_out(owner, digest)).collect()
    }

    /// A request waits for the module, if the owner has it.
    pub fn pin(&mut self, owner: Owner, digest: Digest) -> bool {
        self.entry(owner, digest).map(|entry| entry.pins += 1).is_some()
    }

    /// A request waits no more. Whether the module is to be cleared, since its owner has removed it.
    pub fn unpin(&mut self, owner: Owner, digest: Digest) -> bool {
        self.entry(owner, digest).is_some_and(|entry| {
            entry.pins = entry.pins.saturating_sub(1);
            entry.is_removed && entry.pins == 0
        })
    }

    /// Takes out what its owner has removed, if no request waits for it.
    pub fn clear(&mut self, owner: Owner, digest: Digest) -> Vec<Gone> {
        let is_due = |entry: &Entry| entry.is_removed && entry.pins == 0;
        let is_due = self.peek(owner, digest).is_some_and(is_due);
        is_due.then(|| self.take_out(owner, digest)).flatten().into_iter().collect()
    }

    fn peek(&self, owner: Owner, digest: Digest) -> Option<&Entry> {
        self.owners.get(&owner)?.modules.peek(&digest)
    }

    fn entry(&mut self, owner: Owner, digest: Digest) -> Option<&mut Entry> {
        self.owners.get_mut(&owner)?.modules.peek_mut(&digest)
    }

    fn take_out(&mut self, owner: Owner, digest: Digest) -> Option<Gone> {
        let owned = self.owners.get_mut(&owner)?;
        owned.modules.pop(&digest)?;
        let content = self.contents.get_mut(&digest).expect("what is owned is there");
        let bytes = content.bytes;
        owned.charged -= bytes + ENTRY_COST;
        if owned.modules.is_empty() {
            self.owners.remove(&owner);
        }
        self.used.pop(&(owner, digest));
        self.total -= ENTRY_COST;
        content.owners -= 1;
        let is_last = content.owners == 0;
        if is_last {
            self.contents.remove(&digest);
            self.total -= bytes;
        }
        Some(Gone { owner, digest, is_last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BYTES: u64 = 100;
    const CHARGE: u64 = BYTES + ENTRY_COST;

    fn owner(n: u8) -> Owner {
        Owner(Digest([n; 32]))
    }

    fn module(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Keeps a module, and returns which modules have gone for it.
    fn keep(index: &mut Index, who: u8, n: u8, seconds: u64) -> Result<Vec<Digest>, NotKept> {
        let mut gone = Vec::new();
        index.make_room(owner(who), module(n), BYTES, &mut gone)?;
        index.insert(owner(who), module(n), BYTES, at(seconds));
        Ok(gone.into_iter().map(|gone| gone.digest).collect())
    }

    fn listed(index: &Index, who: u8) -> Vec<(Digest, u64)> {
        index.list(owner(who)).into_iter().map(|module| (module.digest, module.last_used)).collect()
    }

    #[test]
    fn a_list_has_what_was_used_last_first() {
        let mut index = Index::new(3 * CHARGE, 10 * CHARGE);
        for n in [1, 2, 3] {
            assert!(keep(&mut index, 1, n, n.into()).unwrap().is_empty());
        }
        assert!(index.touch(owner(1), module(1), at(4)) && !index.touch(owner(2), module(1), at(4)));
        assert_eq!(listed(&index, 1), [(module(1), 4000), (module(3), 3000), (module(2), 2000)]);
        assert!(listed(&index, 2).is_empty());
        let used: Vec<Digest> = index.used_since(at(3)).into_iter().map(|(_, digest, _)| digest).collect();
        assert_eq!(used, [module(1), module(3)]);
        assert_eq!(keep(&mut index, 1, 4, 5).unwrap(), [module(2)], "the quota holds three");
    }

    #[test]
    fn what_a_request_waits_for_goes_last_and_is_charged_until_then() {
        let mut index = Index::new(2 * CHARGE, 10 * CHARGE);
        keep(&mut index, 1, 1, 1).unwrap();
        keep(&mut index, 2, 1, 1).unwrap();
        assert!(index.pin(owner(1), module(1)) && index.pin(owner(1), module(1)));
        assert!(index.remove(owner(1), module(1)).is_empty());
        assert!(!index.has(owner(1), module(1)) && listed(&index, 1).is_empty());
        assert!(!index.touch(owner(1), module(1), at(2)), "nobody names it any more");
        keep(&mut index, 1, 2, 2).unwrap();
        assert_eq!(
            keep(&mut index, 1, 3, 3).unwrap(),
            [module(2)],
            "what is pinned is neither free nor evicted"
        );
        assert!(index.pin(owner(1), module(3)));
        assert!(matches!(keep(&mut index, 1, 4, 4), Err(NotKept::NoRoom)));
        assert!(!index.unpin(owner(1), module(1)) && index.clear(owner(1), module(1)).is_empty());
        assert!(index.unpin(owner(1), module(1)));
        let [Gone { is_last: false, .. }] = index.clear(owner(1), module(1))[..] else {
            panic!("another has it")
        };
        assert!(keep(&mut index, 1, 4, 5).unwrap().is_empty());
        assert!(index.has(owner(2), module(1)) && index.is_stored(&module(1)));
        assert!(index.remove(owner(2), module(1))[0].is_last && !index.is_stored(&module(1)));
    }

    #[test]
    fn what_is_kept_again_while_a_request_waits_for_it_stays() {
        let mut index = Index::new(CHARGE, 10 * CHARGE);
        keep(&mut index, 1, 1, 1).unwrap();
        index.pin(owner(1), module(1));
        index.remove(owner(1), module(1));
        assert!(keep(&mut index, 1, 1, 2).unwrap().is_empty());
        assert!(!index.unpin(owner(1), module(1)) && index.clear(owner(1), module(1)).is_empty());
        assert_eq!(listed(&index, 1), [(module(1), 2000)]);
        assert_eq!(keep(&mut index, 1, 2, 3).unwrap(), [module(1)], "it was charged once");
    }

    #[test]
    fn what_can_never_fit_evicts_nothing() {
        let mut index = Index::new(2 * CHARGE, 10 * CHARGE);
        keep(&mut index, 1, 1, 1).unwrap();
        let mut gone = Vec::new();
        let refused = index.make_room(owner(1), module(2), 2 * CHARGE, &mut gone);
        let most = 2 * CHARGE - ENTRY_COST;
        assert!(
            matches!(refused, Err(NotKept::TooLarge { most: told, .. }) if told == most) && gone.is_empty()
        );
    }
}
