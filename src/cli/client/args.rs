//! The flags that all subcommands that ask a service have.

use std::path::PathBuf;

use clap::Args;

use crate::cli::inputs::PlaceFlags;

/// Which service is asked, and with which key.
#[derive(Args, Clone, Default)]
pub(in crate::cli) struct RemoteArgs {
    /// Address of the service, such as http://gpu-box:8000 [default: LLAMAGATE_URL, else the service on this machine]
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) url: Option<String>,
    /// API key. Other users of this machine can read it here; LLAMAGATE_KEY is safer [default: LLAMAGATE_KEY]
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: Option<String>,
    /// Certificate authorities in PEM that are trusted for https, in place of the machine's [default: LLAMAGATE_CA]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cacert: Option<PathBuf>,
    /// Certificate in PEM that is shown to a service with TLS_CLIENT_CA [default: LLAMAGATE_CERT]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cert: Option<PathBuf>,
    /// Private key of that certificate in PEM [default: LLAMAGATE_CERT_KEY, else the file of the certificate]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(in crate::cli) cert_key: Option<PathBuf>,
}

/// The flags of a subcommand that asks a service and nothing else.
#[derive(Args)]
pub(in crate::cli) struct ClientArgs {
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: PlaceFlags,
}
