//! `_core.Redis`: the backend of groups in Redis.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pyo3::{exceptions::PyValueError, prelude::*, pybacked::PyBackedStr};

use super::{
    call::Call,
    convert::{duration, position},
    exchange::Exchange,
    groups::Groups,
    history::limits_of,
};
use crate::engine::{
    backends::redis::{Address, Config, Kind, Login, Redis, Server},
    dialing::tls::Tls,
};

/// The backend of groups in Redis. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core", name = "Redis")]
pub(crate) struct PyRedis(Redis);

/// A server as Python describes it: `_core.RedisServer`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Description {
    kind: String,
    nodes: Vec<(String, Option<u16>)>,
    database: i64,
    username: Option<String>,
    password: Option<String>,
    service: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    tls: bool,
    prefix: String,
}

/// Certificates as Python gives them: `_core.RedisCertificates`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Files {
    authorities: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Vec<u8>)>,
    is_unverified: bool,
}

impl Files {
    pub(super) fn read(self) -> PyResult<Tls> {
        let own = self.own.as_ref().map(|(chain, key)| (&chain[..], &key[..]));
        Tls::new(self.authorities.as_deref(), own, !self.is_unverified)
            .map_err(|reason| PyValueError::new_err(reason.to_string()))
    }
}

impl Description {
    fn read(self, tls: Option<&Tls>) -> PyResult<Server> {
        let kind = match (self.kind.as_str(), self.service) {
            ("single", None) => Kind::Single,
            ("cluster", None) => Kind::Cluster,
            ("sentinel", Some(service)) => Kind::Sentinel {
                service,
                login: Login {
                    username: self.sentinel_username,
                    password: self.sentinel_password,
                    database: 0,
                },
            },
            (kind, _) => return Err(PyValueError::new_err(format!("no kind {kind:?}"))),
        };
        let node = |(place, port)| match port {
            Some(port) => Address::Tcp(place, port),
            None => Address::Unix(PathBuf::from(place)),
        };
        Ok(Server {
            kind,
            nodes: self.nodes.into_iter().map(node).collect(),
            login: Login {
                username: self.username,
                password: self.password,
                database: self.database,
            },
            tls: tls.filter(|_| self.tls).cloned(),
            prefix: self.prefix,
        })
    }
}

#[pymethods]
impl PyRedis {
    #[new]
    #[pyo3(signature = (groups, servers, timeout, certificates=None, *, keeps_history=false))]
    fn new(
        py: Python<'_>,
        groups: &Groups,
        servers: Vec<Description>,
        timeout: f64,
        certificates: Option<Files>,
        keeps_history: bool,
    ) -> PyResult<Self> {
        let tls = certificates.map(Files::read).transpose()?;
        if tls.is_none() && servers.iter().any(|server| server.tls) {
            return Err(PyValueError::new_err(
                "a server with TLS needs certificates",
            ));
        }
        let servers = servers.into_iter().map(|server| server.read(tls.as_ref()));
        let servers: PyResult<Vec<_>> = servers.collect();
        let config = Config {
            servers: servers?,
            timeout: duration(Some(timeout))?.unwrap_or(Duration::MAX),
            keeps_history,
        };
        Ok(Self(py.detach(|| Redis::new(&groups.0, &config))?))
    }

    #[pyo3(signature = (exchange, /))]
    fn use_exchange(&self, exchange: &Exchange) {
        self.0.use_exchange(Arc::clone(&exchange.0));
    }

    fn publish(&self, name: &str, envelope: &[u8]) -> Call {
        Call(self.0.publish(name, envelope))
    }

    #[pyo3(signature = (name, envelope, limits, /))]
    fn record(&self, name: &str, envelope: &[u8], limits: (usize, f64)) -> PyResult<Call> {
        Ok(Call(self.0.record(name, envelope, limits_of(limits)?)))
    }

    #[pyo3(signature = (name, after, limits, /))]
    fn read(&self, name: &str, after: Option<(u64, u64)>, limits: (usize, f64)) -> PyResult<Call> {
        let after = after.map(position);
        Ok(Call(self.0.read(name, after, limits_of(limits)?)))
    }

    fn subscribe(&self, py: Python<'_>, names: Vec<PyBackedStr>) -> Vec<Call> {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let calls = py.detach(|| self.0.subscribe(&names));
        calls.into_iter().map(Call).collect()
    }

    #[pyo3(signature = (name, *, if_empty))]
    fn release(&self, name: &str, if_empty: bool) {
        self.0.release(name, if_empty);
    }

    fn unsubscribe(&self, name: &str) {
        self.0.unsubscribe(name);
    }

    #[pyo3(signature = (name, /))]
    fn subscription(&self, py: Python<'_>, name: &str) -> u64 {
        py.detach(|| self.0.subscription(name))
    }

    fn count(&self, name: &str) -> Call {
        Call(self.0.count(name))
    }

    fn status(&self) -> Vec<(Option<String>, u64)> {
        let status = self.0.status().into_iter();
        status
            .map(|it| (it.reason.map(|reason| reason.to_string()), it.losses))
            .collect()
    }

    fn lag(&self) -> Option<f64> {
        let lags = self.0.status().into_iter().filter_map(|it| it.lag);
        lags.max().map(|lag| lag.as_secs_f64())
    }
}
