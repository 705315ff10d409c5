//! Asking sentinels for the master of a service.
//!
//! One that is cut off from the others still names the master of before. The number of its
//! configuration tells: it grows with each failover, and sentinels trust the largest one, too.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Pipeline, from_redis_value};
use tokio::{select, time::sleep};

use super::{
    config::{Address, Kind, Server},
    connection::{Connection, within},
};
use crate::engine::backends::call::Reason;

/// How long other sentinels are waited for after an answer.
const OTHERS: Duration = Duration::from_millis(250);

/// Asks all sentinels where the master is.
pub(super) async fn find_master(server: &Server, limit: Duration) -> Result<Address, Reason> {
    let asked = server.nodes.iter().map(|sentinel| async move {
        let found = ask(server, sentinel, limit).await;
        found.map_err(|reason| Reason::from(format!("sentinel {sentinel}: {reason}")))
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut newest = Err("there is no sentinel".into());
    while let Some(answer) = select! {
        answer = answers.next() => answer,
        () = sleep(OTHERS), if newest.is_ok() => None,
    } {
        let is_newer = match (&answer, &newest) {
            (Ok((number, _)), Ok((before, _))) => number > before,
            (answer, newest) => answer.is_ok() || newest.is_err(),
        };
        if is_newer {
            newest = answer;
        }
    }
    newest.map(|(_, address)| address)
}

/// The address of the master as one sentinel has it, after the number of its configuration.
async fn ask(
    server: &Server,
    sentinel: &Address,
    limit: Duration,
) -> Result<(u64, Address), Reason> {
    let Kind::Sentinel { service, login } = &server.kind else {
        return Err("it is no service of sentinels".into());
    };
    let mut commands = Pipeline::new();
    for command in ["GET-MASTER-ADDR-BY-NAME", "MASTER"] {
        commands.cmd("SENTINEL").arg(command).arg(service);
    }
    let tls = server.tls.as_ref();
    let mut connection = Connection::open(sentinel, login, tls, limit, None).await?;
    let mut replies = within(limit, connection.send_all(&commands))
        .await?
        .into_iter();
    let address = replies.next().and_then(|it| from_redis_value(it).ok());
    let Some((host, port)) = address else {
        return Err(format!("no sentinel knows the service {service:?}").into());
    };
    // A user may have no right to ask for it.
    let known = replies.next().and_then(|it| from_redis_value(it).ok());
    let number =
        known.and_then(|known: HashMap<String, String>| known.get("config-epoch")?.parse().ok());
    Ok((number.unwrap_or_default(), Address::Tcp(host, port)))
}
