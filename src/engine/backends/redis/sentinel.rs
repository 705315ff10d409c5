//! Asking sentinels for the master of a service.

use std::time::Duration;

use redis::Value;

use super::{
    config::{Address, Kind, Server},
    connection::Connection,
};
use crate::engine::backends::call::Reason;

/// Asks one sentinel after the other where the master is.
pub(super) async fn find_master(server: &Server, limit: Duration) -> Result<Address, Reason> {
    let Kind::Sentinel { service, login } = &server.kind else {
        return Err("it is no service of sentinels".into());
    };
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let mut last: Reason = "there is no sentinel".into();
    for sentinel in &server.nodes {
        let reply = Connection::ask(sentinel, login, server.tls.as_ref(), limit, &command).await;
        let address = reply.and_then(|reply| {
            address_in(&reply)
                .ok_or_else(|| format!("no sentinel knows the service {service:?}").into())
        });
        match address {
            Ok(address) => return Ok(address),
            Err(reason) => last = format!("sentinel {sentinel}: {reason}").into(),
        }
    }
    Err(last)
}

/// The host and the port in a reply.
fn address_in(reply: &Value) -> Option<Address> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
        return None;
    };
    let host = std::str::from_utf8(host).ok()?;
    let port = std::str::from_utf8(port).ok()?.parse().ok()?;
    Some(Address::Tcp(host.to_owned(), port))
}
