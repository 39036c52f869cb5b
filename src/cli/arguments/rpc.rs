//! The arguments of `rpc`.

use clap::Args;

use crate::cli::inputs::RpcFlags;

#[derive(Args)]
pub(in crate::cli) struct RpcArgs {
    /// Address and port that rpc-server listens on, such as 10.0.0.2:50052. Its protocol has neither keys nor encryption
    #[arg(long, value_name = "IPV4:PORT")]
    pub(in crate::cli) bind: String,
    /// Take 0.0.0.0 in --bind: every network of this machine
    #[arg(long)]
    pub(in crate::cli) every_address: bool,
    /// Devices that compute, such as CUDA0,CUDA1; by default all GPUs, or the CPU if there is none
    #[arg(long, value_name = "DEVICES")]
    pub(in crate::cli) device: Option<String>,
    /// Memory that each device offers, such as 20GiB,8GiB, if this rpc-server can be told; by default all that is free
    #[arg(long, value_name = "SIZES")]
    pub(in crate::cli) memory: Option<String>,
    /// Keep large tensors on the disk, so that the next load of a model does not send them again
    #[arg(long)]
    pub(in crate::cli) cache: bool,
    /// Further arguments of rpc-server
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(in crate::cli) arguments: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) flags: RpcFlags,
}
