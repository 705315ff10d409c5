//! Between TLS and a connection's driver, which reads and writes a plain socket.

use std::{io, pin::pin, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Ready, copy, split},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use crate::engine::resources::{
    descriptor::{self, AsyncStream, Owned},
    inherited::NotInherited,
    socket::HANG_UP,
};

/// Bytes that are encrypted at once.
const CHUNK_BYTES: usize = 8 * 1024;
/// The least time that a server may take nothing when the driver has ended.
const LEAST_STALL: Duration = Duration::from_secs(1);

/// Returns the socket through which the other side of `tls` is reached, and the task that has to run
/// for that. The task ends when both sides have ended their streams, or `linger` after the socket's end;
/// later, if the server still takes what was sent before.
pub(super) fn pump(
    tls: TlsStream<TcpStream>,
    linger: Duration,
) -> io::Result<(Owned, impl Future<Output = ()> + Send)> {
    let (ours, theirs) = descriptor::pair()?;
    let socket = Owned::from(ours);
    let theirs = AsyncStream::from_std(theirs)?;
    // A child that kept them would keep the server from seeing the end.
    let kept = [
        NotInherited::enter(tls.get_ref().0),
        NotInherited::enter(&theirs),
    ];
    Ok((socket, relay((kept, tls, theirs), linger)))
}

/// The two streams, and before them their places: in this order they are dropped, also by a runtime that
/// has ended, as a number that is free may belong to another socket at once.
type Held = ([NotInherited; 2], TlsStream<TcpStream>, AsyncStream);

async fn relay(held: Held, linger: Duration) {
    let (kept, tls, theirs) = held;
    let (mut from_server, mut to_server) = split(tls);
    let (mut from_driver, mut to_driver) = theirs.into_split();
    let stall = linger.max(LEAST_STALL);
    let incoming = async {
        let _ = copy(&mut from_server, &mut to_driver).await;
        let _ = to_driver.shutdown().await;
    };
    let outgoing = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        // An error shows on the other way, too: there the driver reads the end.
        while let Ok(length @ 1..) = from_driver.read(&mut chunk).await {
            let is_stuck = async {
                let is_open = |ready: Ready| !ready.is_read_closed();
                while from_driver.ready(HANG_UP.0).await.is_ok_and(is_open) {
                    // Only macOS and Windows come here, with bytes to read.
                    sleep(stall).await;
                }
                sleep(stall).await;
            };
            tokio::select! {
                biased;
                written = write(&mut to_server, &chunk[..length]) => if written.is_err() { break },
                // The end behind the bytes on the way is never read.
                () = is_stuck => return false,
            }
        }
        let _ = timeout(stall, to_server.shutdown()).await;
        true
    };
    let (mut incoming, mut outgoing) = (pin!(incoming), pin!(outgoing));
    // The last of the variables is dropped first.
    let _kept = kept;
    tokio::select! {
        // The answer to the server's close may be on its way.
        () = &mut incoming => drop(timeout(stall, outgoing).await),
        is_told = &mut outgoing => if is_told {
            let _ = timeout(linger, incoming).await;
        },
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
