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

/// Gives an environ's copy of its own, of strings that others have, too. See `_core.pyi`.
#[pyfunction]
pub(crate) fn copy_environ<'py>(
    environ: &Bound<'py, PyDict>,
    kept: &Bound<'py, PyDict>,
    own: &Bound<'py, PyFrozenSet>,
) -> PyResult<Bound<'py, PyDict>> {
    let same = |text: Bound<'py, PyAny>| -> PyResult<Bound<'py, PyAny>> {
        // A subclass could be equal to what it is not.
        match text.cast_exact::<PyString>() {
            Ok(string) if string.len()? <= LONGEST_KEPT => {}
            _ => return Ok(text),
        }
        if let Some(known) = kept.get_item(&text)? {
            return Ok(known);
        }
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.set_item(&text, &text)?;
        Ok(text)
    };
    let copy = PyDict::new(environ.py());
    for (name, value) in environ {
        let value = if own.contains(&name)? {
            value
        } else {
            same(value)?
        };
        copy.set_item(same(name)?, value)?;
    }
    Ok(copy)
}
