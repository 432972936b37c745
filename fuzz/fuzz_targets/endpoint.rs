#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rxrpc_fuzz::endpoint::run(bytes));
