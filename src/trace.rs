//! `LIBDQLITE_TRACE`: log lines on standard error for programs that use the C library.
//!
//! The C API calls [`install_from_environment`] when a node starts; the Rust API never does, since there the
//! program owns its subscriber. One subscriber serves the process and stays until it ends. Any thread may
//! log.
//!
//! ```text
//! LIBDQLITE[030528] 2026-11-22T05:05:08.971195Z dqlite/raft DEBUG src/raft/election.rs:159 campaign term=3
//! ```

use std::fmt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The variable that asks for log lines.
pub const VARIABLE: &str = "LIBDQLITE_TRACE";

/// Installs the subscriber if `LIBDQLITE_TRACE` is set, once per process; `switch` turns its lines on and off
/// from then on and is turned on here. Returns whether the variable asked for log lines.
pub fn install_from_environment(switch: &'static AtomicBool) -> bool {
    static INSTALL: Once = Once::new();
    let Some(value) = std::env::var_os(VARIABLE) else { return false };
    let level = level_of(&value.to_string_lossy());
    INSTALL.call_once(|| {
        switch.store(true, Ordering::Relaxed);
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Line)
            .with_writer(std::io::stderr)
            .with_filter(dynamic_filter_fn(move |event, _| {
                switch.load(Ordering::Relaxed)
                    && *event.level() <= level
                    && (event.target() == "dqlite" || event.target().starts_with("dqlite::"))
            }));
        // A host written in Rust may have a subscriber of its own; then its choice stands.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
    });
    true
}

/// What a value of the variable lets through: 1 debug, 2 info, 3 warnings, 4 errors, 5 fatal errors (which
/// are errors here). Every other value, also one that is no number, lets everything through, as in the C
/// library.
fn level_of(value: &str) -> LevelFilter {
    let value = value.trim_start();
    let digits = value.strip_prefix('+').unwrap_or(value);
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    match digits[..end].trim_start_matches('0') {
        "1" => LevelFilter::DEBUG,
        "2" => LevelFilter::INFO,
        "3" => LevelFilter::WARN,
        "4" | "5" => LevelFilter::ERROR,
        _ => LevelFilter::TRACE,
    }
}

/// Writes one event as one line.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(writer, "LIBDQLITE[{:06}] ", std::process::id())?;
        SystemTime.format_time(&mut writer)?;
        let thread = std::thread::current();
        write!(writer, " {} {:<5} ", thread.name().unwrap_or("unnamed"), metadata.level())?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            write!(writer, "{file}:{line} ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[test]
    fn values_one_to_five_name_the_least_severe_level_shown() {
        let expected = [
            ("1", LevelFilter::DEBUG),
            ("2", LevelFilter::INFO),
            ("3", LevelFilter::WARN),
            ("4", LevelFilter::ERROR),
            ("5", LevelFilter::ERROR),
            (" 2", LevelFilter::INFO),
            ("+3", LevelFilter::WARN),
            ("04x", LevelFilter::ERROR),
        ];
        for (value, level) in expected {
            assert_eq!(level_of(value), level, "LIBDQLITE_TRACE={value}");
        }
    }

    #[test]
    fn every_other_value_shows_everything() {
        for value in ["", "0", "6", "10", "-1", "debug", "99999999999999999999"] {
            assert_eq!(level_of(value), LevelFilter::TRACE, "LIBDQLITE_TRACE={value}");
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_prefix_time_thread_level_place_and_fields() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(Line).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::warn!(term = 3, "campaign"));
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[0], format!("LIBDQLITE[{:06}]", std::process::id()));
        assert!(words[1].ends_with('Z') && words[1].contains('T'), "{text}");
        assert!(text.contains(" WARN  src/trace.rs:"), "{text}");
        assert!(text.ends_with(" campaign term=3\n"), "{text}");
    }
}
