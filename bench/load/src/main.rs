//! Command line of the load generator. Figures go to standard output as JSON.
//!
//! Exit status: 0 measured and every byte right, 1 measured but the server misbehaved (the JSON
//! says how), 2 nothing measured (the reason stands on standard error).

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use load::chat;
use load::echo::{self, Outcome};
use load::fleet::Target;
use load::frame::Opcode;
use load::idle;
use load::judge::Tally;
use load::opening;
use load::script::Script;
use load::usage::{Usage, Watch};

const USAGE: &str = "\
usage: load echo --server IP:PORT [options]   keep messages going, count what comes back
       load chat --server IP:PORT [options]   one talks, all connections are told
       load opening --server IP:PORT [options]  open connections, again and again
       load idle --server IP:PORT [options]   hold connections; commands on standard input:
                                              echo SIZE, close
  --path PATH            of the request                                    [/]
  --connections N                                                          [1]
  --size BYTES           payload of each message, at least 13              [32]
  --kind text|binary                                                       [text]
  --drain S              silence after which an answer counts as lost      [5]
  --open-timeout S       for all handshakes together                       [60]
echo, chat:
  --in-flight N          messages under way per connection                 [1]
  --warm-up S                                                              [1]
  --at-least N           answers below which the duration is lengthened    [0]
  --longest S            to so much                                        [30]
chat only:
  --rate N               messages a second, at fixed times, instead of --in-flight
echo only:
  --stopped N            further connections whose answers nobody reads    [0]
echo, chat, opening:
  --duration S                                                             [4]
  --server-pids A,B,...  processes whose CPU time to report
  --server-core N        core whose busy time to report
";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            // Standard error may be closed; then the reason cannot be reported.
            let _ = writeln!(io::stderr(), "load: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let mut options = Arguments::read(arguments)?;
    let target = Target {
        server: options.take("server", "")?,
        path: options.take("path", "/")?,
    };
    let kind = match options.take::<String>("kind", "text")?.as_str() {
        "text" => Opcode::Text,
        "binary" => Opcode::Binary,
        other => return Err(format!("--kind is text or binary, not {other:?}")),
    };
    let script = Script::new(kind, options.take("size", "32")?)?;
    let connections = options.take("connections", "1")?;
    let drain = options.take_seconds("drain", "5")?;
    let open_timeout = options.take_seconds("open-timeout", "60")?;
    let (line, tally) = match mode.as_str() {
        "echo" | "chat" => {
            let watch = options.take_watch()?;
            let is_echo = mode == "echo";
            let wanted = echo::Options {
                connections,
                in_flight: options.take("in-flight", "1")?,
                rate: options.take_rate(!is_echo)?,
                warm_up: options.take_seconds("warm-up", "1")?,
                duration: options.take_seconds("duration", "4")?,
                at_least: options.take("at-least", "0")?,
                longest: options.take_seconds("longest", "30")?,
                stopped: options.take_if(is_echo, "stopped", "0")?,
                drain,
                open_timeout,
                watch,
            };
            options.end()?;
            let run = if is_echo { echo::run } else { chat::run };
            let outcome = run(&target, script, &wanted)?;
            (describe(&outcome), outcome.tally)
        }
        "opening" => {
            let wanted = opening::Options {
                connections,
                duration: options.take_seconds("duration", "4")?,
                drain,
                open_timeout,
                watch: options.take_watch()?,
            };
            options.end()?;
            let outcome = opening::run(&target, &wanted)?;
            (describe_opening(&outcome), outcome.tally)
        }
        "idle" => {
            options.end()?;
            let (tally, first) = idle::run(
                &target,
                script,
                &idle::Options {
                    connections,
                    drain,
                    open_timeout,
                },
            )?;
            let errors = describe_errors(&tally, first.as_deref());
            (format!(r#"{{"event": "closed", {errors}}}"#), tally)
        }
        _ => return Err(format!("no mode {mode:?}\n{USAGE}")),
    };
    writeln!(io::stdout(), "{line}").map_err(|error| format!("standard output: {error}"))?;
    Ok(tally.total() == 0)
}

fn describe(outcome: &Outcome) -> String {
    let latency = &outcome.latency;
    let mut text = String::from("{");
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#""messages": {}, "open_s": {:.4}, "latency_us": {{"p50": {:.1}, "p99": {:.1}, "max": {:.1}}}, "#,
        latency.total(),
        outcome.open_s,
        latency.quantile_us(0.5),
        latency.quantile_us(0.99),
        latency.max_us()
    );
    if let Some(last) = &outcome.last {
        let _ = write!(
            text,
            r#""last_us": {{"messages": {}, "p50": {:.1}, "p99": {:.1}, "max": {:.1}}}, "#,
            last.total(),
            last.quantile_us(0.5),
            last.quantile_us(0.99),
            last.max_us()
        );
    }
    if let Some(fate) = &outcome.stopped {
        let _ = write!(
            text,
            r#""stopped": {{"stuck": {}, "cut_off": {}}}, "#,
            fate.stuck, fate.cut_off
        );
    }
    let usage = describe_usage(&outcome.before, &outcome.after);
    let errors = describe_errors(&outcome.tally, outcome.first_error.as_deref());
    let _ = write!(
        text,
        r#"{usage}, "closed_cleanly": {}, {errors}}}"#,
        outcome.closed_cleanly
    );
    text
}

fn describe_opening(outcome: &opening::Outcome) -> String {
    let usage = describe_usage(&outcome.before, &outcome.after);
    let errors = describe_errors(&outcome.tally, outcome.first_error.as_deref());
    format!(
        r#"{{"opened": {}, {usage}, "closed_cleanly": {}, {errors}}}"#,
        outcome.opened, outcome.closed_cleanly
    )
}

fn describe_usage(before: &Usage, after: &Usage) -> String {
    let seconds = after.seconds_since(before);
    let share = |now: f64, then: f64| (now - then) / seconds;
    format!(
        r#""seconds": {seconds:.4}, "load_cpu_share": {:.4}, "load_wait_share": {:.4}, "server_cpu_s": {:.4}, "core_busy_s": {:.4}"#,
        share(after.own_s, before.own_s),
        share(after.own_wait_s, before.own_wait_s),
        after.server_s - before.server_s,
        after.core_s - before.core_s
    )
}

fn describe_errors(tally: &Tally, first: Option<&str>) -> String {
    let counts: Vec<String> = tally
        .entries()
        .iter()
        .map(|(name, count)| format!(r#""{name}": {count}"#))
        .collect();
    let first = first.map_or("null".into(), json_string);
    format!(
        r#""errors": {{{}}}, "first_error": {first}"#,
        counts.join(", ")
    )
}

fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            _ => json.push(letter),
        }
    }
    json.push('"');
    json
}

