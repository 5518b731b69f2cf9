//! What a process and its children have used, from `/proc`.

use std::collections::HashMap;
use std::fs;

use super::Result;

/// Ticks of `/proc/*/stat` in a second; Linux shows 100 to programs whatever the kernel's own rate is.
const TICKS: f64 = 100.0;

/// Use of a process and its children.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) peak_resident_bytes: u64,
    /// How often its threads have gone to sleep of themselves: each needed a wake-up.
    pub(crate) sleeps: u64,
}

/// Use of the process `pid` and its children so far.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut total = Usage::default();
    for pid in family(pid) {
        // A child that has just ended counts no more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        total.cpu_seconds += cpu_seconds(&stat);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        total.resident_bytes += kilobytes(&status, "VmRSS:") * 1_024;
        total.peak_resident_bytes += kilobytes(&status, "VmHWM:") * 1_024;
        total.sleeps += sleeps_of_threads(pid).values().sum::<u64>();
    }
    Ok(total)
}

/// How often each thread of `pid` has gone to sleep of itself.
pub(crate) fn sleeps_of_threads(pid: u32) -> HashMap<u32, u64> {
    let threads = tasks(pid).into_iter().map(|task| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap_or_default();
        (task, kilobytes(&status, "voluntary_ctxt_switches:"))
    });
    threads.collect()
}

/// Processor seconds of the threads of `pid` whose name starts with `prefix`.
pub(crate) fn thread_seconds(pid: u32, prefix: &str) -> f64 {
    let seconds = tasks(pid).into_iter().filter_map(|task| {
        let name = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/stat")).ok()?;
        name.starts_with(prefix).then(|| cpu_seconds(&stat))
    });
    seconds.sum()
}

/// A process and all below it, itself first.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut index = 0;
    while let Some(&parent) = family.get(index) {
        for task in tasks(parent) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{task}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        index += 1;
    }
    family
}

fn tasks(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// utime and stime, the 14th and 15th field; the second may hold spaces and ends with the last bracket.
fn cpu_seconds(stat: &str) -> f64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
