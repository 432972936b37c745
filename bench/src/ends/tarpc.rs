//! tarpc: one TCP connection with bincode. Calls only.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::{client, context};
use tokio_serde::formats::Bincode;

use super::{Caller, attend, attend_loads};
use crate::spec::{End, Net};

#[tarpc::service]
trait Echo {
    async fn echo(bytes: Vec<u8>) -> Vec<u8>;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn echo(self, _: context::Context, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}

pub async fn server() -> Result<()> {
    let incoming = tarpc::serde_transport::tcp::listen(("127.0.0.1", 0), Bincode::default).await?;
    let port = incoming.local_addr().port();
    tokio::spawn(async move {
        let mut incoming = std::pin::pin!(incoming);
        while let Some(Ok(transport)) = incoming.next().await {
            let channel = BaseChannel::with_defaults(transport);
            tokio::spawn(channel.execute(Server.serve()).for_each(|answer| async {
                tokio::spawn(answer);
            }));
        }
    });
    attend(port, async || None).await
}

#[derive(Clone)]
struct Client(EchoClient);

pub async fn client(end: End) -> Result<()> {
    let port = end.client.as_ref().context("no port")?.port;
    let transport =
        tarpc::serde_transport::tcp::connect(("127.0.0.1", port), Bincode::default).await?;
    let caller = Client(EchoClient::new(client::Config::default(), transport).spawn());
    attend_loads(&end, caller, async |_, _| anyhow::bail!("tarpc has no such load")).await
}

impl Caller for Client {
    async fn call(&self, request: Bytes) -> Result<usize> {
        Ok(self.0.echo(context::current(), request.to_vec()).await?.len())
    }

    async fn recv(&self, _: u64, _: Option<Duration>) -> Result<u64> {
        anyhow::bail!("tarpc has no streams")
    }

    async fn send(&self, _: u64) -> Result<()> {
        anyhow::bail!("tarpc has no streams")
    }

    async fn net(&self) -> Option<Net> {
        None
    }
}
