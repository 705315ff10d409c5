//! The map of a cluster: which node serves which hash slots.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    config::{Address, Server},
    connection::{Connection, within},
};
use crate::engine::backends::call::Reason;

/// The masters of a cluster, and the first and last slots of each.
pub(super) type Map = Vec<(Address, Vec<(u16, u16)>)>;

/// Asks one node after the other for the map.
pub(super) async fn find_map(
    nodes: &[Address],
    server: &Server,
    limit: Duration,
) -> Result<Map, Reason> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let mut last: Reason = "there is no node".into();
    for node in nodes {
        match ask(node, server, limit, &command).await {
            Ok(map) => return Ok(map),
            Err(reason) => last = format!("{node}: {reason}").into(),
        }
    }
    Err(last)
}

/// Asks `node` for the map, on a connection of its own.
async fn ask(
    node: &Address,
    server: &Server,
    limit: Duration,
    command: &Cmd,
) -> Result<Map, Reason> {
    let tls = server.tls.as_ref();
    let mut connection = Connection::open(node, &server.login, tls, limit, None).await?;
    match within(limit, connection.send(command)).await? {
        Value::ServerError(error) => Err(error.details().unwrap_or(error.code()).into()),
        reply => match map_in(&reply, node) {
            Some(map) if !map.is_empty() => Ok(map),
            _ => Err("it serves no part of a cluster".into()),
        },
    }
}

/// Reads the reply of `node` to CLUSTER SLOTS.
fn map_in(reply: &Value, node: &Address) -> Option<Map> {
    let Value::Array(entries) = reply else {
        return None;
    };
    let mut map = Map::new();
    for entry in entries {
        let Value::Array(parts) = entry else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = &parts[..]
        else {
            return None;
        };
        let range = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        let [host, Value::Int(port), ..] = &master[..] else {
            return None;
        };
        let address = Address::Tcp(host_in(host, node)?, u16::try_from(*port).ok()?);
        match map.iter_mut().find(|(other, _)| *other == address) {
            Some((_, ranges)) => ranges.push(range),
            None => map.push((address, vec![range])),
        }
    }
    Some(map)
}

/// The host of a node. Without one it is that of the node which was asked.
fn host_in(value: &Value, asked: &Address) -> Option<String> {
    let named = match value {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    match (named, asked) {
        ("" | "?", Address::Tcp(host, _)) => Some(host.clone()),
        ("" | "?", Address::Unix(_)) => None,
        (host, _) => Some(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn node(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    #[test]
    fn a_map_is_read_also_with_nodes_that_know_no_own_address() {
        let reply = b"*3\r\n\
            *4\r\n:0\r\n:100\r\n*3\r\n$1\r\na\r\n:1\r\n$2\r\nid\r\n*2\r\n$1\r\nx\r\n:9\r\n\
            *3\r\n:101\r\n:200\r\n*2\r\n$0\r\n\r\n:2\r\n\
            *3\r\n:201\r\n:16383\r\n*2\r\n$1\r\na\r\n:1\r\n";
        let reply = parse_redis_value(reply).unwrap();
        let map = map_in(&reply, &node("asked", 7)).unwrap();
        assert_eq!(
            map,
            [
                (node("a", 1), vec![(0, 100), (201, 16383)]),
                (node("asked", 2), vec![(101, 200)]),
            ]
        );
    }

    #[test]
    fn anything_else_is_no_map() {
        for reply in [
            &b"+OK\r\n"[..],
            b"*1\r\n:1\r\n",
            b"*1\r\n*1\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:70000\r\n*2\r\n$1\r\na\r\n:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:7\r\n*2\r\n$1\r\na\r\n:100000\r\n",
            b"*1\r\n*3\r\n:0\r\n:7\r\n*0\r\n",
        ] {
            let reply = parse_redis_value(reply).unwrap();
            assert_eq!(map_in(&reply, &node("asked", 7)), None);
        }
    }
}
