//! What WSGI calls `environ`: the dict in which a request arrives.

use pyo3::{
    intern,
    prelude::*,
    pybacked::PyBackedStr,
    types::{PyDict, PyFrozenSet, PyString},
};

use super::handshake::{Judged, judge};
use crate::protocol::handshake::Request;

/// Judges the handshake of a WSGI request by its `environ`. See `_core.pyi`.
#[pyfunction]
pub(crate) fn judge_environ(
    environ: &Bound<'_, PyDict>,
    method: &str,
    http_version: (u8, u8),
) -> PyResult<Judged> {
    let py = environ.py();
    let header = |name: &Bound<'_, PyString>| -> PyResult<Option<PyBackedStr>> {
        match environ.get_item(name)? {
            Some(value) => value.extract(),
            None => Ok(None),
        }
    };
    let host = header(intern!(py, "HTTP_HOST"))?;
    let content_length = header(intern!(py, "CONTENT_LENGTH"))?;
    let transfer_encoding = header(intern!(py, "HTTP_TRANSFER_ENCODING"))?;
    let upgrade = header(intern!(py, "HTTP_UPGRADE"))?;
    let connection = header(intern!(py, "HTTP_CONNECTION"))?;
    let version = header(intern!(py, "HTTP_SEC_WEBSOCKET_VERSION"))?;
    let key = header(intern!(py, "HTTP_SEC_WEBSOCKET_KEY"))?;
    let protocols = header(intern!(py, "HTTP_SEC_WEBSOCKET_PROTOCOL"))?;
    let extensions = header(intern!(py, "HTTP_SEC_WEBSOCKET_EXTENSIONS"))?;
    Ok(judge(&Request {
        method,
        http_version,
        host: host.as_deref(),
        content_length: content_length.as_deref(),
        transfer_encoding: transfer_encoding.as_deref(),
        upgrade: upgrade.as_deref(),
        connection: connection.as_deref(),
        version: version.as_deref(),
        key: key.as_deref(),
        protocols: protocols.as_deref(),
        extensions: extensions.as_deref(),
    }))
}

/// Characters of what the client of a WSGI request has written: path, query and headers.
#[pyfunction]
pub(crate) fn environ_size(environ: &Bound<'_, PyDict>) -> PyResult<usize> {
    let mut size = 0;
    for (name, value) in environ {
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            continue;
        };
        let Ok(text) = name.to_str() else {
            continue;
        };
        if text.starts_with("HTTP_") || text == "PATH_INFO" || text == "QUERY_STRING" {
            size += text.len() + value.len()?;
        }
    }
    Ok(size)
}

/// Most strings of requests that are kept for the next ones, and how long they may be.
const MOST_KEPT: usize = 1024;
const LONGEST_KEPT: usize = 256;
/// The most names of an environ that becomes a pattern for others: twice as many as in that of a
/// browser behind a proxy.
const MOST_NAMES: usize = 96;

/// Makes copies of environs that share equal strings. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct EnvironCopier {
    own: Py<PyFrozenSet>,
    /// Each shared string, both as the key and as its value.
    strings: Py<PyDict>,
    /// The patterns that environs are copied from, by the number of names. Each is the last environ
    /// that did not fit the pattern before it, with None for values that are not shared.
    patterns: Py<PyDict>,
}

#[pymethods]
impl EnvironCopier {
    #[new]
    fn new(py: Python<'_>, own: Py<PyFrozenSet>) -> Self {
        let (strings, patterns) = (PyDict::new(py).unbind(), PyDict::new(py).unbind());
        Self {
            own,
            strings,
            patterns,
        }
    }

    fn copy<'py>(&self, environ: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let patterns = self.patterns.bind(environ.py());
        if let Some(pattern) = patterns.get_item(environ.len())? {
            if let Some(copy) = self.copy_like(pattern.cast()?, environ)? {
                return Ok(copy);
            }
        }
        let copy = PyDict::new(environ.py());
        let pattern = PyDict::new(environ.py());
        for (name, value) in environ {
            let name = self.shared(name)?;
            let is_own = self.is_own(&name)?;
            let value = if is_own { value } else { self.shared(value)? };
            copy.set_item(&name, &value)?;
            let stays = !is_own && is_shareable(&value)?;
            pattern.set_item(&name, stays.then_some(&value))?;
        }
        if environ.len() <= MOST_NAMES {
            patterns.set_item(environ.len(), pattern)?;
        }
        Ok(copy)
    }
}

impl EnvironCopier {
    /// Copies an environ that has the names of an earlier one, None when it has not.
    ///
    /// That takes two thirds of the time: most values are the same, and the dict has its size at
    /// once.
    fn copy_like<'py>(
        &self,
        pattern: &Bound<'py, PyDict>,
        environ: &Bound<'py, PyDict>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let copy = pattern.copy()?;
        for (name, value) in environ {
            let Some(usual) = pattern.get_item(&name)? else {
                return Ok(None);
            };
            let value = match value.cast_into_exact::<PyString>() {
                Ok(value) if value.is(&usual) || value.as_any().eq(&usual)? => continue,
                Ok(value) if self.is_own(&name)? => value.into_any(),
                Ok(value) => self.shared(value.into_any())?,
                // Nothing else is shared.
                Err(other) => other.into_inner(),
            };
            copy.set_item(name, value)?;
        }
        Ok(Some(copy))
    }

    fn is_own(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.own.bind(name.py()).contains(name)
    }

    /// Gives the string that stands for all that are equal.
    fn shared<'py>(&self, text: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !is_shareable(&text)? {
            return Ok(text);
        }
        let strings = self.strings.bind(text.py());
        if let Some(known) = strings.get_item(&text)? {
            return Ok(known);
        }
        if strings.len() >= MOST_KEPT {
            strings.clear();
        }
        strings.set_item(&text, &text)?;
        Ok(text)
    }
}

fn is_shareable(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    // A subclass could be equal to what it is not.
    match value.cast_exact::<PyString>() {
        Ok(string) => Ok(string.len()? <= LONGEST_KEPT),
        Err(_) => Ok(false),
    }
}
