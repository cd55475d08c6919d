//! The ring of a trace: two writers over each other, and a reader.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_trace`
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use dfly_hal::sync::Arc;
use dfly_lwkt::trace::ring::Ring;
use loom::thread;

#[test]
fn an_entry_that_is_read_is_whole() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(1));
        let writers = [1, 2].map(|n| {
            let ring = ring.clone();
            // Each twice: an entry is over one of the same writer, or of the other.
            thread::spawn(move || (n..n + 3).step_by(2).for_each(|n| ring.write([n, 0, 0, n])))
        });
        ring.read(&mut |[first, .., last]| assert_eq!(first, last));
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let mut seen = 0;
        ring.read(&mut |[first, .., last]| {
            assert_eq!(first, last);
            seen += 1;
        });
        assert!(seen <= 1);
    });
}
