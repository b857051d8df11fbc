//! A broker that answers every CONNECT with the same bytes, whatever is said to it, and closes the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of what it reads.
const READ: usize = 4096;

/// Its port. It closes when the test's runtime ends.
pub async fn broker(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, answer));
        }
    });
    port
}

async fn serve(mut client: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let connect = client.read(&mut [0; READ]).await?;
    assert!(connect > 0, "CONNECT comes");
    client.write_all(answer).await?;
    // Closed with bytes that nobody has read, the connection would lose what was written.
    client.shutdown().await?;
    while client.read(&mut [0; READ]).await? > 0 {}
    Ok(())
}
