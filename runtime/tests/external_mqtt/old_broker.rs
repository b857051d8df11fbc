//! A broker that knows MQTT 3.1.1 alone: Mosquitto behind a door that refuses what is newer.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a CONNECT up to the protocol level, when its remaining length takes one byte (MQTT 3.1.1, section 3.1).
const UP_TO_LEVEL: usize = 9;
/// CONNACK: unacceptable protocol version (MQTT 3.1.1, section 3.2.2.3).
const UNACCEPTABLE_VERSION: [u8; 4] = [0x20, 0x02, 0x00, 0x01];

/// The port of the door. It closes when the test's runtime ends.
pub async fn in_front_of(broker: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, broker));
        }
    });
    port
}

async fn serve(mut client: TcpStream, broker: u16) -> std::io::Result<()> {
    let mut start = [0; UP_TO_LEVEL];
    client.read_exact(&mut start).await?;
    if start[UP_TO_LEVEL - 1] > 4 {
        return client.write_all(&UNACCEPTABLE_VERSION).await;
    }
    let mut broker = TcpStream::connect(("127.0.0.1", broker)).await?;
    broker.write_all(&start).await?;
    copy_bidirectional(&mut client, &mut broker).await.map(drop)
}
