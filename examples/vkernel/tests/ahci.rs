//! Machines with disks behind AHCI adapters: several at a time, broken ones, ones that are pulled out. What goes wrong costs
//! what was asked of that disk, or nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Pattern, QueueErrors};
use kernel::{Session, Verdict};
use vkernel::{Adapter, AdapterBack, Console, ReadOnly, Vkernel, tour};

/// Longer than any of them takes, however busy the host is.
const LONGEST: Duration = Duration::from_secs(60);
/// What a script says for something to happen to the last adapter.
const NOW: &str = "now";

fn volume() -> Option<Drive> {
    Some(Drive::disk(512, ReadOnly(tour::disk().unwrap())))
}

/// Runs `script` on a machine with these adapters, to whose last something is done when the script says [`NOW`].
fn shown(adapters: Vec<Adapter>, script: &str, at_now: impl Fn(&AdapterBack) + Send + 'static) -> String {
    let text = Arc::new(Mutex::new(String::new()));
    let (to, back) = (text.clone(), adapters.last().unwrap().back_side());
    let show = move |bytes: &[u8]| {
        let bytes = String::from_utf8_lossy(bytes);
        to.lock().unwrap().push_str(&bytes);
        if bytes.lines().any(|line| line == NOW) {
            at_now(&back);
        }
    };
    let machine = Vkernel {
        cpus: 2,
        drives: Vec::new(),
        adapters,
        terminal: Arc::new(Console::new(show, |_: &str| None).unwrap()),
        session: Session::Script(script.into()),
    };
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(machine.boot().unwrap().join()));
    let verdict = end.recv_timeout(LONGEST);
    let text = text.lock().unwrap().clone();
    assert_eq!(verdict, Ok(Verdict::Success), "{text}");
    assert!(text.contains("the machine is down"), "{text}");
    text
}

#[test]
fn several_disks_of_an_adapter_and_several_adapters() {
    let adapters = vec![
        Adapter::with(vec![None, volume(), volume()], Abilities::default()),
        Adapter::with(vec![volume()], Abilities { says_ccs: false, ..Abilities::default() }),
    ];
    let backs: Vec<_> = adapters.iter().map(Adapter::back_side).collect();
    let script = "mkdir /a /b\nmount -r ahci0p1 /a\nmount -r ahci1 /b\ncat /a/docs/notes /b/docs/notes\nsysctl dev.ahci.0.port2.state";
    let text = shown(adapters, script, |_| ());
    assert_eq!(text.matches("Wednesday: began anew.").count(), 2, "{text}");
    assert!(text.contains("dev.ahci.0.port2.state: Live"), "{text}");
    assert!(text.contains("ahci0p2: ahci0 port 2, dfly AHCI model"), "{text}");
    assert!(backs.iter().all(|back| back.counts().misuse == 0));
}

#[test]
fn errors_on_the_way_cost_time_and_nothing_else() {
    for queue_errors in [QueueErrors::AllSent, QueueErrors::Unsent, QueueErrors::Finish] {
        let adapter = Adapter::with(vec![volume()], Abilities { queue_errors, ..Abilities::default() });
        let back = adapter.back_side();
        for (skip, mistake) in [
            (1, Mistake::Status(0x41, 0x84)),
            (3, Mistake::Interface),
            (5, Mistake::Delay(4)),
            (8, Mistake::Silent),
        ] {
            back.inject(Fault::Command(Pattern { skip, ..Pattern::NEXT }, mistake));
        }
        let text =
            shown(vec![adapter], "mount -r ahci0 /mnt\ncat /mnt/docs/notes\nsysctl dev.ahci.0", |_| ());
        assert!(text.contains("Wednesday: began anew."), "{text}");
        assert!(text.contains("dev.ahci.0.errors: 0") && text.contains("dev.ahci.0.recoveries: 2"), "{text}");
        assert_eq!(back.counts().misuse, 0);
    }
}

#[test]
fn a_disk_that_is_pulled_out_is_gone_and_the_machine_goes_on() {
    let adapters = vec![
        Adapter::with(vec![volume()], Abilities::default()),
        Adapter::with(vec![volume()], Abilities::default()),
    ];
    let script = "mount -r ahci1 /mnt\necho now\n! sha256 /mnt/kinds/large\nmkdir /sound\nmount -r ahci0 /sound\n\
                  cat /sound/docs/notes\nsysctl dev.ahci.1.port0.state";
    let text = shown(adapters, script, |back| drop(back.unplug(0)));
    assert!(
        text.contains("Wednesday: began anew.") && text.contains("dev.ahci.1.port0.state: Empty"),
        "{text}"
    );
}
