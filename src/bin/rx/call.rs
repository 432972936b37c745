//! `rx call`: any service, any request.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use rxrpc::{CallOptions, ConnectOptions, Connection};

use crate::common::args::{HostPort, Stop, wire_size};
use crate::common::security::ClientArgs;
use crate::{CLOSE_GRACE, NAME, client, load};

/// Arguments of `rx call`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server; an IPv6 address as [::1]:7009
    #[arg(value_name = "HOST:PORT")]
    server: HostPort,
    /// The service's number
    #[arg(long, default_value_t = crate::common::service::ECHO_SERVICE, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(1..=65535))]
    service: u16,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    load: load::LoadArgs,
    #[command(flatten)]
    security: ClientArgs,
}

/// The request; without any of these it is empty.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct RequestArgs {
    /// Send this text
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// Send what is in this file; - = standard input
    #[arg(long)]
    file: Option<PathBuf>,
    /// Send so many zeros
    #[arg(long, value_name = "BYTES", value_parser = wire_size)]
    zero: Option<u32>,
}

impl RequestArgs {
    fn bytes(&self) -> Result<Bytes, String> {
        if let Some(text) = &self.data {
            return Ok(text.clone().into());
        }
        if let Some(file) = &self.file {
            let read = if file.as_os_str() == "-" {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
            } else {
                std::fs::read(file)
            };
            return match read {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("cannot read {}: {error}", file.display())),
            };
        }
        Ok(vec![0; self.zero.unwrap_or(0) as usize].into())
    }
}

/// Makes the calls.
pub async fn run(args: Args) -> ExitCode {
    match start(&args).await {
        Ok(status) => status,
        Err(failure) => args.load.tell(failure, "call"),
    }
}

async fn start(args: &Args) -> Result<ExitCode, Stop> {
    args.security.check().map_err(Stop::usage)?;
    let request = args.request.bytes().map_err(Stop::usage)?;
    let security = args.security.class().map_err(Stop::usage)?;
    let (peer, spent) = args.server.resolve(args.load.timeout).await.map_err(Stop::failed)?;
    let endpoint = client(peer, &args.load).await?;
    let options = ConnectOptions {
        connections_max: args.load.connections(),
        security,
        ..ConnectOptions::default()
    };
    let connection =
        endpoint.connect_with(peer, args.service, options).await.map_err(Stop::failed)?;
    let prints_reply = args.load.count == 1 && !args.load.json;
    let last = std::cell::RefCell::new(Bytes::new());
    let outcome = load::run(&args.load, async |index, moved| {
        let options = args.load.options(index, spent);
        let reply = call(&connection, &request, args, options).await?;
        let bytes = request.len() + reply.len();
        moved.add(bytes);
        last.replace(reply);
        Ok(bytes as u64)
    })
    .await;
    let status = if !prints_reply {
        outcome.print("call", args.load.json, &endpoint).await
    } else if let Some(error) = outcome.first_error() {
        eprintln!("{NAME}: {error}");
        outcome.status()
    } else {
        let mut out = std::io::stdout();
        out.write_all(&last.take())
            .and_then(|()| out.flush())
            .map_err(|error| Stop::trouble(format_args!("cannot print the reply: {error}")))?;
        outcome.status()
    };
    drop(connection);
    endpoint.shutdown(CLOSE_GRACE).await;
    Ok(status)
}

async fn call(
    connection: &Connection,
    request: &Bytes,
    args: &Args,
    options: CallOptions,
) -> Result<Bytes, String> {
    connection.call_with(request.clone(), options).await.map_err(|error| {
        format!("expected a reply from {} service {}, got none: {error}", args.server, args.service)
    })
}
