//! CHALLENGE and RESPONSE of rxkad: a server that is answered anything, a client that is asked anything, and
//! one that answers the other with some bytes changed on the way.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use rxrpc::security::rxkad::krb5::EncType;
use rxrpc::security::rxkad::ticket::{KVNO_K5_PART, Print};
use rxrpc::security::rxkad::{Client, INDEX, Level, Principal, Server, SessionKey, Token};
use rxrpc::security::{
    ClientClass, ClientHandshake, ConnectionIds, ServerClass, ServerHandshake, Verification,
    Verified,
};
use rxrpc::wire::{AbortCode, CallNumber, Cid, Epoch, ServiceId};

use super::rest;
use super::tickets::{KEYS, key};

static SESSION_KEY: SessionKey = SessionKey::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
const LEVELS: [Level; 3] = [Level::Clear, Level::Auth, Level::Crypt];
/// Length of a RESPONSE without its ticket.
const RESPONSE_LEN: usize = 56;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_753_000_000)
}

fn ids(cid: u32) -> ConnectionIds {
    ConnectionIds {
        epoch: Epoch(0x8f3a_21c4),
        cid: Cid(cid & !3),
        service_id: ServiceId(4),
        security_index: INDEX,
    }
}

fn server(minimum_level: Level, cid: u32) -> Box<dyn ServerHandshake> {
    let class = Server::new(Arc::new(KEYS.clone()), minimum_level);
    class.accept(ids(cid)).expect("rxkad has a handshake")
}

/// One that has challenged in version 1.
fn old_server(minimum_level: Level) -> Box<dyn ServerHandshake> {
    let class = Server::new(Arc::new(KEYS.clone()), minimum_level).with_version_1();
    let mut server = class.accept(ids(4)).expect("rxkad has a handshake");
    server.begin(0);
    server
}

fn client(ticket: Vec<u8>, kvno: u32, level: Level, cid: u32) -> Box<dyn ClientHandshake> {
    let expires = now() + Duration::from_secs(3600);
    let token = Token { kvno, ticket, key: SESSION_KEY.clone(), expires };
    let start = Client::new(token, level).connect(ids(cid), &[0; 32]);
    start.handshake.expect("rxkad has a handshake")
}

fn ticket() -> Vec<u8> {
    let client = Principal { name: "alice".into(), instance: "".into(), cell: "EXAMPLE".into() };
    let print = Print::from_now(&client, &SESSION_KEY, now(), Duration::from_secs(3600));
    print.seal_k5(&key(EncType::RC4_HMAC), 1, &[7; 32])
}

fn verify(
    server: &mut Box<dyn ServerHandshake>,
    response: &[u8],
) -> std::result::Result<Verified, AbortCode> {
    match server.verify(response, now()) {
        Verification::Done(result) => result,
        Verification::Later(_) => unreachable!("rxkad knows at once"),
    }
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let _ = shake(&mut Unstructured::new(bytes));
}

fn shake(source: &mut Unstructured<'_>) -> Result<()> {
    let (what, entropy): (u8, [u8; 4]) = source.arbitrary()?;
    let (wanted, offered) = (*source.choose(&LEVELS)?, *source.choose(&LEVELS)?);
    let mut nonce = [0; 32];
    nonce[..4].copy_from_slice(&entropy);
    match what % 8 {
        4 => {
            let mut server = old_server(wanted);
            server.challenge(&nonce);
            assert!(verify(&mut server, rest(source)).is_err());
        }
        5 => {
            let mut server = old_server(wanted);
            let challenge = server.challenge(&nonce);
            let Ok(mut response) = client(ticket(), KVNO_K5_PART, offered, 4).respond(
                &challenge,
                [CallNumber(1); 4],
                &nonce,
            ) else {
                assert!(offered < wanted);
                return Ok(());
            };
            let sent = response.clone();
            while let Ok((at, flip)) = source.arbitrary::<(u16, u8)>()
                && !source.is_empty()
            {
                let at = usize::from(at) % response.len();
                response[at] ^= flip;
            }
            let verified = verify(&mut server, &response);
            if response == sent {
                assert_eq!(verified.is_ok(), offered >= wanted);
            }
            if let Ok(verified) = verified {
                assert_eq!(verified.call_numbers, [CallNumber::NONE; 4]);
                let identity = verified.identity.expect("a client");
                assert_eq!(identity.name, "alice@EXAMPLE");
                assert_eq!(identity.level, Some(offered));
            }
        }
        0 => {
            let mut server = server(wanted, 4);
            server.challenge(&nonce);
            let verified = verify(&mut server, rest(source));
            // Nobody else knows a session key that our keys' tickets hold.
            assert!(verified.is_err());
        }
        1 => {
            let numbers = source.arbitrary::<[u32; 4]>()?.map(CallNumber);
            let challenge = rest(source);
            let response = client(vec![9; 40], 213, offered, 4).respond(challenge, numbers, &nonce);
            if let Ok(response) = response {
                let expected = if challenge.len() <= 8 { 16 } else { RESPONSE_LEN };
                assert_eq!(response.len(), expected + 40);
            }
        }
        _ => {
            let numbers = source.arbitrary::<[u32; 4]>()?.map(CallNumber);
            let (client_cid, kvno): (bool, bool) = source.arbitrary()?;
            let cid = if client_cid { 4 } else { 8 };
            let kvno = if kvno { KVNO_K5_PART } else { 1 };
            let mut server = server(wanted, 4);
            let challenge = server.challenge(&nonce);
            assert_eq!(server.challenge(&[1; 32]), challenge, "a repetition is the same");
            let Ok(mut response) =
                client(ticket(), kvno, offered, cid).respond(&challenge, numbers, &nonce)
            else {
                assert!(offered < wanted);
                return Ok(());
            };
            let sent = response.clone();
            while let Ok((at, flip)) = source.arbitrary::<(u16, u8)>()
                && !source.is_empty()
            {
                let at = usize::from(at) % response.len();
                response[at] ^= flip;
            }
            let is_good = response[..RESPONSE_LEN] == sent[..RESPONSE_LEN]
                && cid == 4
                && kvno == KVNO_K5_PART
                && numbers.iter().all(|number| *number <= CallNumber::MAX)
                && offered >= wanted;
            let verified = verify(&mut server, &response);
            if response == sent {
                assert_eq!(verified.is_ok(), is_good);
            }
            if let Ok(verified) = verified {
                // In what is not sealed some bytes mean nothing; what the server believes is what was sent.
                assert_eq!(verified.call_numbers, numbers);
                let identity = verified.identity.expect("a client");
                assert_eq!(
                    (identity.name.as_str(), identity.level),
                    ("alice@EXAMPLE", Some(offered))
                );
                assert!(verified.session.is_some());
            }
        }
    }
    Ok(())
}
