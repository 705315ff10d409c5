//! Tests that need a process in which nothing else happens: of the engine's end, which is final,
//! its CPU time, its descriptors, and the count of connections.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod budget;
mod clock;
mod leaks;
mod memory;
mod rest;
mod scarcity;
mod shutdown;
#[path = "../engine/support/mod.rs"]
mod support;
mod threads;
mod timeouts;

use std::process::Command;

/// Runs `body`, which is all of the test called `name`, in a process of its own.
fn alone(name: &str, body: fn()) {
    const MARK: &str = "DWEBSOCKET_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(summary.contains("1 passed"), "no test is called {name}");
}
