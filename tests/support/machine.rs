//! When a process had no processor: what the machine did, not we.
//!
//! The kernel keeps account of how long each thread was ready to run and was not let (Linux, `schedstat`), and adds to
//! it when the thread runs again. So a thread whose account grows between two looks by more than there was time
//! between them has waited in one piece for what is above: nobody's bug makes that. Where there is no such account,
//! nothing is ever put down to the machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often each thread is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Shorter ones are no matter for stalls.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// A thread stood still for `length`, somewhere between these times.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub from: Instant,
    pub to: Instant,
    pub length: Duration,
}

/// Watches processes until it is dropped.
pub struct Machine {
    pauses: Arc<Mutex<Vec<Pause>>>,
    processes: Arc<Mutex<Vec<u32>>>,
    is_over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Machine {
    /// All threads of these, and its own, which does nothing but look.
    pub fn watch(processes: &[u32]) -> Machine {
        let (pauses, is_over) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let processes = Arc::new(Mutex::new(processes.to_vec()));
        let (kept, over, watched) = (pauses.clone(), is_over.clone(), processes.clone());
        let watcher = std::thread::spawn(move || look(&watched, &kept, &over));
        Machine { pauses, processes, is_over, watcher: Some(watcher) }
    }

    /// That process too, from now on.
    pub fn watch_also(&self, process: u32) {
        self.processes.lock().unwrap().push(process);
    }

    /// What there was until now.
    pub fn pauses(&self) -> Vec<Pause> {
        // What went before is in the accounts once they were looked at again.
        std::thread::sleep(2 * LOOK);
        self.pauses.lock().unwrap().clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// How much of a time somebody stood still, pauses of several threads at once counted once. Only those that are long
/// each, for a scheduler, are known.
pub fn stood_still(pauses: &[Pause], from: Instant, to: Instant) -> Duration {
    let within = pauses.iter().filter(|pause| pause.from < to && pause.to > from);
    let mut within: Vec<_> = within.map(|pause| (pause.from.max(from), pause.to.min(to))).collect();
    within.sort();
    let (mut sum, mut counted) = (Duration::ZERO, from);
    for (from, to) in within {
        sum += to.saturating_duration_since(from.max(counted));
        counted = counted.max(to);
    }
    sum
}

fn look(processes: &Mutex<Vec<u32>>, pauses: &Mutex<Vec<Pause>>, is_over: &AtomicBool) {
    let mut known: HashMap<String, Duration> = HashMap::new();
    let mut own = waited("/proc/thread-self");
    let mut before = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let now = Instant::now();
        let own_now = waited("/proc/thread-self");
        // This thread only sleeps and looks: what it waited it waited in one piece.
        let own_wait = own_now.saturating_sub(own);
        own = own_now;
        let mut longest = own_wait;
        for process in processes.lock().unwrap().iter() {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for task in tasks.flatten() {
                let path = task.path().to_string_lossy().into_owned();
                let waited = waited(&path);
                let grown = known.insert(path, waited).map(|last| waited.saturating_sub(last));
                longest = longest.max(in_one_piece(grown.unwrap_or_default(), now - before));
            }
        }
        if longest >= PAUSE_MIN {
            let from = before.checked_sub(longest).unwrap_or(before);
            pauses.lock().unwrap().push(Pause { from, to: Instant::now(), length: longest });
        }
        before = now;
    }
}

/// Of what a thread's account has grown by between two looks, what it waited in one piece at least.
fn in_one_piece(grown: Duration, between: Duration) -> Duration {
    grown.saturating_sub(between)
}

/// How long a thread has waited for a processor.
fn waited(task: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    let nanos = stat.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_only_slow_explains_nothing() {
        let ms = Duration::from_millis;
        assert_eq!(in_one_piece(ms(10), ms(10)), ms(0), "all of the time, bit by bit");
        assert_eq!(in_one_piece(ms(510), ms(10)), ms(500));
        let from = Instant::now();
        let pause = |began, length| Pause {
            from: from + ms(began),
            to: from + ms(began + length),
            length: ms(length),
        };
        let pauses = [pause(100, 200), pause(150, 200), pause(600, 100)];
        assert_eq!(stood_still(&pauses, from, from + ms(1000)), ms(350), "each moment once");
        assert_eq!(stood_still(&pauses, from + ms(200), from + ms(250)), ms(50), "and only then");
        assert_eq!(stood_still(&pauses, from + ms(400), from + ms(600)), ms(0));
    }
}
