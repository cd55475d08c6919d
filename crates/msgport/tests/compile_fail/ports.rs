//! A request is answered once, a message under way is not touched, and only what is at rest is sent.

use dfly_msgport::{Message, Msg, Request, Sent, SpinPort};

fn reply_twice(request: Request<u32>) {
    request.reply();
    request.reply();
}

fn reply_after_forwarding(request: Request<u32>, port: &SpinPort<Message<u32>>) {
    request.forward(port);
    request.reply();
}

fn touch_what_was_sent(mut msg: Msg<u32>, port: &SpinPort<Message<u32>>) -> Sent<u32> {
    let sent = msg.start(port);
    **msg = 1;
    sent
}

fn read_what_is_under_way(sent: &Sent<u32>) -> u32 {
    **sent
}

fn send_what_is_under_way(sent: Sent<u32>, port: &SpinPort<Message<u32>>) {
    sent.post(port);
}

fn send_somebody_elses_request(request: Request<u32>, port: &SpinPort<Message<u32>>) {
    request.post(port);
}

fn main() {}
