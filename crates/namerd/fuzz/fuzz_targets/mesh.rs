//! What comes on a connection of gRPC before anybody else sees it: all of it passes, however it is cut, and only heads
//! are another length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use namerd::mesh::authority::Heads;
use namerd::mesh::messages::{BindReq, BoundTreeRsp, DelegateTreeReq, Replicas};
use prost::Message as _;

fuzz_target!(|data: &[u8]| {
    let mut whole = Vec::new();
    Heads::new().pass(data, &mut whole);
    let (mut heads, mut parts) = (Heads::new(), Vec::new());
    for part in data.chunks(3) {
        heads.pass(part, &mut parts);
    }
    assert_eq!(whole, parts);
    assert!(whole.len() <= data.len() * 2);
    _ = BindReq::decode(data);
    _ = BoundTreeRsp::decode(data);
    _ = DelegateTreeReq::decode(data);
    _ = Replicas::decode(data);
});
