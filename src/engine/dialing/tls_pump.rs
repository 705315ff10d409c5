//! Between TLS and a connection's driver, which reads and writes a plain socket.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncWriteExt, copy, split},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::client::TlsStream;

use crate::engine::resources::{
    descriptor::{self, AsyncStream, Owned},
    inherited::NotInherited,
};

/// Returns the socket through which the other side of `tls` is reached, and the task that has to run
/// for that. The task ends when the server ends the stream, or `linger` after the socket's end.
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
    // In this order they are dropped, also by a runtime that has ended: a number that is free may
    // belong to another socket at once.
    let held = (kept, tls, theirs);
    let task = async move {
        let (kept, tls, theirs) = held;
        let (mut from_server, mut to_server) = split(tls);
        let (mut from_driver, mut to_driver) = theirs.into_split();
        let outgoing = async {
            // An error shows on the other way, too: there the driver reads the end.
            let _ = copy(&mut from_driver, &mut to_server).await;
            let _ = to_server.shutdown().await;
            sleep(linger).await;
        };
        // The last of the variables is dropped first.
        let _kept = kept;
        tokio::select! {
            _ = copy(&mut from_server, &mut to_driver) => {}
            () = outgoing => {}
        }
    };
    Ok((socket, task))
}
