//! Connections: each is carried to a node as long as both sides keep it.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{net::TcpStream, sync::oneshot};

use super::{Backends, Places};

/// A node that does not answer for so long is not there.
const CONNECT: Duration = Duration::from_secs(10);
/// After a connection that could not be taken: the kernel was short of something that others give back.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves one port until it is not declared any more.
pub async fn carry(
    listener: std::net::TcpListener,
    port: u16,
    backends: Backends,
    places: Places,
    mut until: oneshot::Receiver<()>,
) -> Result<()> {
    listener.set_nonblocking(true).context("set non-blocking")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("listen")?;
    loop {
        // A place before the connection: those for whom there is none wait in the kernel's queue.
        let taken = async {
            let place = places.take(2).await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            taken = taken => taken,
            _ = &mut until => return Ok(()),
        };
        let Ok((mut client, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let node = backends.next();
        tokio::spawn(async move {
            // No backend, or one that refuses: the client's connection is closed, as it would be there.
            let Some(node) = node else { return };
            if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect((node, port))).await
            {
                // Either side may break off: that ends the other, and there is nobody else to tell.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn more_connections_than_there_are_places_for_wait_their_turn() {
        // A node that sends back what it is sent, on an address of its own.
        let node = Ipv4Addr::new(127, 0, 0, 2);
        let server = TcpListener::bind((node, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        let front = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let backends = Backends::default();
        backends.set(vec![node.into()]);
        let (keep, until) = oneshot::channel();
        let places = Places::of(2);
        let carried = tokio::spawn(carry(front, port, backends, places.clone(), until));

        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut word = [0; 3];
        first.write_all(b"one").await.unwrap();
        first.read_exact(&mut word).await.unwrap();
        second.write_all(b"two").await.unwrap();
        assert_eq!(places.left(), 0, "all are taken by the first");
        let early = tokio::time::timeout(Duration::from_millis(50), second.read_exact(&mut word)).await;
        assert!(early.is_err(), "the second waits");
        drop(first);
        second.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"two");
        drop(keep);
        carried.await.unwrap().unwrap();
    }
}
