//! Which of a module's descriptors are its standard streams.
//!
//! wasmtime-wasi keeps the table of descriptors, but the bytes of the three standard streams do not pass through it
//! (see [`preview1`](super::preview1)). So what closes or renumbers a descriptor there is followed here.

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 0 at the start.
    Stdin,
    /// Descriptor 1 at the start.
    Stdout,
    /// Descriptor 2 at the start.
    Stderr,
}

/// Where the standard streams are. WASI cannot duplicate a descriptor, so a stream is at one descriptor or at none.
#[derive(Clone, Copy, Debug)]
pub struct StandardStreams([(Stream, Option<i32>); 3]);

impl Default for StandardStreams {
    /// As a program finds them.
    fn default() -> StandardStreams {
        StandardStreams([(Stream::Stdin, Some(0)), (Stream::Stdout, Some(1)), (Stream::Stderr, Some(2))])
    }
}

impl StandardStreams {
    /// The stream at this descriptor.
    pub fn at(&self, descriptor: i32) -> Option<Stream> {
        self.0.iter().find_map(|(stream, at)| (*at == Some(descriptor)).then_some(*stream))
    }

    /// This descriptor was closed.
    pub fn closed(&mut self, descriptor: i32) {
        self.moved(descriptor, None);
    }

    /// The descriptor `from` has become `to`, and what was at `to` was closed.
    pub fn renumbered(&mut self, from: i32, to: i32) {
        if from != to {
            self.closed(to);
            self.moved(from, Some(to));
        }
    }

    fn moved(&mut self, from: i32, to: Option<i32>) {
        for (_, at) in &mut self.0 {
            if *at == Some(from) {
                *at = to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_0_to_3(streams: &StandardStreams) -> [Option<Stream>; 4] {
        [0, 1, 2, 3].map(|descriptor| streams.at(descriptor))
    }

    #[test]
    fn streams_follow_what_is_closed_and_renumbered() {
        use Stream::{Stderr, Stdin, Stdout};
        let mut streams = StandardStreams::default();
        assert_eq!(at_0_to_3(&streams), [Some(Stdin), Some(Stdout), Some(Stderr), None]);
        streams.renumbered(1, 1);
        assert_eq!(at_0_to_3(&streams), [Some(Stdin), Some(Stdout), Some(Stderr), None]);
        streams.renumbered(2, 1);
        assert_eq!(at_0_to_3(&streams), [Some(Stdin), Some(Stderr), None, None]);
        streams.closed(2);
        streams.renumbered(0, 3);
        assert_eq!(at_0_to_3(&streams), [None, Some(Stderr), None, Some(Stdin)]);
        // A file at 5 takes the place of a stream.
        streams.renumbered(5, 1);
        assert_eq!(at_0_to_3(&streams), [None, None, None, Some(Stdin)]);
    }
}
