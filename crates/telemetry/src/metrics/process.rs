//! What the operating system says about this process: `process_*` as every Prometheus client has them, and stand-ins for the `jvm/*` that
//! Linkerd's dashboards read.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::process::{LimitValue, Process};

/// One look at this process.
#[derive(Debug, Clone, Default)]
pub(super) struct ProcessInfo {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) virtual_bytes: f64,
    pub(super) open_fds: f64,
    pub(super) max_fds: f64,
    pub(super) threads: f64,
    /// Seconds since 1970.
    pub(super) started: f64,
}

/// What can be read of it; what can't be stays zero.
pub(super) fn info() -> ProcessInfo {
    let mut info = ProcessInfo {
        started: *STARTED.get_or_init(started),
        ..ProcessInfo::default()
    };
    let Ok(me) = Process::myself() else {
        return info;
    };
    if let Ok(stat) = me.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        info.cpu_seconds = (stat.utime + stat.stime) as f64 / ticks;
        info.resident_bytes = (stat.rss * procfs::page_size()) as f64;
        info.virtual_bytes = stat.vsize as f64;
        info.threads = stat.num_threads as f64;
    }
    info.open_fds = me.fd_count().unwrap_or(0) as f64;
    if let Ok(LimitValue::Value(max)) = me.limits().map(|limits| limits.max_open_files.soft_limit) {
        info.max_fds = max as f64;
    }
    info
}

static STARTED: OnceLock<f64> = OnceLock::new();

/// From the kernel's boot time and ticks; the time of the first look when these cannot be read.
fn started() -> f64 {
    let ticks = Process::myself()
        .and_then(|me| me.stat())
        .map(|stat| stat.starttime);
    match (ticks, procfs::boot_time_secs()) {
        (Ok(ticks), Ok(boot)) => boot as f64 + ticks as f64 / procfs::ticks_per_second() as f64,
        _ => now(),
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

/// Linkerd's gauges under `jvm/`, as far as they mean something here; times in ms.
pub(super) fn jvm() -> Vec<(&'static str, f64)> {
    let info = info();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    vec![
        ("uptime", ((now() - info.started).max(0.0) * 1000.0).round()),
        ("start_time", (info.started * 1000.0).round()),
        ("num_cpus", cpus as f64),
        ("fd_count", info.open_fds),
        ("fd_limit", info.max_fds),
        ("thread/count", info.threads),
        ("mem/current/used", info.resident_bytes),
        ("heap/used", info.resident_bytes),
    ]
}
