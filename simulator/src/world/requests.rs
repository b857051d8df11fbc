//! The requests of a world that anything refers to. Each has a number, which another one gets when it is gone.

use std::ops::{Index, IndexMut};

use crate::model::Request;

/// Requests by their numbers; see the [module](self).
#[derive(Default)]
pub(super) struct Requests {
    /// Those that nothing refers to are gone.
    all: Vec<Request>,
    /// Numbers of those that are gone: the last one is given next.
    free: Vec<u32>,
}

impl Requests {
    /// Adds a request, which has the number that is returned. Inlined, it is made where it stays: what is written in
    /// small pieces and copied in large ones at once is waited for.
    #[inline(always)]
    pub(super) fn insert(&mut self, request: Request) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self[number] = request;
                number
            }
            None => {
                self.all.push(request);
                u32::try_from(self.all.len() - 1).expect("fewer requests than u32 counts")
            }
        }
    }

    /// A request to which nothing refers is gone.
    pub(super) fn remove(&mut self, number: u32) {
        self.free.push(number);
    }

    /// A request that is there: where nobody looks at it, nothing is looked up.
    pub(super) fn get(&self, number: u32) -> Option<&Request> {
        self.all.get(number as usize)
    }

    /// Whether all are gone.
    pub(super) fn is_empty(&self) -> bool {
        self.all.len() == self.free.len()
    }

    /// All that are not gone, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Request)> {
        (0..).zip(&self.all).filter(|(_, request)| request.references > 0)
    }
}

impl Index<u32> for Requests {
    type Output = Request;

    fn index(&self, number: u32) -> &Request {
        &self.all[number as usize]
    }
}

impl IndexMut<u32> for Requests {
    fn index_mut(&mut self, number: u32) -> &mut Request {
        &mut self.all[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_when_its_request_is_gone() {
        let mut requests = Requests::default();
        let numbers: Vec<u32> = (0..3).map(|number| requests.insert(Request::numbered(number))).collect();
        assert_eq!(numbers, [0, 1, 2]);
        for gone in [1, 0] {
            requests[gone].references = 0;
            requests.remove(gone);
        }
        assert_eq!(requests.iter().map(|(number, of)| (number, of.number)).collect::<Vec<_>>(), [(2, 2)]);
        assert_eq!(
            (requests.insert(Request::numbered(3)), requests.insert(Request::numbered(4))),
            (0, 1),
            "the last one first"
        );
        assert_eq!(requests.iter().map(|(_, of)| of.number).collect::<Vec<_>>(), [3, 4, 2]);
        for gone in 0..3 {
            requests[gone].references = 0;
            requests.remove(gone);
        }
        assert!(requests.is_empty());
    }
}
