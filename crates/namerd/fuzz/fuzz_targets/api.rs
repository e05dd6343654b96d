//! What comes to the HTTP API as query, heads and bodies: no panic, and what is read is the same when it is told and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| namerd::api::spoken::read(data));
