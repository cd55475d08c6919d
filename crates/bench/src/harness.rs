//! Interleaved rounds, thread CPU time, medians of ratios.

use std::{hint::black_box, time::Duration};

/// How long to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Enough to see that everything runs, and a rough ratio.
    Quick,
    /// Enough for a verdict.
    Full,
}

impl Effort {
    /// Independent passes; a bar holds where it does in most of them.
    fn passes(self) -> usize {
        if self == Self::Quick { 1 } else { 3 }
    }

    /// The CPU time of one sample.
    fn sample(self) -> Duration {
        Duration::from_micros(if self == Self::Quick { 300 } else { 2000 })
    }
}

/// Rounds of a pass; in each, every contender gives one sample.
const ROUNDS: usize = 15;

/// What is asked of a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// Our time is at most this many times the peer's.
    TimeAtMost(f64),
    /// Our speed is at least this many times the peer's.
    SpeedAtLeast(f64),
    /// Nothing: the ratio is for information.
    None,
}

/// What one operation of a group does.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Times are shown for each operation.
    Operation,
    /// Each operation moves this many bytes; speeds are shown.
    Bytes(u64),
}

/// Contenders that do the same work.
pub(crate) struct Group<'a> {
    title: String,
    unit: Unit,
    contenders: Vec<Contender<'a>>,
    ratios: Vec<Ratio>,
}

struct Contender<'a> {
    name: &'a str,
    operation: Box<dyn FnMut() + 'a>,
    /// Operations of a sample.
    repeat: u32,
    /// Seconds of each sample for one operation, all passes.
    samples: Vec<f64>,
}

struct Ratio {
    ours: usize,
    peer: usize,
    bar: Bar,
    source: &'static str,
}

impl<'a> Group<'a> {
    pub(crate) fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self { title: title.into(), unit, contenders: Vec::new(), ratios: Vec::new() }
    }

    /// Adds a contender; what names it in [`ratio`](Self::ratio).
    pub(crate) fn add<T>(&mut self, name: &'a str, mut operation: impl FnMut() -> T + 'a) -> usize {
        let operation = Box::new(move || drop(black_box(operation())));
        self.contenders.push(Contender { name, operation, repeat: 1, samples: Vec::new() });
        self.contenders.len() - 1
    }

    /// Reports the ratio of two contenders beside `bar`, which `source` sets.
    pub(crate) fn ratio(&mut self, ours: usize, peer: usize, bar: Bar, source: &'static str) {
        self.ratios.push(Ratio { ours, peer, bar, source });
    }

    /// Measures, and prints the table.
    pub(crate) fn run(mut self, effort: Effort) {
        for contender in &mut self.contenders {
            contender.calibrate(effort.sample());
        }
        let count = self.contenders.len();
        for round in 0..effort.passes() * ROUNDS {
            // Each round begins with another contender: none always runs in the caches that the same other one left.
            for turn in 0..count {
                let contender = &mut self.contenders[(round + turn) % count];
                let seconds = contender.sample();
                contender.samples.push(seconds);
            }
        }
        self.print();
    }

    fn print(&self) {
        println!("\n{}", self.title);
        for contender in &self.contenders {
            let [low, median, high] =
                quartiles(contender.samples.clone()).map(|seconds| self.unit.show(seconds));
            println!("  {:32} {median:>12}   ({low} to {high})", contender.name);
        }
        for ratio in &self.ratios {
            println!("  {}", self.verdict(ratio));
        }
    }

    fn verdict(&self, ratio: &Ratio) -> String {
        let (ours, peer) = (&self.contenders[ratio.ours], &self.contenders[ratio.peer]);
        let pairs = ours.samples.iter().zip(&peer.samples);
        let ratios: Vec<f64> = pairs.map(|(&ours, &peer)| ratio.bar.ratio(ours, peer)).collect();
        let medians: Vec<f64> = ratios.chunks(ROUNDS).map(|pass| quartiles(pass.to_vec())[1]).collect();
        let held = medians.iter().filter(|&&median| ratio.bar.holds(median)).count();
        let verdict = if 2 * held > medians.len() { "holds" } else { "MISSED" };
        let [low, median, high] = quartiles(ratios);
        let names = format!("{} / {}", ours.name, peer.name);
        let ratio_text = format!("{median:.2}x ({low:.2} to {high:.2})");
        match ratio.bar {
            Bar::TimeAtMost(most) => {
                format!("time of {names}: {ratio_text}, {} <= {most:.2}: {verdict}", ratio.source)
            }
            Bar::SpeedAtLeast(least) => {
                format!("speed of {names}: {ratio_text}, {} >= {least:.2}: {verdict}", ratio.source)
            }
            Bar::None => format!("time of {names}: {ratio_text}, {}", ratio.source),
        }
    }
}

