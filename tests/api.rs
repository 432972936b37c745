//! What users may do with the public types: send them anywhere, clone them, print them, box them, use `?`.

use std::fmt::Debug;
use std::net::SocketAddr;

use rxrpc::{
    AbortCode, CallError, CallOptions, Connection, Endpoint, EndpointBuilder, IncomingCall,
    ReplyReader, ReplyWriter, RequestWriter, ServiceFault, StartError, StreamError,
};

fn goes_anywhere<T: Send + 'static>(value: T) -> T {
    value
}

#[test]
fn handles_and_streams_go_to_any_thread() {
    fn handle<T: Clone + Debug + Send + Sync + 'static>() {}
    fn stream<T: Debug + Send + Unpin + 'static>() {}
    fn reader<T: tokio::io::AsyncRead + futures::AsyncRead + futures::Stream>() {}
    fn writer<T: tokio::io::AsyncWrite + futures::AsyncWrite>() {}
    handle::<Endpoint>();
    handle::<Connection>();
    stream::<EndpointBuilder>();
    stream::<RequestWriter>();
    stream::<ReplyReader>();
    stream::<IncomingCall>();
    stream::<ReplyWriter>();
    reader::<ReplyReader>();
    reader::<IncomingCall>();
    writer::<RequestWriter>();
    writer::<ReplyWriter>();
}

/// The futures too, so that `tokio::spawn` takes them. A type check: nothing runs.
#[test]
fn futures_go_to_any_thread() {
    fn check(endpoint: &'static Endpoint, connection: &'static Connection, peer: SocketAddr) {
        drop(goes_anywhere(Endpoint::builder().start()));
        drop(goes_anywhere(endpoint.connect(peer, 1)));
        drop(goes_anywhere(endpoint.inspect()));
        drop(goes_anywhere(endpoint.closed()));
        drop(goes_anywhere(endpoint.shutdown(std::time::Duration::ZERO)));
        drop(goes_anywhere(connection.call("x")));
        drop(goes_anywhere(connection.open_call(CallOptions::default())));
    }
    let _ = check;
}

#[test]
fn errors_go_where_a_question_mark_sends_them() {
    fn boxed<E: std::error::Error + Send + Sync + 'static>() {}
    boxed::<StartError>();
    boxed::<CallError>();
    boxed::<StreamError>();
    boxed::<AbortCode>();
    boxed::<ServiceFault>();

    fn into_io(error: CallError) -> std::io::Result<()> {
        Err(error)?
    }
    let error = into_io(CallError::ReplyTooLarge(7)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    // A service that asks another one hands its code on.
    let failure = rxrpc::CallFailure::PeerAborted(AbortCode(4711));
    assert_eq!(ServiceFault::from(CallError::from(failure)), ServiceFault(AbortCode(4711)));
    assert_eq!(ServiceFault::from(CallError::ReplyTooLarge(7)), ServiceFault(AbortCode::CALL_DEAD));
}
