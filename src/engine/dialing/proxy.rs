//! The way through an HTTP proxy, by CONNECT (RFC 9110 section 9.3.6).

use std::io;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{answer, happy_eyeballs};
use crate::engine::runtime::Engine;

/// Where a proxy is.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if it wants one.
    pub authorization: Option<String>,
}

impl Proxy {
    /// Connects to `authority`, a host and its port, through the proxy.
    pub(super) async fn connect(&self, engine: &Engine, authority: &str) -> io::Result<TcpStream> {
        let mut stream = happy_eyeballs::connect(engine, &self.host, self.port).await?;
        let login = self.authorization.as_ref();
        let login = login.map(|value| format!("Proxy-Authorization: {value}\r\n"));
        let login = login.unwrap_or_default();
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (head, early) = answer::head(&mut stream).await?;
        if !(200..300).contains(&head.status) {
            // Without the text beside the status: it is the proxy's, which has the login.
            let status = head.status;
            return Err(io::Error::other(format!(
                "it refused the connection to {authority} with {status}"
            )));
        }
        // The server speaks only when it is spoken to.
        if !early.is_empty() {
            return Err(io::Error::other("it sent bytes before the server could"));
        }
        Ok(stream)
    }
}
