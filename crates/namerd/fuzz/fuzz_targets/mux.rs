//! What comes on a ThriftMux connection, from either side: no panic, bounded memory, and what was read is written as it
//! came.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use namerd::thriftmux::mux::Message;
use namerd::thriftmux::namer::{self, Question};
use namerd::thriftmux::thrift;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some((tag, message))) = Message::take(&mut buffer, 1 << 20) {
        // Contexts are read past and not written again, and a few types have a second number.
        let frame = message.frame(tag);
        let again = Message::take(&mut BytesMut::from(&*frame), 1 << 20);
        assert_eq!(again, Ok(Some((tag, message.clone()))));
        if let Message::Tdispatch(body) | Message::Treq(body) = &message {
            question(body.clone());
        }
        if let Message::Rdispatch(_, body) | Message::Rreq(_, body) = &message {
            answer(body.clone());
        }
    }
    question(Bytes::copy_from_slice(data));
    answer(Bytes::copy_from_slice(data));
});

fn question(body: Bytes) {
    let Ok(call) = thrift::Message::read(body) else {
        return;
    };
    let bytes = call.to_bytes();
    let again = thrift::Message::read(bytes.clone()).expect("what was read can be written");
    assert_eq!(again.to_bytes(), bytes);
    if let Err(why) = Question::read(&call) {
        assert!(namer::read_answer(namer::refusal(&call, &why).to_bytes()).is_err());
    }
}

fn answer(body: Bytes) {
    if let Ok((_, said)) = namer::read_answer(body) {
        _ = namer::read_addresses(&said);
        if let Some(root) = said.field(1) {
            _ = namer::read_node(&said, root);
        }
    }
}
