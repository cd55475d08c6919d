use dfly_hal::ThreadWait;

fn main() {
    let mut w = ThreadWait::new();
    std::thread::spawn(move || drop(&mut w));
}
