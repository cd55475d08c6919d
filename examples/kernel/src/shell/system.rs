//! What commands see of the kernel.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;

use dfly_bio::{BlockDevice, BlockOpen as _, OpenError};
use dfly_hal::{Clock as _, CpuId, Cpus as _, Wait, block_on, sleep_until};
use dfly_lwkt::{CpuStats, Spec, ThreadInfo};

use super::context::{System, Work};
use crate::boot::INIT_STACK_BYTES;
use crate::{Controller, Kernel};

impl System for Kernel {
    fn uptime(&self) -> Duration {
        self.log().uptime()
    }

    fn sleep(&self, time: Duration, w: &mut dyn Wait) {
        let until = self.platform().now().saturating_add(time);
        // It is over by the clock of either.
        let _ = block_on(w, sleep_until(&**self.platform(), until), Some(until));
    }

    fn open_disk(&self, name: &[u8], w: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError> {
        self.disks().open_block(name, w)
    }

    fn spawn(&self, name: &str, work: Work) -> Result<(), String> {
        let spec = Spec::new(name).stack_bytes(INIT_STACK_BYTES);
        // It ends by itself: nobody waits for it.
        self.scheduler().spawn(CpuId(0), spec, move |cx| work(cx)).map(drop).map_err(|e| e.to_string())
    }

    fn say(&self, text: &dyn Display) {
        self.log().say(text);
    }

    fn messages(&self) -> Vec<String> {
        self.log().lines().iter().map(ToString::to_string).collect()
    }

    fn threads(&self) -> Vec<ThreadInfo> {
        let mut threads = Vec::new();
        self.scheduler().threads(&mut |thread| threads.push(*thread));
        threads.sort_unstable_by_key(|thread| thread.id);
        threads
    }

    fn interrupts(&self) -> Vec<(String, u64)> {
        self.controllers().iter().map(|c| (c.name.clone(), c.irq.raised())).collect()
    }

    fn variables(&self) -> Vec<(String, String)> {
        let mut all = Variables::default();
        all.add("kern.ostype", "dfly");
        all.add("kern.version", env!("CARGO_PKG_VERSION"));
        let uptime = self.uptime();
        all.add("kern.uptime", format_args!("{}.{:06}", uptime.as_secs(), uptime.subsec_micros()));
        let disks: Vec<String> = self.disks().list().iter().map(|disk| disk.name.clone()).collect();
        all.add("kern.disks", disks.join(" "));
        all.add("hw.machine", self.name());
        let cpus = self.platform().count();
        all.add("hw.ncpu", cpus);
        for controller in self.controllers() {
            all.controller(&controller);
        }
        for cpu in 0..cpus {
            if let Some(stats) = self.scheduler().cpu_stats(CpuId(cpu)) {
                all.cpu(cpu, &stats);
            }
        }
        all.0
    }
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn add(&mut self, name: impl Display, value: impl Display) {
        self.0.push((name.to_string(), value.to_string()));
    }

    fn controller(&mut self, c: &Controller) {
        let unit = c.name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let kind = c.name.trim_end_matches(unit);
        let mut row =
            |name: &str, value: &dyn Display| self.add(format_args!("dev.{kind}.{unit}.{name}"), value);
        row("location", &c.location);
        for (name, value) in c.variables() {
            row(&name, &value);
        }
        row("interrupts", &c.irq.raised());
    }

    fn cpu(&mut self, cpu: u32, stats: &CpuStats) {
        let idle = stats.idle_time;
        let rows: [(&str, &dyn Display); 10] = [
            ("spawned", &stats.spawned),
            ("exited", &stats.exited),
            ("switches", &stats.switches),
            ("preemptions", &stats.preemptions),
            ("preemptions_put_off", &stats.preemptions_put_off),
            ("wakes_local", &stats.wakes_local),
            ("wakes_remote", &stats.wakes_remote),
            ("ipis", &stats.ipis),
            ("halts", &stats.halts),
            ("idle", &format!("{}.{:06}", idle.as_secs(), idle.subsec_micros())),
        ];
        for (name, value) in rows {
            self.add(format_args!("lwkt.cpu{cpu}.{name}"), value);
        }
    }
}
