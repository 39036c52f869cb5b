//! The labels of the metrics. Their values come from closed sets only: the route table, configured models, ids of the
//! key file, codes of the refusal table. `metrics.rs` defines which metric has which labels.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// A label value that is cheap to clone.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Label(Arc<str>);

impl Label {
    /// Creates a label with this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Labels of `llamagate_requests_total`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// A configured model, or `other`.
    pub model: Label,
    /// A route of the route table, or `other`.
    pub route: &'static str,
    /// The status that was sent.
    pub status: u16,
}

/// Labels of metrics per model and route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteLabels {
    /// A configured model, or `other`.
    pub model: Label,
    /// A route of the route table, or `other`.
    pub route: &'static str,
}

/// Labels of metrics that count how something ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended, in a word.
    pub outcome: &'static str,
}

/// Labels of metrics that count why something happened.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Why, in a word.
    pub reason: &'static str,
}

/// Labels of `llamagate_tls_certificate_expiry_timestamp_seconds`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabels {
    /// Where the certificate comes from: `files`, `self_signed` or `acme`.
    pub source: &'static str,
}

/// Labels of metrics per model.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ModelLabels {
    /// A configured model.
    pub model: String,
}

/// Labels of `llamagate_refusals_total`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabels {
    /// A code of the refusal table.
    pub code: &'static str,
}

/// Labels of `llamagate_key_requests_total`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KeyLabels {
    /// An id of the key file.
    pub key: String,
    /// `2xx`, `4xx`, `5xx` and so on.
    pub status_class: &'static str,
}

/// Labels of `llamagate_budget_left`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct BudgetLabels {
    /// An id of the key file.
    pub key: String,
    /// The attribute of the key that sets the budget.
    pub budget: &'static str,
}

/// Labels of `llamagate_key_suspended`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SuspendedKeyLabels {
    /// An id of the key file.
    pub key: String,
}

/// Labels of the token counters.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TokenLabels {
    /// A configured model.
    pub model: Label,
    /// An id of the key file, or `none` if no key is required.
    pub key: Label,
}

/// Labels of the counters of drafted tokens.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DraftLabels {
    /// A configured model.
    pub model: Label,
}

/// Labels of an rpc-server that a model uses.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RpcServerLabels {
    /// The id of the model.
    pub model: String,
    /// The number of the worker that uses it.
    pub worker: u32,
    /// The address of the rpc-server, as configured.
    pub rpc_server: String,
}

/// Labels of a worker.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WorkerLabels {
    /// The model that the worker serves.
    pub model: String,
    /// The number of the worker among those of its model, from 0.
    pub worker: u32,
}

/// Labels of `llamagate_worker_state`: 1 for the state that the worker is in, 0 for the others.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabels {
    /// The model that the worker serves.
    pub model: String,
    /// The number of the worker among those of its model, from 0.
    pub worker: u32,
    /// A state of the worker's state machine.
    pub state: &'static str,
}

/// Labels of `llamagate_model_load_phase_seconds`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PhaseLabels {
    /// A configured model.
    pub model: String,
    /// A phase of a load.
    pub phase: &'static str,
}

/// Labels of `llamagate_downloads`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DownloadStateLabels {
    /// A state of a download.
    pub state: &'static str,
}

/// Labels of `llamagate_log_lines_lost`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FolderLabels {
    /// `_boot`, `access`, or `llama` for llama-server's logs, whatever the name of their folder.
    pub folder: &'static str,
}
