//! What a program writes to stdout, as it is written.

use bytes::Bytes;

/// A part of stdout, which comes while the program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where in stdout it begins, in bytes.
    pub offset: u64,
    /// What the program has written.
    pub bytes: Bytes,
}

/// Puts parts together in the order of stdout. Each byte is given out once: what is missing comes with the answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Assembly {
    given_out: u64,
}

impl Assembly {
    /// What of this part follows on what was given out before: nothing if it came before, or if there is a gap.
    pub fn add(&mut self, part: &Part) -> Bytes {
        let known = self.given_out.checked_sub(part.offset).and_then(|known| usize::try_from(known).ok());
        let new = known
            .and_then(|known| part.bytes.get(known..))
            .map_or_else(Bytes::new, |new| part.bytes.slice_ref(new));
        self.given_out += new.len() as u64;
        new
    }

    /// What of the answer's whole stdout was not given out.
    pub fn rest(&self, stdout: &Bytes) -> Bytes {
        let given_out = usize::try_from(self.given_out).unwrap_or(usize::MAX);
        stdout.slice(given_out.min(stdout.len())..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_given_out_once_and_in_order() {
        let mut assembly = Assembly::default();
        let mut add = |offset, text: &'static str| {
            let new = assembly.add(&Part { offset, bytes: Bytes::from(text) });
            (new, assembly)
        };
        assert_eq!(add(0, "one\n").0, "one\n");
        assert_eq!(add(0, "one\n").0, "", "it was sent twice");
        assert_eq!(add(2, "e\ntwo").0, "two");
        assert_eq!(add(9, "lost before").0, "", "there is a gap");
        let (new, assembly) = add(7, "\n");
        assert_eq!(new, "\n");
        assert_eq!(assembly.rest(&Bytes::from("one\ntwo\nthree")), "three");
        assert_eq!(assembly.rest(&Bytes::new()), "", "an error has no stdout");
    }
}