impl Bar {
    fn ratio(self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::SpeedAtLeast(_) => peer / ours,
            Self::TimeAtMost(_) | Self::None => ours / peer,
        }
    }

    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::TimeAtMost(most) => ratio <= most,
            Self::SpeedAtLeast(least) => ratio >= least,
            Self::None => true,
        }
    }
}

impl Unit {
    fn show(self, seconds: f64) -> String {
        match self {
            Self::Operation if seconds < 1e-5 => format!("{:.1} ns", seconds * 1e9),
            Self::Operation => format!("{:.1} us", seconds * 1e6),
            Self::Bytes(bytes) => format!("{:.0} MB/s", bytes as f64 / seconds / 1e6),
        }
    }
}

impl Contender<'_> {
    /// Finds out how many operations fill a sample.
    fn calibrate(&mut self, sample: Duration) {
        loop {
            let taken = self.sample() * f64::from(self.repeat);
            if taken >= sample.as_secs_f64() || self.repeat >= 1 << 24 {
                break;
            }
            self.repeat *= 2;
        }
    }

    /// Seconds for one operation.
    fn sample(&mut self) -> f64 {
        let begin = cpu_time();
        for _ in 0..self.repeat {
            (self.operation)();
        }
        (cpu_time() - begin).as_secs_f64() / f64::from(self.repeat)
    }
}

/// The quarter points of `values`: lower, median, upper.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// What this thread has used of its CPU: another program that runs in between does not count.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Keeps this thread where it is, so that caches stay its own.
pub(crate) fn stay_on_one_cpu() {
    let mut here = rustix::thread::CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    if let Err(error) = rustix::thread::sched_setaffinity(None, &here) {
        eprintln!("not pinned to one CPU: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bar: Bar, ours: &[f64], peer: &[f64]) -> String {
        let mut group = Group::new("t", Unit::Operation);
        let (a, b) = (group.add("a", || ()), group.add("b", || ()));
        group.ratio(a, b, bar, "T1");
        group.contenders[a].samples = ours.to_vec();
        group.contenders[b].samples = peer.to_vec();
        group.verdict(&group.ratios[0])
    }

    #[test]
    fn a_bar_holds_where_most_passes_hold_it() {
        let peer = [1.0; 45];
        let mut ours = [1.0; 45];
        assert_eq!(
            measured(Bar::TimeAtMost(1.05), &ours, &peer),
            "time of a / b: 1.00x (1.00 to 1.00), T1 <= 1.05: holds"
        );
        ours[..15].fill(2.0);
        assert!(measured(Bar::TimeAtMost(1.05), &ours, &peer).ends_with("holds"));
        ours[..30].fill(2.0);
        assert!(measured(Bar::TimeAtMost(1.05), &ours, &peer).ends_with("MISSED"));
        assert_eq!(
            measured(Bar::SpeedAtLeast(0.7), &ours, &peer),
            "speed of a / b: 0.50x (0.50 to 1.00), T1 >= 0.70: MISSED"
        );
    }

    #[test]
    fn a_sample_is_the_time_of_one_operation() {
        let mut group = Group::new("t", Unit::Operation);
        let mut count = 0;
        group.add("spin", || {
            let begin = cpu_time();
            while cpu_time() - begin < Duration::from_micros(100) {}
            count += 1;
        });
        group.contenders[0].calibrate(Duration::from_millis(1));
        let seconds = group.contenders[0].sample();
        assert!((100e-6..200e-6).contains(&seconds), "{seconds}");
        drop(group);
        assert!(count >= 20, "{count}");
    }
}
