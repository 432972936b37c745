//! quinn with its defaults: one connection, a stream for each call. Socket buffers of the size that ours asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;

use super::{Caller, attend, attend_loads};
use crate::spec::{CALL_BYTES, End, Net, Way};

const PIECE_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 9;
const ALPN: &[u8] = b"bench";

pub async fn server() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = endpoint(Some(config))?;
    let port = endpoint.local_addr()?.port();
    let connections = Arc::new(std::sync::Mutex::new(Vec::new()));
    let held = connections.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            held.lock().expect("one thread").push(connection.clone());
            tokio::spawn(async move {
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(serve(send, recv));
                }
            });
        }
    });
    attend(port, async || {
        let held = connections.lock().expect("one thread");
        Some(held.iter().map(net_of).fold(Net::default(), add))
    })
    .await
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn endpoint(server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(4 << 20)?;
    options.set_send_buffer_size(4 << 20)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime)?)
}

async fn serve(mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Result<()> {
    let mut head = [0; HEAD_BYTES];
    recv.read_exact(&mut head).await?;
    let bytes = u64::from_be_bytes(head[1..].try_into()?);
    match head[0] {
        0 => {
            let request = recv.read_to_end(1 << 20).await?;
            send.write_chunk(Bytes::from(request)).await?;
        }
        way if way == Way::Recv as u8 + 1 => write(&mut send, bytes).await?,
        _ => {
            while recv.read_chunk(usize::MAX, true).await?.is_some() {}
            send.write_all(&[1]).await?;
        }
    }
    send.finish()?;
    Ok(())
}

async fn write(send: &mut quinn::SendStream, bytes: u64) -> Result<()> {
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut left = bytes;
    while left > 0 {
        let most = left.min(PIECE_BYTES as u64) as usize;
        send.write_chunk(piece.slice(..most)).await?;
        left -= most as u64;
    }
    Ok(())
}

fn net_of(connection: &quinn::Connection) -> Net {
    let stats = connection.stats();
    Net {
        datagrams_sent: stats.udp_tx.datagrams,
        bytes_sent: stats.udp_tx.bytes,
        sends: stats.udp_tx.ios,
        datagrams_received: stats.udp_rx.datagrams,
        receives: stats.udp_rx.ios,
        resent: stats.path.lost_packets,
        resent_by_timer: 0,
        dropped: 0,
    }
}

fn add(a: Net, b: Net) -> Net {
    Net {
        datagrams_sent: a.datagrams_sent + b.datagrams_sent,
        bytes_sent: a.bytes_sent + b.bytes_sent,
        sends: a.sends + b.sends,
        datagrams_received: a.datagrams_received + b.datagrams_received,
        receives: a.receives + b.receives,
        resent: a.resent + b.resent,
        ..a
    }
}

#[derive(Clone)]
struct Client {
    connection: quinn::Connection,
}

impl Client {
    async fn begin(&self, op: u8, bytes: u64) -> Result<(quinn::SendStream, quinn::RecvStream)> {
        let (mut send, recv) = self.connection.open_bi().await?;
        let mut head = [op; HEAD_BYTES];
        head[1..].copy_from_slice(&bytes.to_be_bytes());
        send.write_all(&head).await?;
        Ok((send, recv))
    }
}

pub async fn client(end: End) -> Result<()> {
    let port = end.client.as_ref().context("no port")?.port;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = endpoint(None)?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let connection = endpoint.connect_with(config, to, "localhost")?.await?;
    attend_loads(&end, Client { connection }, async |_, _| anyhow::bail!("quinn has no such load"))
        .await
}

impl Caller for Client {
    async fn call(&self, request: Bytes) -> Result<usize> {
        let (mut send, mut recv) = self.begin(0, 0).await?;
        send.write_chunk(request).await?;
        send.finish()?;
        let mut reply = [0; CALL_BYTES];
        recv.read_exact(&mut reply).await?;
        Ok(reply.len() + recv.read_to_end(1).await?.len())
    }

    async fn recv(&self, bytes: u64, within: Option<Duration>) -> Result<u64> {
        let (mut send, mut recv) = self.begin(Way::Recv as u8 + 1, bytes).await?;
        send.finish()?;
        let (began, mut came) = (Instant::now(), 0);
        loop {
            let left = within.map(|within| within.saturating_sub(began.elapsed()));
            let chunk = recv.read_chunk(usize::MAX, true);
            let chunk = match left {
                None => chunk.await?,
                Some(left) => match tokio::time::timeout(left, chunk).await {
                    Ok(chunk) => chunk?,
                    Err(_) => return Ok(came),
                },
            };
            let Some(chunk) = chunk else { return Ok(came) };
            came += chunk.bytes.len() as u64;
        }
    }

    async fn send(&self, bytes: u64) -> Result<()> {
        let (mut send, mut recv) = self.begin(Way::Send as u8 + 1, bytes).await?;
        write(&mut send, bytes).await?;
        send.finish()?;
        recv.read_to_end(1).await?;
        Ok(())
    }

    async fn net(&self) -> Option<Net> {
        Some(net_of(&self.connection))
    }
}

/// The certificate is made anew each time: who it is does not matter here.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
