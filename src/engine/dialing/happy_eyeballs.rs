//! A TCP connection to a host, by whichever of its addresses answers first.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{net::TcpStream, time::sleep};

use crate::engine::runtime::Engine;

/// How long an address has before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to `host`, a name or an address.
pub(super) async fn connect(engine: &Engine, host: &str, port: u16) -> io::Result<TcpStream> {
    let found = (engine.look_up(host, port).await)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot find {host}: {error}")))?;
    let stream = first_of(alternating(found)).await;
    let stream = stream.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot connect to {host} port {port}: {error}"),
        )
    })?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses so that those of IPv6 and IPv4 alternate (RFC 8305 section 4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut sorted = Vec::new();
    for address in first {
        sorted.push(address);
        sorted.extend(second.next());
    }
    sorted.extend(second);
    sorted
}

async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let has_more = waiting.len() > 0;
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = sleep(HEAD_START), if has_more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_alternate() {
        let sorted = |texts: &[&str]| {
            let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
            let sorted = alternating(addresses).into_iter();
            sorted.map(|it| it.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            sorted(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]),
            ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]
        );
        assert_eq!(
            sorted(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]),
            ["1.1.1.1:1", "[::1]:1", "[::2]:1"]
        );
        assert_eq!(alternating(vec![]), []);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let gone = {
            let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            closed.local_addr().unwrap()
        };
        let stream = first_of(vec![gone, there]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let refused = first_of(vec![gone]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(vec![]).await.is_err());
    }
}
