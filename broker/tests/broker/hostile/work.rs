//! Work that costs its sender little: others are served between, and have their share.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use offload_broker::{Application, ClientInfo, NoApplication, Route, Version::V5};
use tokio::net::TcpSocket;

use super::Bystander;
use crate::{
    client::{Client, Connect, packet, section, string},
    server::Server,
};

/// A SUBSCRIBE of MQTT 5 with this many filters.
fn subscribe(filters: u16) -> Vec<u8> {
    let filters = (0..filters).flat_map(|at| [string(format!("t/{at}")), vec![0]].concat());
    let body = [&[0, 1][..], &section(&[]), &filters.collect::<Vec<u8>>()].concat();
    packet(0x82, &body)
}

/// How long a look at a filter takes: with 16 of them, two budgets.
const LOOK: Duration = Duration::from_micros(60);
const FILTERS: u16 = 16;

/// Takes long over filters, and notes who is served.
#[derive(Default)]
struct Slow {
    served: Mutex<Vec<char>>,
}

impl Slow {
    /// A message comes and goes in a few polls, and the hog has no more than eight packets of looks in a row.
    fn gave_others_their_time(&self) {
        let served: String = self.served.lock().unwrap().iter().collect();
        let longest = served.split('b').map(str::len).max().unwrap();
        assert!(longest <= 8 * usize::from(FILTERS), "{longest} looks while no other is served: {served}");
    }
}

impl Application for Slow {
    fn may_subscribe(&self, client: &ClientInfo, _filter: &str) -> bool {
        if &*client.client_id == "hog" {
            self.served.lock().unwrap().push('h');
            let start = Instant::now();
            while start.elapsed() < LOOK {}
            return false;
        }
        true
    }

    fn route(&self, _client: &ClientInfo, _topic: &str) -> Route {
        self.served.lock().unwrap().push('b');
        Route::Broker
    }
}

#[tokio::test]
async fn packets_that_take_long_leave_others_their_time() {
    const PACKETS: usize = 60;
    let application = Arc::new(Slow::default());
    let server = Server::with(Default::default(), application.clone()).await;
    let mut bystander = Bystander::new(&server).await;
    let mut hog = Client::new(&server, V5, "hog").await;
    hog.send(&subscribe(FILTERS).repeat(PACKETS)).await;
    let answered = async {
        for _ in 0..PACKETS {
            assert_eq!(hog.receive().await.first, 0x90);
        }
    };
    let heard = async {
        for _ in 0..PACKETS {
            bystander.hears().await;
        }
    };
    tokio::join!(answered, heard);
    application.gave_others_their_time();
}

#[tokio::test]
async fn one_packet_of_many_filters_leaves_others_their_time() {
    const PACKETS: usize = 60;
    let application = Arc::new(Slow::default());
    let server = Server::with(Default::default(), application.clone()).await;
    let mut bystander = Bystander::new(&server).await;
    let mut hog = Client::new(&server, V5, "hog").await;
    hog.send(&subscribe(FILTERS * PACKETS as u16)).await;
    let answered = async {
        assert_eq!(hog.receive().await.body.len(), 3 + PACKETS * usize::from(FILTERS));
    };
    let heard = async {
        for _ in 0..PACKETS {
            bystander.hears().await;
        }
    };
    tokio::join!(answered, heard);
    application.gave_others_their_time();
}

/// Filters of one packet whose answer is more than the sockets in between take.
const CROWDED: usize = 8_000_000;

#[tokio::test]
async fn the_answer_to_many_filters_is_paid_for_until_it_is_sent() {
    let server = Server::with(Default::default(), Arc::new(NoApplication)).await;
    let mut bystander = Bystander::new(&server).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut deaf = Client::on(socket.connect(server.address).await.unwrap(), V5);
    deaf.say_hello(&Connect::new(V5, "deaf")).await;
    let before = server.broker.stats().packets_received;
    // Each filter is empty.
    let unsubscribe = packet(0xA2, &[&[0, 1][..], &section(&[]), &vec![0; 2 * CROWDED]].concat());
    deaf.send(&unsubscribe).await;
    bystander.hears().await;
    // Beside the bystander's message and its acknowledgement.
    server
        .until("it is handled and its answer is held", |stats| {
            stats.packets_received == before + 3 && stats.input_bytes == unsubscribe.len()
        })
        .await;
    let answer = deaf.receive().await;
    assert_eq!((answer.first, answer.body.len()), (0xB0, 3 + CROWDED));
    server.until("its room is given back", |stats| stats.input_bytes == 0).await;
    deaf.ping().await;
}

#[tokio::test]
async fn an_identity_that_floods_has_its_share_of_the_threads_and_no_more() {
    let server = Server::with(Default::default(), Arc::new(NoApplication)).await;
    let mut hogs = Vec::new();
    for at in 0..10 {
        hogs.push(Client::connect(&server, &Connect::new(V5, &format!("hog-{at}")).user("hog")).await);
    }
    let flood = subscribe(250).repeat(5);
    // Alone it has all that there is.
    for _ in 0..3 {
        for hog in &mut hogs {
            hog.send(&flood).await;
        }
        for hog in &mut hogs {
            for _ in 0..5 {
                assert_eq!(hog.receive().await.first, 0x90);
            }
        }
    }
    assert_eq!(server.broker.stats().share_waits, 0);
    // Beside another it waits, and is served all the same.
    let mut bystander = Bystander::new(&server).await;
    while server.broker.stats().share_waits == 0 {
        for hog in &mut hogs {
            hog.send(&flood).await;
        }
        bystander.hears().await;
        for hog in &mut hogs {
            for _ in 0..5 {
                assert_eq!(hog.receive().await.first, 0x90);
            }
            bystander.hears().await;
        }
    }
}
