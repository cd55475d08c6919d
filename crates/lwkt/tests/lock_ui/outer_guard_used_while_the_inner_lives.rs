use dfly_lwkt::lock::Mtx;

fn main() {
    let mtx = Mtx::new(1);
    let mut outer = mtx.try_lock().unwrap();
    let mut inner = outer.again();
    *outer = 2;
    *inner = 3;
}