/// `--name value` pairs not asked for yet.
struct Arguments(HashMap<String, String>);

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut pairs = HashMap::new();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or_else(|| format!("unexpected {word:?}\n{USAGE}"))?;
            let value = words
                .next()
                .ok_or_else(|| format!("--{name} needs a value"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    fn take<T: FromStr>(&mut self, name: &str, default: &str) -> Result<T, String> {
        let value = self.0.remove(name).unwrap_or_else(|| default.to_owned());
        value
            .parse()
            .map_err(|_| format!("--{name} {value:?} cannot be understood\n{USAGE}"))
    }

    /// Takes an option that this mode has; leaves it, to be complained about, where it has not.
    fn take_if<T: FromStr>(&mut self, has: bool, name: &str, default: &str) -> Result<T, String> {
        if has {
            return self.take(name, default);
        }
        default
            .parse()
            .map_err(|_| format!("--{name} has no default"))
    }

    fn take_watch(&mut self) -> Result<Watch, String> {
        Ok(Watch {
            server_pids: self.take_list("server-pids")?,
            server_core: self.take_list("server-core")?.first().copied(),
        })
    }

    fn take_seconds(&mut self, name: &str, default: &str) -> Result<Duration, String> {
        let seconds = self.take(name, default)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("--{name} {seconds} is no length of time"))
    }

    fn take_rate(&mut self, has: bool) -> Result<Option<f64>, String> {
        // Left alone where the mode has none: then it is complained about.
        if !has || !self.0.contains_key("rate") {
            return Ok(None);
        }
        let rate: f64 = self.take("rate", "")?;
        if rate.is_finite() && rate > 0.0 {
            return Ok(Some(rate));
        }
        Err(format!("--rate {rate} is no number of messages a second"))
    }

    fn take_list(&mut self, name: &str) -> Result<Vec<u32>, String> {
        let text: String = self.take(name, "")?;
        let words = text.split(',').filter(|word| !word.is_empty());
        words
            .map(|word| {
                word.parse()
                    .map_err(|_| format!("--{name}: {word:?} is no number"))
            })
            .collect()
    }

    fn end(self) -> Result<(), String> {
        self.0.keys().next().map_or(Ok(()), |name| {
            Err(format!("unknown option --{name}\n{USAGE}"))
        })
    }
}
