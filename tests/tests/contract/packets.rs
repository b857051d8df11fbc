//! Packets of MQTT as bytes, where a client's library would hide what is in them.

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::deployment::Deployment;
use offload_tests::gateway::Gateway;
use offload_tests::process::Process;
use offload_tests::{built, device::Version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// CONNECT with a clean session and the client id `a`: in MQTT 3.1.1 and in 5.
const CONNECT_V311: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a";
const CONNECT_V5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a";

/// The beginning of a PUBLISH of 1 MiB.
const LARGE_PUBLISH: &[u8] = b"\x30\x80\x80\x40\0\x0blocalCode/a";

/// Reads one packet: its first byte, and what follows its length.
async fn packet(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let reading = async {
        let first = stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        ensure!(length < 1 << 16, "a packet of {length} bytes");
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        Ok((first, rest))
    };
    timeout(PATIENCE, reading).await.context("no packet came")?
}

/// A packet over the broker's limit ends the connection (MQTT 5: DISCONNECT 0x95 first).
#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection() -> Result<()> {
    let deployment = Deployment::embedded("[listen]\nmax_packet = \"64KiB\"\n").await?;
    for (version, connect) in [(Version::V311, CONNECT_V311), (Version::V5, CONNECT_V5)] {
        let mut stream = TcpStream::connect(deployment.address()).await?;
        stream.write_all(connect).await?;
        assert_eq!(packet(&mut stream).await?.0, 0x20, "CONNACK");
        stream.write_all(LARGE_PUBLISH).await?;
        if version == Version::V5 {
            let (first, rest) = packet(&mut stream).await?;
            assert_eq!((first, rest.first()), (0xE0, Some(&0x95)), "DISCONNECT");
        }
        let end = timeout(PATIENCE, stream.read_u8()).await.context("the connection stays open")?;
        ensure!(end.is_err(), "{version:?}: something else came: {end:?}");
    }
    Ok(())
}

/// What a client of MQTT says first: the CONNECT of the first one to come, without its header.
async fn first_connect(listener: &TcpListener) -> Result<Vec<u8>> {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.context("nobody came")??;
    let (first, connect) = packet(&mut stream).await?;
    ensure!(first == 0x10, "not a CONNECT: {first:#x}");
    Ok(connect)
}

fn holds(packet: &[u8], part: &[u8]) -> bool {
    packet.windows(part.len()).any(|found| found == part)
}

/// By default Receive Maximum on an external broker is 4 096.
#[tokio::test]
async fn receive_maximum_on_an_external_broker_is_4096() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("mqtt://{}", listener.local_addr()?);
    let gateway = tokio::spawn(async move { Gateway::start(&["--broker", &url], "").await.map(drop) });
    let connect = first_connect(&listener).await?;
    // It waits for a broker that never answers.
    gateway.abort();
    // Receive Maximum is property 33, two bytes.
    ensure!(holds(&connect, &[33, 0x10, 0x00]), "{}", connect.escape_ascii());
    Ok(())
}

/// Connection flags as `mosquitto_pub` users know them: each long and short form, as it arrives at a broker.
#[tokio::test]
async fn the_clients_connection_flags_say_where_and_who() -> Result<()> {
    let folder = TempDir::new()?;
    let client = built::program("offload-client")?;
    for long in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port().to_string();
        let flags = [
            if long { ["--host", "127.0.0.1"] } else { ["-h", "127.0.0.1"] },
            if long { ["--port", &port] } else { ["-p", &port] },
            if long { ["--id", "my-id"] } else { ["-i", "my-id"] },
            if long { ["--username", "alice"] } else { ["-u", "alice"] },
            if long { ["--pw", "secret"] } else { ["-P", "secret"] },
        ];
        let arguments = [flags.as_flattened(), &["send", "add"]].concat();
        let _client = Process::start(&client, &arguments, &folder.path().join("log"))?;
        let connect = first_connect(&listener).await?;
        for part in [&b"\0\x05my-id"[..], b"\0\x05alice", b"\0\x06secret"] {
            ensure!(holds(&connect, part), "{flags:?}: {}", connect.escape_ascii());
        }
    }
    Ok(())
}
