//! Input that no honest client sends. Whatever it is, the broker goes on serving others.

use offload_broker::Version::V5;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{client::Client, server::Server};

mod crowds;
mod floods;
mod packets;
mod rumqttd;
mod topics;
mod unfinished;
mod work;

/// A client that is there all the time, and gets the messages that it sends itself: once, and with all that belongs
/// to it.
struct Bystander {
    client: Client,
    heard: u16,
}

impl Bystander {
    async fn new(server: &Server) -> Self {
        let mut client = Client::new(server, V5, "bystander").await;
        client.subscribe("bystander", 1).await;
        Self { client, heard: 0 }
    }

    /// What it publishes comes back to it, and it is acknowledged.
    async fn hears(&mut self) {
        self.heard += 1;
        let text = self.heard.to_string();
        self.client.publish("bystander", &text, 1, self.heard).await;
        // The message and its acknowledgement may come in any order.
        let (mut heard, mut acknowledged) = (false, false);
        while !(heard && acknowledged) {
            let packet = self.client.receive().await;
            if packet.first == 0x40 {
                assert_eq!(packet.body[..2], self.heard.to_be_bytes());
                assert!(packet.body.get(2).is_none_or(|reason| *reason == 0), "{packet:?}");
                acknowledged = true;
            } else {
                assert_eq!(
                    (packet.first, packet.body.ends_with(text.as_bytes())),
                    (0x32, true),
                    "{packet:?}"
                );
                let id = 2 + "bystander".len();
                self.client
                    .acknowledge(0x40, u16::from_be_bytes([packet.body[id], packet.body[id + 1]]))
                    .await;
                heard = true;
            }
        }
    }
}

/// Lets this process have as many files as the system allows it, both ends of each connection among them.
fn many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
