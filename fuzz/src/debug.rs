//! DEBUG: the request that an endpoint is sent, and the records that a tool gets back.

use rxrpc::wire::debug::{REQUEST_LEN, Record, Reply, Request};

/// A request and every record come back as they were, but for the connections of version L, which are
/// shorter than those that are written.
pub fn run(payload: &[u8]) {
    let mut written = Vec::new();
    match Request::decode(payload) {
        Some(request) => {
            request.encode(&mut written);
            assert_eq!(written, payload[..REQUEST_LEN]);
        }
        None => assert!(payload.len() < REQUEST_LEN),
    }
    written.clear();
    let Some(record) = Reply::decode(payload).record() else { return };
    record.encode(&mut written);
    if written.len() == payload.len() {
        assert_eq!(written, payload);
        return;
    }
    assert!(matches!(record, Record::Connection(_)), "{record:?}");
    assert_eq!(Reply::decode(&written).record(), Some(record));
}
