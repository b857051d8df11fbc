//! A terminal whose network is in another process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context as _;

use super::Carrier;
use super::hub::{Message, send};
use super::screen::Screen;
use crate::session::display::View;
use crate::session::shell::Reply;

/// Replies that wait to be taken: there is one for each command, and commands are sent one by one.
const MAX_REPLIES: usize = 1;

/// The socket to the process that has the network.
pub struct Remote {
    stream: UnixStream,
    replies: Receiver<Reply>,
}

impl Remote {
    /// Joins the network at the other end.
    ///
    /// # Errors
    /// If that has just ended.
    pub fn new(mut stream: UnixStream, view: View, screen: Screen) -> anyhow::Result<Self> {
        send(&mut stream, &view).context(ENDED)?;
        let lines = BufReader::new(stream.try_clone().context("cannot share the socket")?);
        let (sender, replies) = sync_channel(MAX_REPLIES);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let is_taken = match serde_json::from_str(&line) {
                    Ok(Message::Reply(reply)) => sender.send(reply).is_ok(),
                    Ok(Message::Seen(text)) => screen.interrupt(&text).is_ok(),
                    Err(_) => false,
                };
                if !is_taken {
                    break;
                }
            }
        });
        Ok(Self { stream, replies })
    }
}

/// What to do then.
const ENDED: &str = "the network has ended, with the terminal that had it: begin again in any terminal";

impl Carrier for Remote {
    fn carry_out(&mut self, line: &str) -> anyhow::Result<Reply> {
        send(&mut self.stream, &line).context(ENDED)?;
        self.replies.recv().context(ENDED)
    }
}
